"""YAMNet: parity with TF Hub's graph, shapes, precision, saving."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfaudiotl.audio.files import load_audio
from tfaudiotl.backbones.frontend import LogMelSpec
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.backbones.scores import class_names_of
from tfaudiotl.backbones.yamnet import YAMNet, decode_predictions

LENGTHS = [0, 1, 399, 400, 15_599, 15_600, 15_601, 23_280, 480_000]


def sounds(samples: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    time = np.arange(samples) / 16_000
    return {
        "silence": np.zeros(samples, np.float32),
        "noise": rng.uniform(-1, 1, samples).astype(np.float32),
        "tone": np.sin(2 * np.pi * 440 * time).astype(np.float32),
        "quiet tone": (1e-3 * np.sin(2 * np.pi * 3_000 * time)).astype(np.float32),
    }


@cache
def opened(weights: str) -> tuple[Any, Any]:
    """TF Hub's module, and our model with its three outputs, as one graph."""
    import tensorflow_hub

    model = YAMNet(weights=weights)
    taps = [model.output, model.get_layer("embedding").output, model.get_layer("log_mel_frames").output]
    three = keras.Model(model.input, taps)
    graph = tf.function(lambda x: three(x, training=False), input_signature=[tf.TensorSpec((None, None))])
    return tensorflow_hub.load(weights), graph


def assert_parity(weights: str, waveform: np.ndarray) -> None:
    hub, graph = opened(weights)
    scores, embeddings, log_mel = hub(waveform)
    ours = graph(waveform[None])
    assert ours[0].shape[1] == scores.shape[0]  # the same number of patches
    np.testing.assert_allclose(ours[0][0], scores, atol=1e-4)
    np.testing.assert_allclose(ours[1], embeddings, atol=1e-3)
    np.testing.assert_allclose(ours[2][0], log_mel, atol=1e-3)


@pytest.mark.parametrize("samples", LENGTHS)
def test_parity_with_the_real_hub_module(samples: int, hub_yamnet: str, rng: np.random.Generator) -> None:
    for waveform in sounds(samples, rng).values():
        assert_parity(hub_yamnet, waveform)


def test_parity_on_recordings(shared: Path, hub_yamnet: str) -> None:
    clips = sorted((shared / "data" / "esc10").glob("*/1-*.ogg"))[::8]
    assert clips
    for path in [shared / "reference" / "miaow_16k.wav", *clips]:
        assert_parity(hub_yamnet, load_audio(path))


def test_a_batch_gives_what_each_clip_gives_alone(hub_yamnet: str, rng: np.random.Generator) -> None:
    hub, graph = opened(hub_yamnet)
    batch = np.stack(list(sounds(40_000, rng).values()))
    scores = graph(batch)[0].numpy()
    for row, waveform in zip(scores, batch, strict=True):
        np.testing.assert_allclose(row, hub(waveform)[0], atol=1e-4)


def test_the_cat_is_a_cat(shared: Path, hub_yamnet: str) -> None:
    model = YAMNet(weights=hub_yamnet, patch_pooling="avg")
    best = decode_predictions(model(load_audio(shared / "reference" / "miaow_16k.wav")[None]), class_names=model)
    assert {"Animal", "Cat", "Domestic animals, pets"} <= {name for name, _ in best[0]}


@pytest.mark.parametrize("samples", LENGTHS[:-1])
def test_parity_with_the_stand_in(samples: int, stand_in: Path, rng: np.random.Generator) -> None:
    for waveform in sounds(samples, rng).values():
        assert_parity(str(stand_in), waveform)


def test_size_is_the_published_one() -> None:
    model = YAMNet(weights=None)
    assert model.count_params() == 3_751_369
    assert sum(np.prod(v.shape) for v in model.trainable_variables) == 3_729_481
    assert YAMNet(weights=None, include_top=False).count_params() == 3_217_344


def test_layers_have_upstreams_names() -> None:
    model = YAMNet(weights=None)
    for name in (
        "layer1_conv",
        "layer1_conv_bn",
        "layer1_relu",
        "layer8_depthwise_conv_relu",
        "layer14_pointwise_conv",
    ):
        model.get_layer(name)
    for layer in get_backbone("yamnet").layers:
        assert model.get_layer(layer.layer).output.shape[-1] == layer.width or layer.name == "log_mel"


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (2, 3, 521)),
        ({"patch_pooling": "avg"}, (2, 521)),
        ({"patch_pooling": "max", "include_top": False}, (2, 1024)),
        ({"include_top": False}, (2, 3, 1024)),
        ({"samples": 30_000}, (2, 3, 521)),
        ({"samples": 30_000, "patch_pooling": "avg", "classes": 3}, (2, 3)),
    ],
)
def test_shapes(options: dict[str, Any], shape: tuple[int, ...]) -> None:
    model = YAMNet(weights=None, **options)
    waveforms = np.zeros((2, 30_000), np.float32)
    assert model(waveforms).shape == shape
    assert model.predict(waveforms, verbose=0).shape == shape
    if "samples" in options:
        assert model.output_shape[1:] == shape[1:]


