"""Batch norm folded into the convolutions before it: the same function in fewer operations."""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np
from keras import layers, tree

from tfaudiotl.backbones.hub import layer_from

_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """The same model for inference, without the batch norms that directly follow a convolution or dense layer.

    In inference a batch norm is one factor and one offset per channel. The factor goes into the kernel before it, the
    offset becomes that layer's bias: ``kernel * gamma / sqrt(variance + epsilon)`` and ``beta + (bias - mean) * gamma /
    sqrt(variance + epsilon)``. All other layers keep their names and weights. Not for further training.

    Args:
        model: a functional model, like all of this package.

    Returns:
        A new model with weights of its own; ``model`` stays as it is.

    Raises:
        ValueError: ``model`` is not a functional model.
    """
    if not isinstance(model, keras.Model) or isinstance(model, keras.Sequential) or not hasattr(model, "operations"):
        raise ValueError(f"model={model!r}: a functional keras.Model is needed")
    pairs = _pairs(model)
    norms = {norm.name for norm in pairs.values()}

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        return layer_from(config | {"use_bias": True} if layer.name in pairs else config, layer)

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return args[0] if layer.name in norms else layer(*args, **kwargs)

    folded = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in model.layers:
        values = layer.get_weights()
        if layer.name in pairs:
            values = _folded_weights(layer, pairs[layer.name])
        if values and layer.name not in norms:
            folded.get_layer(layer.name).set_weights(values)
    return folded


def _pairs(model: keras.Model) -> dict[str, layers.BatchNormalization]:
    """Name of a convolution -> the batch norm that alone reads its output."""
    readers = Counter(id(tensor) for layer in model.layers for tensor in tree.flatten(layer.input))
    readers.update(id(tensor) for tensor in model.outputs)
    makers = {
        id(layer.output): layer
        for layer in model.layers
        if isinstance(layer, _CONVOLUTIONS) and layer.activation is keras.activations.linear
    }
    return {
        makers[id(norm.input)].name: norm
        for norm in model.layers
        if isinstance(norm, layers.BatchNormalization) and id(norm.input) in makers and readers[id(norm.input)] == 1
    }


def _folded_weights(layer: Any, norm: layers.BatchNormalization) -> list[np.ndarray]:
    mean, variance = (
        keras.ops.convert_to_numpy(v).astype(np.float64) for v in (norm.moving_mean, norm.moving_variance)
    )
    factor = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        factor = factor * keras.ops.convert_to_numpy(norm.gamma)
    offset = keras.ops.convert_to_numpy(norm.beta) if norm.center else 0.0
    kernel, *bias = layer.get_weights()
    # A depthwise kernel is (height, width, channels, multiplier); the others end with their channels.
    shape = (*kernel.shape[-2:],) if isinstance(layer, layers.DepthwiseConv2D) else (-1,)
    return [kernel * factor.reshape(shape), offset + ((bias[0] if bias else 0.0) - mean) * factor]
