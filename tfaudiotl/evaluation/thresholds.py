"""From which score on is a class heard? Chosen on validation clips, for a precision, recall or false-alarm rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tfaudiotl.evaluation.metrics import Evaluation
from tfaudiotl.evaluation.ranking import binary_trials

GOALS = ("f1", "precision", "recall", "false_alarms")


@dataclass(frozen=True)
class Threshold:
    """A threshold and what it gives on the clips that it was chosen on.

    Attributes:
        value: scores at or above it count.
        precision, recall, f1: there, 0 to 1.
        false_alarms: share of the clips without the class that reach it.
        reached: whether the goal was; otherwise this is the nearest there is.
    """

    value: float
    precision: float
    recall: float
    f1: float
    false_alarms: float
    reached: bool = True


def choose_threshold(
    scores: npt.ArrayLike, targets: npt.ArrayLike, *, goal: str = "f1", value: float | None = None
) -> Threshold:
    """The threshold of a yes-or-no decision.

    Candidates lie midway between neighbouring scores, so that a score a little lower than any seen still counts.

    Args:
        scores: (clips,), finite.
        targets: (clips,) of 0 and 1; both must occur.
        goal: "f1": the highest F1. "precision": the highest recall with at least this precision. "recall": the fewest
            false alarms with at least this recall. "false_alarms": the highest recall with at most this share of the
            clips without the class.
        value: of precision, recall or false alarms, 0 to 1.

    Raises:
        ValueError: an argument outside what is allowed.
    """
    if goal not in GOALS:
        raise ValueError(f"goal={goal!r}: allowed are {', '.join(GOALS)}")
    if (value is None) != (goal == "f1") or (value is not None and not 0 <= value <= 1):
        raise ValueError(f"value={value!r}: a number from 0 to 1 for {', '.join(GOALS[1:])}; none for f1")
    found, truth = binary_trials(scores, targets)
    candidates, hits, alarms = _counts(found, truth)
    positives, negatives = truth.sum(), len(truth) - truth.sum()
    precision = np.divide(hits, hits + alarms, out=np.ones(len(hits)), where=hits + alarms > 0)
    recall, false_alarms = hits / positives, alarms / negatives
    f1 = 2 * hits / (hits + alarms + positives)
    # Candidates fall, so recall and false alarms rise; of equals the first keeps fewer false alarms.
    if goal == "f1":
        best, reached = int(np.argmax(f1)), True
    elif goal == "recall":
        best, reached = int(np.argmax(recall >= value)), True
    else:
        fits = (precision >= value) & (hits > 0) if goal == "precision" else false_alarms <= value
        reached = bool(fits.any())
        best = int(np.flatnonzero(fits)[np.argmax(recall[fits])]) if reached else int(np.argmax(precision * (hits > 0)))
    columns = {"value": candidates, "precision": precision, "recall": recall, "f1": f1, "false_alarms": false_alarms}
    return Threshold(**{name: float(column[best]) for name, column in columns.items()}, reached=reached)


def _counts(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates from above all scores down to the lowest, with the hits and false alarms at or above each."""
    levels = np.unique(scores)[::-1]
    middles = (levels[:-1] + levels[1:]) / 2
    # Above all scores, unless that were above 1, where no threshold of a score lies.
    above_all = [] if levels[0] == 1 else [np.nextafter(levels[0], np.inf)]
    candidates = np.concatenate([above_all, middles, levels[-1:]])
    order = np.sort(scores[truth == 1]), np.sort(scores[truth == 0])
    above = [len(part) - np.searchsorted(part, candidates, side="left") for part in order]
    return candidates, above[0], above[1]


def choose_thresholds(evaluation: Evaluation, *, goal: str = "f1", value: float | None = None) -> dict[str, Threshold]:
    """A threshold for every class, chosen on these clips: validation clips, never those to report on.

    Args:
        evaluation: single- or multi-label; each class is taken against all others.
        goal: as for ``choose_threshold``.
        value: likewise.

    Returns:
        Class name -> threshold.

    Raises:
        ValueError: an argument outside what is allowed, or a class that all clips have or none has.
    """
    chosen = {}
    for column, name in enumerate(evaluation.class_names):
        truth = evaluation.targets[:, column]
        if not 0 < truth.sum() < len(truth):
            raise ValueError(
                f"class {name!r}: {int(truth.sum())} of {len(truth)} clips have it; some must, and some not"
            )
        chosen[name] = choose_threshold(evaluation.scores[:, column], truth, goal=goal, value=value)
    return chosen


def with_thresholds(evaluation: Evaluation, thresholds: Mapping[str, Threshold | float]) -> Evaluation:
    """A multi-label evaluation decided by these thresholds.

    Args:
        evaluation: of other clips than the thresholds were chosen on.
        thresholds: one for every class.

    Raises:
        ValueError: the evaluation is single-label, or a class is missing or unknown.
    """
    if not evaluation.multi_label:
        raise ValueError("thresholds decide where classes are independent; this evaluation has multi_label=False")
    if set(thresholds) != set(evaluation.class_names):
        raise ValueError(f"thresholds are for {sorted(thresholds)}; the classes are {sorted(evaluation.class_names)}")
    found = [thresholds[name] for name in evaluation.class_names]
    values = tuple(t.value if isinstance(t, Threshold) else float(t) for t in found)
    if not np.isfinite(values).all():
        raise ValueError(
            f"thresholds={dict(zip(evaluation.class_names, values, strict=True))}: allowed are finite numbers"
        )
    return replace(evaluation, threshold=values)
