"""How heads and blocks are trained, in numbers, and the losses and weights that they mean."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from tfaudiotl.audio.splits import rarest_class
from tfaudiotl.models.builder import LOSSES
from tfaudiotl.models.freeze import BATCH_NORMS

VAL = 0.15  # share of what is trained on that tells when to stop


@dataclass(frozen=True)
class FitOptions:
    """How a head is trained.

    Attributes:
        epochs: at most so many.
        batch_size: clips per step, at most.
        learning_rate: Adam's.
        patience: epochs without a better validation loss before training stops.
        class_weight: "balanced" weighs each class by the inverse of its share; where a clip has several classes, the
            yes and the no of each class by the inverse of theirs. None weighs all alike. "auto": "balanced" where each
            clip has one class and ``sampling`` is None, else None.
        sampling: "balanced" draws clips so that every class comes equally often (then ``class_weight`` must be
            None or "auto", or rare classes would count twice); None takes each clip once an epoch.
        loss: "crossentropy", or "focal" (Keras's focal cross-entropy, gamma 2), which counts easy examples less.
        copies: with ``augment``: changed versions of each clip, at least 1.
        seed: of the order of the clips; ``train_classifier`` uses it for everything that is random.
    """

    epochs: int = 100
    batch_size: int = 32
    learning_rate: float = 2e-3
    patience: int = 5
    class_weight: str | None = "auto"
    sampling: str | None = None
    loss: str = "crossentropy"
    copies: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("patience", 1), ("copies", 0), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r}: a whole number of at least {least}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate={self.learning_rate!r}: a positive number")
        check_class_weight(self.class_weight)
        if self.sampling not in (None, "balanced"):
            raise ValueError(f"sampling={self.sampling!r}: allowed are 'balanced' and None")
        if self.sampling and self.class_weight == "balanced":
            raise ValueError("sampling='balanced' needs class_weight=None: both would count rare classes twice")
        if self.loss not in LOSSES:
            raise ValueError(f"loss={self.loss!r}: allowed are {', '.join(LOSSES)}")

    def applied(self, *, multi_label: bool) -> FitOptions:
        """These options with what "auto" means for clips of one class each, or of several."""
        weight = applied_class_weight(self.class_weight, multi_label=multi_label, sampling=self.sampling)
        return replace(self, class_weight=weight)


@dataclass(frozen=True)
class FineTuneOptions:
    """How a classifier is fine-tuned.

    Attributes:
        trainable: which blocks of the backbone train in the end: the last n, "layer12" and those after it, or "all".
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
        copies: with ``augment``: changed versions of each sound, at least 1.
        seed: of batches and copies.
    """

    trainable: int | str = 2
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
    copies: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"head_epochs": 0, "epochs": 1, "batch_size": 1, "patience": 1, "copies": 0, "seed": 0}
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


CLASS_WEIGHTS = ("auto", "balanced", None)


def check_class_weight(value: Any) -> None:
    """ValueError for a ``class_weight`` that is none of those allowed."""
    if value not in CLASS_WEIGHTS:
        raise ValueError(f"class_weight={value!r}: allowed are 'auto', 'balanced' and None")


def applied_class_weight(value: str | None, *, multi_label: bool, sampling: str | None = None) -> str | None:
    """What "auto" means for these clips: "balanced", or None where a clip has several classes or sampling balances."""
    if value == "auto":
        return None if multi_label or sampling else "balanced"
    return value


def balanced_weights(targets: np.ndarray) -> np.ndarray:
    """Weight of each example, ``n / (classes * count of its class)``: every class then weighs the same.

    An example of several classes counts for the rarest of them, one of none for a class of their own, as in
    ``balanced_draw``.
    """
    _, members, counts = np.unique(rarest_class(targets), return_inverse=True, return_counts=True)
    return np.asarray(len(targets) / (len(counts) * counts[members]))


def balanced_loss(loss: keras.losses.Loss, targets: np.ndarray) -> keras.losses.Loss:
    """``loss`` of independent classes with the balanced weights of ``targets``, class by class.

    Each class is a question of two answers, yes and no: with these weights, scikit-learn's of two classes, the yes and
    the no of every class weigh the same, however rare the class is.

    Args:
        loss: binary cross-entropy or its focal form.
        targets: ``(examples, classes)`` of the training part.
    """
    present, examples = (targets > 0).sum(axis=0), len(targets)
    return _PerClass(loss, *(examples / (2 * np.maximum(1, count)) for count in (present, examples - present)))


class _PerClass(keras.losses.Loss):
    """A loss of independent classes whose yes and no weigh differently."""

    def __init__(self, loss: keras.losses.Loss, present: np.ndarray, absent: np.ndarray):
        super().__init__(name=loss.name)
        self._loss = loss
        self._present, self._absent = (keras.ops.convert_to_tensor(w, "float32") for w in (present, absent))

    def call(self, y_true: Any, y_pred: Any) -> Any:
        losses = self._loss.call(y_true[..., None], y_pred[..., None])  # of each class, not their mean
        weights = y_true * self._present + (1.0 - y_true) * self._absent
        return keras.ops.mean(losses * weights, axis=-1)
