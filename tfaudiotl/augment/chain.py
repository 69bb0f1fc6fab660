"""What ``augment=`` takes: chains of augmentations, the mild one behind ``True``, and datasets with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from tfaudiotl._seeds import derived_seed
from tfaudiotl.augment.layers import (
    Augmentation,
    Draws,
    RandomEqualizer,
    RandomGain,
    RandomNoise,
    RandomShift,
    SeededDraws,
    Tensor,
)

if TYPE_CHECKING:
    import tensorflow as tf


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
            raise ValueError(f"steps={steps!r}: expected at least one, all layers such as tfaudiotl.RandomNoise()")

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
    return Chain(
        [
            RandomShift(0.25, probability=0.5),
            RandomGain((-6, 6)),
            RandomEqualizer(4.0, sample_rate=sample_rate, probability=0.5),
            RandomNoise((15, 40), sample_rate=sample_rate, probability=0.5),
        ],
        seed=seed,
    )


def as_augmentation(augment: Any, *, sample_rate: int | None) -> Augmentation | None:
    """True -> the mild chain; layers -> a chain of them; None and False -> None.

    Args:
        augment: as the caller gave it.
        sample_rate: of the waveforms, Hz; None where the caller did not say, which only layers can do without.

    Raises:
        ValueError: ``augment`` is something else, True without a sample rate, or a layer of another sample rate.
    """
    if augment is None or augment is False:
        return None
    if augment is True:
        if sample_rate is None:
            raise ValueError("augment=True: needs sample_rate=, the waveforms' in Hz")
        return mild_augmentation(sample_rate=sample_rate)
    if isinstance(augment, (list, tuple)):
        augment = Chain(augment)
    if isinstance(augment, Augmentation):
        _check_rates(augment, sample_rate)
        return augment
    raise ValueError(f"augment={augment!r}: expected True, False, or layers such as tfaudiotl.RandomNoise()")


def _check_rates(layer: Augmentation, sample_rate: int | None) -> None:
    """ValueError for a layer whose frequencies and seconds are those of another sample rate."""
    for step in layer.steps if isinstance(layer, Chain) else ():
        _check_rates(step, sample_rate)
    own = getattr(layer, "sample_rate", sample_rate)
    if sample_rate is not None and own != sample_rate:
        raise ValueError(
            f"augment: {type(layer).__name__} has sample_rate={own}, the waveforms have {sample_rate} Hz; "
            f"give it sample_rate={sample_rate}"
        )


def augment_dataset(
    dataset: tf.data.Dataset,
    augment: bool | Augmentation | Sequence[Augmentation] = True,
    *,
    sample_rate: int | None = None,
    seed: int = 0,
) -> tf.data.Dataset:
    """Changes the batches of a dataset, differently in every epoch, the same way in every run of one seed.

    Args:
        dataset: batches (waveforms, targets) or (waveforms, targets, sample weights), as ``Clips.dataset`` gives.
        augment: as for ``Clips.dataset``.
        sample_rate: of the waveforms, Hz; ``augment=True`` needs it, and layers are checked to have it.
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
