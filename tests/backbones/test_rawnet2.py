"""RawNet2: published shapes and size, filters against the ideal band-pass, its own weights, training, transfer."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.signal import firwin

from tests.helpers.sounds import write_folder
from tfaudiotl.backbones.rawnet2 import SINC_TAPS, RawNet2, SincConv
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.data.clips import Clips
from tfaudiotl.embeddings.probe import probe_layers
from tfaudiotl.errors import WeightsError
from tfaudiotl.export.savedmodel import export_saved_model
from tfaudiotl.export.tflite import export_tflite
from tfaudiotl.runtime.evaluate import evaluate
from tfaudiotl.runtime.load import open_artifact
from tfaudiotl.runtime.predictor import Predictor
from tfaudiotl.training.options import FitOptions
from tfaudiotl.training.train import train_classifier

OUTPUTS = [
    "layer1_relu",
    "layer2_out",
    "layer3_out",
    *(f"layer{n}_out" for n in range(4, 8)),
    "layer8_gru",
    "layer9_fc",
]


def shapes(variant: str) -> list[tuple[int, ...]]:
    model = RawNet2(samples=59_049, variant=variant)
    return [tuple(model.get_layer(name).output.shape[1:]) for name in OUTPUTS]


def noise(samples: int, clips: int = 1) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.2, (clips, samples)).astype(np.float32)


def test_padded_shapes() -> None:
    lengths = [(19_683, 128), (6_561, 128), (2_187, 128), (729, 256), (243, 256), (81, 256), (27, 256)]
    assert shapes("padded") == [*lengths, (1024,), (1024,)]


def test_published_shapes_and_size() -> None:
    lengths = [(19_599, 128), (6_533, 128), (2_177, 128), (725, 256), (241, 256), (80, 256), (26, 256)]
    assert shapes("published") == [*lengths, (1024,), (1024,)]
    model = RawNet2(variant="published")
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == 7_114_578


def test_filters_are_ideal_band_passes_under_a_hamming_window() -> None:
    layer = SincConv(sample_rate=16_000, padding="same")
    layer.build((None, 1_000, 1))
    bank = np.asarray(layer.filter_bank())
    low, high = (np.asarray(edge) for edge in layer.bands())
    assert (np.diff(low) > 0).all()
    assert low[0] == pytest.approx(80)  # 50 + 30 Hz
    assert high[-1] == pytest.approx(8_000)
    frequencies = np.fft.rfftfreq(16_000, 1 / 16_000)
    for i in range(0, 128, 9):
        width = 2 * (high[i] - low[i]) / 16_000
        found = np.abs(np.fft.rfft(bank[:, i] * width, 16_000))
        edges = [low[i], min(high[i], 7_999)]
        ideal = firwin(SINC_TAPS, edges, window="hamming", pass_zero=False, scale=False, fs=16_000)
        np.testing.assert_allclose(found, np.abs(np.fft.rfft(ideal, 16_000)), atol=0.01)
        if high[i] - low[i] > 150 and high[i] < 7_500:  # wide enough for 251 taps
            assert found[(frequencies > low[i] + 60) & (frequencies < high[i] - 60)].min() > 0.7
        far = (frequencies < low[i] - 150) | (frequencies > high[i] + 150)
        assert found[far].max() < 0.01  # -40 dB


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("samples", [260, 999, 1_024])
def test_training_computes_what_inference_does_and_its_gradients(padding: str, samples: int) -> None:
    layer = SincConv(8, sample_rate=16_000, padding=padding)
    rng = np.random.default_rng(0)
    sound = tf.constant(rng.normal(size=(3, samples, 1)).astype("float32"))
    found = []
    for training in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(sound)
            heard = layer(sound, training=training)
            loss = tf.reduce_sum(heard * tf.cos(tf.range(float(tf.size(heard)))).numpy().reshape(heard.shape))
        found.append([heard, *tape.gradient(loss, [sound, layer.low_hz, layer.band_hz])])
    for in_blocks, convolved in zip(found[1], found[0], strict=True):
        np.testing.assert_allclose(in_blocks, convolved, rtol=1e-3, atol=1e-4 * np.abs(convolved).max())


def test_loudness_does_not_matter() -> None:
    model, waveform = RawNet2(samples=4_000), noise(4_000)
    np.testing.assert_allclose(model(waveform), model(0.01 * waveform), atol=1e-3)


def test_tflite_of_the_whole_window(tmp_path: Path) -> None:
    model = build_classifier("rawnet2", class_names=["a", "b"], weights=None, samples=59_049, seed=0)
    path = export_tflite(model, tmp_path / "model.tflite")
    np.testing.assert_allclose(open_artifact(path).scores(noise(59_049)), model(noise(59_049)), atol=1e-4)


def test_a_trained_network_serves_another_task(tmp_path: Path) -> None:
    """From classifier to classifier by file: replace the last layer, freeze all else."""
    first = build_classifier(
        "rawnet2", class_names=["x", "y", "z"], weights=None, samples=4_000, trainable="all", hidden=()
    )
    first.fit(noise(4_000, 12), np.eye(3)[np.arange(12) % 3], epochs=1, verbose=0)
    first.save(tmp_path / "first.keras")
    second = build_classifier("rawnet2", class_names=["a", "b"], weights=str(tmp_path / "first.keras"))
    assert second.get_layer("windows").spec.window == 4_000  # any length, in windows as it was trained on
    for name in ("layer1_sinc", "layer5_conv2", "layer8_gru", "layer9_fc"):
        assert not second.get_layer(name).trainable
        for ours, theirs in zip(second.get_layer(name).get_weights(), first.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    last = build_classifier("rawnet2", class_names=["a", "b"], weights=None, samples=4_000, trainable=2)
    assert last.get_layer("layer8_gru").trainable
    assert not last.get_layer("layer7_conv1").trainable


def test_filters_learn() -> None:
    model = build_classifier("rawnet2", class_names=["a", "b"], weights=None, samples=3_000, trainable="all", hidden=())
    before = model.get_layer("layer1_sinc").get_weights()
    model.fit(noise(3_000, 4), np.eye(2)[[0, 1, 0, 1]], epochs=1, verbose=0)
    after = model.get_layer("layer1_sinc").get_weights()
    assert all((a != b).any() for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"variant": "valid"}, ValueError, "variant='valid': allowed are padded, published"),
        ({"samples": 1_000}, ValueError, "at least"),
        ({"input": "patches"}, ValueError, "takes sound itself"),
        ({"weights": "audioset"}, WeightsError, "has no published weights"),
        ({"weights": "none.keras"}, WeightsError, "no such file"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RawNet2(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_cut_offs_stay_in_float32(policy: str) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        layer = SincConv(sample_rate=16_000, padding="same")
        assert layer(np.zeros((1, 1_000, 1))).dtype == policy.removeprefix("mixed_")
    finally:
        keras.config.set_dtype_policy(before)
    assert layer.low_hz.dtype == "float32"


@pytest.mark.slow
def test_trains_probes_and_predicts_at_its_own_rate(tmp_path: Path) -> None:
    """Recordings of 22,050 Hz, a network of 8 kHz: every way to it resamples alike."""
    clips = Clips.from_directory(write_folder(tmp_path / "sounds", per_class=6, rate=22_050))
    options = {"window": 3_000, "sample_rate": 8_000}
    result = train_classifier(
        clips, backbone="rawnet2", weights=None, hidden=(), backbone_options=options, fit=FitOptions(epochs=30)
    )
    result.model.save(tmp_path / "model.keras")
    folder = export_saved_model(result.model, tmp_path / "saved")
    for model in (tmp_path / "model.keras", folder):
        found = evaluate(model, result.held_out)
        np.testing.assert_allclose(found.scores, result.evaluation.scores, atol=1e-3)
    assert Predictor(tmp_path / "model.keras").window == 3_000
    table = probe_layers("rawnet2", clips, folds=2, embedding=["sinc", "block2"], weights=str(tmp_path / "model.keras"))
    assert max(row.accuracy for row in table.rows) > 0.6  # even random filters tell tones from noise
