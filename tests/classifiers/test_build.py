"""Classifiers and embedding models: any layer, frozen or not, and what a saved one remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tfaudiotl.backbones.embedding import embedding_model
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.backbones.scores import class_names_of
from tfaudiotl.backbones.yamnet import YAMNet
from tfaudiotl.classifiers.build import build_classifier

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
