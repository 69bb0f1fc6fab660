"""Sound files to mono float32 waveforms at one rate, whole or in blocks, and back to files.

Decoding is libsndfile's (through soundfile), resampling is soxr's; both let other threads run
meanwhile. Nothing here imports TensorFlow.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from tfaudiotl._files import new_file
from tfaudiotl.audio.decoders import FFMPEG_EXTENSIONS, open_sound
from tfaudiotl.audio.waveform import (
    SAMPLE_RATE,
    Channels,
    Sound,
    cancels,
    check_rate,
    check_samples,
    check_shape,
    mix,
    resample,
    resampled_length,
    scale,
)
from tfaudiotl.errors import AudioError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "AUDIO_EXTENSIONS",
    "AudioInfo",
    "LongSound",
    "audio_info",
    "channels_cancel",
    "check_span",
    "load_audio",
    "open_samples",
    "write_audio",
]


# Suffixes of containers that libsndfile 1.2 recognises by their content, and of those left to ffmpeg. Header-less
# and matrix formats (.raw, .mat) are left out: a folder's other data would be taken for sound.
AUDIO_EXTENSIONS = (
    ".wav", ".wave", ".wavex", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3",
    ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".voc", ".sph", ".nist", ".svx", ".paf",
    *FFMPEG_EXTENSIONS,
)  # fmt: skip

_SPAN_SLACK = 0.01  # s; label tables round to hundredths, so a span may end that much after its file
_BLOCK = 1 << 20  # frames written at a time
_CONTEXT = 0.05  # s decoded on either side of a span, so that the resampling filter sees what was there

Path_ = str | os.PathLike[str]


@dataclass(frozen=True)
class AudioInfo:
    """What a sound file's header says.

    Attributes:
        path: The file, as it was asked for.
        duration: Length in seconds.
        sample_rate: Frames per second, Hz.
        channels: Number of channels.
        frames: Number of samples per channel.
        format: libsndfile's name of the container, such as "WAV" or "OGG".
        subtype: libsndfile's name of the sample format, such as "PCM_16" or "VORBIS".
    """

    path: str
    duration: float
    sample_rate: int
    channels: int
    frames: int
    format: str
    subtype: str


def audio_info(path: Path_) -> AudioInfo:
    """Reads the header of a sound file; the samples are not decoded.

    Args:
        path: A file of any format that libsndfile reads, or ffmpeg where it is installed.

    Returns:
        Its length, rate, channels and format.

    Raises:
        AudioError: The file is missing, not a file, empty, not audio, holds no samples, is shorter than
            its header says, or its sample rate is not one of 100 Hz to 10 MHz.
    """
    with open_sound(os.fspath(path)) as sound:
        return AudioInfo(
            path=os.fspath(path),
            duration=sound.frames / sound.samplerate,
            sample_rate=sound.samplerate,
            channels=sound.channels,
            frames=sound.frames,
            format=sound.format,
            subtype=sound.subtype,
        )


def load_audio(
    path: Path_,
    *,
    sample_rate: int = SAMPLE_RATE,
    start: float = 0.0,
    end: float | None = None,
    channels: Channels = "mean",
) -> NDArray[np.float32]:
    """Decodes a sound file, or a span of it, to mono at one sample rate.

    Integer samples are scaled by their full scale, float samples are kept, channels are averaged unless
    ``channels`` says otherwise.
    A span is read by seeking: the rest of a long file is not decoded. It holds the same samples as
    that part of the whole file's waveform, its ends included.

    Args:
        path: A file of any format that libsndfile reads, or ffmpeg where it is installed.
        sample_rate: Rate of the result, Hz.
        start: Where to begin, seconds from the file's start, at least 0.
        end: Where to stop, seconds; None is the file's end. At most 0.01 s after the file's end.
        channels: "mean" of them, the "first", "all" side by side, or the number of one, from 0.

    Returns:
        float32 (samples,), about [-1, 1]; ``samples = ceil(frames * sample_rate / file rate)``. With
        ``channels="all"`` (samples, channels).

    Raises:
        AudioError: The file is missing, not a file, empty, not audio or truncated; it has no
            samples, or NaN, infinite or unscaled ones, or no such channel; the span is not inside it.
        ValueError: ``sample_rate`` is not a rate, or ``channels`` is none of the above.
    """
    name = os.fspath(path)
    to_rate = check_rate("sample_rate", sample_rate)
    check_channels(channels)
    with open_sound(name) as sound:
        rate = sound.samplerate
        first, last, lead, stop = span_frames(name, start, end, sound.frames, rate, to_rate)
        waveform = sound.decode(first - lead, stop, channels)
    check_samples(name, waveform, first=first - lead)
    if lead == 0 and stop == last:
        return resample(waveform, rate, to_rate)
    skip, length = lead * to_rate // rate, resampled_length(last - first, rate, to_rate)
    return resample(waveform, rate, to_rate)[skip : skip + length].copy()


def span_frames(
    name: str, start: float, end: float | None, frames: int, rate: int, to_rate: int
) -> tuple[int, int, int, int]:
    """Which frames a span is made of, and what to decode around it for the resampling filter.

    Returns:
        first and last (exclusive) frame of the span; how many frames before, whole periods of both rates, so that
        the span starts on a sample of the result; and where to stop decoding.

    Raises:
        AudioError: The span is empty or not inside the recording.
    """
    begin, finish = check_span(name, start, end, frames / rate)
    first = min(round(begin * rate), frames - 1)
    last = max(first + 1, min(round(finish * rate), frames))
    period = rate // math.gcd(rate, to_rate)
    margin = 0 if rate == to_rate else math.ceil(_CONTEXT * rate)
    lead = min(math.ceil(margin / period), first // period) * period
    return first, last, lead, min(last + margin, frames)


def check_span(name: str, start: float, end: float | None, duration: float) -> tuple[float, float]:
    """Returns where a span of a recording begins and stops, or says that it is not inside it.

    Args:
        name: What messages call the recording.
        start: Seconds, at least 0.
        end: Seconds; None or NaN for the end of the recording. May lie 0.01 s after it.
        duration: Length of the recording, seconds.

    Raises:
        AudioError: The span is empty or not inside the recording.
    """
    stop = duration if end is None or math.isnan(end) else end
    if not (0 <= start < stop <= duration + _SPAN_SLACK and start < duration):
        raise AudioError(
            name, f"span start={start:g} s, end={stop:g} s is not inside the file, which lasts {duration:g} s"
        )
    return float(start), float(min(stop, duration))


def check_channels(channels: Channels) -> None:
    """Raises ValueError for what is no way to choose channels; see ``load_audio``."""
    number = isinstance(channels, (int, np.integer)) and not isinstance(channels, bool) and channels >= 0
    if not number and channels not in ("mean", "first", "all"):
        raise ValueError(f'channels={channels!r}: expected "mean", "first", "all" or the number of a channel, from 0')


def write_audio(path: Path_, waveform: ArrayLike, *, sample_rate: int = SAMPLE_RATE) -> None:
    """Writes a sound file; an existing one is replaced only once the new one is whole.

    Args:
        path: Its suffix picks the format: .wav, .flac, .aiff and the like hold 16-bit integers
            (values beyond [-1, 1] are clipped); .ogg is Vorbis, .opus Opus, .mp3 MP3.
        waveform: Finite floats (samples,) or (samples, channels), about [-1, 1].
        sample_rate: Hz.

    Raises:
        AudioError: (a ValueError) The samples cannot be written: NaN, wrong shape or type, or a
            rate or channel count that the format does not have.
        ValueError: libsndfile writes no format of that suffix.
        OSError: The folder is missing or cannot be written to.
    """
    target = Path(path)
    container, subtype = _format_of(target)
    rate = check_rate("sample_rate", sample_rate)
    samples = np.asarray(waveform)
    check_shape("waveform", samples)
    scaled = scale("waveform", samples)
    check_samples("waveform", scaled)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent}: no such folder, so {target.name} cannot be written there")
    channels = scaled.shape[1] if scaled.ndim == 2 else 1
    try:
        with (
            new_file(target) as partial,
            soundfile.SoundFile(os.fspath(partial), "w", rate, channels, subtype, format=container) as sound,
        ):
            for block in range(0, len(scaled), _BLOCK):  # libsndfile's Vorbis writer overflows on one long write
                sound.write(scaled[block : block + _BLOCK])
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        raise AudioError(str(target), f"cannot be written at {rate} Hz, {channels} channels: {error}") from error


def _format_of(path: Path) -> tuple[str, str]:
    """Container and sample format, as libsndfile names them, for a file name."""
    suffix = path.suffix.lower().lstrip(".")
    aliases = {"wave": "WAV", "aif": "AIFF", "aifc": "AIFF", "oga": "OGG", "opus": "OGG", "snd": "AU"}
    container = aliases.get(suffix, suffix.upper())
    if not suffix or container == "RAW" or container not in soundfile.available_formats():
        raise ValueError(f"path={str(path)!r}: no sound format is written as {path.suffix!r}; use .wav, .flac or .ogg")
    if suffix == "opus":
        return container, "OPUS"
    pcm = soundfile.check_format(container, "PCM_16")
    return container, "PCM_16" if pcm else soundfile.default_subtype(container)


BLOCK_SECONDS = 240  # whole seconds, so that a block begins on a sample at every rate; 15 MB at 16 kHz
_KEPT = 2  # blocks in memory: a window may lie in both


CANCELLING = (
    "its channels cancel each other out: what is used is their mean, and that is silence; keep one of them alone (in "
    "Python: channels=0)"
)


def channels_cancel(path: str | os.PathLike[str], *, start: float = 0.0, end: float | None = None) -> bool:
    """Whether the channels of a file, or of a part of it in seconds, hold sound, and their mean next to nothing."""
    info = audio_info(path)
    stop = info.duration if end is None or math.isnan(end) else min(end, info.duration)
    squares, frames = np.zeros(2), 0
    while info.channels > 1 and stop - start > 0.5 / info.sample_rate:
        last = min(start + BLOCK_SECONDS, stop)
        block = load_audio(path, sample_rate=info.sample_rate, start=start, end=last, channels="all")
        squares += np.sum(block**2, dtype=np.float64) / info.channels, np.sum(mix(block) ** 2, dtype=np.float64)
        start, frames = last, frames + len(block)
    channels, mean = squares / max(frames, 1)
    return cancels(float(channels), float(mean))


def open_samples(path: str | os.PathLike[str], *, sample_rate: int = SAMPLE_RATE) -> Sound:
    """The samples of a file, as ``load_audio`` gives them: an array, or of a long file a ``LongSound``.

    Raises:
        AudioError: the file cannot be used; what is wrong in the middle of a long one is an error when that is read.
    """
    return open_span(path, sample_rate=sample_rate)


def open_span(
    path: str | os.PathLike[str],
    *,
    sample_rate: int = SAMPLE_RATE,
    start: float = 0.0,
    end: float | None = None,
    channels: Channels = "mean",
) -> Sound:
    """Likewise of a part of a file; the arguments are those of ``load_audio``."""
    last = audio_info(path).duration if end is None or math.isnan(end) else end
    if last - start < 2 * BLOCK_SECONDS:
        return load_audio(path, sample_rate=sample_rate, start=start, end=end, channels=channels)
    return LongSound(path, sample_rate=sample_rate, start=start, end=end, duration=last - start, channels=channels)


class LongSound:
    """The samples of a long file, to be sliced like an array; only the blocks last used are in memory.

    Args:
        path: the file.
        sample_rate: of the samples, Hz.
        duration: in seconds, at least ``BLOCK_SECONDS``.
        start, end, channels: of the part of the file that is read, as for ``load_audio``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sample_rate: int,
        duration: float,
        start: float = 0.0,
        end: float | None = None,
        channels: Channels = "mean",
    ):
        self._start, self._end, self._channels = start, end, channels
        self._path, self._rate, self._size = path, sample_rate, BLOCK_SECONDS * sample_rate
        self._blocks = math.floor(duration / BLOCK_SECONDS)  # the last one has the rest too
        self._held: dict[int, NDArray[np.float32]] = {}
        self._length = (self._blocks - 1) * self._size + len(self._block(self._blocks - 1))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> NDArray[np.float32]:
        start, stop, step = part.indices(self._length)
        if step != 1:
            raise ValueError(f"step={step}: samples of a long file are read one after the other")
        pieces = []
        while start < stop:
            number = min(start // self._size, self._blocks - 1)
            block, first = self._block(number), start - number * self._size
            pieces.append(block[first : first + stop - start])
            start += len(pieces[-1])
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)

    def _block(self, number: int) -> NDArray[np.float32]:
        if number not in self._held:
            start = self._start + number * BLOCK_SECONDS
            end = self._end if number == self._blocks - 1 else start + BLOCK_SECONDS
            block = load_audio(self._path, sample_rate=self._rate, start=start, end=end, channels=self._channels)
            while len(self._held) >= _KEPT:
                del self._held[next(iter(self._held))]
            self._held[number] = block
        return self._held[number]
