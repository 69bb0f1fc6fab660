"""Downloads: every way in which a server fails gets its own reason, nothing half is left, nothing lies outside."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.servers import (
    Answer,
    Server,
    drips,
    hangs,
    in_turn,
    isolate,
    redirects,
    resets,
    sends,
    serving,
    tar_gz,
    tar_of,
    zip_of,
)
from tfaudiotl import _download
from tfaudiotl._download import download_progress, fetch, unpack
from tfaudiotl._threads import Progress
from tfaudiotl.errors import WeightsError

BODY = bytes(range(256)) * 400


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    isolate(monkeypatch, tmp_path)
    monkeypatch.setattr(_download, "READ", 0.2)
    monkeypatch.setattr(_download, "CONNECT", 0.5)
    with serving() as place:
        yield place


def goog(body: bytes) -> str:
    return f"crc32c=AAAAAA==,md5={base64.b64encode(hashlib.md5(body).digest()).decode()}"


@pytest.mark.parametrize(
    "answer",
    [
        sends(BODY),
        sends(BODY, Content_Type="application/gzip", x_goog_hash=goog(BODY)),
        in_turn(sends(b"later", status=429, Retry_After="0"), sends(BODY)),
        in_turn(sends(b"later", status=503, Retry_After="Wed, 01 Jan 2020 00:00:00 GMT"), sends(BODY)),
        in_turn(redirects("/file"), redirects("/file"), sends(BODY)),
    ],
)
def test_a_whole_file(answer: Answer, server: Server, tmp_path: Path) -> None:
    server.answers["/file"] = answer
    fetch(f"{server.url}/file", tmp_path / "file", sha256=hashlib.sha256(BODY).hexdigest())
    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (sends(b"<Error><Code>AccessDenied</Code></Error>", status=403), "HTTP 403 Forbidden"),
        (sends(b"", status=404), "HTTP 404 Not Found"),
        (sends(b"", status=500), "HTTP 500"),
        (sends(b"", status=429), "HTTP 429 Too Many Requests$"),
        (sends(b"", status=429, Retry_After="3600"), "HTTP 429 .* again after 3600"),
        (sends(b"", status=429, Retry_After="0"), "HTTP 429 .* again after 0"),
        (redirects("/file"), "redirects in a circle"),
        (redirects("/elsewhere?signature=secret"), r"HTTP 404 Not Found \(redirected to http://[^?]*/elsewhere\)$"),
        (sends(b"<!DOCTYPE html><html>sign in</html>", Content_Type="text/html; charset=utf-8"), "a web page came"),
        (sends(b"\n <html>no type</html>"), "a web page came"),
        (sends(BODY[:5000], length=len(BODY)), "cut off"),
        (sends(BODY, length=100), "its SHA-256 is"),
        (sends(BODY[::-1]), "its SHA-256 is"),
        (sends(BODY, x_goog_hash=goog(b"other")), "its MD5"),
        (sends(b""), "an empty file"),
        (hangs(), "nothing came for 0.2 s"),
        (hangs(BODY[:5000]), "nothing came for 0.2 s"),
        (drips, "too slow"),
        (resets, "no connection"),
    ],
)
def test_what_came_instead(answer: Answer, message: str, server: Server, tmp_path: Path) -> None:
    server.answers["/file"] = answer
    with pytest.raises(WeightsError, match=message):
        fetch(f"{server.url}/file", tmp_path / "file", sha256=hashlib.sha256(BODY).hexdigest())


def test_nobody_listens_and_no_address(server: Server, tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:9/file", "http://nowhere.invalid/file", "http://", "127.0.0.1/file"):
        with pytest.raises(WeightsError, match=r"^no connection \([^()]*\)$"):
            fetch(url, tmp_path / "file")


def test_it_is_asked_three_times_at_most(server: Server, tmp_path: Path) -> None:
    server.answers["/file"] = sends(b"", status=503, Retry_After="0")
    with pytest.raises(WeightsError, match="HTTP 503"):
        fetch(f"{server.url}/file", tmp_path / "file")
    assert server.requests == ["/file"] * 3


def test_a_file_without_end(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_download, "MOST_BYTES", 1 << 20)
    server.answers["/file"] = sends(b"x" * (2 << 20))
    with pytest.raises(WeightsError, match="more than 1 MB"):
        fetch(f"{server.url}/file", tmp_path / "file")


def test_progress_only_for_who_asks(server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    server.answers["/file"] = sends(BODY)
    fetch(f"{server.url}/file", tmp_path / "quiet")
    assert capfd.readouterr() == ("", "")
    seen: list[Progress] = []
    with download_progress(seen.append):
        fetch(f"{server.url}/file", tmp_path / "shown")
    fetch(f"{server.url}/file", tmp_path / "quiet again")
    assert seen[-1] == Progress(f"Fetching from {server.url[7:]}, kB", 102, 102)
    assert [progress.done for progress in seen] == sorted({progress.done for progress in seen})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no archive", "no archive"),
        (tar_of("a", BODY)[:200], "cut off"),
        (zip_of("a", BODY)[:-30], "cut off"),
        (tar_of("../outside"), "outside"),
        (tar_of("/outside"), None),
        (zip_of("../outside"), None),
        (zip_of("a", encrypted=True), "encrypted"),
    ],
    ids=[
        "text",
        "half tar",
        "half zip",
        "tar climbs",
        "tar absolute",
        "zip climbs",
        "encrypted",
    ],  # bytes hold the time
)
def test_archives_that_are_not_whole_or_reach_out(content: bytes, message: str | None, tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(content)
    if message:
        with pytest.raises(WeightsError, match=message):
            unpack(tmp_path / "archive", tmp_path / "in")
    else:
        assert [path.name for path in unpack(tmp_path / "archive", tmp_path / "in").iterdir()] == ["outside"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "in"]


def test_archives_that_unpack_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_download, "MOST_BYTES", 1 << 20)
    for pack in (tar_of, zip_of):
        (tmp_path / "archive").write_bytes(pack("a", bytes(2 << 20)))
        with pytest.raises(WeightsError, match="unpacks to 2 MB"):
            unpack(tmp_path / "archive", tmp_path / pack.__name__)
        assert list((tmp_path / pack.__name__).iterdir()) == []


@pytest.mark.parametrize("name", [".", "yamnet"])
def test_the_folder_with_variables_is_found(name: str, tmp_path: Path) -> None:
    (tmp_path / "model" / "variables").mkdir(parents=True)
    (tmp_path / "archive").write_bytes(tar_gz(tmp_path / "model", name=name))
    assert (unpack(tmp_path / "archive", tmp_path / "in") / "variables").is_dir()
