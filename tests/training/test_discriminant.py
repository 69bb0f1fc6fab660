"""Linear discriminants in closed form: scikit-learn's, weights, shrinkage chosen inside, and the whole recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from tests.helpers.commands import call
from tests.helpers.sounds import write_folder
from tests.helpers.training import examples, head, turned_fold
from tfaudiotl.augment.layers import RandomGain
from tfaudiotl.data.clips import Clips
from tfaudiotl.export.tflite import export_tflite
from tfaudiotl.runtime.load import open_artifact
from tfaudiotl.training import discriminant
from tfaudiotl.training.discriminant import Discriminant, Rows, fit_discriminant
from tfaudiotl.training.fine_tune import fine_tune
from tfaudiotl.training.head import Examples, clip_scores, fit_head
from tfaudiotl.training.options import FineTuneOptions, FitOptions
from tfaudiotl.training.train import TrainingResult, train_classifier

CLOSED = FitOptions(solver="discriminant", class_weight=None)


def rows(count: int, dim: int, *, classes: int = 3, spread: float = 1.0, seed: int = 0) -> Rows:
    """Each row is a clip; classes of different size and correlated numbers."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(np.arange(count) % (classes + 1), classes - 1)
    mixing = np.random.default_rng(1).normal(size=(dim, dim)) / np.sqrt(dim)
    centres = np.random.default_rng(2).normal(size=(classes, dim))
    x = (centres[labels] + spread * rng.normal(size=(count, dim)) @ mixing).astype(np.float32)
    each = np.arange(count)
    return Rows(x, labels, np.ones(count), each, each, np.ones(count, bool))


def logits(found: Discriminant, x: np.ndarray) -> np.ndarray:
    return x @ found.kernel + found.bias


@pytest.mark.parametrize(("count", "dim"), [(90, 12), (40, 60)], ids=["primal", "dual"])
def test_it_is_scikit_learns_with_the_shrinkage_chosen_and_one_scale(count: int, dim: int) -> None:
    data = rows(count, dim)
    found = fit_discriminant(data, 3)
    assert found.tried
    assert found.shrinkage in discriminant.SHRINKAGES
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=found.shrinkage).fit(data.x, data.labels)
    asked = rows(50, dim, seed=5).x
    expected = log_softmax(model.decision_function(asked), axis=1)
    ours = logits(found, asked)
    expected, ours = (values - values.mean(axis=1, keepdims=True) for values in (expected, ours))
    scale = (expected * ours).sum() / (expected**2).sum()
    np.testing.assert_allclose(ours, scale * expected, atol=2e-3 * np.abs(ours).max())


@pytest.mark.parametrize("dim", [12, 90], ids=["primal", "dual"])
def test_a_row_of_weight_two_is_two_rows(dim: int) -> None:
    data = rows(60, dim, spread=5)
    double = np.arange(60) % 4 == 1
    twice = np.concatenate([np.arange(60), np.flatnonzero(double)])
    weighted = fit_discriminant(dataclasses.replace(data, weights=1.0 + double), 3)
    repeated = fit_discriminant(Rows(*(getattr(data, field.name)[twice] for field in dataclasses.fields(Rows))), 3)
    assert weighted.shrinkage == repeated.shrinkage
    np.testing.assert_allclose(weighted.kernel, repeated.kernel, rtol=0.05, atol=5e-3 * np.abs(weighted.kernel).max())


def test_noise_wants_more_shrinkage_than_a_clean_covariance() -> None:
    few, many = fit_discriminant(rows(24, 60, spread=3), 3), fit_discriminant(rows(3000, 12, spread=3), 3)
    assert few.shrinkage >= 0.3
    assert many.shrinkage <= 0.1


def test_the_scale_makes_the_scores_likely_on_other_clips() -> None:
    data, other = rows(80, 100, spread=6), rows(400, 100, spread=6, seed=7)

    def loss(scale: float) -> float:
        scores = log_softmax(scale * logits(found, other.x), axis=1)
        return float(-scores[np.arange(400), other.labels].mean())

    found = fit_discriminant(data, 3)
    assert loss(1.0) < min(loss(4.0), loss(0.25))


