"""What is taken from a layer: frequency kept, in the model, the engine and every file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.helpers.sounds import write_folder
from tfaudiotl.backbones.assembly import Input
from tfaudiotl.backbones.embedding import (
    FrequencyPooling,
    embedding_layers,
    embedding_model,
    embedding_recipes,
    resolve_embedding,
)
from tfaudiotl.backbones.registry import get_backbone, list_backbones
from tfaudiotl.backbones.spec import Recipe
from tfaudiotl.backbones.yamnet import YAMNet
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.data.clips import Clips
from tfaudiotl.data.folders import sound_files
from tfaudiotl.embeddings import hear
from tfaudiotl.embeddings.extract import AudioEmbedding, EngineOptions, embed
from tfaudiotl.embeddings.probe import probe_layers
from tfaudiotl.embeddings.store import StoreError
from tfaudiotl.export.tflite import Quantize, export_tflite
from tfaudiotl.runtime.predictor import Predictor
from tfaudiotl.tflite.graph import Graph
from tfaudiotl.training.distill import open_teacher

KERAS = EngineOptions(runtime="keras")


def noise(seconds: float, *, clips: int = 1) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (clips, int(seconds * 16_000))).astype(np.float32)


def test_frequency_is_kept_and_time_is_not(stand_in: Path) -> None:
    model = embedding_model("yamnet", embedding=["layer3", "embedding"], pooling="freq", weights=str(stand_in))
    found = np.asarray(model(noise(1.4)))
    whole = YAMNet(weights=str(stand_in))
    names = [get_backbone("yamnet").embedding_layer(name).layer for name in ("layer3", "embedding")]
    maps, own = keras.Model(whole.input, [whole.get_layer(name).output for name in names])(noise(1.4))
    wanted = np.sqrt(np.asarray(maps).mean(axis=1)).reshape(2, 16 * 128)  # 16 bands of 128 channels
    assert found.shape == (1, 2, 16 * 128 + 1024)
    np.testing.assert_allclose(found[0, :, : 16 * 128], wanted, rtol=1e-3, atol=2e-3)
    np.testing.assert_allclose(found[0, :, 16 * 128 :], own, rtol=1e-4, atol=1e-5)  # has no bands: as it is


def test_numbers_below_zero_keep_their_sign() -> None:
    x = np.random.default_rng(0).normal(size=(5, 7, 3, 2)).astype(np.float32)
    means = x.mean(axis=1).reshape(5, 6)
    found = np.asarray(FrequencyPooling(signed=True)(x))
    np.testing.assert_allclose(found, np.sign(means) * np.sqrt(np.abs(means)), atol=1.1e-3)
    keras.utils.set_random_seed(1)
    model = embedding_model("mobilenetv2", embedding="block_2_project_BN", pooling="freq", weights=None,
                            backbone_options={"size": 32})  # fmt: skip
    assert np.asarray(model(noise(1))).min() < 0
    assert model.get_layer("block_2_project_BN_freq").signed
    assert not embedding_model("vggish", embedding="conv1", pooling="freq", weights=None).get_layer("conv1_freq").signed


def test_a_silent_channel_has_a_gradient() -> None:
    import tensorflow as tf

    for signed in (False, True):
        x = tf.Variable(np.zeros((1, 4, 2, 3), np.float32))
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(FrequencyPooling(signed=signed)(x))
        assert np.isfinite(tape.gradient(y, x)).all()


@pytest.mark.parametrize("backbone", ["rawnet2", "convnet"])
def test_a_sequence_is_one_band(backbone: str) -> None:
    spec = get_backbone(backbone)
    layer = {"rawnet2": "block1", "convnet": "conv2"}[backbone]
    model = embedding_model(backbone, embedding=layer, pooling="freq", weights=None)
    assert model.output.shape[-1] == spec.embedding_layer(layer).width


def test_a_saved_classifier_gives_the_same_in_half_precision_too(stand_in: Path, tmp_path: Path) -> None:
    before = keras.config.dtype_policy()
    try:
        for policy in ("float32", "mixed_bfloat16"):
            keras.config.set_dtype_policy(policy)
            model = build_classifier(
                "yamnet", class_names=["a", "b"], embedding="layer3", pooling="freq", weights=str(stand_in)
            )
            assert model.get_layer("layer3_freq").compute_dtype == "float32"
            model.save(tmp_path / "model.keras")
            reloaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
            np.testing.assert_array_equal(reloaded(noise(2)), model(noise(2)))
    finally:
        keras.config.set_dtype_policy(before)


def test_engine_store_transformer_hear_and_probe_give_the_models_numbers(stand_in: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"embedding": ["layer3", "layer5"], "pooling": "freq", "weights": str(stand_in)}
    files = [str(file) for file in sound_files(write_folder(tmp_path / "sounds", per_class=4))]
    width = 16 * 128 + 8 * 256
    model = embedding_model("yamnet", patch_pooling="avg", **options)
    (found,) = embed("yamnet", list(noise(2.4)), engine=KERAS, **options)
    np.testing.assert_allclose(found, np.asarray(model(noise(2.4)))[0], rtol=1e-3, atol=2e-3)

    rows = embed("yamnet", files[:2], store=tmp_path / "store", engine=KERAS, **options)
    again = AudioEmbedding("yamnet", store=str(tmp_path / "store"), runtime="keras", **options).transform(files[:2])
    np.testing.assert_array_equal(again, rows)
    with pytest.raises(StoreError, match="pooling is 'freq', not 'avg'"):
        embed("yamnet", files, embedding="layer3", weights=str(stand_in), store=tmp_path / "store", engine=KERAS)

    scene = hear.load_model("", engine=KERAS, **options)
    assert scene.scene_embedding_size == scene.timestamp_embedding_size == width
    assert hear.get_scene_embeddings(noise(1), scene).shape == (1, width)

    clips = Clips.from_directory(tmp_path / "sounds", fold_pattern=r"^(\d)-")
    table = probe_layers(
        "yamnet", clips, folds="given", embedding=["layer3", "embedding"], pooling="freq", weights=str(stand_in),
        engine=KERAS,
    )  # fmt: skip
    assert [row.width for row in table.rows] == [16 * 128, 1024]
    assert table.row("layer3").accuracy >= 0.9


@pytest.mark.parametrize("quantize", [None, "dynamic", "int8", "int8_io"])
def test_a_tflite_file_in_built_in_operators_agrees(quantize: Quantize | None, tmp_path: Path) -> None:
    write_folder(tmp_path / "sounds", per_class=6)
    clips = Clips.from_directory(tmp_path / "sounds")
    waves = [clips.load(row)[:16_000] for row in range(len(clips))]
    model = build_classifier(
        "yamnet_mini", class_names=clips.class_names, embedding=["layer3", "layer4"], pooling="freq", hidden=(), seed=1
    )
    model.fit(np.stack(waves), clips.targets, epochs=3, verbose=0)
    input: Input = "patches" if quantize == "int8_io" else "waveform"
    path = export_tflite(model, tmp_path / "m.tflite", quantize=quantize, input=input, calibrate=waves)
    kinds = {operator.kind for operator in Graph(path.read_bytes()).operators}
    assert not any(kind.startswith(("FLEX", "CUSTOM")) for kind in kinds), kinds
    assert "SQRT" in kinds
    wanted, found = (
        np.stack([form.scores(wave, sample_rate=16_000) for wave in waves])
        for form in (Predictor(model), Predictor(path))
    )
    np.testing.assert_allclose(found, wanted, atol=2e-3 if quantize is None else 0.1)
    assert np.ptp(wanted, axis=0).max() > 0.3


@pytest.mark.parametrize(
    ("embedding", "pooling", "wanted"),
    [
        (None, None, Recipe(("embedding",), "avg")),
        ("layer8", None, Recipe(("layer8",), "avg")),
        (["layer8", "layer2"], "freq", Recipe(("layer8", "layer2"), "freq")),
        ("bands", None, Recipe(("layer7", "layer9"), "freq")),
        (["bands"], None, Recipe(("layer7", "layer9"), "freq")),
        ("bands", "max", Recipe(("layer7", "layer9"), "max")),  # what is given goes first
    ],
)
def test_what_embedding_and_pooling_ask_for(embedding: Any, pooling: Any, wanted: Recipe) -> None:
    assert resolve_embedding(get_backbone("yamnet"), embedding, pooling) == wanted


@pytest.mark.parametrize(
    ("embedding", "pooling", "message"),
    [
        ("last", None, r"embedding='last': yamnet has the layers log_mel, .*, scores, and alone the recipes bands"),
        (["bands", "layer2"], None, "embedding='bands': yamnet has the layers .*, and alone the recipes bands"),
        ([], None, "embedding=.*: one layer name, or several different ones"),
        ("bands", "mean", "pooling='mean': allowed are avg, max, avgmax, freq, time"),
    ],
)
def test_what_they_cannot_ask_for(embedding: Any, pooling: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_embedding(get_backbone("yamnet"), embedding, pooling)


def test_recipes_say_what_they_take_and_cost() -> None:
    (bands,) = embedding_recipes("yamnet")
    assert (bands.name, bands.layers, bands.pooling, bands.width) == ("bands", ("layer7", "layer9"), "freq", 4096)
    assert bands.share == pytest.approx(0.58, abs=0.005)
    (mini,) = embedding_recipes("yamnet_mini")
    assert (mini.layers, mini.width) == (("layer5", "layer6"), 4096)
    without = {name for name in list_backbones() if not get_backbone(name).recipes}
    assert without == {"convnet", "rawnet2"}  # their feature maps have no bands
    assert embedding_recipes("rawnet2") == []


@pytest.mark.parametrize("backbone", ["vggish", "mobilenet", "mobilenetv2"])
def test_a_recipes_layers_have_bands(backbone: str) -> None:
    (bands,) = embedding_recipes(backbone)
    widths = {layer.name: layer.width for layer in embedding_layers(backbone)}
    assert bands.width >= 4 * sum(widths[layer] for layer in bands.layers)
    assert bands.share < 0.9


def test_a_recipe_is_an_embedding_everywhere(tmp_path: Path) -> None:
    spelled: dict[str, Any] = {"embedding": ["layer5", "layer6"], "pooling": "freq"}
    model = build_classifier("yamnet_mini", class_names=["a", "b"], embedding="bands", seed=1)
    wanted = build_classifier("yamnet_mini", class_names=["a", "b"], seed=1, **spelled)
    np.testing.assert_array_equal(model(noise(2)), wanted(noise(2)))
    big = build_classifier("yamnet", class_names=["a", "b"], embedding="bands", weights=None)
    assert not any(layer.name.startswith("layer10") for layer in big.layers)

    files = [str(file) for file in sound_files(write_folder(tmp_path / "sounds", per_class=4))]
    rows = embed("yamnet_mini", files, embedding="bands", store=tmp_path / "store", engine=KERAS)
    assert rows.shape == (len(files), 4096)
    again = AudioEmbedding("yamnet_mini", store=str(tmp_path / "store"), runtime="keras", **spelled).transform(files)
    np.testing.assert_array_equal(again, rows)
    assert hear.load_model("", backbone="yamnet_mini", engine=KERAS, embedding="bands").scene_embedding_size == 4096

    clips = Clips.from_directory(tmp_path / "sounds", fold_pattern=r"^(\d)-")
    table = probe_layers("yamnet_mini", clips, folds="given", embedding=["layer6", "bands"], engine=KERAS)
    assert [(row.layer, row.width) for row in table.rows] == [("layer6", 256), ("bands", 4096)]
    alone = probe_layers("yamnet_mini", clips, folds="given", embedding=["layer6"], pooling="avg", engine=KERAS)
    assert alone.row("layer6") == table.row("layer6")  # a recipe's pooling is its own

    cut = open_teacher("yamnet_mini", ["bands"], "audioset")
    assert cut.embeddings == ("layer5", "layer6", "embedding")
