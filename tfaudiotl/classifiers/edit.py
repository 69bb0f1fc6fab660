"""Changes to a model: what trains, other classes, batch norm folded away, a copy with other settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, cast, get_args

import keras
import numpy as np
from keras import layers, tree

from tfaudiotl.backbones.scores import ClassScores, check_class_names
from tfaudiotl.backbones.tfhub import HubEmbedding
from tfaudiotl.classifiers.anatomy import classifier_parts, parts
from tfaudiotl.classifiers.heads import compile_classifier, layer_seed

BatchNorm = Literal["frozen", "train"]
_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)


def freeze(model: keras.Model, *, trainable: int | str = 0, batch_norm: BatchNorm = "frozen") -> keras.Model:
    """Decides what of a classifier trains: its head and the last part of its backbone; the rest is frozen.

    Frozen batch norm keeps its statistics and stays in inference mode. A compiled model is compiled again, with the
    same settings and a new optimizer state: ``fit`` would otherwise go on with the layers it knew.

    A block is what the backbone's record lists as one ("layer13"; VGGish's "conv3_1" and "conv3_2" are "conv3").

    Args:
        model: a classifier of ``build_classifier``, trained or not, or loaded from its file.
        trainable: 0: the head alone; n: also the last n blocks; "layer12": that block and all after it; the name of a
            layer of the backbone in ``model.summary()``: all but what that layer is computed from; "all".
        batch_norm: what batch norm does in layers of the backbone that train. "frozen": it keeps statistics and
            offsets, which small batches and few clips would spoil. "train": it learns both, as a network trained from
            scratch must.

    Returns:
        ``model``, changed.

    Raises:
        ValueError: no such block or layer (the message lists the blocks), or one of the head.
    """
    found = parts(model)
    layer = next((layer for layer in found.body if layer.name == trainable and trainable not in found.blocks), None)
    if layer is None:
        set_blocks(model, trainable, batch_norm=batch_norm)
    else:
        _set_frozen(found.body, keras.Model(model.inputs, layer.input).layers, batch_norm)
    if model.compiled:
        model.compile_from_config(model.get_compile_config())
    return model


def set_blocks(model: keras.Model, trainable: int | str, *, batch_norm: BatchNorm = "frozen") -> None:
    """As ``freeze``, by blocks only, and without compiling the model again."""
    found = parts(model)
    names = list(found.blocks)
    if trainable == "all":
        return _set_frozen(found.body, [], batch_norm)
    if isinstance(trainable, str) and trainable in names:
        count = len(names) - names.index(trainable)
    elif isinstance(trainable, int) and not isinstance(trainable, bool) and 0 <= trainable <= len(names):
        count = trainable
    else:
        raise ValueError(
            f"trainable={trainable!r}: allowed are 0 to {len(names)} (the last n blocks), 'all', or the block to "
            f"begin with: {', '.join(names) or 'this model has none'}"
        )
    free = [layer for name in names[len(names) - count :] for layer in found.blocks[name]]
    return _set_frozen(found.body, [layer for layer in found.body if layer not in free], batch_norm)


def _set_frozen(body: Sequence[Any], frozen: Sequence[Any], batch_norm: BatchNorm) -> None:
    if batch_norm not in get_args(BatchNorm):
        raise ValueError(f"batch_norm={batch_norm!r}: allowed are {' and '.join(map(repr, get_args(BatchNorm)))}")
    for layer in body:
        keeps = batch_norm == "frozen" and isinstance(layer, layers.BatchNormalization)
        layer.trainable = layer not in frozen and not keeps


def replace_head(
    model: keras.Model, class_names: Sequence[str], *, extend: bool = False, keep: bool = True, seed: int | None = None
) -> keras.Model:
    """A classifier for other classes on the backbone of a trained one.

    The new head has the old one's shape. With ``keep`` it begins with the old head's hidden layers, and classes that
    the old one knew begin with what it knew of them: when classes are added, the others are told apart as before.

    Args:
        model: a classifier of ``build_classifier``, trained or not, or loaded from its file.
        class_names: in the order of the targets' columns.
        extend: the old classes stay, in front of ``class_names``.
        keep: begin with what the old head learned; False: its initial weights are drawn anew.
        seed: of new weights; None draws new ones each time.

    Returns:
        A compiled model of its own; ``model`` stays as it is. The same layers train.

    Raises:
        ValueError: ``class_names`` is no list of different names, or ``extend`` with a name that is there already.
    """
    found = classifier_parts(model)
    old, scores = found.class_names, cast(ClassScores, found.scores)
    names = check_class_names(class_names, at_least=1 if extend else 2)
    if extend and set(old) & set(names):
        raise ValueError(f"class_names={names!r}: {sorted(set(old) & set(names))} are there already (extend=True)")
    names = [*old, *names] if extend else names
    body = {layer.name for layer in found.body}

    def changes(layer: Any) -> dict[str, Any]:
        new: dict[str, Any] = {}
        if layer is found.logits:
            new["units"] = len(names)
        if layer is scores:  # its thresholds were chosen on the old head
            known = scores.background in names
            new = {"class_names": names, "thresholds": (), "background": scores.background if known else None}
        if layer.name not in body and hasattr(layer, "kernel_initializer"):
            new["kernel_initializer"] = keras.initializers.GlorotUniform(seed=layer_seed(seed, layer.name))
        return new

    new = clone_with(model, changes)
    for layer in model.layers:
        twin = new.get_layer(layer.name)
        twin.trainable = layer.trainable
        if layer.weights and (layer.name in body or keep):
            known = layer.get_weights()
            twin.set_weights(_columns(known, twin.get_weights(), old, names) if layer is found.logits else known)
    compile_classifier(new, multi_label=found.multi_label)
    return new


def _columns(
    known: Sequence[np.ndarray], fresh: Sequence[np.ndarray], old: Sequence[str], new: Sequence[str]
) -> list[np.ndarray]:
    """``fresh`` kernel and bias, with the columns of the classes that are in both from ``known``."""
    pairs = [(old.index(name), column) for column, name in enumerate(new) if name in old]
    for before, after in zip(known, fresh, strict=True):
        for source, target in pairs:
            after[..., target] = before[..., source]
    return list(fresh)


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

    folded = clone_with(model, lambda layer: {"use_bias": True} if layer.name in pairs else {}, without=norms)
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


def clone_with(
    model: keras.Model,
    changes: Callable[[Any], dict[str, Any]],
    *,
    inputs: Any = None,
    without: Collection[str] = (),
) -> keras.Model:
    """A copy of a functional model with changed settings of its layers, and new weights.

    Args:
        model: to copy.
        changes: gives what differs in a layer's config.
        inputs: a ``keras.Input`` in the place of the model's own.
        without: names of layers that are left out: what goes into them comes out.
    """

    def clone(layer: Any) -> Any:
        copy = type(layer).from_config({**layer.get_config(), **changes(layer)})
        if isinstance(layer, HubEmbedding):  # a file brought the SavedModel along, where its handle may not be found
            copy.share(layer)
        return copy

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return args[0] if layer.name in without else layer(*args, **kwargs)

    return keras.models.clone_model(model, input_tensors=inputs, clone_function=clone, call_function=call)
