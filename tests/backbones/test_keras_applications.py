"""Image networks: what their pictures look like, and whose weights they take."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from tfaudiotl.backbones.keras_applications import SpectrogramImage
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.errors import WeightsError


def test_silence_is_black_and_loud_is_white() -> None:
    patches = np.full((2, 96, 64, 1), np.log(0.001), np.float32)
    patches[1] = 9.0
    for low, high in ((-1.0, 1.0), (0.0, 255.0)):
        pictures = np.asarray(SpectrogramImage(50, 3, low=low, high=high)(patches))
        assert pictures.shape == (2, 50, 50, 3)
        np.testing.assert_allclose(pictures[0], low, atol=1e-4)
        np.testing.assert_allclose(pictures[1], high, atol=1e-4)


def test_scales_are_those_of_keras_applications() -> None:
    """preprocess_input of pixels 0 and 255."""
    pixels = np.array([[[[0.0] * 3, [255.0] * 3]]])
    for module, scale in (("mobilenet", (-1, 1)), ("mobilenet_v2", (-1, 1)), ("inception_v3", (-1, 1))):
        found = getattr(keras.applications, module).preprocess_input(pixels.copy())
        np.testing.assert_allclose(found[0, 0, :, 0], scale)
    np.testing.assert_allclose(keras.applications.efficientnet_v2.preprocess_input(pixels), pixels)


def test_a_local_file_of_keras_applications(tmp_path: Path) -> None:
    upstream = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(128, 128, 3))
    upstream.save_weights(tmp_path / "notop.weights.h5")
    (tmp_path / "notop.weights.h5").rename(tmp_path / "mobilenet_no_top.h5")
    with pytest.raises(WeightsError, match="Keras cannot get or load them"):  # an .h5 of another layout
        get_backbone("mobilenet").build(weights=str(tmp_path / "mobilenet_no_top.h5"))
    own = get_backbone("mobilenet").build(weights=None, size=32)
    own.save_weights(tmp_path / "own.weights.h5")
    again = get_backbone("mobilenet").build(weights=str(tmp_path / "own.weights.h5"), size=32)
    np.testing.assert_array_equal(again.get_layer("conv1").get_weights()[0], own.get_layer("conv1").get_weights()[0])


@pytest.mark.network
def test_imagenet_weights() -> None:
    model = get_backbone("mobilenet").build()
    upstream = keras.applications.MobileNet(include_top=False, input_shape=(128, 128, 3))
    np.testing.assert_array_equal(
        model.get_layer("conv1").get_weights()[0], upstream.get_layer("conv1").get_weights()[0]
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weights": None, "size": 16}, ValueError, "at least 32 pixels"),
        ({"weights": None, "channels": 4}, ValueError, "channels=4"),
        ({"channels": 1}, ValueError, "ImageNet's weights take 3"),
        ({"weights": "audioset"}, WeightsError, "takes 'imagenet', a local file"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        get_backbone("mobilenet").build(**options)


def test_one_channel_and_patches() -> None:
    model = get_backbone("mobilenetv2").build(weights=None, channels=1, size=32, input="patches")
    assert model(np.zeros((2, 96, 64), np.float32)).shape == (2, 1280)
