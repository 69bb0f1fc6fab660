"""Waveforms: arrays of samples to mono float32 at one rate, and cutting them on a network's own grid of patches.

The pieces of a clip together say what the whole says. Also coloured noise. NumPy, SciPy and soxr only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
import scipy.fft
import soxr

from tfaudiotl.errors import AudioError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


Channels = Literal["mean", "first", "all"] | int

SAMPLE_RATE = 16_000  # Hz: of YAMNet and VGGish

MIN_RATE = 100  # Hz; below what records infrasound: at 1 Hz a file of 60 kB would become 1.9 GB at 16 kHz
MAX_RATE = 10_000_000  # Hz; beyond ultrasound recorders, so a larger "rate" is another number
_RINGING = 100  # of a second: after that the resampling filter's ringing is below -100 dB
_PEAK_LIMIT = 8.0  # 18 dB over full scale; float samples above it are integers that were never scaled
_FULL_SCALES = {8: 2.0**7, 16: 2.0**15, 24: 2.0**23, 32: 2.0**31}  # of integers, by their bits


def check_waveform(
    waveform: ArrayLike, *, sample_rate: int, target_rate: int = SAMPLE_RATE, name: str = "waveform"
) -> NDArray[np.float32]:
    """Turns an array of samples into a mono float32 waveform at ``target_rate``, or says why not.

    Args:
        waveform: (samples,) or (samples, channels). Floats are taken as they are, about [-1, 1];
            int8, int16 and int32 are divided by their full scale (128, 32768, 2**31); uint8 is
            offset binary as in 8-bit WAV (128 is zero).
        sample_rate: Rate of ``waveform``, Hz.
        target_rate: Rate of the result, Hz.
        name: What messages call the array.

    Returns:
        float32 (ceil(samples * target_rate / sample_rate),), about [-1, 1].

    Raises:
        AudioError: (a ValueError) Wrong shape or type, no samples, NaN or infinite samples, or
            float samples beyond 8, which are integers that were never scaled.
        ValueError: A rate is not a rate.
    """
    from_rate, to_rate = check_rate("sample_rate", sample_rate), check_rate("target_rate", target_rate)
    samples = np.asarray(waveform)
    check_shape(name, samples)
    mono = mix(scale(name, samples))
    check_samples(name, mono)
    return resample(mono, from_rate, to_rate)


def resample(waveform: ArrayLike, from_rate: int, to_rate: int) -> NDArray[np.float32]:
    """Changes the sample rate with soxr's high-quality, linear-phase filter (no delay).

    Args:
        waveform: Finite floats (samples,) or (samples, channels).
        from_rate: Its rate, Hz.
        to_rate: The rate wanted, Hz.

    Returns:
        float32 of ``ceil(samples * to_rate / from_rate)`` samples: one length formula for every
        file, where soxr itself rounds to either side.

    Raises:
        ValueError: A rate is not a rate.
    """
    source = np.asarray(waveform, np.float32)
    from_rate, to_rate = check_rate("from_rate", from_rate), check_rate("to_rate", to_rate)
    if from_rate == to_rate:
        return source
    length = resampled_length(len(source), from_rate, to_rate)
    if length == 0:
        return source[:0]
    result: NDArray[np.float32] = soxr.resample(source, from_rate, to_rate, quality="HQ")[:length]
    missing = length - len(result)
    if missing:
        result = np.pad(result, [(0, missing)] + [(0, 0)] * (result.ndim - 1))
    # Zeros at the end are padding, and where it begins must not hang on how far the filter's rounding noise reaches.
    if not np.any(source[-1]):
        sounding = np.flatnonzero(source if source.ndim == 1 else source.any(axis=1))
        end = resampled_length(int(sounding[-1]) + 1 if len(sounding) else 0, from_rate, to_rate)
        result[end + to_rate // _RINGING :] = 0
    return result


def is_silent(waveform: ArrayLike) -> bool:
    """Whether every sample is exactly 0, as a muted or failed recording has it."""
    return not np.any(np.asarray(waveform))


def check_rate(name: str, value: Any) -> int:
    """Returns a sample rate as an int, or raises a ValueError that names the argument.

    Args:
        name: What the message calls it.
        value: A whole number of Hz from 100 to 10 000 000.

    Raises:
        ValueError: It is not.
    """
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not MIN_RATE <= value <= MAX_RATE or int(value) != value:
        raise ValueError(
            f"{name}={value!r}: expected a whole number of Hz from {MIN_RATE} to {MAX_RATE}, such as 16000"
        )
    return int(value)


def resampled_length(frames: int, from_rate: int, to_rate: int) -> int:
    """Number of samples that ``frames`` samples become at another rate."""
    return -(-frames * to_rate // from_rate)  # ceil, in integers


def mix(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of the channels; a product is several times faster than numpy's mean of short rows."""
    if samples.ndim == 1:
        return samples
    channels = samples.shape[1]
    mixed: NDArray[np.float32] = samples @ np.full(channels, 1 / channels, np.float32)
    return mixed