def test_patches_as_input_are_the_same_network(stand_in: Path, rng: np.random.Generator) -> None:
    whole = YAMNet(weights=str(stand_in))
    patches = keras.Model(whole.input, whole.get_layer("log_mel").output)
    core = YAMNet(weights=str(stand_in), input="patches")
    waveform = rng.uniform(-1, 1, (1, 30_000)).astype(np.float32)
    np.testing.assert_allclose(core(patches(waveform)[0]), whole(waveform)[0], atol=1e-6)


def test_padding_does_not_change_a_pooled_clip(stand_in: Path, rng: np.random.Generator) -> None:
    for pooling in ("avg", "max"):
        model = YAMNet(weights=str(stand_in), include_top=False, patch_pooling=pooling)
        waveform = rng.uniform(-1, 1, (1, 35_000)).astype(np.float32)
        alone, padded = model(waveform), model(np.pad(waveform, ((0, 0), (0, 60_001))))
        np.testing.assert_allclose(alone, padded, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax", None])
def test_classifier_activation(activation: str | None, stand_in: Path, rng: np.random.Generator) -> None:
    waveform = rng.uniform(-1, 1, (1, 15_600)).astype(np.float32)
    logits = np.asarray(YAMNet(weights=str(stand_in), classifier_activation=None)(waveform), np.float64)
    scores = YAMNet(weights=str(stand_in), classifier_activation=activation)(waveform)
    expected = {
        None: logits,
        "sigmoid": 1 / (1 + np.exp(-logits)),
        "softmax": np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True),
    }[activation]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_every_precision_keeps_front_end_and_scores_in_float32(policy: str, stand_in: Path) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = YAMNet(weights=str(stand_in), patch_pooling="avg")
    finally:
        keras.config.set_dtype_policy(before)
    waveform = np.sin(np.arange(31_200) / 5).astype(np.float32)[None]
    for name in ("log_mel_frames", "log_mel", "patch_batch", "scores", "patch_sequence", "patch_pooling"):
        assert model.get_layer(name).compute_dtype == "float32"
        assert model.get_layer(name).output.dtype == "float32"
    expected = {"mixed_float16": "float16", "mixed_bfloat16": "bfloat16"}.get(policy, "float32")
    assert model.get_layer("layer8_pointwise_conv").compute_dtype == expected
    scores = np.asarray(model(waveform))
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


def test_keras_file_reloads_in_safe_mode(stand_in: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    model = YAMNet(weights=str(stand_in))
    model.save(tmp_path / "yamnet.keras")
    reloaded = keras.saving.load_model(tmp_path / "yamnet.keras", safe_mode=True)
    waveform = rng.uniform(-1, 1, (2, 23_000)).astype(np.float32)
    np.testing.assert_array_equal(reloaded(waveform), model(waveform))
    assert class_names_of(reloaded) == class_names_of(model)
    assert class_names_of(reloaded)[3] == "Sound 3, made up"


def test_decode_predictions() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.3, 0.3, 0.4]])
    assert decode_predictions(scores, class_names=["a", "b", "c"], top=2) == [
        [("b", 0.7), ("c", 0.2)],
        [("c", 0.4), ("a", 0.3)],
    ]
    averaged = decode_predictions(scores[None], class_names=["a", "b", "c"], top=1)
    assert averaged[0][0] == ("b", pytest.approx(0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input": "mel"}, "input='mel'"),
        ({"patch_pooling": "sum"}, "patch_pooling='sum'"),
        ({"samples": 0}, "samples=0"),
        ({"input": "patches", "patch_pooling": "avg"}, "belong to input='waveform'"),
        ({"classes": 10, "weights": "audioset"}, "classes=10: the pretrained classifier has 521"),
        ({"classes": 0, "weights": None}, "classes=0"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        YAMNet(**{"weights": None, **options})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scores": np.zeros((1, 4)), "class_names": ["a"]}, r"scores has shape \(1, 4\)"),
        ({"scores": np.zeros((1, 2)), "class_names": ["a", "b"], "top": 3}, "top=3"),
    ],
)
def test_decode_predictions_names_what_is_wrong(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_predictions(arguments.pop("scores"), **arguments)


def test_frontend_of_the_record_is_the_models() -> None:
    assert get_backbone("yamnet").frontend == LogMelSpec()
    with pytest.raises(ValueError, match=r"allowed are .*yamnet"):
        get_backbone("yamnett")
