"""Sound that libsndfile does not read (AAC, WMA, sound tracks of videos), through the ffmpeg programs where they are.

Nothing is linked or installed: ``ffprobe`` says what is in the file, ``ffmpeg`` writes its samples to a pipe.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import shutil
import struct
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tfaudiotl.audio.arrays import Channels, pick_channels
from tfaudiotl.errors import AudioError

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

FFMPEG_EXTENSIONS = (
    ".m4a", ".m4b", ".aac", ".mp4", ".m4v", ".mov", ".3gp", ".wma", ".wmv", ".asf", ".webm", ".mkv", ".mka", ".avi",
    ".flv", ".amr", ".ac3", ".mpg", ".mpeg",
)  # fmt: skip

# How their files begin (offset, bytes). Only these are given to ffmpeg, which would hear sound in any bytes.
_MAGIC = (
    (4, b"ftyp"),  # MP4, M4A, MOV, 3GP: ISO/IEC 14496-12
    (0, b"\x1a\x45\xdf\xa3"),  # Matroska, WebM: RFC 8794
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),  # ASF: WMA, WMV
    (0, b"\xff\xf1"), (0, b"\xff\xf9"),  # AAC in ADTS: ISO/IEC 13818-7
    (8, b"AVI "), (0, b"FLV"), (0, b"#!AMR"), (0, b"\x0b\x77"), (0, b"\x00\x00\x01\xba"),  # ..., AC-3, MPEG
)  # fmt: skip
_HEAD = 16  # bytes that the longest of them needs
_TIMEOUT = 600.0  # s: a damaged file must not hold everything up
_PACKET = 8192  # frames by which a header and the sound may differ: priming and the last packet
_NO_LENGTH = ("AAC", "AC3", "EAC3", "AMR", "MPEG")  # no container: ffprobe guesses a length from the bit rate
_CUT_SHORT = re.compile(r"prematurely|partial file|Invalid data found|truncat", re.IGNORECASE)


# How a file begins that was joined to another one; of the others ffmpeg reads everything.
_FIRST = {
    b"\x1a\x45\xdf\xa3": re.compile(rb"\x1a\x45\xdf\xa3.{1,60}?(webm|matroska)", re.DOTALL),
    b"\x30\x26\xb2\x75": re.compile(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"),
    b"FLV\x01": re.compile(rb"FLV\x01[\x00-\x05]\x00\x00\x00\x09"),
    b"RIFF": re.compile(rb"RIFF....AVI LIST", re.DOTALL),
}


@dataclass(frozen=True)
class FfmpegPart:
    """One of the files that a file was joined from.

    Attributes:
        start: Its first byte.
        stop: One past its last; None: the end of the file, which is this one alone if ``start`` is 0.
    """

    start: int = 0
    stop: int | None = None

    def url(self, name: str) -> str:
        """What ffmpeg is given."""
        whole = f"file:{name}"
        return whole if self == FfmpegPart() else f"subfile,,start,{self.start},end,{self.stop or 0},,:{whole}"


@lru_cache(maxsize=256)
def ffmpeg_parts(name: str, size: int, modified: int) -> tuple[FfmpegPart, ...]:
    """The files that a file was joined from, in order: ffmpeg reads the first alone, or the first one's length."""
    with open(name, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        first = _FIRST.get(data[:4])
        if data[4:8] == b"ftyp":
            starts = _mp4_starts(data)
        else:
            starts = [match.start() for match in first.finditer(data)] if first else [0]
    if len(starts) < 2:
        return (FfmpegPart(),)
    return tuple(FfmpegPart(start, stop) for start, stop in zip(starts, [*starts[1:], size], strict=True))


def _mp4_starts(data: mmap.mmap) -> list[int]:
    """Where MP4 files begin: a file is boxes of a size and a name, the first is "ftyp" (ISO/IEC 14496-12, 4.2)."""
    starts, place = [], 0
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        if size == 1 and place + 16 <= len(data):
            size = struct.unpack_from(">Q", data, place + 8)[0]
        if kind == b"ftyp":
            starts.append(place)
        if size < 8:
            break  # to the end of the file, or no box
        place += size
    return starts


def is_ffmpegs(head: bytes) -> bool:
    """Whether a file that begins so is of a format for ffmpeg."""
    return any(head[offset : offset + len(magic)] == magic for offset, magic in _MAGIC)


def read_head(path: str) -> bytes:
    """The bytes that ``is_ffmpegs`` looks at; OSError where the file cannot be read."""
    with open(path, "rb") as file:
        return file.read(_HEAD)


@dataclass(frozen=True)
class FfmpegSound:
    """The first sound track of a file; made by ``open_ffmpeg``.

    Attributes:
        name: The file.
        modified: When it was changed last.
        samplerate: Hz.
        channels: Their number.
        frames: Samples per channel: from the length that the header gives, or counted.
        format: Name of the container.
        subtype: Name of the codec.
        counted: Whether the frames were counted.
        part: Which part of the file it is.
    """

    name: str
    modified: int
    samplerate: int
    channels: int
    frames: int
    format: str
    subtype: str
    counted: bool
    part: FfmpegPart

    def decode(self, first: int, last: int, channels: Channels) -> NDArray[np.float32]:
        """Frames from ``first`` to before ``last``: (frames,), or (frames, channels) for all channels."""
        if self.counted or first or last < self.frames:
            # Not by seeking: many containers count whole milliseconds, up to 22 frames of 44.1 kHz off, and AAC fills
            # bands with noise that depends on where decoding began.
            samples = _decoded(self.name, self.part, self.modified, self.channels)[first:last]
        else:
            samples = _samples(
                _run(["ffmpeg", *_QUIET, *_input(self.name, self.part), *_OUTPUT], self.name), self.channels
            )[:last]
        missing = last - first - len(samples)
        if not len(samples) or missing > _PACKET:
            raise AudioError(
                self.name, f"truncated: decoding stops {missing} frames before {last / self.samplerate:g} s"
            )
        return np.array(pick_channels(self.name, samples, channels))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing stays open between calls."""


_QUIET = ("-v", "error", "-nostdin", "-threads", "1")
_OUTPUT = ("-f", "f32le", "-c:a", "pcm_f32le", "-")


def _input(name: str, part: FfmpegPart) -> tuple[str, ...]:
    return "-i", part.url(name), "-map", "0:a:0"


def _samples(content: bytes, channels: int) -> NDArray[np.float32]:
    width = 4 * channels
    return np.frombuffer(content[: len(content) // width * width], "<f4").reshape(-1, channels)


def _decoded(name: str, part: FfmpegPart, modified: int, channels: int) -> NDArray[np.float32]:
    """All samples of a file (frames, channels), from a temporary file: a long recording does not fit into memory."""
    with _lock(name):  # else every thread that wants a span of the file would decode it
        return _to_disk(name, part, modified, channels)


@lru_cache(maxsize=64)
def _lock(name: str) -> threading.Lock:
    return threading.Lock()


@lru_cache(maxsize=4)  # the windows of a recording follow each other
def _to_disk(name: str, part: FfmpegPart, modified: int, channels: int) -> NDArray[np.float32]:
    with tempfile.TemporaryFile() as out:  # it goes with the last array that shows it
        said = _run_into(["ffmpeg", *_QUIET, *_input(name, part), *_OUTPUT], name, out)
        size = os.fstat(out.fileno()).st_size // (4 * channels)
        if _CUT_SHORT.search(said):
            raise AudioError(name, f"damaged or truncated: ffmpeg says {said.strip().splitlines()[-1]!r}")
        if not size:
            raise AudioError(name, "its sound track has no samples")
        return np.memmap(out, "<f4", "r", shape=(size, channels))


def open_ffmpeg(name: str, part: FfmpegPart, modified: int) -> FfmpegSound:
    """Looks at a file, or a part of it, with ffprobe.

    Raises:
        AudioError: ffmpeg is not installed, cannot read the file, or finds no sound in it.
    """
    if not (shutil.which("ffmpeg") and shutil.which("ffprobe")):
        raise AudioError(name, "of a format that needs ffmpeg, which is not installed (https://ffmpeg.org)")
    entries = "stream=codec_name,sample_rate,channels,duration:format=format_name,duration"
    command = ["ffprobe", "-v", "error", "-select_streams", "a:0", "-show_entries", entries, "-of", "json"]
    found: dict[str, Any] = json.loads(_run([*command, part.url(name)], name))
    if not found.get("streams"):
        raise AudioError(name, "holds no sound track")
    stream, container = found["streams"][0], found.get("format", {})
    kind = container.get("format_name", "?").split(",")[0].upper()
    try:
        rate, channels = int(stream["sample_rate"]), int(stream["channels"])
    except (KeyError, ValueError):
        raise AudioError(name, "its sound track has no rate or no channels") from None
    if not (rate > 0 and channels > 0):
        raise AudioError(name, "its sound track has no rate or no channels")
    length = stream.get("duration") or container.get("duration")
    counted = length is None or kind in _NO_LENGTH  # as of a WebM that was written to a pipe
    frames = len(_decoded(name, part, modified, channels)) if counted else round(float(length) * rate)
    codec = stream.get("codec_name", "?").upper()
    return FfmpegSound(name, modified, rate, channels, frames, kind, codec, counted, part)


def _run(command: list[str], name: str) -> bytes:
    with tempfile.TemporaryFile() as out:
        _run_into(command, name, out)
        out.seek(0)
        return out.read()


def _run_into(command: list[str], name: str, out: IO[bytes]) -> str:
    """Writes what a program puts out into a file; returns what it says."""
    try:
        done = subprocess.run(
            command, stdout=out, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise AudioError(name, f"{command[0]} did not finish within {_TIMEOUT:g} s") from None
    said = done.stderr.decode(errors="replace")
    if done.returncode:
        lines = said.strip().splitlines() or ["no message"]
        raise AudioError(name, f"{command[0]} cannot read it ({lines[-1].removeprefix(f'file:{name}: ')})")
    return said
