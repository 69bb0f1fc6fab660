"""The front-end against TensorFlow's own signal functions, rules for padding, and the same numbers from NumPy."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfaudiotl.backbones.frontend import FastLogMel, LogMel, LogMelSpec, Patches, PatchPooling, ValidPatches

YAMNET = LogMelSpec()
VGGISH_LIKE = LogMelSpec(log_offset=0.01, patch_hop=96)
LENGTHS = [0, 1, 399, 400, 15_599, 15_600, 15_601, 23_280, 23_281, 40_000]


def reference_log_mel(waveform: np.ndarray, spec: LogMelSpec) -> np.ndarray:
    spectrum = tf.abs(tf.signal.stft(waveform, spec.window, spec.hop, 512))
    mel = spectrum @ tf.signal.linear_to_mel_weight_matrix(64, 257, 16_000, 125.0, 7_500.0)
    return tf.math.log(mel + spec.log_offset).numpy()


def test_constants_of_yamnet() -> None:
    assert (YAMNET.fft_length, YAMNET.min_samples, YAMNET.patch_hop_samples) == (512, 15_600, 7_680)
    assert (YAMNET.min_seconds, YAMNET.patch_hop_seconds) == (0.975, 0.48)
    # Published: 3 s, 5 s and 10 s of sound make 6, 10 and 20 patches.
    assert [YAMNET.patches(seconds * 16_000) for seconds in (3, 5, 10)] == [6, 10, 20]
    assert [VGGISH_LIKE.patches(seconds * 16_000) for seconds in (3, 5, 10)] == [4, 6, 11]
    dropping = replace(VGGISH_LIKE, pad_tail=False)
    assert [dropping.patches(seconds * 16_000) for seconds in (3, 5, 10)] == [3, 5, 10]


def test_mel_matrix_is_tensorflows() -> None:
    expected = tf.signal.linear_to_mel_weight_matrix(64, 257, 16_000, 125.0, 7_500.0).numpy()
    np.testing.assert_allclose(YAMNET.mel_matrix(), expected, atol=2e-5)


@pytest.mark.parametrize("method", ["fft", "matmul"])
@pytest.mark.parametrize("spec", [YAMNET, VGGISH_LIKE])
def test_log_mel_equals_tensorflows(spec: LogMelSpec, method: str, rng: np.random.Generator) -> None:
    waveform = rng.uniform(-1, 1, spec.padded(50_000)).astype(np.float32)
    ours = LogMel(spec, method=method)(waveform[None]).numpy()[0]
    expected = reference_log_mel(waveform, spec)
    assert ours.shape == expected[: len(ours)].shape
    np.testing.assert_allclose(ours, expected[: len(ours)], atol=1e-3)


def test_silence_is_the_log_of_the_offset() -> None:
    np.testing.assert_allclose(LogMel(YAMNET)(np.zeros((1, 16_000), np.float32)), np.log(0.001), rtol=1e-6)
    np.testing.assert_allclose(LogMel(VGGISH_LIKE)(np.zeros((1, 16_000), np.float32)), np.log(0.01), rtol=1e-6)


@pytest.mark.parametrize("pad_tail", [True, False])
@pytest.mark.parametrize("samples", LENGTHS)
def test_static_and_unknown_lengths_give_the_same(samples: int, pad_tail: bool, rng: np.random.Generator) -> None:
    spec = replace(YAMNET, pad_tail=pad_tail)
    waveform = rng.uniform(-1, 1, (2, samples)).astype(np.float32)

    def run(length: int | None) -> list[np.ndarray]:
        frames, valid = LogMel(spec), ValidPatches(spec)
        patches = Patches(patch_frames=96, patch_hop=48)
        function = tf.function(lambda x: (patches(frames(x)), valid(x)), autograph=False)
        return [y.numpy() for y in function.get_concrete_function(tf.TensorSpec((None, length)))(waveform)]

    (static, static_valid), (dynamic, dynamic_valid) = run(samples), run(None)
    assert static.shape == (2, spec.patches(samples), 96, 64)
    np.testing.assert_allclose(static, dynamic, atol=1e-5)
    np.testing.assert_array_equal(static_valid, dynamic_valid)
    assert LogMel(spec).compute_output_shape((2, samples))[1] == 48 * (spec.patches(samples) + 1)


@pytest.mark.parametrize("samples", LENGTHS[1:])
def test_zeros_at_the_end_are_not_valid_patches(samples: int, rng: np.random.Generator) -> None:
    waveform = rng.uniform(0.1, 1, samples).astype(np.float32)
    padded = np.pad(waveform, (0, 60_000))
    valid = np.asarray(ValidPatches(YAMNET)(padded[None]))[0]
    assert valid.sum() == YAMNET.patches(samples)
    assert np.all(np.diff(valid) <= 0)  # all of them at the front


def test_silence_keeps_its_first_patch() -> None:
    np.testing.assert_array_equal(ValidPatches(YAMNET)(np.zeros((1, 40_000), np.float32))[0], [1, 0, 0, 0, 0])


def test_zeros_inside_a_clip_are_sound() -> None:
    waveform = np.zeros((1, 60_000), np.float32)
    waveform[0, -1] = 0.5
    assert np.asarray(ValidPatches(YAMNET)(waveform)).all()


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_pooling_counts_valid_patches_only(mode: str, rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 5, 7)).astype(np.float32) - 10  # all negative: a zero would win a maximum
    valid = np.array([[1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.float32)
    expected = [
        getattr(row[: int(v.sum())], {"avg": "mean", "max": "max"}[mode])(axis=0)
        for row, v in zip(x, valid, strict=True)
    ]
    np.testing.assert_allclose(PatchPooling(mode)([x, valid]), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogMel(method="dct"), "method='dct': allowed are 'fft' and 'matmul'"),
        (lambda: PatchPooling("sum"), "mode='sum': allowed are 'avg' and 'max'"),
        (lambda: Patches(patch_frames=96, patch_hop=50), "patch_hop=50"),
    ],
)
def test_wrong_arguments_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_front_end_stays_in_float32(policy: str, rng: np.random.Generator) -> None:
    waveform = rng.uniform(-1, 1, (1, 20_000)).astype(np.float32)
    expected = LogMel(YAMNET)(waveform)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        computed = LogMel(YAMNET)(waveform)
    finally:
        keras.config.set_dtype_policy(before)
    assert computed.dtype == tf.float32
    np.testing.assert_array_equal(computed, expected)


@pytest.mark.parametrize("pad_tail", [True, False])
@pytest.mark.parametrize("samples", [0, 1, 15_599, 15_600, 15_601, 40_000, 170_000])
def test_equals_the_keras_layer(samples: int, pad_tail: bool, rng: np.random.Generator) -> None:
    layer = LogMel(LogMelSpec(pad_tail=pad_tail))
    fast = FastLogMel(layer)
    time = np.arange(samples) / 16_000
    for waveform in (rng.uniform(-1, 1, samples), 0.001 * np.sin(6_000 * time), np.zeros(samples)):
        waveform = waveform.astype(np.float32)
        np.testing.assert_allclose(fast(waveform), np.asarray(layer(waveform[None]))[0], atol=1e-3)


def test_patches_overlap_by_their_hop(rng: np.random.Generator) -> None:
    fast = FastLogMel(LogMel())
    waveform = rng.uniform(-1, 1, 50_000).astype(np.float32)
    frames, patches = fast(waveform), fast.patches(waveform)
    assert patches.shape == (6, 96, 64)
    np.testing.assert_array_equal(patches[2], frames[96:192])
    assert patches.base is not None  # a view: each frame is there once
