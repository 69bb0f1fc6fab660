"""Augmentation: Keras layers that change sounds while a model trains, and never else.

Each layer works in a model (``layer(waveforms, training=True)``, randomness from its own
``keras.random.SeedGenerator``) and on a tf.data pipeline (``augment_dataset``, the same batches for the same
seed whatever the number of threads). All compute in float32. Zeros at the end of a waveform are padding and stay
zeros, so that a changed clip has as many valid patches as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from tfaudiotl.errors import check_number

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
