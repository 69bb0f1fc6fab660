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

from tfaudiotl._seeds import derived_seed

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Augmentation", "Chain", "augment_dataset", "as_augmentation", "mild_augmentation"]

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
        if not 0 <= probability <= 1:
            raise ValueError(f"probability={probability!r}: allowed is 0 to 1")
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


@keras.saving.register_keras_serializable(package="tfaudiotl")
class Chain(Augmentation):
    """Augmentations one after another.

    Args:
        steps: ``Augmentation`` layers of waveforms.
    """

    def __init__(self, steps: Sequence[Augmentation], **kwargs: Any):
        super().__init__(**kwargs)
        self.steps = list(steps)
        wrong = [step for step in self.steps if not isinstance(step, Augmentation)]
        if wrong or not self.steps:
            raise ValueError(f"steps={steps!r}: expected at least one, all layers of tfaudiotl.audio.augment")

    def build(self, input_shape: Any) -> None:
        for step in self.steps:
            step.build(input_shape)
            input_shape = step.compute_output_shape(input_shape)

    @property
    def changes_labels(self) -> bool:  # type: ignore[override]
        """Whether one of the steps does."""
        return any(step.changes_labels for step in self.steps)

    def change(self, inputs: Tensor, draws: Draws) -> Tensor:
        for step in self.steps:
            inputs = step.augment(inputs, draws)
        return inputs

    def unchanged(self, inputs: Tensor) -> Tensor:
        for step in self.steps:
            inputs = step.unchanged(inputs)
        return inputs

    def augment_batch(
        self, waveforms: Tensor, targets: Tensor, weights: Tensor | None, draws: Draws
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        if self.probability < 1:  # steps with labels of their own have their own probability
            return super().augment_batch(waveforms, targets, weights, draws)
        for step in self.steps:
            waveforms, targets, weights = step.augment_batch(waveforms, targets, weights, draws)
        return waveforms, targets, weights

    def compute_output_shape(self, input_shape: Any) -> Any:
        for step in self.steps:
            input_shape = step.compute_output_shape(input_shape)
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "steps": [keras.saving.serialize_keras_object(step) for step in self.steps]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Chain:
        steps = [keras.saving.deserialize_keras_object(step) for step in config.pop("steps")]
        return cls(steps, **config)


def mild_augmentation(*, sample_rate: int = 16_000, seed: int | None = None) -> Chain:
    """The chain behind ``augment=True``; docs/augmentation.md has what each step is worth."""
    from tfaudiotl.audio.distort import RandomEqualizer, RandomGain, RandomNoise, RandomShift

    return Chain(
        [
            RandomShift(0.25, probability=0.5),
            RandomGain((-6, 6)),
            RandomEqualizer(4.0, sample_rate=sample_rate, probability=0.5),
            RandomNoise((15, 40), probability=0.5),
        ],
        seed=seed,
    )


def as_augmentation(augment: Any, *, sample_rate: int | None) -> Augmentation | None:
    """True -> the mild chain; layers -> a chain of them; None and False -> None.

    Args:
        augment: as the caller gave it.
        sample_rate: of the waveforms, Hz; None where the caller did not say, which only layers can do without.

    Raises:
        ValueError: ``augment`` is something else, or True without a sample rate.
    """
    if augment is None or augment is False:
        return None
    if augment is True:
        if sample_rate is None:
            raise ValueError("augment=True: needs sample_rate=, the waveforms' in Hz")
        return mild_augmentation(sample_rate=sample_rate)
    if isinstance(augment, Augmentation):
        return augment
    if isinstance(augment, (list, tuple)):
        return Chain(augment)
    raise ValueError(f"augment={augment!r}: expected True, False, or layers of tfaudiotl.audio.augment")


def augment_dataset(
    dataset: tf.data.Dataset,
    augment: bool | Augmentation | Sequence[Augmentation] = True,
    *,
    sample_rate: int | None = None,
    seed: int = 0,
) -> tf.data.Dataset:
    """Changes the batches of a dataset, anew in every epoch, the same in every run of one seed.

    Args:
        dataset: batches (waveforms, targets) or (waveforms, targets, sample weights), as ``Clips.dataset`` gives.
        augment: as for ``Clips.dataset``.
        sample_rate: of the waveforms, Hz; ``augment=True`` needs it.
        seed: of the random numbers.

    Raises:
        ValueError: ``augment`` is none of these, or True without ``sample_rate``.
    """
    import tensorflow as tf

    layer = as_augmentation(augment, sample_rate=sample_rate)
    if layer is None:
        return dataset

    def change(batch: tuple[tf.Tensor, ...], number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        waveforms, targets, weights = (*batch, None)[:3]
        changed = layer.augment_batch(waveforms, targets, weights, SeededDraws(number))
        return tuple(part for part in changed if part is not None)

    drawn = derived_seed("dataset augmentation", seed)
    seeds = tf.data.Dataset.random(seed=drawn, rerandomize_each_iteration=True).batch(2, drop_remainder=True)
    zipped = tf.data.Dataset.zip((dataset, seeds))
    return zipped.map(change, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)


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


# These register with Keras when this module is loaded; they need it whole, so the import stands last.
import tfaudiotl.audio.distort  # noqa: E402
import tfaudiotl.audio.masking  # noqa: E402, F401
