from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from tfaudiotl.evaluation.metrics import Evaluation, evaluate_scores

pytestmark = pytest.mark.filterwarnings("error")


def single_label(clips: int = 200, classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Evaluation]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, clips)
    scores = rng.random((clips, classes)) + np.eye(classes)[labels] * 0.4
    scores /= scores.sum(axis=1, keepdims=True)
    names = [f"class {i}" for i in range(classes)]
    return labels, scores, evaluate_scores(scores, np.eye(classes)[labels], class_names=names)


def multi_label(clips: int = 200, classes: int = 4) -> tuple[np.ndarray, np.ndarray, Evaluation]:
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 2, (clips, classes))
    scores = np.clip(0.3 * targets + 0.7 * rng.random((clips, classes)), 0.01, 0.99)
    names = [f"class {i}" for i in range(classes)]
    return targets, scores, evaluate_scores(scores, targets, class_names=names, multi_label=True)


def test_single_label_measures_equal_scikit_learn() -> None:
    labels, scores, evaluation = single_label()
    predicted = scores.argmax(axis=1)
    assert evaluation.accuracy == sk.accuracy_score(labels, predicted)
    assert evaluation.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
    assert evaluation.macro_f1 == pytest.approx(sk.f1_score(labels, predicted, average="macro"))
    assert evaluation.log_loss == pytest.approx(sk.log_loss(labels, scores))
    assert evaluation.mean_average_precision == pytest.approx(
        sk.average_precision_score(np.eye(5)[labels], scores, average="macro")
    )
    np.testing.assert_array_equal(evaluation.confusion_matrix, sk.confusion_matrix(labels, predicted))
    np.testing.assert_array_equal(evaluation.confusion_matrix.sum(axis=1), np.bincount(labels))
    assert evaluation.confusion_matrix.dtype == np.int64
    precision, recall, f1, support = sk.precision_recall_fscore_support(labels, predicted)
    for c, metrics in enumerate(evaluation.per_class):
        assert (metrics.precision, metrics.recall, metrics.f1) == (precision[c], recall[c], f1[c])
        assert metrics.support == support[c]
        assert metrics.average_precision == sk.average_precision_score(labels == c, scores[:, c])


def test_multi_label_measures_equal_scikit_learn() -> None:
    targets, scores, evaluation = multi_label()
    decided = (scores >= 0.5).astype(int)
    assert evaluation.accuracy == sk.accuracy_score(targets, decided) < 1
    assert evaluation.macro_f1 == pytest.approx(sk.f1_score(targets, decided, average="macro"))
    assert evaluation.mean_average_precision == pytest.approx(sk.average_precision_score(targets, scores))
    each = [sk.balanced_accuracy_score(targets[:, c], decided[:, c]) for c in range(4)]
    assert evaluation.balanced_accuracy == pytest.approx(np.mean(each))
    cross_entropy = -np.where(targets, np.log(scores), np.log(1 - scores)).mean()
    assert evaluation.log_loss == pytest.approx(cross_entropy)
    precision, recall, f1, support = sk.precision_recall_fscore_support(targets, decided)
    got = [(m.precision, m.recall, m.f1, m.support) for m in evaluation.per_class]
    assert got == list(zip(precision, recall, f1, support, strict=True))


def test_a_case_by_hand() -> None:
    scores = [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.1, 0.7, 0.2], [0.2, 0.5, 0.3]]
    evaluation = evaluate_scores(scores, np.eye(3)[[0, 0, 1, 2]], class_names=["cat", "dog", "rain"])
    assert evaluation.accuracy == 0.5
    assert evaluation.balanced_accuracy == pytest.approx((0.5 + 1 + 0) / 3)
    assert evaluation.confusion_matrix.tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    cat, dog, rain = evaluation.per_class
    assert (cat.precision, cat.recall, cat.support) == (1, 0.5, 2)
    assert (dog.precision, dog.recall) == (pytest.approx(1 / 3), 1)
    assert (rain.precision, rain.recall, rain.f1, rain.average_precision) == (0, 0, 0, 1)
    assert evaluation.log_loss == pytest.approx(-np.log([0.8, 0.3, 0.7, 0.3]).mean())


