"""How sure is a measure? Intervals by drawing the clips, or groups of clips, again and again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from tfaudiotl._seeds import stream
from tfaudiotl.evaluation.metrics import Evaluation

Measure = str | Callable[[Evaluation], float]


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
    if draws < 1:
        raise ValueError(f"draws={draws}: at least 1")
    if not 0 < level < 1:
        raise ValueError(f"level={level}: allowed is between 0 and 1")
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
