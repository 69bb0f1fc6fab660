"""The music ConvNet: published size, windows, and spectrum."""

from __future__ import annotations

import keras
import numpy as np

from tfaudiotl.backbones.convnet import ConvNet, Spectrum


def test_published_shapes_and_size() -> None:
    model = ConvNet(include_top=True, samples=30 * 22_050)
    assert model.count_params() == 2_186_468
    assert model.output_shape == (None, 19, 16)  # windows of a clip of 30 s
    shapes = [tuple(model.get_layer(name).output.shape[1:]) for name in ("spectrum", "conv1", "conv_shortcut", "pool")]
    assert shapes == [(128, 513, 1), (125, 256), (125, 512), (1024,)]


def test_filters_are_the_published_ones_over_frames_and_bins() -> None:
    """4 x 513 over (frames, bins, 1), and 4 x 1 over what that leaves."""
    model = ConvNet(include_top=True)
    sound = np.random.default_rng(0).normal(0, 0.1, (2, 66_150)).astype(np.float32)
    names = ("spectrum_bn", "conv1", "conv2")
    spectrum, *found = keras.Model(model.input, [model.get_layer(name).output for name in names])(sound)
    first, second = (model.get_layer(name) for name in names[1:])
    x = keras.ops.conv(spectrum, first.kernel[:, :, None]) + first.bias
    np.testing.assert_allclose(found[0], keras.ops.relu(x)[:, :, 0], atol=1e-4)
    x = keras.ops.conv(keras.ops.relu(x), second.kernel[:, None], padding="same") + second.bias
    np.testing.assert_allclose(found[1], keras.ops.relu(x)[:, :, 0], atol=1e-4)


def test_pooled_scores_are_the_mean_of_the_windows() -> None:
    model = ConvNet(include_top=True)
    pooled = ConvNet(include_top=True, patch_pooling="avg")
    pooled.set_weights(model.get_weights())
    sound = np.random.default_rng(0).normal(0, 0.1, (1, 120_000)).astype(np.float32)
    np.testing.assert_allclose(pooled(sound), np.asarray(model(sound)).mean(axis=1), atol=1e-5)


def test_spectrum_is_numpys() -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 5_000).astype(np.float32)
    expected = [np.abs(np.fft.rfft(sound[i : i + 1024] * np.hanning(1024))) for i in range(0, 5_000 - 1023, 512)]
    found = Spectrum()(sound[None, :, None])
    assert found.shape == (1, 8, 513, 1)
    np.testing.assert_allclose(found[0, ..., 0], expected, atol=1e-4)
    assert keras.layers.deserialize(keras.layers.serialize(Spectrum(512, 128))).hop == 128
