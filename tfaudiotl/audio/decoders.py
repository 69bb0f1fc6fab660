"""Opening sound files and decoding stretches of them: libsndfile, the ffmpeg programs, and several sounds in one file.

What is opened has one form, ``OpenSound``: a rate, channels, a length, and ``decode``.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import re
import shutil
import stat
import struct
import subprocess
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import soundfile

from tfaudiotl.audio.containers import APPLE_DOUBLE, UNKNOWN_FRAMES, FilePart, Part, last_ogg_page, layout
from tfaudiotl.audio.mp3 import Mp3Part, mp3_parts
from tfaudiotl.audio.waveform import MAX_RATE, MIN_RATE, Channels, pick_channels
from tfaudiotl.errors import AudioError

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_BLOCK = 1 << 20  # frames decoded at a time: a long many-channel file is mixed down as it is read
_VORBIS_LEAD = 4096  # frames; what follows a seek at once may be wrong by a block (libsndfile issue 885)
_MP3_LEAD = 16 * 1152  # frames; the bits of an MP3 frame may lie in those before it, up to 511 bytes back
_MP3_FRAME = 1152  # frames; encoders disagree on a last partial MP3 frame, so that much may be missing
# Sample formats in which libsndfile's seeking was found right; others are decoded from the beginning, since each
# sample of theirs depends on those before it, and libsndfile refuses to seek.
_SEEKABLE = ("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW", "ALAC", "VORBIS", "OPUS", "MPEG", "IMA_ADPCM", "MS_ADPCM")


class OpenSound(ABC):
    """An open sound file: its rate in Hz, its width, its samples per channel, and the names of its formats."""

    samplerate: int
    channels: int
    frames: int
    format: str
    subtype: str

    @abstractmethod
    def decode(self, first: int, last: int, channels: Channels) -> NDArray[np.float32]:
        """Frames from ``first`` to before ``last``: (frames,), or (frames, channels) for all channels."""

    def close(self) -> None:  # noqa: B027 not every sound has something to close
        """Frees what is open; most have nothing open between calls."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_sound(name: str) -> OpenSound:
    """Opens a sound file for reading; every reason not to becomes an AudioError."""
    status = _status(name)
    try:
        head = read_head(name)
        if head.startswith(APPLE_DOUBLE):
            raise AudioError(name, "holds what macOS notes about another file (AppleDouble), no sound")
        if is_ffmpegs(head):
            return _checked(_open_parts(name, ffmpeg_parts(name, status.st_size, status.st_mtime_ns), status), name)
        found = layout(name, status)
        if found.note:
            _note(name, found.note, status.st_mtime_ns)
        sound = _open_parts(name, found.parts, status) if found.parts else _open_whole(name, status)
    except PermissionError:
        raise AudioError(name, "permission to read it is denied") from None
    except OSError as error:
        raise AudioError(name, error.strerror or str(error)) from None
    return _checked(sound, name)


def _status(name: str) -> os.stat_result:
    try:
        status = os.stat(name)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(name, "no such file" if isinstance(error, FileNotFoundError) else reason) from None
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(name, "is a directory, expected a sound file")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(name, "is not a regular file")  # a pipe would be waited for without end
    if status.st_size == 0:
        raise AudioError(name, "the file is empty (0 bytes)")
    return status


def _checked(sound: OpenSound, name: str) -> OpenSound:
    """The same, if its rate and length can be; else it is closed."""
    reason = ""
    if not MIN_RATE <= sound.samplerate <= MAX_RATE:
        reason = f"its header says {sound.samplerate} Hz: sample rates of {MIN_RATE} to {MAX_RATE} Hz are read"
    elif sound.frames <= 0:
        reason = "has a header but no samples"
    if reason:
        sound.close()
        raise AudioError(name, reason)
    return sound


@lru_cache(maxsize=4096)  # once for each state of a file, not for every span of every epoch
def _note(name: str, note: str, modified: int) -> None:
    logger.warning("%s: was not closed when it was written: %s; it is read to its end", name, note)


def _open_whole(name: str, status: os.stat_result) -> OpenSound:
    sound = _SndfileSound(name, Part(0, status.st_size), whole=True)
    if sound.format != "MP3":
        return sound
    try:
        parts = mp3_parts(name, status.st_size, status.st_mtime_ns)
    except BaseException:
        sound.close()
        raise
    if not parts:
        return sound
    sound.close()
    return _open_parts(name, parts, status)


