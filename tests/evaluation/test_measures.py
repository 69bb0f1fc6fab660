"""Ranking measures, thresholds, calibration and intervals: against scikit-learn, by hand, and by brute force."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from tfaudiotl.evaluation.measures import (
    averages,
    bootstrap_interval,
    calibration,
    choose_threshold,
    choose_thresholds,
    equal_error_rate,
    roc_auc,
    top_k_accuracy,
    with_thresholds,
)
from tfaudiotl.evaluation.metrics import Evaluation, evaluate_scores

pytestmark = pytest.mark.filterwarnings("error")
NAMES = ["a", "b", "c", "d"]


def single(rng: np.random.Generator, clips: int = 200) -> Evaluation:
    labels = rng.choice(4, clips, p=[0.5, 0.3, 0.15, 0.05])
    scores = rng.dirichlet(np.ones(4), clips) + 0.4 * np.eye(4)[labels]
    return evaluate_scores(scores / scores.sum(axis=1, keepdims=True), np.eye(4)[labels], class_names=NAMES)


def several(rng: np.random.Generator, clips: int = 200) -> Evaluation:
    targets = rng.uniform(size=(clips, 4)) < [0.5, 0.3, 0.2, 0.1]
    scores = 1 / (1 + np.exp(-(2 * targets - 1 + rng.normal(size=(clips, 4)))))
    return evaluate_scores(scores, targets, class_names=NAMES, multi_label=True)


def test_equal_to_scikit_learn(rng: np.random.Generator) -> None:
    for found in (single(rng), several(rng)):
        truth, decided = found.targets, found.predictions
        for average in ("macro", "weighted"):
            means = averages(found, average)
            expected = sk.precision_recall_fscore_support(truth, decided, average=average, zero_division=0)[:3]
            np.testing.assert_allclose((means.precision, means.recall, means.f1), expected)
            assert means.roc_auc == pytest.approx(sk.roc_auc_score(truth, found.scores, average=average))
            expected_ap = sk.average_precision_score(truth, found.scores, average=average)
            assert means.average_precision == pytest.approx(expected_ap)
        for column, area in enumerate(roc_auc(found).values()):
            assert area == pytest.approx(sk.roc_auc_score(truth[:, column], found.scores[:, column]))
    found = single(rng)
    labels = found.targets.argmax(axis=1)
    for k in (1, 2, 3):
        assert top_k_accuracy(found, k) == pytest.approx(sk.top_k_accuracy_score(labels, found.scores, k=k))
    assert top_k_accuracy(found, 4) == 1.0


def test_classes_that_do_not_occur_are_left_out() -> None:
    found = evaluate_scores(np.eye(3)[[0, 1, 1]], np.eye(3)[[0, 1, 1]], class_names=["a", "b", "never"])
    assert math.isnan(roc_auc(found)["never"])
    assert averages(found).recall == averages(found).roc_auc == 1.0


@pytest.mark.parametrize(
    ("scores", "targets", "rate"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 0.0),  # perfect
        ([0.1, 0.35, 0.4, 0.8], [0, 1, 0, 1], 0.5),  # at 0.4 one of two is refused and one of two accepted
        ([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], 1.0),  # the wrong way round
        ([0.5, 0.5, 0.5, 0.5], [0, 0, 1, 1], 0.5),  # chance: the middle of one step
        ([1, 2, 3, 4, 5, 6], [0, 0, 1, 0, 1, 1], 1 / 3),
        ([1, 1, 2, 2, 2], [0, 1, 0, 1, 1], 3 / 7),  # between steps: t / 2 = 1 - 2 t / 3
    ],
)
def test_equal_error_rate_by_hand(scores: list[float], targets: list[int], rate: float) -> None:
    assert equal_error_rate(scores, targets).rate == pytest.approx(rate)


def test_equal_error_rate_of_two_normal_distributions(rng: np.random.Generator) -> None:
    """Means two deviations apart: both errors are those beyond one deviation, 0.1587, at the middle."""
    scores = np.concatenate([rng.normal(0, 1, 40_000), rng.normal(2, 1, 10_000)])
    found = equal_error_rate(scores, np.repeat([0, 1], [40_000, 10_000]))
    assert found.rate == pytest.approx(0.1587, abs=0.005)
    assert found.threshold == pytest.approx(1.0, abs=0.03)


def test_bootstrap_draws_whole_groups() -> None:
    """Two groups, one all right and one all wrong: draws give 0, 1/2 or 1 in the shares 1/4, 1/2, 1/4."""
    right = np.repeat([1, 0], 50)
    found = evaluate_scores(np.eye(2)[1 - right], np.eye(2)[np.zeros(100, int)], class_names=["x", "y"])
    wide = bootstrap_interval(found, groups=["one"] * 50 + ["two"] * 50)
    assert (wide.value, wide.low, wide.high, wide.groups) == (0.5, 0.0, 1.0, 2)
    middle = bootstrap_interval(found, groups=["one"] * 50 + ["two"] * 50, level=0.4)
    assert (middle.low, middle.high) == (0.5, 0.5)
    alone = bootstrap_interval(found)  # clip by clip: the binomial's 1.96 deviations of 0.05
    assert (alone.low, alone.high) == pytest.approx((0.402, 0.598), abs=0.021)
    assert bootstrap_interval(found, seed=1) == bootstrap_interval(found, seed=1)


def test_where_all_draws_agree_the_interval_is_that_of_a_share() -> None:
    right = evaluate_scores(np.eye(2)[[0, 1] * 4], np.eye(2)[[0, 1] * 4], class_names=["a", "b"])
    found = bootstrap_interval(right, draws=50)
    exact = stats.binomtest(8, 8).proportion_ci(0.95, method="exact")
    assert (found.value, found.low, found.high) == pytest.approx((1.0, exact.low, 1.0))
    grouped = bootstrap_interval(right, groups=list("aabbccdd"), draws=50)
    assert grouped.low == pytest.approx(stats.binomtest(4, 4).proportion_ci(0.95, method="exact").low)
    wrong = evaluate_scores(np.eye(2)[[1, 0] * 4], np.eye(2)[[0, 1] * 4], class_names=["a", "b"])
    assert (wrong_found := bootstrap_interval(wrong, draws=50)).low == 0
    assert wrong_found.high == pytest.approx(1 - exact.low)


def test_bootstrap_of_any_measure(rng: np.random.Generator) -> None:
    found = single(rng)
    by_name = bootstrap_interval(found, "macro_f1", draws=50)
    assert by_name.low < by_name.value == found.macro_f1 < by_name.high
    assert bootstrap_interval(found, lambda e: e.macro_f1, draws=50) == by_name


def test_calibration_by_hand() -> None:
    """Scores 0.9 right in 1 of 2 cases, 0.6 in 2 of 2: ECE = (2 * 0.4 + 2 * 0.4) / 4."""
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    found = calibration(evaluate_scores(scores, np.eye(2)[[0, 1, 0, 0]], class_names=["x", "y"]), bins=10)
    assert found.counts.tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 2, 0]
    assert found.expected_error == pytest.approx(0.4)
    assert found.largest_error == pytest.approx(0.4)


def test_calibrated_scores_have_no_error(rng: np.random.Generator) -> None:
    scores = rng.uniform(size=(50_000, 1))
    targets = rng.uniform(size=scores.shape) < scores
    found = calibration(evaluate_scores(scores, targets, class_names=["x"], multi_label=True))
    assert found.expected_error < 0.02
    squared = calibration(evaluate_scores(scores**2, targets, class_names=["x"], multi_label=True))
    assert squared.expected_error == pytest.approx(1 / 6, abs=0.01)  # the integral of x - x ** 2


def test_thresholds_reach_their_goals_as_brute_force_does(rng: np.random.Generator) -> None:
    truth = rng.uniform(size=300) < 0.3
    scores = np.round(truth + rng.normal(size=300), 1)  # with ties
    cuts = np.unique(np.concatenate([scores, scores + 0.05, [9]]))
    decided = scores[None] >= cuts[:, None]
    hits, alarms = (decided & truth).sum(axis=1), (decided & ~truth).sum(axis=1)
    recall, rate = hits / truth.sum(), alarms / (~truth).sum()
    with np.errstate(invalid="ignore"):
        precision = hits / (hits + alarms)
    best = choose_threshold(scores, truth, goal="f1")
    assert best.f1 == pytest.approx((2 * hits / (hits + alarms + truth.sum())).max())
    assert best.f1 == pytest.approx(sk.f1_score(truth, scores >= best.value))
    precise = choose_threshold(scores, truth, goal="precision", value=0.8)
    assert precise.precision >= 0.8
    assert precise.recall == pytest.approx(recall[precision >= 0.8].max())
    finding = choose_threshold(scores, truth, goal="recall", value=0.9)
    assert finding.recall >= 0.9
    assert finding.false_alarms == pytest.approx(rate[recall >= 0.9].min())
    quiet = choose_threshold(scores, truth, goal="false_alarms", value=0.05)
    assert quiet.false_alarms <= 0.05
    assert quiet.recall == pytest.approx(recall[rate <= 0.05].max())
    assert quiet.precision == pytest.approx(sk.precision_score(truth, scores >= quiet.value))
    never = choose_threshold([0.9, 0.1], [0, 1], goal="precision", value=0.8)
    assert not never.reached


def test_thresholds_of_every_class_decide(rng: np.random.Generator) -> None:
    val, test = several(rng), several(rng)
    chosen = choose_thresholds(val, goal="recall", value=0.95)
    decided = with_thresholds(test, chosen)
    for column, metrics in enumerate(decided.per_class):
        expected = sk.recall_score(test.targets[:, column], test.scores[:, column] >= chosen[metrics.name].value)
        assert metrics.recall == pytest.approx(expected)
        assert metrics.recall > 0.85
    assert decided.to_dict()["threshold"] == [chosen[name].value for name in NAMES]
    assert "one for each class" in decided.summary_table()
    worst = decided.errors(1)[0]
    gaps = np.where(decided.predictions != decided.targets, abs(test.scores - decided.to_dict()["threshold"]), 0)
    assert worst.index == gaps.max(axis=1).argmax()


def test_wrong_arguments_are_named(rng: np.random.Generator) -> None:
    found = single(rng)
    for call, message in (
        (lambda: averages(found, "micro"), "average='micro'"),  # type: ignore[arg-type]
        (lambda: top_k_accuracy(found, 5), "k=5"),
        (lambda: top_k_accuracy(several(rng)), "multi_label=False"),
        (lambda: equal_error_rate([0.1, 0.2], [1, 1]), "must both occur"),
        (lambda: equal_error_rate([0.1, math.nan], [0, 1]), "finite"),
        (lambda: bootstrap_interval(found, "loss"), "measure='loss'"),
        (lambda: bootstrap_interval(found, groups=[1]), "groups has 1 values for 200"),
        (lambda: bootstrap_interval(found, level=1.0), "level=1.0"),
        (lambda: bootstrap_interval(found, draws=0), "draws=0"),
        (lambda: calibration(replace(found, scores=found.scores + 1)), "needs probabilities"),
        (lambda: calibration(found, bins=0), "bins=0"),
        (lambda: choose_threshold([0.1, 0.9], [0, 1], goal="eer"), "goal='eer'"),  # type: ignore[arg-type]
        (lambda: choose_threshold([0.1, 0.9], [0, 1], goal="recall"), "value=None"),
        (lambda: with_thresholds(found, dict.fromkeys(NAMES, 0.5)), "multi_label=False"),
        (lambda: with_thresholds(several(rng), {"a": 0.5}), "thresholds are for"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
