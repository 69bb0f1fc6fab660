from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.helpers.reports import check_png, evaluation, history
from tfaudiotl.evaluation.metrics import evaluate_scores
from tfaudiotl.evaluation.plots import (
    confusion_matrix_figure,
    per_class_figure,
    save_figure,
    training_curves_figure,
)

pytestmark = pytest.mark.filterwarnings("error")


def texts_inside(figure: Figure) -> list[str]:
    axes = figure.axes[0]
    return [text.get_text() for text in axes.texts]


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of neighbouring tick labels whose boxes share more than a pixel."""
    figure.draw_without_rendering()
    found = []
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        labels = [label for label in axis.get_ticklabels() if label.get_text()]
        for one, two in pairwise(labels):
            a, b = one.get_window_extent(), two.get_window_extent()
            if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1:
                found.append((one.get_text(), two.get_text()))
    return found


@pytest.mark.parametrize("classes", [2, 3, 10, 30, 31, 50, 120])
def test_confusion_matrix_is_readable(classes: int, tmp_path: Path) -> None:
    found = evaluation(classes)
    figure = confusion_matrix_figure(found)
    counts = [str(count) for count in found.confusion_matrix.ravel()]
    assert texts_inside(figure) == (counts if classes <= 30 else [])
    assert overlaps(figure) == []
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Predicted class", "True class")
    shown = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(shown.sum(axis=1), 1)
    assert max(figure.get_size_inches()) < 30
    if classes in (2, 31):
        check_png(save_figure(figure, tmp_path / "figure.png"))


def test_short_names_stand_upright() -> None:
    found = evaluate_scores(np.eye(3), np.eye(3), class_names=["cat", "dog", "rain"])
    labels = confusion_matrix_figure(found).axes[0].get_xticklabels()
    assert [(label.get_text(), label.get_rotation()) for label in labels] == [
        ("cat", 0),
        ("dog", 0),
        ("rain", 0),
    ]


def test_a_class_without_clips_and_odd_names(tmp_path: Path) -> None:
    # a formula to matplotlib, a script that its font lacks, a line break, nothing at all
    names = ["$\\frac{$", "声音", "two\nlines", ""]
    found = evaluate_scores(np.eye(4)[:3], np.eye(4)[:3], class_names=names)
    check_png(save_figure(confusion_matrix_figure(found), tmp_path / "matrix.png"))
    check_png(save_figure(per_class_figure(found), tmp_path / "bars.png"))


def test_confusion_matrix_refuses_several_labels() -> None:
    with pytest.raises(ValueError, match="multi_label"):
        confusion_matrix_figure(evaluation(3, multi_label=True))


@pytest.mark.parametrize("classes", [1, 10, 90])
def test_per_class_bars_are_sorted_and_show_the_support(classes: int, tmp_path: Path) -> None:
    found = evaluation(classes, multi_label=True)
    figure = per_class_figure(found)
    axes = figure.axes[0]
    f1, precision, recall = ([bar.get_width() for bar in bars] for bars in axes.containers)
    assert f1 == sorted((m.f1 for m in found.per_class), reverse=True)[-60:]
    assert len(precision) == len(recall) == min(classes, 60)
    worst = min(found.per_class, key=lambda m: m.f1)
    assert f"({worst.support})" in axes.get_yticklabels()[-1].get_text()
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the best on top
    assert overlaps(figure) == []
    check_png(save_figure(figure, tmp_path / "bars.png"))


def test_training_curves_of_one_run(tmp_path: Path) -> None:
    figure = training_curves_figure({"final": history(7)})
    assert [axes.get_title() for axes in figure.axes] == ["Loss", "Accuracy"]
    for axes, metric in zip(figure.axes, ("loss", "accuracy"), strict=True):
        train, validation = axes.lines
        assert train.get_label() == "training"
        np.testing.assert_array_equal(train.get_xdata(), range(1, 8))
        np.testing.assert_array_equal(train.get_ydata(), history(7)[metric])
        np.testing.assert_array_equal(validation.get_ydata(), history(7)[f"val_{metric}"])
    check_png(save_figure(figure, tmp_path / "curves.png"))


def test_folds_are_overlaid_with_the_mean_over_their_common_epochs() -> None:
    figure = training_curves_figure({"fold 1": history(4), "fold 2": history(6, offset=1)})
    *light, mean = figure.axes[0].lines[:3]
    assert [line.get_alpha() for line in light] == [0.3, 0.3]
    assert [len(np.asarray(line.get_xdata())) for line in light] == [4, 6]
    np.testing.assert_allclose(np.asarray(mean.get_ydata()), np.array(history(4)["loss"]) + 0.5)
    assert len(figure.axes[0].get_legend_handles_labels()[1]) == 2  # not one for each fold


def test_histories_may_lack_metrics(tmp_path: Path) -> None:
    figure = training_curves_figure({"a": {"loss": [1.0]}, "b": {"loss": [], "binary_accuracy": [np.nan, 0.5]}})
    assert [axes.get_title() for axes in figure.axes] == ["Loss", "Binary accuracy"]
    check_png(save_figure(figure, tmp_path / "curves.png"))
    assert len(training_curves_figure({"a": {"loss": [1.0, 0.5]}}).axes) == 1
    nothing: list[dict[str, dict[str, list[float]]]] = [{}, {"a": {}}, {"a": {"loss": [], "auc": [0.5]}}]
    for empty in nothing:
        with pytest.raises(ValueError, match=r"histories=.*'loss'"):
            training_curves_figure(empty)


def test_figures_leave_pyplot_alone() -> None:
    pyplot = sys.modules.get("matplotlib.pyplot")  # another test's import, perhaps
    per_class_figure(evaluation(3))
    if pyplot is not None:
        assert pyplot.get_fignums() == []
    else:
        assert "matplotlib.pyplot" not in sys.modules