def _open_parts(name: str, parts: Sequence[AnyPart], status: os.stat_result) -> OpenSound:
    if len(parts) == 1:
        return _open_part(name, parts[0], status.st_mtime_ns)
    return _joined(name, tuple(parts), status.st_mtime_ns)


def _open_part(name: str, part: AnyPart, modified: int) -> OpenSound:
    if isinstance(part, FfmpegPart):
        return open_ffmpeg(name, part, modified)
    return _SndfileSound(name, part) if isinstance(part, Part) else _SndfileSound(name, part.part(), part)


@lru_cache(maxsize=256)
def _joined(name: str, parts: tuple[AnyPart, ...], modified: int) -> _JoinedSound:
    """Opens every part once, for its length."""
    sounds = []
    for part in parts:
        with _open_part(name, part, modified) as sound:
            sounds.append((sound.frames, sound.samplerate, sound.channels, sound.format, sound.subtype))
    kinds = [(rate, channels) for _, rate, channels, *_ in sounds]
    other = next((kind for kind in kinds if kind != kinds[0]), None)
    if other is not None:
        (rate, channels), (rate2, channels2) = kinds[0], other
        raise AudioError(
            name,
            f"holds {len(kinds)} sounds end to end, of {rate} Hz with {channels} channels and of {rate2} Hz with "
            f"{channels2}: expected one rate and one number of channels; store them in files of their own",
        )
    lengths = tuple(frames for frames, *_ in sounds)
    _, rate, channels, container, subtype = sounds[0]
    return _JoinedSound(name, modified, parts, lengths, rate, channels, sum(lengths), container, subtype)


@dataclass(frozen=True)
class _JoinedSound(OpenSound):
    """Several sounds of one rate and width in one file, which are opened when they are read."""

    name: str
    modified: int
    parts: tuple[AnyPart, ...]
    lengths: tuple[int, ...]
    samplerate: int
    channels: int
    frames: int
    format: str
    subtype: str

    def decode(self, first: int, last: int, channels: Channels) -> NDArray[np.float32]:
        pieces, begin = [], 0
        for part, length in zip(self.parts, self.lengths, strict=True):
            start, stop = max(first - begin, 0), min(last - begin, length)
            if start < stop:
                with _open_part(self.name, part, self.modified) as sound:
                    piece = sound.decode(start, stop, channels)
                # A part may end a little before its header says: the next one keeps its place.
                pieces.append(np.pad(piece, [(0, stop - start - len(piece))] + [(0, 0)] * (piece.ndim - 1)))
            begin += length
        return np.concatenate(pieces)


class _Stream(soundfile.SoundFile):
    """A SoundFile that seeks only when asked to.

    soundfile seeks after every read to where it already is, which costs time and fails at the end
    of a FLAC stream whose header gives no length.
    """

    def seekable(self) -> bool:
        return False


