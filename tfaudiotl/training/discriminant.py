"""Linear discriminant analysis in closed form: a linear head from class means and a shrunk covariance.

scikit-learn's has no weights, and solves systems as large as a row is long (4,096 numbers and more), whereas there are
often fewer rows than that. Here the smaller of the two systems is solved, and the strength of shrinkage is chosen by
inner folds, which take their parts of one matrix of products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from tfaudiotl._seeds import stream
from tfaudiotl._threads import one_blas_thread

SHRINKAGES = (0.01, 0.03, 0.1, 0.3, 0.6, 0.9)
UNTRIED = 0.5  # shrinkage where a class has too few clips to try any
UNTRIED_SPREAD = 2.0  # standard deviation of the logits over the classes, then
INNER_FOLDS = 10  # with fewer, parts of few clips know much less than all of them, and the scores come out too unsure
SMALL, INNER_FOLDS_ABOVE = 1_000, 3  # size of a system up to which so many cost little, and the number above
LARGE = 6_000  # size of a system above which one inner fold has to do


@dataclass(frozen=True)
class Rows:
    """Labelled rows: what a discriminant is made from.

    Attributes:
        x: float32 ``(rows, dim)``, standardised.
        labels: int ``(rows,)``: class numbers.
        weights: ``(rows,)``, at least 0.
        clips: int ``(rows,)``: the clip of each row; a clip's scores are the mean of its rows'.
        units: int ``(rows,)``: rows of one unit (a recording, a group) are never on both sides of an inner fold.
        scored: bool ``(rows,)``: rows that inner folds are scored on; the others, changed versions of these, are
            only learned from.
    """

    x: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    clips: np.ndarray
    units: np.ndarray
    scored: np.ndarray


@dataclass(frozen=True)
class Discriminant:
    """A linear classifier: ``softmax(x @ kernel + bias)``.

    Attributes:
        kernel: float32 ``(dim, classes)``.
        bias: float32 ``(classes,)``.
        shrinkage: in (0, 1]: 0 is the rows' own covariance within the classes, 1 the same variance everywhere.
        tried: whether inner folds chose the shrinkage and the scale of the logits.
    """

    kernel: np.ndarray
    bias: np.ndarray
    shrinkage: float
    tried: bool


def fit_discriminant(rows: Rows, classes: int, *, seed: int = 0) -> Discriminant:
    """The discriminant of ``rows``, with the shrinkage, and the scale of its logits, that inner folds score best with.

    Best is the least cross-entropy of the held-out clips' scores, with the clips' weights. A class of one unit is
    learned from in every inner fold; where all are such, the shrinkage is 0.5, and the scores say which class, not how
    likely.

    Args:
        rows: of all classes.
        classes: how many there are.
        seed: of the inner folds.

    Raises:
        ValueError: a class has no row of any weight.
    """
    present = np.bincount(rows.labels, rows.weights, minlength=classes)
    if (present <= 0).any():
        raise ValueError(f"class number {int(np.argmin(present))} has no clip to learn from, or none that weighs any")
    with one_blas_thread():  # so that the same rows give the same numbers, and busy cores are not waited for
        return _fit(rows, classes, seed)


def _fit(rows: Rows, classes: int, seed: int) -> Discriminant:
    products = (_Dual if len(rows.x) <= rows.x.shape[1] else _Primal)(rows, classes)
    folds = _inner_folds(rows, seed)
    if len(folds) and min(rows.x.shape) > LARGE:
        folds = folds[:1]
    shrinkage, scale = _chosen(rows, products, folds) if folds else (UNTRIED, None)
    kernel, bias = products.solve(np.zeros(len(rows.x), bool), (shrinkage,)).linear(0)
    if scale is None:
        spread = (rows.x @ kernel + bias).std(axis=1).mean()
        scale = UNTRIED_SPREAD / max(float(spread), 1e-12)
    return Discriminant((scale * kernel).astype(np.float32), (scale * bias).astype(np.float32), shrinkage, bool(folds))


def _inner_folds(rows: Rows, seed: int) -> list[np.ndarray]:
    """Which rows each inner fold holds out: units dealt class by class, those of a class with one unit never."""
    units, first, number = np.unique(rows.units, return_index=True, return_inverse=True)
    labels, fold = rows.labels[first], np.full(len(units), -1)
    rng, dealt = stream("inner folds", seed), 0
    folds = INNER_FOLDS if min(rows.x.shape) <= SMALL else INNER_FOLDS_ABOVE
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) > 1:
            fold[members] = (dealt + np.arange(len(members))) % folds
            dealt += len(members)
    held = [fold[number] == k for k in range(folds)]
    return [of_fold for of_fold in held if of_fold.any()]


def _chosen(rows: Rows, products: _Products, folds: list[np.ndarray]) -> tuple[float, float]:
    """The shrinkage and the scale of the logits with the least cross-entropy of held-out clips."""
    logits: list[list[np.ndarray]] = [[] for _ in SHRINKAGES]
    rest: list[np.ndarray] = []
    for held in folds:
        learned = np.bincount(rows.labels[~held], rows.weights[~held], minlength=products.classes) > 0
        asked = held & rows.scored & learned[rows.labels]
        solved = products.solve(held, SHRINKAGES)
        for number, of_shrinkage in enumerate(logits):
            of_shrinkage.append(np.where(learned, solved.logits(number, asked), -np.inf))
        rest.append(np.flatnonzero(asked))
    asked_rows = np.concatenate(rest)
    if not len(asked_rows):
        return UNTRIED, 1.0
    found = [_best_scale(np.concatenate(of_shrinkage), rows, asked_rows) for of_shrinkage in logits]
    best = int(np.argmin([loss for _, loss in found]))
    return SHRINKAGES[best], found[best][0]


def _best_scale(logits: np.ndarray, rows: Rows, asked: np.ndarray) -> tuple[float, float]:
    """What to multiply ``logits`` with for the least cross-entropy of clips, and that cross-entropy."""
    _, first, number = np.unique(rows.clips[asked], return_index=True, return_inverse=True)
    counts, labels = np.bincount(number), rows.labels[asked]
    weights = rows.weights[asked][first] * counts

    def loss(log_scale: float) -> float:
        right = np.exp(log_softmax(np.exp(log_scale) * logits, axis=1)[np.arange(len(labels)), labels])
        return float(np.average(-np.log(np.bincount(number, right) / counts + 1e-12), weights=weights))

    spread = np.log(np.maximum(np.ptp(np.where(np.isfinite(logits), logits, 0), axis=1).mean(), 1e-12))
    found = minimize_scalar(loss, bounds=(np.log(0.1) - spread, np.log(200.0) - spread), options={"xatol": 0.03})
    return float(np.exp(found.x)), float(found.fun)


class _Solved(Protocol):
    """Discriminants of several strengths of shrinkage."""

    def linear(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Kernel and bias."""

    def logits(self, number: int, asked: np.ndarray) -> np.ndarray:
        """Of the rows ``asked``."""


