"""Sound that libsndfile does not read (AAC, WMA, sound tracks of videos), through the ffmpeg programs where they are.

Nothing is linked or installed: ``ffprobe`` says what is in the file, ``ffmpeg`` writes its samples to a pipe.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

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
        samplerate: Hz.
        channels: Their number.
        frames: Samples per channel, from the length that the header gives.
        format: Name of the container.
        subtype: Name of the codec.
    """

    name: str
    samplerate: int
    channels: int
    frames: int
    format: str
    subtype: str

    def decode(self, first: int, last: int) -> NDArray[np.float32]:
        """Frames from ``first`` to before ``last``: float32 (frames, channels)."""
        command = ["ffmpeg", "-v", "error", "-nostdin", "-threads", "1"]
        # Matroska's times are whole milliseconds, so a seek there would miss by up to 22 frames of 44.1 kHz.
        skipped = 0 if self.format == "MATROSKA" else first
        if skipped:
            command += ["-ss", f"{skipped / self.samplerate:.9f}"]
        command += ["-i", f"file:{self.name}", "-map", "0:a:0"]
        if last < self.frames:
            command += ["-t", f"{(last - skipped) / self.samplerate:.9f}"]
        done = _run([*command, "-f", "f32le", "-c:a", "pcm_f32le", "-"], self.name)
        width = 4 * self.channels
        samples = np.frombuffer(done[: len(done) // width * width], "<f4").reshape(-1, self.channels)
        samples = samples[first - skipped :]
        missing = last - first - len(samples)
        if not len(samples) or missing > _PACKET:
            raise AudioError(
                self.name, f"truncated: decoding stops {missing} frames before {last / self.samplerate:g} s"
            )
        return samples[: last - first].astype(np.float32, copy=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing stays open between calls."""


def open_ffmpeg(name: str) -> FfmpegSound:
    """Looks at a file with ffprobe.

    Raises:
        AudioError: ffmpeg is not installed, cannot read the file, or finds no sound in it.
    """
    if not (shutil.which("ffmpeg") and shutil.which("ffprobe")):
        raise AudioError(name, "of a format that needs ffmpeg, which is not installed (https://ffmpeg.org)")
    entries = "stream=codec_name,sample_rate,channels,duration:format=format_name,duration"
    command = ["ffprobe", "-v", "error", "-select_streams", "a:0", "-show_entries", entries, "-of", "json"]
    found: dict[str, Any] = json.loads(_run([*command, f"file:{name}"], name))
    if not found.get("streams"):
        raise AudioError(name, "holds no sound track")
    stream, container = found["streams"][0], found.get("format", {})
    try:
        rate, channels = int(stream["sample_rate"]), int(stream["channels"])
        frames = round(float(stream.get("duration") or container["duration"]) * rate)
    except (KeyError, ValueError):
        raise AudioError(name, "its sound track has no rate, channels or length") from None
    if not (rate > 0 and channels > 0):
        raise AudioError(name, "its sound track has no rate or no channels")
    kind = container.get("format_name", "?").split(",")[0]
    return FfmpegSound(name, rate, channels, frames, kind.upper(), stream.get("codec_name", "?").upper())


def _run(command: list[str], name: str) -> bytes:
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise AudioError(name, f"{command[0]} did not finish within {_TIMEOUT:g} s") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise AudioError(name, f"{command[0]} cannot read it ({said[-1].removeprefix(f'file:{name}: ')})")
    return done.stdout
