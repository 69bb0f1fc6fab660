"""Folding batch norms keeps the function, and touches nothing else."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from tfaudiotl import YAMNet, fold_batch_norm


def shuffle_weights(model: keras.Model, rng: np.random.Generator) -> None:
    """Gives every weight, batch norm statistics included, a value of its own."""
    model.set_weights([rng.uniform(0.2, 1.0, w.shape).astype("float32") for w in model.get_weights()])


def norms(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers if isinstance(layer, layers.BatchNormalization)]


def test_yamnet_keeps_its_outputs_and_its_own_weights(rng: np.random.Generator) -> None:
    model = YAMNet(weights=None, classes=5)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    before = model.get_weights()
    sound = rng.uniform(-1, 1, (2, 16_000)).astype("float32")
    folded = fold_batch_norm(model)
    np.testing.assert_allclose(folded(sound), model(sound), atol=1e-5)
    assert not norms(folded)
    assert len(norms(model)) == 27
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert folded.get_layer("layer3_pointwise_conv_relu").output.shape[-1] == 128


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(3, 3, use_bias=True),
        layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
        layers.Dense(5, use_bias=True),
    ],
    ids=["conv with bias", "depth multiplier", "dense"],
)
@pytest.mark.parametrize("parts", [(True, True), (True, False), (False, True)], ids=str)
def test_each_kind_of_layer_and_norm(layer: layers.Layer, parts: tuple[bool, bool], rng: np.random.Generator) -> None:
    scale, center = parts
    inputs = keras.Input((8, 8, 4))
    clone = type(layer).from_config(layer.get_config())
    model = keras.Model(inputs, layers.BatchNormalization(scale=scale, center=center)(clone(inputs)))
    shuffle_weights(model, rng)
    x = rng.normal(size=(2, 8, 8, 4)).astype("float32")
    folded = fold_batch_norm(model)
    np.testing.assert_allclose(folded(x), model(x), rtol=1e-4, atol=1e-4)
    assert not norms(folded)


@pytest.mark.parametrize("case", ["read twice", "activation between", "an output", "first"])
def test_what_cannot_be_folded_stays(case: str, rng: np.random.Generator) -> None:
    inputs = keras.Input((6, 6, 2))
    conv = layers.Conv2D(2, 1, activation="relu" if case == "activation between" else None)(inputs)
    norm = layers.BatchNormalization(name="norm")(inputs if case == "first" else conv)
    outputs = {"read twice": layers.Add()([conv, norm]), "an output": [norm, conv]}.get(case, norm)
    model = keras.Model(inputs, outputs)
    shuffle_weights(model, rng)
    x = rng.normal(size=(3, 6, 6, 2)).astype("float32")
    folded = fold_batch_norm(model)
    assert norms(folded) == ["norm"]
    for ours, theirs in zip(keras.tree.flatten(folded(x)), keras.tree.flatten(model(x)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_only_functional_models() -> None:
    with pytest.raises(ValueError, match="functional"):
        fold_batch_norm(keras.Sequential([keras.Input((4,)), layers.Dense(2)]))
