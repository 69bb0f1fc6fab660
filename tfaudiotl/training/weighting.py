"""What a rare class weighs: ``class_weight="balanced"``, with one class per clip and with several."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfaudiotl.audio.splits import rarest_class

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
