"""What holds for every registered backbone: shapes, layers, saving, precision, padding, files for devices."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.helpers.backbones import NAMES, SLOW, SMALL
from tfaudiotl.backbones.embedding import embedding_layers, embedding_model
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.export.tflite import export_tflite
from tfaudiotl.runtime.load import open_artifact

POLICIES = {"mobilenet": "mixed_float16", "convnet": "mixed_float16"}  # the others: mixed_bfloat16


@cache
def classifier(name: str) -> keras.Model:
    # the dense layers of VGGish have 68 million numbers
    options: dict[str, Any] = {"embedding": "conv4_2"} if name == "vggish" else {}
    options |= SMALL.get(name, {})
    model = build_classifier(name, class_names=["a", "b", "c"], weights=None, hidden=(), seed=1, **options)
    rng = np.random.default_rng(0)
    for layer in model.layers:  # batch norms of an untrained network would hide faults
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, layer.moving_variance.shape))
            layer.moving_mean.assign(rng.normal(0, 0.1, layer.moving_mean.shape))
    return model


def grid(model: keras.Model) -> Any:
    layers = [layer for layer in model.layers if layer.name in ("windows", "log_mel_frames")]
    return layers[0].spec


def noise(samples: int, clips: int = 1) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.2, (clips, samples)).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_has_the_width_it_says(name: str) -> None:
    spec = get_backbone(name)
    below_top = [layer for layer in spec.layers if layer.name not in spec.top]
    model = embedding_model(name, embedding=[layer.name for layer in below_top], weights=None, **SMALL.get(name, {}))
    spec_of_patches = grid(model)
    samples = spec_of_patches.min_samples + 100 + spec_of_patches.patch_hop_samples
    outputs = model(noise(samples))
    assert outputs.shape == (1, spec_of_patches.patches(samples), sum(layer.width for layer in below_top))
    assert np.isfinite(np.asarray(outputs)).all()


@pytest.mark.parametrize("name", NAMES)
def test_layers_cost_more_the_higher_they_are(name: str) -> None:
    infos = [info for info in embedding_layers(name) if info.name not in get_backbone(name).top]
    shares = [info.share for info in infos]
    assert shares == sorted(shares)
    assert 0.9 < shares[-1] <= 1.0


@pytest.mark.parametrize("name", SLOW)
def test_padding_does_not_change_a_clip(name: str) -> None:
    model, spec = classifier(name), grid(classifier(name))
    waveform = noise(spec.min_samples + spec.patch_hop_samples)
    padded = np.pad(waveform, ((0, 0), (0, 3 * spec.min_samples)))
    np.testing.assert_allclose(model(waveform), model(padded), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", SLOW)
def test_a_saved_classifier_gives_the_same(name: str, tmp_path: Path) -> None:
    model = classifier(name)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    waveform = noise(grid(classifier(name)).min_samples, clips=2)
    np.testing.assert_allclose(loaded(waveform), model(waveform), atol=1e-6)
    assert open_artifact(tmp_path / "model.keras").sample_rate == grid(classifier(name)).sample_rate


@pytest.mark.parametrize("name", SLOW)
def test_tflite_in_built_in_operators(name: str, tmp_path: Path) -> None:
    path, spec = export_tflite(classifier(name), tmp_path / "model.tflite"), grid(classifier(name))
    opened, waveform = open_artifact(path), noise(spec.min_samples)
    assert (opened.samples, opened.sample_rate) == (spec.min_samples, spec.sample_rate)
    np.testing.assert_allclose(opened.scores(waveform), classifier(name)(waveform), atol=1e-4)


@pytest.mark.parametrize("name", SLOW)
def test_half_precision_inside_float32_outside(name: str) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES.get(name, "mixed_bfloat16"))
    try:
        model = build_classifier(name, class_names=["a", "b"], weights=None, hidden=(), **SMALL.get(name, {}))
    finally:
        keras.config.set_dtype_policy(before)
    scores = model(noise(grid(model).min_samples))
    assert scores.dtype == "float32"
    np.testing.assert_allclose(np.asarray(scores).sum(axis=1), 1.0, atol=1e-5)


def test_unknown_names_say_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"allowed are convnet, efficientnetv2b0.*'hub:' with a TF Hub handle"):
        get_backbone("yamnett")
