"""How sure is a measure? Intervals by drawing the clips, or groups of clips, again and again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

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
        The interval; draws for which the measure is NaN are left out.

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
    return Interval(function(evaluation), float(ends[0]), float(ends[1]), level, len(rows))


def taken(evaluation: Evaluation, rows: np.ndarray) -> Evaluation:
    """The evaluation of these clips alone; one may come more than once."""
    names = tuple(evaluation.names[row] for row in rows) if evaluation.names else ()
    return replace(evaluation, scores=evaluation.scores[rows], targets=evaluation.targets[rows], names=names)
