"""Classifier heads: what turns an embedding into class scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import initializers, layers

from tfaudiotl.backbones.scores import ClassScores

HEADS = ("dense",)


def dense_head(
    embedding: Any,
    class_names: Sequence[str],
    *,
    hidden: Sequence[int] = (),
    dropout: float = 0.2,
    multi_label: bool = False,
    seed: int | None = None,
) -> Any:
    """Standardise, hidden layers, dropout, scores.

    The batch norm without scale and offset standardises each number of the embedding: YAMNet's
    differ by orders of magnitude, and a linear probe's accuracy rests on it. Its momentum is 0.9, since
    small sets of clips have few steps to learn the statistics in.

    Args:
        embedding: ``(rows, dim)``: of patches or of clips.
        class_names: one output each.
        hidden: widths of ReLU layers before the last.
        dropout: share of numbers dropped before each dense layer, in [0, 1).
        multi_label: sigmoid (independent classes) instead of softmax.
        seed: of the initial weights and the dropout; None draws new ones each time.

    Returns:
        Scores ``(rows, classes)`` in float32.
    """

    def kernel() -> Any:
        return initializers.GlorotUniform(seed=seed)

    x = layers.BatchNormalization(center=False, scale=False, momentum=0.9, name="head_batch_norm")(embedding)
    for number, units in enumerate(hidden, start=1):
        x = layers.Dropout(dropout, seed=seed, name=f"head_dropout_{number}")(x)
        x = layers.Dense(units, activation="relu", kernel_initializer=kernel(), name=f"head_dense_{number}")(x)
    x = layers.Dropout(dropout, seed=seed, name="head_dropout")(x)
    x = layers.Dense(len(class_names), kernel_initializer=kernel(), name="head_logits")(x)
    activation = "sigmoid" if multi_label else "softmax"
    return ClassScores(activation, class_names=class_names, name="class_scores")(x)