def test_classes_absent_from_the_targets() -> None:
    # "never": neither in targets nor predicted; "ghost": predicted only
    scores = [[0.9, 0.1, 0, 0], [0.1, 0.8, 0.1, 0], [0.2, 0.1, 0.7, 0]]
    names = ["cat", "dog", "ghost", "never"]
    evaluation = evaluate_scores(scores, np.eye(4)[[0, 1, 1]], class_names=names)
    cat, dog, ghost, never = evaluation.per_class
    assert (ghost.support, ghost.precision, never.recall) == (0, 0, 0)
    assert math.isnan(ghost.average_precision)
    assert math.isnan(never.average_precision)
    assert evaluation.macro_f1 == pytest.approx((cat.f1 + dog.f1 + 0) / 3)  # scikit-learn's default
    assert evaluation.macro_f1 == pytest.approx(sk.f1_score([0, 1, 1], [0, 1, 2], average="macro"))
    assert evaluation.balanced_accuracy == pytest.approx((1 + 0.5) / 2)
    assert evaluation.mean_average_precision == pytest.approx((1 + 5 / 6) / 2)  # dog: (1 + 2/3) / 2
    assert evaluation.confusion_matrix.shape == (4, 4)
    assert math.isfinite(evaluation.log_loss)


@pytest.mark.parametrize("clips", [1, 5])
def test_one_true_class_only(clips: int) -> None:
    evaluation = evaluate_scores([[0.9, 0.1]] * clips, [[1, 0]] * clips, class_names=["a", "b"])
    assert evaluation.accuracy == evaluation.balanced_accuracy == evaluation.macro_f1 == 1
    assert evaluation.confusion_matrix.tolist() == [[clips, 0], [0, 0]]
    assert evaluation.log_loss == pytest.approx(-math.log(0.9))
    json.dumps(evaluation.to_dict(), allow_nan=False)


def test_one_class_with_multi_label() -> None:
    truth, scores = np.array([[1], [0], [1], [1]]), np.array([[0.9], [0.8], [0.3], [0.5]])
    evaluation = evaluate_scores(scores, truth, class_names=["snore"], multi_label=True)
    (snore,) = evaluation.per_class
    assert (snore.precision, snore.recall, snore.support) == (pytest.approx(2 / 3), pytest.approx(2 / 3), 3)
    assert evaluation.accuracy == 0.5
    assert evaluation.balanced_accuracy == pytest.approx((2 / 3 + 0) / 2)
    assert snore.average_precision == sk.average_precision_score(truth[:, 0], scores[:, 0])


def test_multi_label_without_any_positive() -> None:
    evaluation = evaluate_scores(np.full((3, 2), 0.1), np.zeros((3, 2)), class_names=["a", "b"], multi_label=True)
    assert evaluation.accuracy == 1
    assert math.isnan(evaluation.macro_f1)
    assert math.isnan(evaluation.balanced_accuracy)
    assert math.isnan(evaluation.mean_average_precision)
    found = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert found["macro_f1"] is None
    assert found["per_class"][0]["average_precision"] is None


def test_threshold_decides_at_or_above() -> None:
    scores, targets = [[0.3, 0.29]], [[1, 0]]
    evaluation = evaluate_scores(scores, targets, class_names=["a", "b"], multi_label=True, threshold=0.3)
    assert evaluation.predictions.tolist() == [[1, 0]]
    assert evaluation.accuracy == 1


def test_scores_that_are_no_probabilities() -> None:
    logits = evaluate_scores([[2.0, -1.0], [0.5, 3.0]], np.eye(2), class_names=["a", "b"])
    assert logits.accuracy == logits.mean_average_precision == 1
    assert math.isnan(logits.log_loss)
    nothing = evaluate_scores([[0.0, 0.0]], [[1, 0]], class_names=["a", "b"])
    assert math.isnan(nothing.log_loss)
    # an int8 model's rows sum to one only nearly
    quantised = evaluate_scores([[0.75, 0.2]], [[1, 0]], class_names=["a", "b"])
    assert quantised.log_loss == pytest.approx(-math.log(0.75 / 0.95))


def test_confusion_matrix_of_several_labels_says_what_to_use() -> None:
    with pytest.raises(ValueError, match="per_class"):
        _ = multi_label()[2].confusion_matrix


