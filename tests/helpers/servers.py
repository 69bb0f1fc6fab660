"""Servers on 127.0.0.1 that answer as TF Hub, Kaggle and the authors' storage do, at their best and worst."""

from __future__ import annotations

import http.server
import io
import json
import socket
import struct
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@dataclass
class Server:
    """Its address, what it answers for which path (404 for others), the paths asked for, and what was posted."""

    url: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    posted: list[dict[str, object]] = field(default_factory=list)


@contextmanager
def serving() -> Iterator[Server]:
    """A server for the time of the block."""
    place = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place.requests.append(self.path)
            place.answers.get(self.path, sends(b"no such thing", status=404))(self)

        def do_POST(self) -> None:
            place.posted.append(json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0)))))
            self.do_GET()

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    place.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield place
    server.shutdown()
    server.server_close()


def sends(body: bytes, *, status: int = 200, length: int | None = None, **headers: str) -> Answer:
    """Sends ``body``; ``length``: what it says about it; ``headers`` with underscores for hyphens."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def redirects(to: str) -> Answer:
    return sends(b"", status=302, Location=to)


def hangs(before: bytes = b"") -> Answer:
    """Says that a file comes, sends ``before`` of it and then nothing until the other side gives up."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        handler.wfile.write(before)
        handler.wfile.flush()
        handler.connection.settimeout(20)
        handler.connection.recv(1)

    return answer


def drips(handler: http.server.BaseHTTPRequestHandler) -> None:
    """A byte now and then, so that the time between two never runs out."""
    handler.send_response(200)
    handler.end_headers()
    gone = threading.Event()
    for _ in range(100):
        try:
            handler.wfile.write(b"x")
            handler.wfile.flush()
        except OSError:
            return
        gone.wait(0.02)


def resets(handler: http.server.BaseHTTPRequestHandler) -> None:
    """Breaks the connection off."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def in_turn(*answers: Answer) -> Answer:
    """Another answer to each request; the last one to all further ones."""
    left = list(answers)

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(handler)

    return answer


def tar_gz(folder: Path, *, name: str = ".") -> bytes:
    """The folder as TF Hub and Kaggle pack it."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", compresslevel=1) as archive:
        archive.add(folder, arcname=name)
    return content.getvalue()


def tar_of(name: str, body: bytes = b"outside") -> bytes:
    """A tar with one member of that name."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(body)
        archive.addfile(member, io.BytesIO(body))
    return content.getvalue()


def zip_of(name: str, body: bytes = b"content", *, encrypted: bool = False) -> bytes:
    """A zip with one member; ``encrypted``: its flag says so, as zip programs set it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(name, body)
    packed = bytearray(content.getvalue())
    if encrypted:
        packed[6] |= 1
        packed[packed.index(b"PK\x01\x02") + 8] |= 1
    return bytes(packed)


def isolate(monkeypatch: pytest.MonkeyPatch, folder: Path, *, servers: str = "http://127.0.0.1:9") -> None:
    """Empty caches in ``folder``, no proxy, no kagglehub, and mirrors at ``servers`` (by default nobody listens)."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(folder / "tfhub"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(folder / "kagglehub"))
    monkeypatch.setenv("TFAUDIOTL_CACHE_DIR", str(folder / "own"))
    for name in ("TFHUB", "KAGGLE", "AUDIOSET"):
        monkeypatch.setenv(f"TFAUDIOTL_{name}_URL", f"{servers}/{name.lower()}")
