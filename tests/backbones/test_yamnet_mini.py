"""The embedded backbone: its size, its weights, and that everything that takes YAMNet takes it too."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from tfaudiotl.backbones.embedding import embedding_layers
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.backbones.scores import class_names_of
from tfaudiotl.backbones.weight_files import load_npz, npz_bytes
from tfaudiotl.backbones.yamnet import EMBEDDED, YAMNetMini
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.embeddings.extract import embed
from tfaudiotl.errors import WeightsError


def test_size() -> None:
    assert YAMNetMini(include_top=False).count_params() == 135_104
    assert YAMNetMini().count_params() == 135_104 + 257 * 521
    assert EMBEDDED.stat().st_size <= 700_000
    assert embedding_layers("yamnet_mini")[-3].width == 256


def test_embedded_weights_know_audiosets_classes(rng: np.random.Generator) -> None:
    model = YAMNetMini(patch_pooling="avg")
    names = class_names_of(model)
    assert (len(names), names[0], names[-1]) == (521, "Speech", "Field recording")
    scores = np.asarray(model(rng.uniform(-1, 1, (1, 48_000)).astype(np.float32)))[0]
    best = {names[index] for index in np.argsort(-scores)[:10]}
    assert best & {"White noise", "Noise", "Static", "Hiss", "Pink noise", "Spray", "Waterfall", "Rain", "Steam"}


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (2, 3, 521)),
        ({"patch_pooling": "max", "include_top": False}, (2, 256)),
        ({"include_top": False, "samples": 30_000}, (2, 3, 256)),
        ({"patch_pooling": "avg", "classes": 3, "weights": None}, (2, 3)),
    ],
)
def test_shapes(options: dict[str, object], shape: tuple[int, ...]) -> None:
    assert YAMNetMini(**options)(np.zeros((2, 30_000), np.float32)).shape == shape  # type: ignore[arg-type]


def test_patches_as_input_are_the_same_network(rng: np.random.Generator) -> None:
    whole = YAMNetMini()
    patches = keras.Model(whole.input, whole.get_layer("log_mel").output)
    waveform = rng.uniform(-1, 1, (1, 30_000)).astype(np.float32)
    np.testing.assert_allclose(YAMNetMini(input="patches")(patches(waveform)[0]), whole(waveform)[0], atol=1e-6)


def test_keras_file_reloads_in_safe_mode(tmp_path: Path, rng: np.random.Generator) -> None:
    model = YAMNetMini()
    model.save(tmp_path / "mini.keras")
    reloaded = keras.saving.load_model(tmp_path / "mini.keras", safe_mode=True)
    waveform = rng.uniform(-1, 1, (2, 23_000)).astype(np.float32)
    np.testing.assert_array_equal(reloaded(waveform), model(waveform))
    assert class_names_of(reloaded) == class_names_of(model)


def test_the_engine_gives_what_the_model_gives(rng: np.random.Generator) -> None:
    waveform = rng.uniform(-1, 1, 60_000).astype(np.float32)
    found = embed("yamnet_mini", [waveform])[0]
    expected = YAMNetMini(include_top=False, patch_pooling="avg")(waveform[None])[0]
    np.testing.assert_allclose(np.asarray(found).reshape(expected.shape), expected, rtol=1e-3, atol=1e-3)


def test_classifiers_fine_tune_its_last_blocks() -> None:
    model = build_classifier("yamnet_mini", class_names=["a", "b"], trainable=2)
    free = {variable.path.split("_")[0] for variable in model.trainable_variables if "layer" in variable.path}
    assert free == {"layer5", "layer6"}


def test_weights_files(tmp_path: Path) -> None:
    model = YAMNetMini(weights=None)
    (tmp_path / "own.npz").write_bytes(npz_bytes(model, class_names=["a", "b"]))
    model.save_weights(tmp_path / "own.weights.h5")
    exact = YAMNetMini(weights=str(tmp_path / "own.weights.h5"))
    half = YAMNetMini(weights=str(tmp_path / "own.npz"))
    assert class_names_of(half) == ("a", "b")
    headless = YAMNetMini(weights=str(tmp_path / "own.npz"), include_top=False)
    for ours, theirs in zip(exact.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(half.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs.astype(np.float16))
    for ours, theirs in zip(headless.get_weights(), model.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(ours, theirs.astype(np.float16))


def test_equal_values_give_equal_bytes() -> None:
    assert npz_bytes(YAMNetMini()) == npz_bytes(YAMNetMini())


def test_values_that_float16_cannot_hold_are_named() -> None:
    model = YAMNetMini(weights=None)
    model.get_layer("logits").bias.assign(np.full(521, 1e6, np.float32))
    with pytest.raises(WeightsError, match="cannot hold the values of logits/bias"):
        npz_bytes(model)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    content = bytearray(EMBEDDED.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "damaged.npz").write_bytes(content)
    model = YAMNetMini(weights=None)
    before = model.get_weights()
    with pytest.raises(WeightsError, match="damaged: its SHA-256"):
        load_npz(model, tmp_path / "damaged.npz", sha256="0" * 64)
    (tmp_path / "cut.npz").write_bytes(bytes(content[:1000]))
    with pytest.raises(WeightsError, match="cannot be read"):
        YAMNetMini(weights=str(tmp_path / "cut.npz"))
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("weights", ["https://tfhub.dev/google/yamnet/1", "no/such/folder", "no_such.npz"])
def test_wrong_weights_are_named(weights: str) -> None:
    with pytest.raises(WeightsError, match=r"yamnet_mini takes 'audioset'|no_such.npz"):
        YAMNetMini(weights=weights)


def test_the_record_is_the_models() -> None:
    model = YAMNetMini()
    for layer in get_backbone("yamnet_mini").layers:
        assert model.get_layer(layer.layer).output.shape[-1] == layer.width or layer.name == "log_mel"