QUIET = 1e-3  # of full scale, -60 dB: what stays below is counted as silence
CANCELLED = 1e-3  # of the channels' power, -30 dB: two of unrelated noise keep half of it in their mean


def cancels(channels: float, mean: float) -> bool:
    """Whether the channels of a recording cancel each other out, as a swapped pair of wires makes them.

    Args:
        channels: Mean square of the samples of all channels.
        mean: Mean square of the mean of the channels.
    """
    return channels > QUIET**2 / 2 and mean < CANCELLED * channels


def pick_channels(name: str, samples: NDArray[np.float32], channels: Channels) -> NDArray[np.float32]:
    """What ``load_audio(channels=...)`` asks for.

    Args:
        name: What messages call the recording.
        samples: (frames,) or (frames, channels).
        channels: "mean", "first", "all" or the number of one, from 0.

    Returns:
        (frames,), or (frames, channels) for "all".

    Raises:
        AudioError: There is no channel of that number.
    """
    if channels == "all":
        return samples.reshape(len(samples), -1)
    if channels == "mean":
        return mix(samples)
    number, count = 0 if isinstance(channels, str) else channels, 1 if samples.ndim == 1 else samples.shape[1]
    if number >= count:
        raise AudioError(name, f"has {count} channels, so none of number {number} (counted from 0)")
    return samples if samples.ndim == 1 else samples[:, number]


def check_samples(name: str, samples: NDArray[np.float32], *, first: int = 0) -> None:
    """Refuses what is not finite or was never scaled: one such sample spreads through any filter.

    Args:
        name: What messages call the samples.
        samples: (samples,) or (samples, channels), not empty.
        first: Number of the first of them, for messages, where they are part of a recording.

    Raises:
        AudioError: A sample is NaN, infinite, or beyond 8.
    """
    low, high = samples.min(), samples.max()  # NaN, if there is one, comes through both
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = np.flatnonzero(~np.isfinite(samples).reshape(len(samples), -1).all(axis=1))
        raise AudioError(name, f"{len(bad)} samples are NaN or infinite, the first is number {first + bad[0]}")
    peak = max(-low, high)
    if peak > _PEAK_LIMIT:
        bits = next((bits for bits, full in _FULL_SCALES.items() if peak <= full), None)
        if bits:
            full = f"divide them by the full scale of {bits} bits, {_FULL_SCALES[bits]:.0f}"
            scaling = f"look like integers that were not scaled: {full}"
        else:
            scaling = f"are larger than any integers' full scale: divide them by their peak, {peak:g}"
        raise AudioError(
            name,
            f"float samples reach {peak:g}, expected about [-1, 1]: they {scaling}, and write the result where they "
            "came from a file (samples, rate = soundfile.read(path); tfaudiotl.write_audio(path, samples / ..., "
            "sample_rate=rate))",
        )


def check_shape(name: str, samples: NDArray[Any]) -> None:
    """Refuses (as AudioError) what is neither (samples,) nor (samples, channels), or holds nothing."""
    expected = "expected (samples,) or (samples, channels)"
    if samples.ndim not in (1, 2):
        raise AudioError(name, f"has shape {samples.shape}, {expected}")
    if samples.size == 0:
        raise AudioError(name, f"has shape {samples.shape}, so no samples; {expected}")
    if samples.ndim == 2 and samples.shape[1] > samples.shape[0]:
        raise AudioError(
            name,
            f"has shape {samples.shape}, which looks like (channels, samples) or a batch; {expected}: "
            "pass its transpose, or one waveform at a time",
        )


def scale(name: str, samples: NDArray[Any]) -> NDArray[np.float32]:
    """To float32 in about [-1, 1], by the meaning of the type."""
    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)  # bytes in either order
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, which is refused
            return samples.astype(np.float32)
    if samples.dtype in (np.int8, np.int16, np.int32):
        full_scale = np.float32(-float(np.iinfo(samples.dtype).min))
        return samples.astype(np.float32) / full_scale
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / np.float32(128)
    advice = "expected a float type, int8, int16, int32 or uint8"
    if samples.dtype.kind in "iu":  # a list of 16-bit samples arrives as int64, whose full scale says nothing
        advice += f": cast it to the width it was recorded with, such as {name}.astype('int16')"
    raise AudioError(name, f"has dtype {samples.dtype}, {advice}")


# Cutting on a grid of patches

CLIP_SECONDS = (
    10.0  # sound of up to this length (in whole patches) is one piece, in training as in use: AudioSet's clips
)
FAINTEST = np.float32(1e-30)  # not zero, and nothing to any network: marks the end of a piece whose sound is silence


_LOOK = 1 << 16  # samples looked at together for the end of the sound


class Sound(Protocol):
    """Samples at the model's rate that can be measured and sliced: an array, or a long file read in parts."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray: ...


class Grid(Protocol):
    """Where a network's patches lie in a waveform; the front-ends of ``backbones`` are such grids."""

    @property
    def sample_rate(self) -> int:
        """Hz."""

    @property
    def min_samples(self) -> int:
        """Samples under one patch."""

    @property
    def patch_hop_samples(self) -> int:
        """Samples from one patch to the next."""

    def patches(self, samples: Any) -> Any:
        """Number of patches of a waveform of ``samples`` samples, at least 1."""

    def padded(self, samples: Any) -> Any:
        """Number of samples that ``patches(samples)`` patches cover."""


