"""What can be said of an evaluation beside its metrics: ranking, intervals, calibration, thresholds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn import metrics as sk

from tfaudiotl._seeds import stream
from tfaudiotl.errors import check_choice, check_number
from tfaudiotl.evaluation.metrics import Evaluation

Average = Literal["macro", "weighted"]
Measure = str | Callable[[Evaluation], float]
Goal = Literal["f1", "precision", "recall", "false_alarms"]


# Ranking, and means over the classes


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


def averages(evaluation: Evaluation, average: Average = "macro") -> Averages:
    """Means of the per-class measures.

    Args:
        evaluation: single- or multi-label.
        average: "macro": every class weighs the same. "weighted": by its number of examples.

    Raises:
        ValueError: another ``average``.
    """
    check_choice("average", average, Average)
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
        scores: (trials,), finite; higher means more likely.
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


# Intervals: how sure is a measure?


@dataclass(frozen=True)
class Interval:
    """A measure with its confidence interval.

    Attributes:
        value: of all clips.
        low, high: the interval's ends.
        level: share of draws inside.
        groups: that were drawn from.
    """

    value: float
    low: float
    high: float
    level: float
    groups: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def bootstrap_interval(
    evaluation: Evaluation,
    measure: Measure = "accuracy",
    *,
    groups: Sequence[object] | None = None,
    draws: int = 1_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The percentile bootstrap interval of a measure.

    Clips of one recording, speaker or day resemble each other: drawn one by one they look like more evidence than they
    are. Give their ``groups``, and whole groups are drawn.

    Args:
        evaluation: the clips.
        measure: name of an attribute of ``Evaluation`` ("accuracy", "macro_f1", ...), or a function of one.
        groups: one value per clip; clips with equal values go together. None: each clip is its own.
        draws: how often, at least 1.
        level: share of draws inside the interval, in (0, 1).
        seed: of the draws.

    Returns:
        The interval; draws for which the measure is NaN are left out. Where all draws agree, such as when every clip is
        right, they say nothing of how sure that is: then Clopper and Pearson's exact interval of a share, each group
        being one trial (of 8 groups that are all right 0.631 to 1). A measure that is no share in [0, 1] has none.

    Raises:
        ValueError: an argument outside what is allowed.
    """
    check_number("draws", draws, least=1, whole=True)
    check_number("level", level, above=0, below=1)
    clips = len(evaluation.targets)
    if groups is not None and len(groups) != clips:
        raise ValueError(f"groups has {len(groups)} values for {clips} clips")
    function = measure if callable(measure) else lambda drawn: float(getattr(drawn, str(measure)))
    if not callable(measure) and not hasattr(type(evaluation), str(measure)):
        raise ValueError(f"measure={measure!r}: not an attribute of Evaluation")
    named = (
        np.arange(clips) if groups is None else np.unique(np.array([str(g) for g in groups]), return_inverse=True)[1]
    )
    rows = [np.flatnonzero(named == group) for group in range(named.max() + 1)]
    rng = stream("bootstrap", seed)
    values = []
    for _ in range(draws):
        drawn = np.concatenate([rows[group] for group in rng.integers(len(rows), size=len(rows))])
        values.append(function(taken(evaluation, drawn)))
    usable = np.array([value for value in values if not math.isnan(value)])
    ends = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2]) if len(usable) else (math.nan, math.nan)
    value = function(evaluation)
    if len(usable) and np.ptp(usable) == 0:
        ends = exact_interval(value, len(rows), level) if 0 <= value <= 1 else (math.nan, math.nan)
    return Interval(value, float(ends[0]), float(ends[1]), level, len(rows))


def exact_interval(share: float, trials: int, level: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share of independent trials."""
    tail, hits = (1 - level) / 2, share * trials
    low = stats.beta.ppf(tail, hits, trials - hits + 1) if hits > 0 else 0.0
    high = stats.beta.ppf(1 - tail, hits + 1, trials - hits) if hits < trials else 1.0
    return float(low), float(high)


def taken(evaluation: Evaluation, rows: np.ndarray) -> Evaluation:
    """The evaluation of these clips alone; one may come more than once."""
    names = tuple(evaluation.names[row] for row in rows) if evaluation.names else ()
    return replace(evaluation, scores=evaluation.scores[rows], targets=evaluation.targets[rows], names=names)


# Calibration: is a score of 0.8 right in 80 of 100 cases?


@dataclass(frozen=True, eq=False)
class Calibration:
    """Confidence beside accuracy, in bins of equal width.

    Attributes:
        edges: (bins + 1,), from 0 to 1.
        counts: (bins,) decisions.
        confidence: (bins,) mean score of a bin's decisions, NaN where there are none.
        accuracy: (bins,) share of them that are right, likewise.
        decisions: what was counted.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    decisions: str

    @property
    def expected_error(self) -> float:
        """ECE: mean distance of confidence and accuracy, weighted by the bins' counts, 0 to 1."""
        full = self.counts > 0
        gaps = np.abs(self.confidence - self.accuracy)[full]
        return float(np.average(gaps, weights=self.counts[full]))

    @property
    def largest_error(self) -> float:
        """MCE: the largest such distance of any bin."""
        return float(np.nanmax(np.abs(self.confidence - self.accuracy)))


def calibration(evaluation: Evaluation, *, bins: int = 15) -> Calibration:
    """Compares scores with how often they are right (Naeini et al. 2015; Guo et al. 2017 use 15 bins).

    Args:
        evaluation: scores must be probabilities. One label per clip: the highest score against whether that class is
            right. Several labels: every class's score against whether the clip has it.
        bins: number of bins of equal width.

    Raises:
        ValueError: ``bins`` is less than 1, or scores lie outside 0 to 1.
    """
    check_number("bins", bins, least=1, whole=True)
    scores = evaluation.scores
    if scores.min() < 0 or scores.max() > 1:
        raise ValueError(f"scores lie in {scores.min():g} to {scores.max():g}; calibration needs probabilities, 0 to 1")
    if evaluation.multi_label:
        confidence, right, decisions = scores.ravel(), evaluation.targets.ravel(), "each class of each clip"
    else:
        rows, best = np.arange(len(scores)), scores.argmax(axis=1)
        confidence, right, decisions = scores[rows, best], evaluation.targets[rows, best], "the best class of each clip"
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)  # a bin holds its upper edge
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, weights=values, minlength=bins) / counts for values in (confidence, right)]
    return Calibration(edges, counts, means[0], means[1], decisions)


# Thresholds: from which score on does a class count? Chosen on validation clips


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
    scores: npt.ArrayLike, targets: npt.ArrayLike, *, goal: Goal = "f1", value: float | None = None
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
    check_choice("goal", goal, Goal)
    if (value is None) != (goal == "f1") or (value is not None and not 0 <= value <= 1):
        raise ValueError(f"value={value!r}: a number from 0 to 1 for precision, recall and false_alarms; none for f1")
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


def choose_thresholds(evaluation: Evaluation, *, goal: Goal = "f1", value: float | None = None) -> dict[str, Threshold]:
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
