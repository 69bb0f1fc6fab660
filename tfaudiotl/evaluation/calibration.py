"""Does a score of 0.8 mean right in 80 of 100 cases?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfaudiotl.evaluation.metrics import Evaluation


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
    if bins < 1:
        raise ValueError(f"bins={bins}: at least 1")
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
