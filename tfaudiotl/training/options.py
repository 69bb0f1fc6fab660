"""How heads and blocks are trained, in numbers, and the losses and weights that they mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import keras
import numpy as np

from tfaudiotl.classifiers.edit import BatchNorm
from tfaudiotl.data.splits import rarest_class
from tfaudiotl.errors import check_choice, check_number

VAL = 0.15  # share of what is trained on that tells when to stop
ClassWeight = Literal["auto", "balanced"] | None
Sampling = Literal["balanced"] | None
Loss = Literal["crossentropy", "focal"]
Solver = Literal["adam", "discriminant"]
_Any = TypeVar("_Any", bound="_Options")


@dataclass(frozen=True)
class _Options:
    """What both ways of training have in common; ``FitOptions`` and ``FineTuneOptions`` say what it means."""

    epochs: int
    batch_size: int = 32
    learning_rate: float = 2e-3
    patience: int = 5
    class_weight: ClassWeight = "auto"
    loss: Loss = "crossentropy"
    focal_gamma: float = 2.0
    label_smoothing: float = 0.0
    copies: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("patience", 1), ("copies", 0), ("seed", 0)):
            check_number(name, getattr(self, name), least=least, whole=True)
        check_number("learning_rate", self.learning_rate, above=0)
        check_number("label_smoothing", self.label_smoothing, least=0, below=1)
        check_number("focal_gamma", self.focal_gamma, above=0)
        check_choice("class_weight", self.class_weight, ClassWeight)
        check_choice("loss", self.loss, Loss)

    def applied(self: _Any, *, multi_label: bool) -> _Any:
        """These options with what "auto" means for clips of one class each, or of several."""
        if self.class_weight != "auto":
            return self
        return replace(self, class_weight=None if multi_label or getattr(self, "sampling", None) else "balanced")


@dataclass(frozen=True)
class FitOptions(_Options):
    """How a head is trained.

    Attributes:
        epochs: at most so many.
        batch_size: clips per step, at most.
        learning_rate: Adam's.
        patience: epochs without a better validation loss before training stops.
        class_weight: "balanced" weighs each class by the inverse of its share; where a clip has several classes, the
            yes and the no of each class by the inverse of theirs. None weighs all alike. "auto": "balanced" where each
            clip has one class and ``sampling`` is None, else None.
        loss: "crossentropy", or "focal", which counts examples less that are right already (Lin et al., arXiv
            1708.02002; without its factor alpha, which ``class_weight`` stands for).
        focal_gamma: of the focal loss, over 0: how much less.
        label_smoothing: share of the target that is spread over all classes, in [0, 1).
        copies: with ``augment``: changed versions of each clip, at least 1.
        seed: of the order of the clips; ``train_classifier`` uses it for everything that is random.
        sampling: "balanced" draws clips so that every class comes equally often (then ``class_weight`` must be
            None or "auto", or rare classes would count twice); None takes each clip once an epoch.
        solver: "adam", or "discriminant": a linear head (``hidden=()``) by linear discriminant analysis with a shrunk
            covariance, in closed form and in seconds. Inner folds of the training clips choose the strength of
            shrinkage, so no clips need to tell when to stop. For clips of one class each. Weights count; epochs,
            batches and rates there are none.
    """

    epochs: int = 100
    sampling: Sampling = None
    solver: Solver = "adam"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("sampling", self.sampling, Sampling)
        if self.sampling and self.class_weight == "balanced":
            raise ValueError("sampling='balanced' needs class_weight=None: both would count rare classes twice")
        check_choice("solver", self.solver, Solver)
        if self.solver == "discriminant" and (self.loss != "crossentropy" or self.label_smoothing):
            raise ValueError(
                "solver='discriminant' minimises no loss: loss= and label_smoothing= go with solver='adam'"
            )

    def applied(self, *, multi_label: bool) -> FitOptions:
        """As for every training; ValueError for clips of several classes with ``solver="discriminant"``."""
        if multi_label and self.solver == "discriminant":
            raise ValueError(
                "solver='discriminant' takes one class for each clip, and these may have several: use solver='adam'"
            )
        return super().applied(multi_label=multi_label)


@dataclass(frozen=True)
class FineTuneOptions(_Options):
    """How a classifier is fine-tuned.

    Attributes:
        epochs: epochs at most with the blocks.
        batch_size: windows per step.
        learning_rate: Adam's for head and blocks; each begins at 0 and ends there.
        patience: epochs without a better validation loss before a stage stops.
        class_weight: as in ``FitOptions``.
        loss: as in ``FitOptions``.
        focal_gamma: as in ``FitOptions``.
        label_smoothing: as in ``FitOptions``.
        copies: with ``augment``: changed versions of each sound, at least 1.
        seed: of batches and copies.
        trainable: which blocks of the backbone train in the end: the last n, "layer12" and those after it, or "all".
        head_epochs: epochs at most with the whole backbone frozen; 0 takes the head as it is.
        head_learning_rate: Adam's for the head alone.
        block_decay: the last block learns at this share of ``learning_rate``, the one before at its square, and so on.
        warmup: share of the steps in which the rate rises.
        refit: once it is known when to stop, begin again and train for as many epochs on all clips, those that told it
            too: twice the time, for as many more clips to learn. ``train_classifier`` decides that itself.
        gradual: unfreeze one block after another, each for its share of ``epochs``.
        batch_norm: of the blocks that train: "frozen" or "train"; see ``freeze``.
        cache: run the frozen part once; False runs all of it in every epoch.
    """

    epochs: int = 20
    learning_rate: float = 3e-4
    trainable: int | str = 2
    head_epochs: int = 30
    head_learning_rate: float = 2e-3
    block_decay: float = 0.8
    warmup: float = 0.1
    refit: bool = False
    gradual: bool = False
    batch_norm: BatchNorm = "frozen"
    cache: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("head_epochs", self.head_epochs, least=0, whole=True)
        for name in ("head_learning_rate", "block_decay"):
            check_number(name, getattr(self, name), above=0)
        check_number("warmup", self.warmup, least=0, below=1)
        for name in ("cache", "refit", "gradual"):
            check_choice(name, getattr(self, name), (True, False))
        check_choice("batch_norm", self.batch_norm, BatchNorm)


def loss_of(options: FitOptions | FineTuneOptions, *, multi_label: bool) -> keras.losses.Loss:
    """Keras's cross-entropy or focal loss, with label smoothing."""
    smoothing = {"label_smoothing": options.label_smoothing}
    if options.loss == "crossentropy":
        kind = keras.losses.BinaryCrossentropy if multi_label else keras.losses.CategoricalCrossentropy
        return kind(**smoothing)
    if multi_label:
        return keras.losses.BinaryFocalCrossentropy(gamma=options.focal_gamma, **smoothing)
    return keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=options.focal_gamma, **smoothing)


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