class _Products(Protocol):
    """Products of the rows, computed once, from which the discriminants of parts of them follow."""

    classes: int

    def solve(self, held: np.ndarray, shrinkages: tuple[float, ...]) -> _Solved:
        """Discriminants of the rows that are not ``held``."""


def _means(rows: Rows, use: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the rows ``use``: their share of their class's mean ``(classes, n)``, their share of all, classes' log prior.

    A class without rows has the mean 0 and the prior 0.
    """
    labels, weights = rows.labels[use], rows.weights[use]
    total = np.bincount(labels, weights, minlength=classes)
    share = np.zeros((classes, len(labels)), np.float32)
    share[labels, np.arange(len(labels))] = weights / np.maximum(total[labels], 1e-30)
    with np.errstate(divide="ignore"):
        prior = np.log(total / total.sum())
    return share, (weights / total.sum()).astype(np.float32), prior


@dataclass
class _Kernels:
    """Kernels and biases themselves."""

    rows: Rows
    kernels: list[np.ndarray]
    biases: list[np.ndarray]

    def linear(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        return self.kernels[number], self.biases[number]

    def logits(self, number: int, asked: np.ndarray) -> np.ndarray:
        return self.rows.x[asked] @ self.kernels[number] + self.biases[number]


class _Primal:
    """For more rows than numbers in a row: the sum of weighted outer products, ``(dim, dim)``."""

    def __init__(self, rows: Rows, classes: int):
        self._rows, self.classes = rows, classes
        self._all = self._scatter(np.ones(len(rows.x), bool))

    def _scatter(self, use: np.ndarray) -> np.ndarray:
        weighted = self._rows.x[use] * np.sqrt(self._rows.weights[use]).astype(np.float32)[:, None]
        return weighted.T @ weighted

    def solve(self, held: np.ndarray, shrinkages: tuple[float, ...]) -> _Kernels:
        rows, use = self._rows, ~held
        share, _, prior = _means(rows, use, self.classes)
        means = share @ rows.x[use]
        weights = np.exp(prior)
        within = self._all - self._scatter(held) if held.any() else self._all.copy()
        within /= rows.weights[use].sum()
        within -= (means * weights[:, None].astype(np.float32)).T @ means
        dim = len(within)
        mean_variance = _positive(np.trace(within) / dim)
        kernels, biases = [], []
        for shrinkage in shrinkages:
            system = (1 - shrinkage) * within
            system.flat[:: dim + 1] += shrinkage * mean_variance
            kernel = cho_solve(
                cho_factor(system, lower=True, overwrite_a=True, check_finite=False), means.T, check_finite=False
            )
            kernels.append(kernel)
            biases.append(-0.5 * np.einsum("kd,dk->k", means, kernel) + prior)
        return _Kernels(rows, kernels, biases)


@dataclass
class _Combinations:
    """Kernels as combinations of rows, ``coefficients (classes, n)`` of the rows ``use``; ``products`` of all rows."""

    rows: Rows
    products: np.ndarray
    use: np.ndarray
    coefficients: list[np.ndarray]
    biases: list[np.ndarray]

    def linear(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        return (self.coefficients[number] @ self.rows.x[self.use]).T, self.biases[number]

    def logits(self, number: int, asked: np.ndarray) -> np.ndarray:
        return self.products[np.ix_(asked, self.use)] @ self.coefficients[number].T + self.biases[number]


class _Dual:
    """For no more rows than numbers in a row: the products of rows with rows, ``(rows, rows)``."""

    def __init__(self, rows: Rows, classes: int):
        self._rows, self.classes = rows, classes
        self._products = rows.x @ rows.x.T

    def solve(self, held: np.ndarray, shrinkages: tuple[float, ...]) -> _Combinations:
        rows, use = self._rows, ~held
        share, weights, prior = _means(rows, use, self.classes)
        root, labels = np.sqrt(weights), rows.labels[use]
        products = self._products[np.ix_(use, use)]
        with_means = share @ products  # (classes, n)
        of_means = with_means @ share.T
        # Of the weighted differences from the class means, with each other and with these means:
        differences = products - with_means[labels] - with_means.T[:, labels] + of_means[np.ix_(labels, labels)]
        differences *= root[:, None] * root
        against = root[:, None] * (with_means.T - of_means[labels])
        mean_variance = _positive(np.trace(differences) / rows.x.shape[1])
        coefficients, biases = [], []
        for shrinkage in shrinkages:
            system = (1 - shrinkage) * differences
            system.flat[:: len(system) + 1] += shrinkage * mean_variance
            factor = cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
            solved = root[:, None] * cho_solve(factor, against, check_finite=False)  # (n, classes)
            of_class = np.zeros((self.classes, self.classes), np.float32)
            np.add.at(of_class, labels, solved)
            combination = share - (1 - shrinkage) * (solved.T - of_class.T @ share)
            combination /= shrinkage * mean_variance
            coefficients.append(combination)
            biases.append(-0.5 * np.einsum("kn,kn->k", with_means, combination) + prior)
        return _Combinations(rows, self._products, use, coefficients, biases)


def _positive(mean_variance: float) -> float:
    """The mean variance within classes; 1, that of standardised numbers, where each class has but one row."""
    return mean_variance if mean_variance > 1e-6 else 1.0
