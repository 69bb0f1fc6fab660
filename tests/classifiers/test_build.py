"""Classifiers and embedding models: any layer, frozen or not, heads of scikit-learn, and what a saved one keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
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
from tfaudiotl.backbones.embedding import embedding_model
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.backbones.scores import class_names_of
from tfaudiotl.backbones.yamnet import YAMNet
from tfaudiotl.classifiers.build import build_classifier, classifier_from_sklearn
from tfaudiotl.embeddings.extract import embed
from tfaudiotl.export.tflite import export_tflite
from tfaudiotl.runtime.load import open_artifact

CLASSES = ["dog", "rain", "sea waves"]
LAYERS = [layer.name for layer in get_backbone("yamnet").layers]


def noise(seconds: float, *, clips: int = 1) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (clips, int(seconds * 16_000))).astype(np.float32)


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_is_an_embedding(layer: str, stand_in: Path) -> None:
    model = embedding_model("yamnet", embedding=layer, weights=str(stand_in))
    embedding = np.asarray(model(noise(2)))
    assert embedding.shape == (1, 4, get_backbone("yamnet").embedding_layer(layer).width)
    assert np.isfinite(embedding).all()
    whole = YAMNet(weights=str(stand_in))
    picture = np.asarray(
        keras.Model(whole.input, whole.get_layer(get_backbone("yamnet").embedding_layer(layer).layer).output)(noise(2))
    )
    if layer == "log_mel":
        picture = picture.mean(axis=(1, 3))
    elif picture.ndim == 4:
        picture = picture.mean(axis=(1, 2))
    np.testing.assert_allclose(embedding[0], picture, rtol=1e-4, atol=1e-5)


def test_nothing_above_the_last_layer_is_built(stand_in: Path) -> None:
    model = build_classifier("yamnet", class_names=CLASSES, embedding=["layer3", "layer8"], weights=str(stand_in))
    names = {layer.name for layer in model.layers}
    assert "layer8_pointwise_conv_relu" in names
    assert not any(name.startswith("layer9") for name in names)
    assert "logits" not in names


@pytest.mark.parametrize(("pooling", "width"), [("avg", 256 + 64), ("max", 256 + 64), ("avgmax", 2 * (256 + 64))])
def test_several_layers_side_by_side(pooling: Any, width: int, stand_in: Path) -> None:
    several = embedding_model("yamnet", embedding=["layer2", "layer5"], pooling=pooling, weights=str(stand_in))
    both = np.asarray(several(noise(1)))
    assert both.shape == (1, 2, width)
    single = embedding_model("yamnet", embedding="layer2", pooling=pooling, weights=str(stand_in))
    first = np.asarray(single(noise(1)))
    np.testing.assert_allclose(both[..., : first.shape[-1]], first, rtol=1e-5)


@pytest.mark.parametrize("aggregate", ["scores", "embeddings"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_classifier_learns_two_tones(aggregate: Any, multi_label: bool, stand_in: Path) -> None:
    rng = np.random.default_rng(0)
    time = np.arange(20_000) / 16_000
    high = rng.integers(0, 2, 40)
    waveforms = np.sin(2 * np.pi * np.where(high, 3_000, 300)[:, None] * time) * rng.uniform(0.3, 1, (40, 1))
    targets = np.eye(2, dtype=np.float32)[high]
    model = build_classifier(
        "yamnet",
        class_names=["low", "high"],
        embedding="layer2",
        hidden=(),
        aggregate=aggregate,
        multi_label=multi_label,
        weights=str(stand_in),
        learning_rate=0.05,
    )
    frozen = model.get_layer("layer2_pointwise_conv").get_weights()[0]
    model.fit(waveforms, targets, epochs=20, batch_size=8, verbose=0)
    assert (model.predict(waveforms, verbose=0).argmax(axis=1) == high).mean() == 1.0
    np.testing.assert_array_equal(model.get_layer("layer2_pointwise_conv").get_weights()[0], frozen)


def test_padding_does_not_change_the_result(stand_in: Path) -> None:
    for aggregate in ("scores", "embeddings"):
        model = build_classifier("yamnet", class_names=CLASSES, weights=str(stand_in), aggregate=aggregate)
        waveform = noise(2.2)
        padded = np.pad(waveform, ((0, 0), (0, 50_000)))
        np.testing.assert_allclose(model(waveform), model(padded), rtol=1e-4, atol=1e-6)


def test_scores_are_the_mean_over_patches(stand_in: Path) -> None:
    model = build_classifier("yamnet", class_names=CLASSES, weights=str(stand_in))
    waveform = noise(2)
    patches = [waveform[:, i * 7_680 : i * 7_680 + 15_600] for i in range(4)]
    each = [np.asarray(model(patch)) for patch in patches]
    np.testing.assert_allclose(model(waveform), np.mean(each, axis=0), rtol=1e-4, atol=1e-6)


def test_saved_model_knows_its_classes(stand_in: Path, tmp_path: Path) -> None:
    model = build_classifier("yamnet", class_names=CLASSES, weights=str(stand_in), hidden=(16,))
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert class_names_of(reloaded) == tuple(CLASSES)
    np.testing.assert_array_equal(reloaded(noise(3, clips=2)), model(noise(3, clips=2)))


@pytest.mark.parametrize(
    ("trainable", "blocks"),
    [(0, set()), (1, {"layer14"}), (2, {"layer13", "layer14"}), ("all", {f"layer{n}" for n in range(1, 15)})],
)
def test_trainable_blocks(trainable: int | str, blocks: set[str], stand_in: Path) -> None:
    model = build_classifier("yamnet", class_names=CLASSES, weights=str(stand_in), trainable=trainable)
    free = {variable.path.split("_")[0].split("/")[0] for variable in model.trainable_variables}
    assert free == blocks | {"head"}


def test_patches_and_fixed_samples(stand_in: Path) -> None:
    patches = build_classifier("yamnet", class_names=CLASSES, weights=str(stand_in), input="patches")
    assert patches.input_shape == (None, 96, 64)
    assert patches(np.zeros((5, 96, 64), np.float32)).shape == (5, 3)
    fixed = build_classifier("yamnet", class_names=CLASSES, weights=str(stand_in), samples=15_600)
    assert fixed.input_shape == (None, 15_600)
    loose = build_classifier("yamnet", class_names=CLASSES, weights=str(stand_in))
    loose.set_weights(fixed.get_weights())
    np.testing.assert_allclose(fixed(noise(0.975)), loose(noise(0.975)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_scores_are_float32(policy: str, stand_in: Path) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = build_classifier("yamnet", class_names=CLASSES, weights=str(stand_in))
    finally:
        keras.config.set_dtype_policy(before)
    scores = np.asarray(model(noise(2)))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_names": ["one"]}, r"class_names=\['one'\]: at least two"),
        ({"class_names": ["a", "a"]}, "at least two different"),
        ({"class_names": "dog"}, "class_names='dog': a sequence"),
        ({"class_names": 10}, "class_names=10: a sequence of class names"),
        ({"embedding": "layer15"}, "embedding='layer15': yamnet has the layers log_mel, layer1,"),
        ({"embedding": []}, r"embedding=\[\]"),
        ({"head": "svm"}, "head='svm': allowed are dense"),
        ({"hidden": (0,)}, r"hidden=\(0,\)"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"pooling": "mean"}, "pooling='mean': allowed are avg, max, avgmax"),
        ({"aggregate": "votes"}, "aggregate='votes': allowed are scores, embeddings"),
        ({"trainable": 15}, "trainable=15: allowed are 0 to 14"),
        ({"trainable": True}, "trainable=True"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_classifier("yamnet", **{"class_names": CLASSES, "weights": None, **options})


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
