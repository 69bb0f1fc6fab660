"""Linear scikit-learn classifiers as Keras heads: the same decisions, and files for devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC

from tests.helpers.sounds import KINDS, sound
from tfaudiotl.backbones.scores import class_names_of
from tfaudiotl.classifiers.from_sklearn import classifier_from_sklearn
from tfaudiotl.embeddings.extract import embed
from tfaudiotl.export.tflite import export_tflite
from tfaudiotl.runtime.load import open_artifact


@pytest.fixture(scope="module")
def sounds() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    labels = np.array(KINDS)[np.arange(30) % 3]
    return np.stack([sound(label, rng) for label in labels]), labels


@pytest.fixture(scope="module")
def vectors(sounds: tuple[np.ndarray, np.ndarray], stand_in: Path) -> np.ndarray:
    return np.asarray(embed("yamnet", list(sounds[0]), embedding="layer5", weights=str(stand_in)))


def as_keras(estimator: Any, stand_in: Path, **options: Any) -> Any:
    return classifier_from_sklearn(estimator, embedding="layer5", weights=str(stand_in), **options)


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(max_iter=1_000),
        make_pipeline(StandardScaler(), LogisticRegression()),
        make_pipeline(StandardScaler(), StandardScaler(with_mean=False), LinearSVC()),
        make_pipeline(StandardScaler(with_std=False), RidgeClassifier()),
        LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
        OneVsRestClassifier(RidgeClassifier()),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
@pytest.mark.parametrize("kinds", [3, 2])
def test_decides_as_the_estimator(
    estimator: Any, kinds: int, sounds: tuple[np.ndarray, np.ndarray], vectors: np.ndarray, stand_in: Path
) -> None:
    rows = np.isin(sounds[1], KINDS[:kinds])
    estimator.fit(vectors[rows], sounds[1][rows])
    model = as_keras(estimator, stand_in)
    assert class_names_of(model) == tuple(estimator.classes_)
    scores = np.asarray(model(sounds[0][rows]))
    np.testing.assert_array_equal(estimator.classes_[scores.argmax(axis=1)], estimator.predict(vectors[rows]))
    if hasattr(estimator, "predict_proba"):
        np.testing.assert_allclose(scores, estimator.predict_proba(vectors[rows]), atol=2e-3)


def test_several_labels_and_numbers_as_classes(
    sounds: tuple[np.ndarray, np.ndarray], vectors: np.ndarray, stand_in: Path
) -> None:
    targets = np.stack([sounds[1] == "noise", sounds[1] != "high"], axis=1).astype(int)
    estimator = OneVsRestClassifier(make_logistic()).fit(vectors, targets)
    scores = np.asarray(as_keras(estimator, stand_in, class_names=["noisy", "deep"])(sounds[0]))
    np.testing.assert_allclose(scores, estimator.predict_proba(vectors), atol=2e-3)


def make_logistic() -> LogisticRegression:
    return LogisticRegression(C=0.1)


def test_exports(sounds: tuple[np.ndarray, np.ndarray], vectors: np.ndarray, stand_in: Path, tmp_path: Path) -> None:
    estimator = make_pipeline(StandardScaler(), LinearSVC()).fit(vectors, sounds[1])
    model = as_keras(estimator, stand_in)
    path = export_tflite(model, tmp_path / "svm.tflite", samples=sounds[0].shape[1])
    np.testing.assert_allclose(open_artifact(path).scores(sounds[0]), model(sounds[0]), atol=1e-3)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (KNeighborsClassifier(3), "a fitted linear classifier"),
        (make_pipeline(MinMaxScaler(), LogisticRegression()), "only StandardScaler"),
        (SVC(kernel="linear"), "one-vs-one"),
        (OneVsRestClassifier(KNeighborsClassifier(3)), "one-vs-rest"),
    ],
)
def test_what_is_not_linear_is_refused(
    estimator: Any, message: str, sounds: tuple[np.ndarray, np.ndarray], vectors: np.ndarray, stand_in: Path
) -> None:
    four = np.array(["a", "b", "c", "d"])[np.arange(30) % 4]
    with pytest.raises(ValueError, match=message):
        as_keras(estimator.fit(vectors, four), stand_in)


def test_wrong_widths_and_arguments(sounds: tuple[np.ndarray, np.ndarray], vectors: np.ndarray, stand_in: Path) -> None:
    with pytest.raises(ValueError, match="a fitted linear classifier"):
        as_keras(LogisticRegression(), stand_in)
    estimator = LogisticRegression().fit(vectors[:, :7], sounds[1])
    with pytest.raises(ValueError, match="7 numbers; the embedding has"):
        as_keras(estimator, stand_in)
    with pytest.raises(ValueError, match="these cannot be given"):
        as_keras(estimator, stand_in, hidden=(3,))
