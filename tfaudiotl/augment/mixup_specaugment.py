"""Augmentations that need more than a waveform: mixing two examples and their labels, masking spectrograms."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from tfaudiotl.augment.layer import Augmentation, Draws, Tensor
from tfaudiotl.errors import check_choice, check_number

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