def test_folds_keep_recordings_together() -> None:
    """Two rows of a recording are nearly the same: only where they stay together do folds see how little is known."""
    data = rows(30, 80, spread=30)
    pairs = np.repeat(np.arange(30), 2)
    near = data.x[pairs] + np.random.default_rng(3).normal(0, 0.01, (60, 80)).astype(np.float32)
    twice = Rows(near, data.labels[pairs], np.ones(60), np.arange(60), pairs, np.ones(60, bool))
    torn = dataclasses.replace(twice, units=np.arange(60))
    confident = [np.ptp(logits(fit_discriminant(each, 3), near), axis=1).mean() for each in (twice, torn)]
    assert confident[0] < 0.5 * confident[1]


@pytest.mark.parametrize("rows_of_clip", [1, 3])
def test_one_clip_of_each_class(rows_of_clip: int) -> None:
    rng, clips = np.random.default_rng(0), np.repeat(np.arange(4), rows_of_clip)
    x = (10 * np.eye(4)[clips] + rng.normal(0, 0.1, (len(clips), 4))).astype(np.float32)
    found = fit_discriminant(Rows(x, clips, np.ones(len(x)), clips, clips, np.ones(len(x), bool)), 4)
    assert not found.tried
    assert found.shrinkage == discriminant.UNTRIED
    assert (logits(found, x).argmax(axis=1) == clips).all()
    assert np.isfinite(found.kernel).all()


def test_a_class_of_one_clip_beside_larger_ones() -> None:
    data = rows(61, 20)
    labels = np.where(np.arange(61) == 60, 3, data.labels)
    x = data.x + 20 * (labels == 3)[:, None].astype(np.float32)
    found = fit_discriminant(dataclasses.replace(data, x=x, labels=labels), 4)
    assert found.tried
    assert logits(found, x[60:]).argmax() == 3


def test_a_class_without_clips_is_an_error() -> None:
    data = rows(30, 5)
    with pytest.raises(ValueError, match="class number 1 has no clip"):
        fit_discriminant(dataclasses.replace(data, weights=np.where(data.labels == 1, 0.0, 1.0)), 3)


def accuracy(model: keras.Model, data: Examples) -> float:
    return float((clip_scores(model, data).argmax(axis=1) == data.targets.argmax(axis=1)).mean())


def test_a_head_is_as_good_as_one_trained_step_by_step() -> None:
    data, other = examples(90), examples(90, seed=1)
    closed, stepwise = head(hidden=()), head(hidden=())
    fitted = fit_head(closed, data, None, CLOSED)
    fit_head(stepwise, data, None, FitOptions(epochs=30, learning_rate=0.02))
    assert fitted.shrinkage is not None
    assert fitted.history == {}
    assert accuracy(closed, other) >= accuracy(stepwise, other) - 0.02
    np.testing.assert_allclose(np.asarray(clip_scores(closed, other)).sum(axis=1), 1, rtol=1e-5)


def test_long_clips_weigh_no_more_than_short_ones() -> None:
    """A clip cut in as many equal patches as one likes is the same clip."""
    data = examples(30)
    ones = Examples(data.mean_by_clip(data.vectors), np.ones(30, int), data.targets, data.weights)
    counts = np.where(np.arange(30) % 2, 7, 1)
    longer = Examples(np.repeat(ones.vectors, counts, axis=0), counts, data.targets, data.weights)
    found = []
    for each in (ones, longer):
        model = head(hidden=())
        fit_head(model, each, None, CLOSED)
        found.append(clip_scores(model, ones))
    np.testing.assert_allclose(found[0], found[1], atol=2e-3)


def test_class_weights_give_a_rare_class_back() -> None:
    data, other = examples(300, spread=2.5), examples(150, seed=1, spread=2.5)
    first = data.targets[:, 0] == 1
    rare = data.take(np.concatenate([np.flatnonzero(first)[:5], np.flatnonzero(~first)]))

    def recall(options: FitOptions) -> float:
        model = head(hidden=())
        fit_head(model, rare, None, options)
        return float((clip_scores(model, other).argmax(axis=1) == 0)[other.targets[:, 0] == 1].mean())

    assert recall(dataclasses.replace(CLOSED, class_weight="balanced")) > recall(CLOSED) + 0.1


