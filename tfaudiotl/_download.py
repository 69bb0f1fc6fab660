"""One file over HTTP, whole and unchanged or not at all, and archives unpacked. Needs no TensorFlow."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import lzma
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3

from tfaudiotl._threads import OnProgress, Progress, ignore
from tfaudiotl._version import __version__
from tfaudiotl.errors import WeightsError

CONNECT, READ = 10.0, 30.0  # seconds until a server is reached, and between two pieces of its answer
LEAST_RATE = 1000  # bytes per second, over all that came so far; below it a server hangs, whatever it still sends
ATTEMPTS = 3  # where a server asks to come back later
LONGEST_WAIT = 30.0  # seconds; asked for more, the next source is better
MOST_BYTES = 2 << 30  # of a file, and of what an archive unpacks to; VGGish has 288 MB
ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
_BLOCK = 1 << 16

_progress: ContextVar[OnProgress] = ContextVar("tfaudiotl_download_progress", default=ignore)


@contextmanager
def download_progress(report: OnProgress) -> Iterator[None]:
    """Downloads inside the block call ``report`` with their progress in kB; the total is 0 where it is not known.

    Without it nothing is shown. A context variable, since between a command and a download lie a model's builder and
    whoever called it.
    """
    token = _progress.set(report)
    try:
        yield
    finally:
        _progress.reset(token)


def fetch(url: str, path: Path, *, sha256: str | None = None) -> None:
    """Writes what ``url`` answers to ``path``, which the caller moves to its place.

    Args:
        url: http or https; redirects are followed, but not from https to http.
        path: a new file in a folder that exists.
        sha256: what the file must have.

    Raises:
        WeightsError: what came instead, in a few words: the status, a web page, a part, other bytes, silence.
        OSError: ``path`` cannot be written.
    """
    try:
        with _answer(url) as response:
            _check_answer(response, url)
            found = _write(response, path)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise WeightsError(_reason(error)) from error
    if sha256 not in (None, found):
        raise WeightsError(f"damaged or another file: its SHA-256 is {found}, expected {sha256}")


def _answer(url: str) -> requests.Response:
    for attempt in range(1, ATTEMPTS + 1):
        response = requests.get(
            url,
            stream=True,
            timeout=(CONNECT, READ),
            headers={"User-Agent": f"tfaudiotl/{__version__}", "Accept-Encoding": "identity"},
        )
        wait = _retry_after(response)
        if attempt == ATTEMPTS or wait is None or wait > LONGEST_WAIT:
            break
        response.close()
        time.sleep(wait)
    return response


def _retry_after(response: requests.Response) -> float | None:
    """Seconds after which the server wants to be asked again; None if it does not."""
    if response.status_code not in (429, 503):
        return None
    text = response.headers.get("Retry-After", "")
    if text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _check_answer(response: requests.Response, url: str) -> None:
    if response.status_code != 200:
        wait = response.headers.get("Retry-After")
        raise WeightsError(
            f"HTTP {response.status_code} {response.reason or ''}".strip()
            + (f", to be asked again after {wait} (seconds or a date)" if wait else "")
            + _redirected(response)
        )
    if url.startswith("https:") and not response.url.startswith("https:"):
        raise WeightsError(f"redirected from https to {response.url}, which anyone on the way could change")
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise WeightsError(f"a web page came, not a file{_redirected(response)}")


def _redirected(response: requests.Response) -> str:
    # without the query, where signatures are
    parts = urlsplit(response.url)
    return f" (redirected to {parts.scheme}://{parts.netloc}{parts.path})" if response.history else ""


def _write(response: requests.Response, path: Path) -> str:
    """Writes the body; returns its SHA-256."""
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"  # the length is the packed one's
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdigit() and not encoded else None
    report, stage = _progress.get(), f"Fetching from {urlsplit(response.url).netloc}, kB"
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    done, start = 0, time.monotonic()
    with open(path, "xb") as file:
        # one read of the socket at a time where urllib3 has that, so that a trickle is seen
        read = getattr(response.raw, "read1", response.raw.read)
        while block := read(_BLOCK, decode_content=True):
            if done == 0 and block.lstrip()[:1] == b"<":
                raise WeightsError(f"a web page came, not a file{_redirected(response)}")
            done += len(block)
            if done > MOST_BYTES:
                raise WeightsError(f"more than {MOST_BYTES >> 20} MB came")
            seconds = time.monotonic() - start
            if seconds > READ and done < LEAST_RATE * seconds:
                raise WeightsError(f"too slow: {done} bytes in {seconds:.0f} s")
            for digest in (sha256, md5):
                digest.update(block)
            file.write(block)
            report(Progress(stage, done // 1000, (total or 0) // 1000))
    if done == 0:
        raise WeightsError("an empty file came")
    if total is not None and done != total:
        raise WeightsError(f"cut off: {done} of {total} bytes came")
    _check_md5(response, encoded, md5.digest())
    return sha256.hexdigest()


def _check_md5(response: requests.Response, encoded: bool, found: bytes) -> None:
    """Google's storage says what a file's MD5 is: ``x-goog-hash: crc32c=...,md5=...``, each in base 64."""
    for part in response.headers.get("x-goog-hash", "").split(","):
        name, _, value = part.strip().partition("=")
        if name == "md5" and not encoded and value != base64.b64encode(found).decode():
            raise WeightsError("damaged on the way: its MD5 is not the one that the server gave")


def _reason(error: Exception) -> str:
    if isinstance(error, requests.ConnectTimeout):
        return f"not reached within {CONNECT:g} s"
    if isinstance(error, requests.TooManyRedirects):
        return "redirects in a circle"
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return f"nothing came for {READ:g} s"
    if isinstance(error, urllib3.exceptions.HTTPError):  # while the body was read
        return f"cut off or damaged on the way ({error})"
    root: BaseException = error  # what the libraries wrap it in says no more
    while inner := root.__cause__ or root.__context__:
        root = inner
    return f"no connection ({root})"


def is_archive(path: Path) -> bool:
    """Whether a file is one that ``unpack`` takes, by its name, or a tar by its content.

    What is fetched by hand is called by its address: "download", "1?tf-hub-format=compressed".
    """
    return path.is_file() and (path.name.lower().endswith(ARCHIVES) or tarfile.is_tarfile(path))


def unpack(archive: Path, target: Path) -> Path:
    """Unpacks an archive, whatever its name says, and returns the folder that holds ``variables``.

    Args:
        archive: tar (packed or not) or zip.
        target: a new or empty folder.

    Returns:
        ``target``, or the one folder in it that has ``variables``: archives hold the files or the folder.

    Raises:
        WeightsError: damaged, encrypted, too large, or with members that would lie elsewhere.
    """
    target.mkdir(exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                members = opened.infolist()
                if any(member.flag_bits & 1 for member in members):
                    raise WeightsError("the zip is encrypted; unpack it and give the folder")
                _check_size(sum(member.file_size for member in members))
                opened.extractall(target)  # leaves out ".." and leading slashes of names
        else:
            with tarfile.open(archive) as opened_tar:
                _check_size(sum(member.size for member in opened_tar))
                opened_tar.extractall(target, filter="data")  # refuses members and links outside of the target
    except (
        OSError,
        EOFError,
        RuntimeError,
        NotImplementedError,
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
    ) as error:
        raise WeightsError(f"cannot be unpacked (damaged, cut off or no archive): {error}") from error
    inner = [entry for entry in target.iterdir() if (entry / "variables").is_dir()]
    return inner[0] if len(inner) == 1 and not (target / "variables").is_dir() else target


def _check_size(total: int) -> None:
    if total > MOST_BYTES:
        raise WeightsError(f"the archive unpacks to {total >> 20} MB; more than {MOST_BYTES >> 20} is refused")
