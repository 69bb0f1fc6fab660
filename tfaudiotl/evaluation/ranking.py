"""Measures that look at the order of the scores (ROC-AUC, top-k, equal error rate), and means over classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk

from tfaudiotl.evaluation.metrics import Evaluation

AVERAGES = ("macro", "weighted")


@dataclass(frozen=True)
class Averages:
    """Means over the classes that occur in the targets, 0 to 1; NaN where no class has a value.

    Attributes:
        precision, recall, f1, average_precision, roc_auc: as in the per-class table.
    """

    precision: float
    recall: float
    f1: float
    average_precision: float
    roc_auc: float


@dataclass(frozen=True)
class EqualErrorRate:
    """Where as many targets are refused as others are accepted.

    Attributes:
        rate: both shares, 0 to 1.
        threshold: accepting scores at or above it comes nearest to that.
    """

    rate: float
    threshold: float


def roc_auc(evaluation: Evaluation) -> dict[str, float]:
    """Area under the ROC curve of each class against all others, 0 to 1; NaN where only one kind occurs.

    Args:
        evaluation: single- or multi-label.

    Returns:
        Class name -> area, in the order of ``class_names``.
    """
    pairs = zip(evaluation.targets.T, evaluation.scores.T, strict=True)
    areas = [float(sk.roc_auc_score(t, s)) if 0 < t.sum() < len(t) else math.nan for t, s in pairs]
    return dict(zip(evaluation.class_names, areas, strict=True))


def top_k_accuracy(evaluation: Evaluation, k: int = 3) -> float:
    """Share of clips whose class is among the ``k`` with the highest scores, 0 to 1.

    Raises:
        ValueError: ``k`` is not 1 to the number of classes, or a clip may have several classes.
    """
    classes = len(evaluation.class_names)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= classes:
        raise ValueError(f"k={k!r}: allowed is 1 to {classes}, the number of classes")
    if evaluation.multi_label:
        raise ValueError("top_k_accuracy needs multi_label=False: with several labels per clip none is the one to find")
    # Stable, so that equals rank in the order of the classes, as in Evaluation.predictions.
    best = np.argsort(-evaluation.scores, axis=1, kind="stable")[:, :k]
    return float((best == evaluation.targets.argmax(axis=1)[:, None]).any(axis=1).mean())


def averages(evaluation: Evaluation, average: str = "macro") -> Averages:
    """Means of the per-class measures.

    Args:
        evaluation: single- or multi-label.
        average: "macro": every class weighs the same. "weighted": by its number of examples.

    Raises:
        ValueError: another ``average``.
    """
    if average not in AVERAGES:
        raise ValueError(f"average={average!r}: allowed are {', '.join(AVERAGES)}")
    support = np.array([m.support for m in evaluation.per_class], float)
    weights = support if average == "weighted" else (support > 0).astype(float)
    areas = list(roc_auc(evaluation).values())

    def mean(values: list[float]) -> float:
        found = np.array(values)
        usable = ~np.isnan(found) & (weights > 0)
        return float(np.average(found[usable], weights=weights[usable])) if usable.any() else math.nan

    names = ("precision", "recall", "f1", "average_precision")
    columns = {name: mean([getattr(m, name) for m in evaluation.per_class]) for name in names}
    return Averages(**columns, roc_auc=mean(areas))


def equal_error_rate(scores: npt.ArrayLike, targets: npt.ArrayLike) -> EqualErrorRate:
    """Equal error rate of a yes-or-no decision, such as "the same speaker".

    Between the steps of the ROC curve both errors are interpolated linearly.

    Args:
        scores: (trials,), finite; more means likelier.
        targets: (trials,) of 0 and 1; both must occur.

    Raises:
        ValueError: shapes or values that are not so.
    """
    scores, targets = binary_trials(scores, targets)
    false_alarms, hits, thresholds = sk.roc_curve(targets, scores, drop_intermediate=False)
    gap = false_alarms - (1 - hits)  # rises from -1 to 1
    after = int(np.argmax(gap >= 0))
    before = max(after - 1, 0)
    span = gap[after] - gap[before]
    part = -gap[before] / span if span else 0.0
    rate = false_alarms[before] + part * (false_alarms[after] - false_alarms[before])
    nearest = after if part >= 0.5 or not np.isfinite(thresholds[before]) else before
    return EqualErrorRate(float(rate), float(thresholds[nearest]))


def binary_trials(scores: npt.ArrayLike, targets: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Scores and targets as checked arrays ``(trials,)``; ValueError says what is wrong."""
    found, truth = np.asarray(scores, float), np.asarray(targets)
    if found.ndim != 1 or found.shape != truth.shape:
        raise ValueError(f"scores and targets have shapes {found.shape} and {truth.shape}; (trials,) each is needed")
    if not np.isfinite(found).all():
        raise ValueError("scores: only finite numbers are allowed")
    if set(np.unique(truth).tolist()) != {0, 1}:
        raise ValueError(
            f"targets has the values {np.unique(truth).tolist()[:5]}; 0 and 1 must both occur, and no others"
        )
    return found, truth.astype(int)
