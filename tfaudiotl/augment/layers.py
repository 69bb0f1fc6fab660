"""Augmentations as Keras layers, which change sounds while a model trains, and never else.

Each layer works in a model (``layer(waveforms, training=True)``, randomness from its own
``keras.random.SeedGenerator``) and on a tf.data pipeline (``augment_dataset``, the same batches for the same
seed whatever the number of threads). All compute in float32. Zeros at the end of a waveform are padding and stay
zeros, so that a changed clip has as many valid patches as before.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
from keras import ops

from tfaudiotl._seeds import stream
from tfaudiotl.audio.files import load_audio
from tfaudiotl.audio.waveform import COLOURS, SAMPLE_RATE, Colour, check_rate, coloured_noise
from tfaudiotl.errors import check_choice, check_number

if TYPE_CHECKING:
    import tensorflow as tf


Tensor = Any
Range = Sequence[float]  # low and high; drawn evenly between them


class Draws:
    """Random numbers from a layer's SeedGenerator."""

    def __init__(self, generator: keras.random.SeedGenerator):
        self._generator = generator

    def uniform(self, shape: Sequence[Any], low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 in [low, high)."""
        return keras.random.uniform(shape, low, high, dtype="float32", seed=self._generator)

    def gamma(self, shape: Sequence[Any], alpha: float) -> Tensor:
        """float32 of the gamma distribution with scale 1."""
        return keras.random.gamma(shape, alpha, dtype="float32", seed=self._generator)

    def integers(self, shape: Sequence[Any], high: Any) -> Tensor:
        """int32 in [0, high); ``high`` may be a tensor that fits ``shape``."""
        high = ops.cast(high, "float32")
        return ops.cast(ops.minimum(self.uniform(shape) * high, high - 1), "int32")


class SeededDraws(Draws):
    """Random numbers that depend on a seed ``(2,)`` alone, for tf.data, where threads race for a generator's state."""

    def __init__(self, seed: tf.Tensor):
        self._seed, self._drawn = seed, 0

    def _next(self) -> tf.Tensor:
        self._drawn += 1
        return self._seed + np.array([0, self._drawn])

    def uniform(self, shape: Sequence[Any], low: float = 0.0, high: float = 1.0) -> Tensor:
        import tensorflow as tf

        return tf.random.stateless_uniform(shape, self._next(), low, high)

    def gamma(self, shape: Sequence[Any], alpha: float) -> Tensor:
        import tensorflow as tf

        return tf.random.stateless_gamma(shape, self._next(), alpha)


class Augmentation(keras.layers.Layer):
    """What the augmentations have in common; subclasses define ``change`` and name their options in ``OPTIONS``.

    Args:
        probability: share of the examples that are changed, in [0, 1].
        seed: of the layer's random numbers when it is used in a model; None draws one.
    """

    OPTIONS: tuple[str, ...] = ()
    changes_labels = False

    def __init__(self, *, probability: float = 1.0, seed: int | None = None, **kwargs: Any):
        kwargs["dtype"] = "float32"  # a waveform in half precision is noisy, and Fourier transforms have none
        super().__init__(**kwargs)
        check_number("probability", probability, least=0, most=1)
        self.probability, self.seed = probability, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        return self.augment(inputs, Draws(self.seed_generator)) if training else self.unchanged(inputs)

    def augment(self, inputs: Tensor, draws: Draws) -> Tensor:
        """``change`` for a share ``probability`` of the examples."""
        inputs = ops.convert_to_tensor(inputs, "float32")
        changed = self.change(inputs, draws)
        if self.probability == 1:
            return changed
        rank = len(inputs.shape)
        chosen = draws.uniform((ops.shape(inputs)[0], *[1] * (rank - 1))) < self.probability
        return ops.where(chosen, changed, self.unchanged(inputs))

    def change(self, inputs: Tensor, draws: Draws) -> Tensor:
        """Every example changed."""
        raise NotImplementedError(f"{type(self).__name__} defines no change(inputs, draws)")

    def unchanged(self, inputs: Tensor) -> Tensor:
        """What comes out when nothing is to be changed."""
        return inputs

    def augment_batch(
        self, waveforms: Tensor, targets: Tensor, weights: Tensor | None, draws: Draws
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Waveforms, targets and sample weights together, for augmentations that change labels too."""
        return self.augment(waveforms, draws), targets, weights

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        options = {name: getattr(self, name) for name in ("probability", "seed", *self.OPTIONS)}
        return {**super().get_config(), **options}


def sounding(waveforms: Tensor) -> Tensor:
    """Samples of each waveform up to its last one that is not zero: int32 (batch, 1), at least 1."""
    positions = ops.arange(1, ops.shape(waveforms)[1] + 1, dtype="int32")
    last = ops.max(ops.where(ops.not_equal(waveforms, 0), positions, 0), axis=1, keepdims=True)
    return ops.maximum(last, 1)


def gather(rows: Tensor, index: Tensor) -> Tensor:
    """``rows[b, index[b, n]]`` for (batch, samples) and int32 (batch, n)."""
    count, samples = ops.shape(rows)[0], ops.shape(rows)[1]
    offsets = ops.arange(count, dtype="int32")[:, None] * samples
    return ops.take(ops.reshape(rows, (-1,)), index + offsets, axis=0)


def level(waveforms: Tensor, length: Tensor) -> Tensor:
    """Root mean square over the first ``length`` samples, (batch, 1)."""
    return ops.sqrt(ops.sum(ops.square(waveforms), axis=1, keepdims=True) / ops.cast(length, "float32"))


def check_range(name: str, value: Any, *, least: float = -np.inf) -> tuple[float, float]:
    """A pair (low, high) as floats, or a ValueError that names the argument."""
    pair = tuple(value) if isinstance(value, (list, tuple)) else ()
    if (
        len(pair) != 2
        or not all(isinstance(number, (int, float)) for number in pair)
        or not least <= pair[0] <= pair[1]
    ):
        bound = "" if least == -np.inf else f", low at least {least:g}"
        raise ValueError(f"{name}={value!r}: expected (low, high){bound}")
    return float(pair[0]), float(pair[1])


_BANK_SECONDS = 8.0  # of each synthetic noise; a piece from a random place is used
_BANK_SEED = 1  # the noises themselves are always the same, which of them and where is drawn
_ROOMS = 16  # synthetic impulse responses

register = keras.saving.register_keras_serializable(package="tfaudiotl")


@register
class RandomGain(Augmentation):
    """Makes each sound louder or softer.

    Args:
        decibels: (low, high).
    """

    OPTIONS = ("decibels",)

    def __init__(self, decibels: Range = (-6.0, 6.0), **kwargs: Any):
        super().__init__(**kwargs)
        self.decibels = check_range("decibels", decibels)

    def change(self, inputs: Tensor, draws: Draws) -> Tensor:
        decibels = draws.uniform((ops.shape(inputs)[0], 1), *self.decibels)
        return inputs * ops.power(10.0, decibels / 20.0)


@register
class RandomShift(Augmentation):
    """Moves each sound in time; what leaves at one end comes in at the other, padding stays at the end.

    Args:
        fraction: the most that it moves to either side, as a share of the sound's length, in [0, 1].
    """

    OPTIONS = ("fraction",)

    def __init__(self, fraction: float = 0.5, **kwargs: Any):
        super().__init__(**kwargs)
        check_number("fraction", fraction, least=0, most=1)
        self.fraction = fraction

    def change(self, inputs: Tensor, draws: Draws) -> Tensor:
        length = sounding(inputs)
        shift = draws.uniform((ops.shape(inputs)[0], 1), -self.fraction, self.fraction) * ops.cast(length, "float32")
        here = ops.arange(ops.shape(inputs)[1], dtype="int32")[None]
        moved = ops.mod(here - ops.cast(shift, "int32"), length)
        return gather(inputs, ops.where(here < length, moved, here))


@register
class RandomCrop(Augmentation):
    """A part of each sound, from a random place within it; outside training from its middle.

    Args:
        seconds: length of the part, which must not exceed the waveforms'.
        sample_rate: of the waveforms, Hz.
    """

    OPTIONS = ("seconds", "sample_rate")

    def __init__(self, seconds: float, *, sample_rate: int = SAMPLE_RATE, **kwargs: Any):
        super().__init__(**kwargs)
        self.seconds, self.sample_rate = seconds, check_rate("sample_rate", sample_rate)
        check_number("seconds", seconds, above=0)

    @property
    def _samples(self) -> int:
        return max(1, round(self.seconds * self.sample_rate))

    def change(self, inputs: Tensor, draws: Draws) -> Tensor:
        spare = ops.maximum(sounding(inputs) - self._samples, 0)
        return self._cut(inputs, draws.integers((ops.shape(inputs)[0], 1), spare + 1))

    def unchanged(self, inputs: Tensor) -> Tensor:
        return self._cut(inputs, ops.maximum(sounding(inputs) - self._samples, 0) // 2)

    def _cut(self, inputs: Tensor, start: Tensor) -> Tensor:
        self.compute_output_shape(inputs.shape)
        return gather(ops.convert_to_tensor(inputs), start + ops.arange(self._samples, dtype="int32")[None])

    def compute_output_shape(self, input_shape: Any) -> Any:
        if input_shape[1] is not None and input_shape[1] < self._samples:
            raise ValueError(f"seconds={self.seconds!r}: the waveforms have {input_shape[1]} samples, fewer than that")
        return (input_shape[0], self._samples)


@register
class RandomNoise(Augmentation):
    """Adds noise at a drawn ratio of the sound's power to the noise's.

    Args:
        snr_db: (low, high) signal-to-noise ratio, dB.
        colours: synthetic noises to choose among: "white", "pink", "brown", "blue", "violet".
        files: recordings to choose among instead.
        sample_rate: of the waveforms, Hz.
    """

    OPTIONS = ("snr_db", "colours", "files", "sample_rate")

    def __init__(
        self,
        snr_db: Range = (10.0, 30.0),
        *,
        colours: Sequence[Colour] = ("white", "pink", "brown"),
        files: Sequence[str | os.PathLike[str]] = (),
        sample_rate: int = SAMPLE_RATE,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.snr_db, self.sample_rate = check_range("snr_db", snr_db), check_rate("sample_rate", sample_rate)
        self.colours, self.files = list(colours), [os.fspath(file) for file in files]
        unknown = [colour for colour in self.colours if colour not in COLOURS]
        if unknown or not (self.colours or self.files):
            raise ValueError(f"colours={list(colours)!r}: expected some of {', '.join(COLOURS)}, or files=")
        self._noises: _Sounds | None = None

    def change(self, inputs: Tensor, draws: Draws) -> Tensor:
        if self._noises is None:  # only training needs the files
            self._noises = _Sounds(
                [load_audio(file, sample_rate=self.sample_rate) for file in self.files]
                or [self._synthetic(colour) for colour in self.colours]
            )
        count, samples, length = ops.shape(inputs)[0], ops.shape(inputs)[1], sounding(inputs)
        here = ops.arange(samples, dtype="int32")[None]
        noise = ops.where(here < length, self._noises.pieces(count, here, draws), 0.0)
        snr = draws.uniform((count, 1), *self.snr_db)
        wanted = level(inputs, length) * ops.power(10.0, -snr / 20.0)
        return inputs + noise * wanted / ops.maximum(level(noise, length), 1e-9)

    def _synthetic(self, colour: Colour) -> np.ndarray:
        samples = int(_BANK_SECONDS * self.sample_rate)
        return coloured_noise(colour, samples, stream("noise bank", _BANK_SEED, colour))


class _Sounds:
    """Recordings of different lengths end to end, of which pieces are taken."""

    def __init__(self, sounds: Sequence[np.ndarray]):
        lengths = np.array([len(sound) for sound in sounds], np.int32)
        self._flat = np.concatenate(sounds).astype(np.float32)
        self._lengths, self._starts = lengths, np.cumsum(lengths, dtype=np.int32) - lengths

    def pieces(self, count: Any, here: Tensor, draws: Draws) -> Tensor:
        """``count`` pieces (count, samples), each from a random place in a random recording, round its end."""
        which = draws.integers((count, 1), len(self._lengths))
        length, start = (ops.take(ops.convert_to_tensor(part), which, axis=0) for part in (self._lengths, self._starts))
        place = ops.mod(draws.integers((count, 1), length) + here, length)
        return ops.take(ops.convert_to_tensor(self._flat), start + place, axis=0)


@register
class RandomEqualizer(Augmentation):
    """Turns the knobs of an equalizer, and may cut the lows and the highs, without delay.

    Args:
        max_db: the most that a band is raised or lowered.
        bands: their number, evenly spaced in octaves from 60 Hz to half the rate.
        high_pass: (low, high) of a drawn cut-off, Hz, 24 dB per octave; None leaves the lows.
        low_pass: the same for the highs.
        sample_rate: of the waveforms, Hz.
    """

    OPTIONS = ("max_db", "bands", "high_pass", "low_pass", "sample_rate")

    def __init__(
        self,
        max_db: float = 6.0,
        *,
        bands: int = 8,
        high_pass: Range | None = None,
        low_pass: Range | None = None,
        sample_rate: int = SAMPLE_RATE,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_number("max_db", max_db, least=0)
        check_number("bands", bands, least=2, whole=True)
        self.max_db, self.bands, self.sample_rate = max_db, bands, check_rate("sample_rate", sample_rate)
        self.high_pass = None if high_pass is None else check_range("high_pass", high_pass, least=1.0)
        self.low_pass = None if low_pass is None else check_range("low_pass", low_pass, least=1.0)

    def change(self, inputs: Tensor, draws: Draws) -> Tensor:
        size, count = fft_size(inputs, 1_024), ops.shape(inputs)[0]
        hertz = np.maximum(np.fft.rfftfreq(size, 1 / self.sample_rate), 1.0)
        centres = np.geomspace(60.0, self.sample_rate / 2, self.bands)
        knobs = np.stack([np.interp(np.log(hertz), np.log(centres), row) for row in np.eye(self.bands)])
        decibels = ops.matmul(draws.uniform((count, self.bands), -self.max_db, self.max_db), knobs.astype(np.float32))
        response = ops.power(10.0, decibels / 20.0)
        frequency = ops.convert_to_tensor(hertz.astype(np.float32))
        if self.high_pass:
            response = response / ops.sqrt(1 + ops.power(draws.uniform((count, 1), *self.high_pass) / frequency, 8.0))
        if self.low_pass:
            response = response / ops.sqrt(1 + ops.power(frequency / draws.uniform((count, 1), *self.low_pass), 8.0))
        real, imaginary = ops.rfft(inputs, fft_length=size)
        result = ops.irfft((real * response, imaginary * response), fft_length=size)[:, : inputs.shape[1]]
        return keep_padding(result, sounding(inputs))


@register
class RandomSpeed(Augmentation):
    """Plays each sound faster or slower, which raises or lowers its pitch, by cubic interpolation.

    Args:
        factors: (low, high): 1.1 is a tenth faster and 1.65 semitones higher.
    """

    OPTIONS = ("factors",)

    def __init__(self, factors: Range = (0.9, 1.1), **kwargs: Any):
        super().__init__(**kwargs)
        self.factors = check_range("factors", factors, least=0.1)

    def change(self, inputs: Tensor, draws: Draws) -> Tensor:
        samples, length = ops.shape(inputs)[1], sounding(inputs)
        factor = draws.uniform((ops.shape(inputs)[0], 1), *self.factors)
        place = ops.arange(samples, dtype="float32")[None] * factor
        below = ops.cast(ops.floor(place), "int32")
        part = place - ops.cast(below, "float32")
        # Catmull-Rom: the cubic through two samples with the slopes between their neighbours.
        before, left, right, after = (gather(inputs, ops.clip(below + step, 0, samples - 1)) for step in (-1, 0, 1, 2))
        slope, bend = (right - before) / 2, before - 2.5 * left + 2 * right - after / 2
        twist = (after - before) / 2 + 1.5 * (left - right)
        result = ((twist * part + bend) * part + slope) * part + left
        return ops.where(place < ops.cast(length, "float32"), result, 0.0)


@register
class RandomReverb(Augmentation):
    """Puts each sound into a room, by convolution with an impulse response; loudness and length stay.

    Args:
        wet: (low, high) share of the room in the result, in [0, 1].
        seconds: (low, high) of synthetic rooms' reverberation times (decay by 60 dB).
        files: recorded impulse responses instead.
        sample_rate: of the waveforms, Hz.
    """

    OPTIONS = ("wet", "seconds", "files", "sample_rate")

    def __init__(
        self,
        wet: Range = (0.1, 0.5),
        *,
        seconds: Range = (0.1, 0.8),
        files: Sequence[str | os.PathLike[str]] = (),
        sample_rate: int = SAMPLE_RATE,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.wet, self.seconds = check_range("wet", wet, least=0.0), check_range("seconds", seconds, least=0.01)
        self.files, self.sample_rate = [os.fspath(file) for file in files], check_rate("sample_rate", sample_rate)
        self._rooms: np.ndarray | None = None

    def change(self, inputs: Tensor, draws: Draws) -> Tensor:
        if self._rooms is None:
            self._rooms = self._responses()
        count, length = ops.shape(inputs)[0], sounding(inputs)
        rooms = ops.take(ops.convert_to_tensor(self._rooms), draws.integers((count,), len(self._rooms)), axis=0)
        size = fft_size(inputs, self._rooms.shape[1])
        (real, imaginary), (room, turn) = (ops.rfft(part, fft_length=size) for part in (inputs, rooms))
        product = (real * room - imaginary * turn, real * turn + imaginary * room)
        echo = keep_padding(ops.irfft(product, fft_length=size)[:, : inputs.shape[1]], length)
        before = level(inputs, length)
        echo = echo * before / ops.maximum(level(echo, length), 1e-9)
        wet = draws.uniform((count, 1), *self.wet)
        mixed = (1 - wet) * inputs + wet * echo
        return mixed * before / ops.maximum(level(mixed, length), 1e-9)

    def _responses(self) -> np.ndarray:
        """(rooms, samples): from the direct sound on, where recorded."""
        if self.files:
            found = [load_audio(file, sample_rate=self.sample_rate) for file in self.files]
            found = [response[np.abs(response).argmax() :] for response in found]
        else:
            rng = stream("room bank", _BANK_SEED)
            found = []
            for seconds in np.geomspace(*self.seconds, _ROOMS):
                time = np.arange(int(seconds * self.sample_rate)) / self.sample_rate
                found.append(rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds))
        longest = max(map(len, found))
        return np.stack([np.pad(response, (0, longest - len(response))) for response in found]).astype(np.float32)


def fft_size(inputs: Tensor, more: int) -> int:
    """The power of two that holds the waveforms and ``more`` samples."""
    if inputs.shape[1] is None:
        raise ValueError("this augmentation needs waveforms of a fixed length: give Input((samples,)) or a window")
    return 1 << (int(inputs.shape[1]) + more - 1).bit_length()


def keep_padding(waveforms: Tensor, length: Tensor) -> Tensor:
    """Zeros from sample ``length`` on."""
    here = ops.arange(ops.shape(waveforms)[1], dtype="int32")[None]
    return ops.where(here < length, waveforms, 0.0)


MixedLabels = Literal["mix", "union"]


@keras.saving.register_keras_serializable(package="tfaudiotl")
class MixUp(Augmentation):
    """Adds another example of the batch to each, and its label.

    ``x = share * x + (1 - share) * x_other`` with a share drawn from Beta(alpha, alpha), the larger part
    being the example's own (Zhang et al., "mixup", ICLR 2018). In a model it takes and gives a pair
    ``[waveforms, targets]``.

    Args:
        alpha: over 0; the smaller, the more examples stay nearly as they were.
        labels: "mix" targets as the sounds are mixed (one class per clip); "union": every class of
            either, in full (multi-label: a sound is present or not).
    """

    OPTIONS = ("alpha", "labels")
    changes_labels = True

    def __init__(self, alpha: float = 0.2, *, labels: MixedLabels = "mix", **kwargs: Any):
        super().__init__(**kwargs)
        check_number("alpha", alpha, above=0)
        check_choice("labels", labels, MixedLabels)
        self.alpha, self.labels = alpha, labels

    def augment(self, inputs: Tensor, draws: Draws) -> Tensor:
        if not isinstance(inputs, (list, tuple)) or len(inputs) != 2:
            raise ValueError("MixUp changes labels too: it takes [waveforms, targets]")
        waveforms, targets, _ = self.augment_batch(inputs[0], inputs[1], None, draws)
        return [waveforms, targets]

    def augment_batch(
        self, waveforms: Tensor, targets: Tensor, weights: Tensor | None, draws: Draws
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        waveforms, targets = ops.convert_to_tensor(waveforms, "float32"), ops.convert_to_tensor(targets, "float32")
        count = ops.shape(waveforms)[0]
        one, two = draws.gamma((count, 1), self.alpha), draws.gamma((count, 1), self.alpha)
        share = ops.where(one + two > 0, one / ops.maximum(one + two, 1e-30), 1.0)
        share = ops.maximum(share, 1 - share)
        share = ops.where(draws.uniform((count, 1)) < self.probability, share, 1.0)
        # One step for the whole batch, so that nothing is mixed with itself where there is anything else.
        step = 1 + draws.integers((), ops.maximum(count - 1, 1))
        other = ops.mod(ops.arange(count, dtype="int32") + step, count)
        mixed = share * waveforms + (1 - share) * ops.take(waveforms, other, axis=0)
        theirs = ops.take(targets, other, axis=0)
        if self.labels == "union":
            targets = ops.where(share < 1, ops.maximum(targets, theirs), targets)
        else:
            targets = share * targets + (1 - share) * theirs
        if weights is not None:
            weights = share[:, 0] * weights + (1 - share[:, 0]) * ops.take(weights, other, axis=0)
        return mixed, targets, weights


@keras.saving.register_keras_serializable(package="tfaudiotl")
class SpecAugment(Augmentation):
    """Covers stripes of spectrograms: spans of time, and bands (Park et al., "SpecAugment", Interspeech 2019).

    Works on ``(batch, frames, bands)`` or ``(batch, frames, bands, channels)``, in a model behind the
    front-end. Stripes take the example's mean.

    Args:
        time_masks: number of spans.
        max_frames: the most frames of one.
        band_masks: number of bands.
        max_bands: the most bands of one.
    """

    OPTIONS = ("time_masks", "max_frames", "band_masks", "max_bands")

    def __init__(
        self, *, time_masks: int = 2, max_frames: int = 16, band_masks: int = 2, max_bands: int = 8, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.time_masks, self.max_frames = time_masks, max_frames
        self.band_masks, self.max_bands = band_masks, max_bands
        for name in self.OPTIONS:
            check_number(name, getattr(self, name), least=0, whole=True)

    def change(self, inputs: Tensor, draws: Draws) -> Tensor:
        rank, axes = len(inputs.shape), tuple(range(1, len(inputs.shape)))
        mean = ops.mean(inputs, axis=axes, keepdims=True)
        for axis, masks, widest in ((1, self.time_masks, self.max_frames), (2, self.band_masks, self.max_bands)):
            size = ops.shape(inputs)[axis]
            place = ops.reshape(ops.arange(size, dtype="int32"), [-1 if d == axis else 1 for d in range(rank)])
            for _ in range(masks):
                shape = (ops.shape(inputs)[0], *[1] * (rank - 1))
                width = draws.integers(shape, ops.minimum(widest, size) + 1)
                start = draws.integers(shape, size - width + 1)
                covered = ops.logical_and(place >= start, place < start + width)
                inputs = ops.where(covered, mean, inputs)
        return inputs