def test_errors_lists_the_most_confident_first() -> None:
    scores = [[0.4, 0.6], [0.05, 0.95], [0.9, 0.1], [0.3, 0.7]]
    evaluation = evaluate_scores(
        scores,
        np.eye(2)[[0, 0, 0, 1]],
        class_names=["cat", "dog"],
        names=["a.wav", "b.wav", "c.wav", "d.wav"],
    )
    worst, second = evaluation.errors(5)
    assert (worst.index, worst.name, worst.true_label, worst.predicted_label) == (1, "b.wav", "cat", "dog")
    assert worst.score == 0.95
    assert second.index == 0
    assert evaluation.errors(1) == (worst,)
    assert evaluation.errors(0) == ()
    with pytest.raises(ValueError, match="k=-1"):
        evaluation.errors(-1)


def test_errors_of_several_labels() -> None:
    evaluation = evaluate_scores(
        [[0.02, 0.6], [0.9, 0.1]], [[1, 0], [1, 0]], class_names=["cat", "dog"], multi_label=True
    )
    missed, false_alarm = evaluation.errors(9)
    assert (missed.index, missed.name, missed.score) == (0, "", 0.02)
    assert (missed.true_label, missed.predicted_label) == ("cat", "not cat")
    assert (false_alarm.true_label, false_alarm.predicted_label) == ("not dog", "dog")


def test_to_dict_is_plain_and_complete() -> None:
    evaluation = single_label()[2]
    found = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert found == evaluation.to_dict()
    assert found["accuracy"] == evaluation.accuracy
    assert found["confusion_matrix"] == evaluation.confusion_matrix.tolist()
    assert found["per_class"][2]["f1"] == evaluation.per_class[2].f1
    assert multi_label()[2].to_dict()["confusion_matrix"] is None


def test_to_markdown_holds_the_numbers() -> None:
    evaluation = single_label()[2]
    text = evaluation.to_markdown()
    assert f"{evaluation.accuracy:.3f}" in text
    for metrics in evaluation.per_class:
        assert any(metrics.name in line and f"{metrics.f1:.3f}" in line for line in text.splitlines())


def test_scores_are_copied_and_read_only() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    evaluation = evaluate_scores(scores, np.eye(2, dtype=bool), class_names=["a", "b"])
    scores[:] = 0
    assert evaluation.accuracy == 1
    assert evaluation.scores.dtype == evaluation.targets.dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        evaluation.scores[0] = 0


GOOD = np.array([[0.9, 0.1], [0.2, 0.8]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": GOOD[:, :1]}, r"scores has shape \(2, 1\); \(clips, 2\)"),
        ({"scores": GOOD[0]}, r"scores has shape \(2,\)"),
        ({"scores": GOOD[:0]}, r"scores has shape \(0, 2\): no clips"),
        ({"scores": [[0.5, np.nan], [0, 1]]}, r"scores\[0, 1\]=nan \(1 of 4"),
        ({"scores": [[0.5, 0.5], [np.inf, 1]]}, r"scores\[1, 0\]=inf"),
        ({"scores": [["loud", "quiet"]]}, "scores is no array of numbers"),
        ({"scores": GOOD[:1]}, "scores has 1 rows and targets 2"),
        ({"targets": [0, 1]}, r"targets has shape \(2,\).*np.eye"),
        ({"targets": [[1, 0], [0.5, 0.5]]}, r"targets\[1, 0\]=0.5; only 0 and 1"),
        ({"targets": [[1, 0], [1, 1]]}, r"targets\[1\] has 2 classes; exactly one .* multi_label=True"),
        ({"targets": [[0, 0], [1, 0]]}, r"targets\[0\] has 0 classes"),
        ({"class_names": "ab"}, "class_names='ab' is one string"),
        ({"class_names": ["a"]}, "at least 2 are needed"),
        ({"class_names": [], "multi_label": True}, "at least 1 are needed"),
        ({"names": ["a.wav"]}, "names has length 1"),
        ({"names": "ab"}, r"names has length 2 \(str\)"),
        ({"threshold": math.nan}, "threshold=nan"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"scores": GOOD, "targets": np.eye(2), "class_names": ["a", "b"], **change}
    with pytest.raises(ValueError, match=message):
        evaluate_scores(arguments.pop("scores"), arguments.pop("targets"), **arguments)


def test_needs_neither_tensorflow_nor_matplotlib_for_measures() -> None:
    code = (
        "import sys; import tfaudiotl.evaluation.metrics; assert 'matplotlib' not in sys.modules;"
        "import tfaudiotl.evaluation.report;"
        "assert not {'tensorflow', 'keras', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