def test_what_cannot_be_is_named() -> None:
    with pytest.raises(ValueError, match=r"give hidden=\(\) with head='dense'"):
        fit_head(head(hidden=(4,)), examples(), None, CLOSED)
    with pytest.raises(ValueError, match="use solver='adam'"):
        fit_head(head(hidden=(), multi_label=True), examples(), None, CLOSED)
    with pytest.raises(ValueError, match="val: solver='discriminant' needs no clips"):
        fit_head(head(hidden=()), examples(), examples(9), CLOSED)
    with pytest.raises(ValueError, match="go with solver='adam'"):
        FitOptions(solver="discriminant", loss="focal")
    with pytest.raises(ValueError, match="solver='svm'"):
        FitOptions(solver="svm")  # type: ignore[arg-type]


def train(clips: Clips, stand_in: Path, **options: Any) -> TrainingResult:
    settings = {"fit": FitOptions(solver="discriminant"), "embedding": "layer3", "weights": str(stand_in), **options}
    return train_classifier(clips, **settings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "sounds")


@pytest.mark.parametrize("head", ["dense", "average", "statistics"])
def test_the_recipe(head: str, folder: Path, stand_in: Path, tmp_path: Path) -> None:
    result = train(Clips.from_directory(folder), stand_in, head=head)
    assert result.evaluation.accuracy == 1.0
    assert not result.stopped_by_held_out
    assert result.epochs == 0
    assert f"shrunk by {result.shrinkage:g}" in result.how_trained()
    path = export_tflite(result.model, tmp_path / "model.tflite", samples=32_000)
    for row in range(3):
        wave = result.held_out.load(row)[:32_000]
        scores = result.model(wave[None])
        np.testing.assert_allclose(scores[0], result.evaluation.scores[row], atol=2e-3)
        wave = np.pad(wave, (0, 32_000 - len(wave)))
        np.testing.assert_allclose(open_artifact(path).scores(wave[None]), result.model(wave[None]), atol=1e-4)


def test_a_fold_is_never_seen_before_it_is_scored(folder: Path, stand_in: Path) -> None:
    """Labels of one fold turned around: its own accuracy is lost, while the others' heads would learn them."""
    result = train(turned_fold(folder), stand_in, folds="given")
    assert {fold.name: fold.accuracy for fold in result.folds}["2"] == 0
    assert result.shrinkage is not None


def test_augmented_clips_and_fine_tuning_after_it(folder: Path, stand_in: Path) -> None:
    clips = Clips.from_directory(folder)
    result = train(clips, stand_in, augment=[RandomGain()], fit=FitOptions(solver="discriminant", copies=1))
    assert result.evaluation.accuracy == 1.0
    before = clip_accuracy(result.model, clips)
    fine_tune(result.model, clips, trainable=1, head_epochs=0, epochs=1, learning_rate=1e-5, verbose=False)
    assert clip_accuracy(result.model, clips) >= before


def clip_accuracy(model: keras.Model, clips: Clips) -> float:
    found = [int(np.argmax(model(clips.load(row)[None]))) for row in range(len(clips))]
    return float(np.mean(np.array(found) == clips.label_ids))


def test_the_recipe_refuses_what_cannot_be(folder: Path, stand_in: Path) -> None:
    clips = Clips.from_directory(folder)
    with pytest.raises(ValueError, match=r"give hidden=\(\)"):
        train(clips, stand_in, hidden=(8,))
    with pytest.raises(ValueError, match="use solver='adam'"):
        train(Clips.from_files(clips.paths, [["high", "low"], *clips.labels[1:]]), stand_in)
    with pytest.raises(ValueError, match="not both"):
        train(clips, stand_in, fine_tune=FineTuneOptions())


def test_the_command(folder: Path, stand_in: Path, tmp_path: Path) -> None:
    options = ["--weights", stand_in, "--embedding", "layer3", "--solver", "discriminant"]
    call("train", folder, "-o", tmp_path / "out", *options)
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "linear discriminant analysis in closed form" in card
    assert "hidden layers (), dropout" in card
    result = call("train", folder, "-o", tmp_path / "other", *options, "--fine-tune", "2", code=2)
    assert "--fine-tune" in result.output