class _SndfileSound(OpenSound):
    """A sound that libsndfile reads.

    Args:
        name: The file.
        part: Where in the file it is.
        mp3: What was counted in it, if it is an MP3.
        whole: Whether the part is the whole file, which libsndfile then reads itself.
    """

    def __init__(self, name: str, part: Part, mp3: Mp3Part | None = None, *, whole: bool = False):
        self.name, self._part, self._mp3, self._whole = name, part, mp3, whole
        self._source: int | FilePart | bytes = self._reader()
        try:
            self._stream = _Stream(self._source, closefd=False) if whole and os.name != "nt" else _Stream(self._source)
        except soundfile.SoundFileError as error:
            self._close_source()
            if os.path.splitext(name)[1].lower() == ".raw":
                raise AudioError(name, "has no header that says its rate and sample format") from None
            raise AudioError(name, f"not a sound file that libsndfile can read ({_said(error)})") from None
        except TypeError:  # soundfile asks for the rate of .raw files
            self._close_source()
            raise AudioError(name, "has no header that says its rate and sample format") from None
        self.samplerate, self.channels = int(self._stream.samplerate), int(self._stream.channels)
        self.format, self.subtype = self._stream.format, self._stream.subtype
        self._counted = int(self._stream.frames) < UNKNOWN_FRAMES
        self._frames: int | None = int(self._stream.frames) if self._counted else None

    def _reader(self) -> int | FilePart | bytes:
        if not self._whole:
            return FilePart(self.name, self._part)
        if os.name == "nt":
            return self.name  # type: ignore[return-value]  # names are UTF-16
        # As a descriptor: given a name, libsndfile looks for "._name" beside it, and takes that for a part of an MP3.
        return os.open(self.name, os.O_RDONLY)

    def _close_source(self) -> None:
        if isinstance(self._source, FilePart):
            self._source.close()
        elif isinstance(self._source, int):
            with suppress(OSError):
                os.close(self._source)

    @property
    def frames(self) -> int:  # type: ignore[override]
        """Their number; a stream that does not say is decoded once to count them."""
        if self._frames is None:
            with _SndfileSound(self.name, self._part, self._mp3, whole=self._whole) as counted:
                self._frames = counted._skip(UNKNOWN_FRAMES)
        return self._frames

    def decode(self, first: int, last: int, channels: Channels) -> NDArray[np.float32]:
        # twice the lead: the first frames after a mark are not whole
        if self._mp3 and (later := self._mp3.later(first - 2 * _MP3_LEAD)):
            part, before = later
            with _SndfileSound(self.name, part) as sound:
                return sound.decode(first - before, last - before, channels)
        self._go_to(first)
        blocks, wanted = [], last - first
        while wanted > 0:
            block = pick_channels(self.name, self._read_block(min(wanted, _BLOCK)), channels)
            if not len(block):
                break
            blocks.append(block)
            wanted -= len(block)
        if not blocks or wanted > (_MP3_FRAME if self.format == "MP3" else 0):
            raise AudioError(
                self.name, f"truncated: decoding stops {wanted} frames before {last / self.samplerate:g} s"
            )
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def _go_to(self, first: int) -> None:
        # Without a length libsndfile cannot seek in FLAC.
        if not self._counted or not self.subtype.startswith(_SEEKABLE):
            self._skip(first)
        elif first:
            near = first
            if self.subtype == "VORBIS":
                near = max(0, min(first, last_ogg_page(self.name, self._part)) - _VORBIS_LEAD)
            elif self.format == "MP3":
                near = max(0, first - _MP3_LEAD)
            self._seek(near)
            self._skip(first - near)

    def _skip(self, frames: int) -> int:
        """Decodes up to ``frames`` frames and drops them; returns how many there were."""
        skipped = 0
        while skipped < frames and (block := len(self._read_block(min(frames - skipped, _BLOCK)))):
            skipped += block
        return skipped

    def _seek(self, frame: int) -> None:
        try:
            self._stream.seek(frame)
        except soundfile.SoundFileError as error:
            raise AudioError(
                self.name, f"damaged or truncated: cannot seek to frame {frame} ({_said(error)})"
            ) from None

    def _read_block(self, frames: int) -> NDArray[np.float32]:
        try:
            block: NDArray[np.float32] = self._stream.read(frames, dtype="float32")
        except soundfile.SoundFileError as error:
            raise AudioError(self.name, f"damaged or truncated: {_said(error)}") from None
        return block

    def close(self) -> None:
        self._stream.close()
        self._close_source()


def _said(error: Exception) -> str:
    """Libsndfile's own words, without soundfile's prefix (which repeats the path)."""
    return str(getattr(error, "error_string", error)).strip().rstrip(".")


# The ffmpeg programs

FFMPEG_EXTENSIONS = (
    ".m4a", ".m4b", ".aac", ".mp4", ".m4v", ".mov", ".3gp", ".wma", ".wmv", ".asf", ".webm", ".mkv", ".mka", ".avi",
    ".flv", ".amr", ".ac3", ".mpg", ".mpeg",
)  # fmt: skip

# How their files begin (offset, bytes). Only these are given to ffmpeg, which would find sound in any bytes.
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


AnyPart = Part | Mp3Part | FfmpegPart


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
class _FfmpegSound(OpenSound):
    """The first sound track of a file; ``counted`` where its frames are no guess from the header's length."""

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


def open_ffmpeg(name: str, part: FfmpegPart, modified: int) -> _FfmpegSound:
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
    return _FfmpegSound(name, modified, rate, channels, frames, kind, codec, counted, part)


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