@dataclass(frozen=True)
class Piece:
    """A part of a clip: samples ``start`` to before ``stop``, and the number of patches in it, which is its weight."""

    start: int
    stop: int
    patches: int


def trim_padding(waveform: np.ndarray) -> np.ndarray:
    """The waveform without the zeros at its end; at least one sample stays."""
    sounding = np.flatnonzero(waveform)
    return waveform[: max(1, sounding[-1] + 1 if len(sounding) else 1)]


def sounding(sound: Sound) -> int:
    """Samples of a sound without the zeros at its end, at least 1."""
    stop = len(sound)
    while stop > 0:
        start = max(0, stop - _LOOK)
        found = np.flatnonzero(sound[start:stop])
        if len(found):
            return start + int(found[-1]) + 1
        stop = start
    return 1


def own_window(grid: Grid, seconds: float = CLIP_SECONDS) -> int:
    """Samples of the longest piece: the patches that sound of ``seconds`` has."""
    return int(grid.padded(round(seconds * grid.sample_rate)))


def cut(samples: int, grid: Grid, window: int | None = None) -> list[Piece]:
    """The pieces of a clip of ``samples`` samples: each of its patches lies in exactly one of them, as a whole.

    Pieces overlap in samples by as much as patches do, never in patches. So the mean of a classifier's scores over the
    patches, weighed by ``Piece.patches``, does not depend on the pieces.

    Args:
        samples: of the clip, at least 1, the padding at its end left off.
        grid: where the network's patches lie.
        window: samples in a piece at most, at least ``grid.min_samples``; None: ``own_window(grid)``.
    """
    window = own_window(grid) if window is None else window
    hop, total = grid.patch_hop_samples, int(grid.patches(samples))
    fitting = 1 + (window - grid.min_samples) // hop
    pieces, first = [], 0
    while first < total:
        start = first * hop
        rest = samples - start <= window
        count = total - first if rest else min(fitting, total - first)
        stop = samples if rest else min(samples, start + grid.min_samples + (count - 1) * hop)
        pieces.append(Piece(start, stop, count))
        first += count
    return pieces


def mark_end(samples: np.ndarray) -> np.ndarray:
    """The samples with an end that is not zero, so that a model takes no silence before it for padding."""
    if samples[-1]:
        return samples
    marked = samples.copy()
    marked[-1] = FAINTEST
    return marked


def read_piece(sound: Sound, piece: Piece, window: int | None = None) -> np.ndarray:
    """The samples of a piece, filled up with zeros to ``window`` of them.

    Silence at the piece's own end is marked as sound, since only what lies behind a clip's end is padding.
    """
    samples = np.asarray(sound[piece.start : piece.stop], np.float32)
    samples = mark_end(samples) if piece.patches > 1 else samples
    return np.pad(samples, (0, max(0, (window or 0) - len(samples))))


def pieces_of(sound: Sound, grid: Grid, window: int | None = None) -> list[tuple[np.ndarray, int]]:
    """The samples and the patches of each piece of a clip; pieces of a given ``window`` all have its length."""
    return [(read_piece(sound, piece, window), piece.patches) for piece in cut(sounding(sound), grid, window)]


def frames(sound: Sound, window: int, hop: int, first: int, count: int) -> np.ndarray:
    """Windows ``(count, window)`` of a timeline from number ``first`` on, the last one filled up with zeros."""
    held = sound[first * hop : (first + count - 1) * hop + window]
    held = np.pad(held, (0, (count - 1) * hop + window - len(held)))
    return np.stack([held[i * hop : i * hop + window] for i in range(count)])


Colour = Literal["white", "pink", "brown", "blue", "violet"]
COLOURS: tuple[Colour, ...] = get_args(Colour)
# Power goes with the frequency f as f ** exponent: 0, -3, -6, 3, 6 dB per octave.
EXPONENTS: dict[Colour, float] = {"white": 0.0, "pink": -1.0, "brown": -2.0, "blue": 1.0, "violet": 2.0}


def coloured_noise(colour: Colour | float, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise without a mean, float32 ``(samples,)``, of root mean square 1.

    Args:
        colour: a name, or the exponent of the frequency that the power goes with (pink: -1).
        samples: at least 2.
        rng: where the numbers come from.
    """
    exponent = EXPONENTS[colour] if isinstance(colour, str) else colour
    spectrum = scipy.fft.rfft(rng.standard_normal(samples, np.float32))
    spectrum[0] = 0
    spectrum[1:] *= np.arange(1, len(spectrum), dtype=np.float32) ** np.float32(exponent / 2)
    wave = scipy.fft.irfft(spectrum, samples)
    return (wave / max(float(np.sqrt(np.mean(np.square(wave)))), 1e-9)).astype(np.float32)
