"""How a classifier is fine-tuned, in numbers, and the loss that they mean."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, replace
from typing import Any

import keras

from tfaudiotl.models.freeze import BATCH_NORMS
from tfaudiotl.training.weighting import applied_class_weight, check_class_weight


@dataclass(frozen=True)
class FineTuneOptions:
    """How a classifier is fine-tuned.

    Attributes:
        blocks: which blocks of the backbone train in the end: the last n, "layer12" and those after it, or "all".
        head_epochs: epochs at most with the whole backbone frozen; 0 takes the head as it is.
        epochs: epochs at most with the blocks.
        batch_size: windows per step.
        head_learning_rate: Adam's for the head alone.
        learning_rate: Adam's for head and blocks; each begins at 0 and ends there.
        block_decay: the last block learns at this share of ``learning_rate``, the one before at its square, and so on.
        warmup: share of the steps in which the rate rises.
        patience: epochs without a better validation loss before a stage stops.
        refit: once it is known when to stop, begin again and train for as many epochs on all clips, those that told it
            too: twice the time, for as many more clips to learn.
        gradual: unfreeze one block after another, each for its share of ``epochs``.
        label_smoothing: share of the target that is spread over all classes, in [0, 1).
        focal_gamma: above 0 weighs examples down that are right already (focal loss); 2 is usual.
        class_weight: "balanced" weighs each class by the inverse of its share; where a clip has several classes, the
            yes and the no of each class by the inverse of theirs. None weighs all alike. "auto": "balanced" where each
            clip has one class, else None.
        batch_norm: of the blocks that train: "frozen" or "train"; see ``freeze``.
        cache: run the frozen part once; False runs all of it in every epoch.
        variants: with ``augment``: copies of each sound in the cache, the first of them the sound as it is.
        seed: of batches and variants.
    """

    blocks: int | str = 2
    head_epochs: int = 30
    epochs: int = 20
    batch_size: int = 32
    head_learning_rate: float = 2e-3
    learning_rate: float = 3e-4
    block_decay: float = 0.8
    warmup: float = 0.1
    patience: int = 5
    refit: bool = False
    gradual: bool = False
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    class_weight: str | None = "auto"
    batch_norm: str = "frozen"
    cache: bool = True
    variants: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"head_epochs": 0, "epochs": 1, "batch_size": 1, "patience": 1, "variants": 1, "seed": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < bound:
                raise ValueError(f"{name}={value!r}: a whole number of at least {bound}")
        for name in ("head_learning_rate", "learning_rate", "block_decay"):
            value = getattr(self, name)
            if not (_is_number(value) and value > 0):
                raise ValueError(f"{name}={value!r}: a positive number")
        for name in ("warmup", "label_smoothing"):
            if not (_is_number(getattr(self, name)) and 0 <= getattr(self, name) < 1):
                raise ValueError(f"{name}={getattr(self, name)!r}: allowed is 0 up to, not including, 1")
        if not (_is_number(self.focal_gamma) and self.focal_gamma >= 0):
            raise ValueError(f"focal_gamma={self.focal_gamma!r}: a number of at least 0")
        for name in ("cache", "refit", "gradual"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r}: allowed are True and False")
        check_class_weight(self.class_weight)
        if self.batch_norm not in BATCH_NORMS:
            raise ValueError(f"batch_norm={self.batch_norm!r}: allowed are {' and '.join(map(repr, BATCH_NORMS))}")

    def applied(self, *, multi_label: bool) -> FineTuneOptions:
        """These options with what "auto" means for clips of one class each, or of several."""
        return replace(self, class_weight=applied_class_weight(self.class_weight, multi_label=multi_label))


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)


def loss_of(options: FineTuneOptions, *, multi_label: bool) -> keras.losses.Loss:
    """Keras's cross-entropy or focal loss, with label smoothing."""
    smoothing, gamma = options.label_smoothing, options.focal_gamma
    if multi_label and gamma:
        return keras.losses.BinaryFocalCrossentropy(gamma=gamma, label_smoothing=smoothing)
    if multi_label:
        return keras.losses.BinaryCrossentropy(label_smoothing=smoothing)
    if gamma:
        return keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=gamma, label_smoothing=smoothing)
    return keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
