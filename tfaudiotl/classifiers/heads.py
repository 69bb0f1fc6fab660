"""Classifier heads, from an embedding or the sequence of a clip's embeddings to class scores, and their losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import initializers, layers, ops

from tfaudiotl import devices  # the module: Keras, which it imports, may be loading this one meanwhile
from tfaudiotl._seeds import derived_seed
from tfaudiotl.backbones.frontend import PatchPooling
from tfaudiotl.backbones.scores import ClassScores

SequenceHead = Literal["statistics", "attention", "gru", "lstm", "conv"]
Head = Literal["dense", "average", SequenceHead]
ATTENTION_UNITS = 128  # of the layer that judges a patch's weight; its width hardly matters
CONV_PATCHES = 3  # that a temporal convolution sees at once: 1.9 s of YAMNet's overlapping patches


def dense_head(
    embedding: Any,
    class_names: Sequence[str],
    *,
    hidden: Sequence[int] = (),
    dropout: float = 0.2,
    multi_label: bool = False,
    seed: int | None = None,
) -> Any:
    """Standardise, hidden layers, dropout, scores.

    The batch norm without scale and offset standardises each number of the embedding: YAMNet's
    differ by orders of magnitude, and a linear probe's accuracy rests on it. Its momentum is 0.9, since
    small sets of clips have few steps to learn the statistics in.

    Args:
        embedding: ``(rows, dim)``: of patches or of clips.
        class_names: one output each.
        hidden: widths of ReLU layers before the last.
        dropout: share of numbers dropped before each dense layer, in [0, 1).
        multi_label: sigmoid (independent classes) instead of softmax.
        seed: of the initial weights and the dropout; None draws new ones each time.

    Returns:
        Scores ``(rows, classes)`` in float32.
    """
    x = _standardised(embedding)
    return _dense(x, class_names, hidden, dropout=dropout, multi_label=multi_label, seed=seed)


def sequence_head(
    kind: SequenceHead,
    sequence: Any,
    valid: Any,
    class_names: Sequence[str],
    *,
    hidden: Sequence[int],
    dropout: float = 0.2,
    multi_label: bool = False,
    seed: int | None = None,
) -> Any:
    """A head on a clip's patches in their order; padding at the end does not count.

    Args:
        kind: "statistics": each number's mean, standard deviation and maximum over the patches, then as the dense head.
            "attention": a weight for each patch, learned, then as the dense head. "gru", "lstm": a recurrent layer of
            width ``hidden[0]``, whose state after the last patch goes on to the other hidden layers. "conv": a
            convolution over 3 patches for each width in ``hidden``, then the maximum over time.
        sequence: ``(batch, patches, dim)``.
        valid: ``(batch, patches)``, 1 where a patch holds sound, else 0.
        class_names: one output each.
        hidden: widths; at least one but for "statistics" and "attention".
        dropout: as for ``dense_head``.
        multi_label: as for ``dense_head``.
        seed: as for ``dense_head``.

    Returns:
        Scores ``(batch, classes)`` in float32.
    """
    if kind in ("gru", "lstm", "conv") and not hidden:
        raise ValueError(f"hidden=(): head={kind!r} needs at least one width, such as (128,)")
    if kind == "statistics":
        statistics = PatchStatistics(name="head_statistics")([sequence, valid])
        return dense_head(statistics, class_names, hidden=hidden, dropout=dropout, multi_label=multi_label, seed=seed)
    x = _standardised(sequence)
    if kind == "attention":
        judged = layers.Dense(ATTENTION_UNITS, activation="tanh", **_named("head_attention_1", seed))(x)
        judged = layers.Dense(1, **_named("head_attention_2", seed))(judged)
        x = AttentionPooling(name="head_attention")([x, judged, valid])
        rest = hidden
    elif kind == "conv":
        for number, units in enumerate(hidden, start=1):
            x = MaskPatches(name=f"head_mask_{number}")([x, valid])
            x = _dropout(f"head_conv_dropout_{number}", dropout, seed)(x)
            conv = _named(f"head_conv_{number}", seed)
            x = layers.Conv1D(units, CONV_PATCHES, padding="same", activation="relu", **conv)(x)
        x, rest = PatchPooling("max", name="head_pooling")([x, valid]), ()
    else:
        x = _dropout("head_recurrent_dropout", dropout, seed)(x)
        recurrent = {"gru": layers.GRU, "lstm": layers.LSTM}[kind](
            hidden[0],
            return_sequences=True,
            recurrent_initializer=initializers.Orthogonal(seed=layer_seed(seed, f"head_{kind} recurrent")),
            **_named(f"head_{kind}", seed),
        )
        x, rest = LastPatch(name="head_last")([recurrent(x), valid]), hidden[1:]
    return _dense(x, class_names, rest, dropout=dropout, multi_label=multi_label, seed=seed)


def layer_seed(seed: int | None, layer: str) -> int | None:
    """The seed of one layer's weights or dropout: layers of one shape would else start with the same weights."""
    return None if seed is None else derived_seed("classifier", seed, layer)


def _named(name: str, seed: int | None) -> dict[str, Any]:
    return {"name": name, "kernel_initializer": initializers.GlorotUniform(seed=layer_seed(seed, name))}


def _dropout(name: str, rate: float, seed: int | None) -> keras.layers.Dropout:
    return layers.Dropout(rate, seed=layer_seed(seed, name), name=name)


def _standardised(x: Any) -> Any:
    return layers.BatchNormalization(center=False, scale=False, momentum=0.9, name="head_batch_norm")(x)


def _dense(
    x: Any, class_names: Sequence[str], hidden: Sequence[int], *, dropout: float, multi_label: bool, seed: int | None
) -> Any:
    for number, units in enumerate(hidden, start=1):
        x = _dropout(f"head_dropout_{number}", dropout, seed)(x)
        x = layers.Dense(units, activation="relu", **_named(f"head_dense_{number}", seed))(x)
    x = _dropout("head_dropout", dropout, seed)(x)
    x = layers.Dense(len(class_names), **_named("head_logits", seed))(x)
    activation = "sigmoid" if multi_label else "softmax"
    return ClassScores(activation, class_names=class_names, name="class_scores")(x)


def compile_classifier(
    model: keras.Model,
    *,
    multi_label: bool,
    learning_rate: float = 1e-3,
    loss: keras.losses.Loss | None = None,
    optimizer: keras.optimizers.Optimizer | None = None,
) -> None:
    """Compiles with the loss (None: cross-entropy that fits the targets), the optimizer (None: Adam), and accuracy."""
    kind: Any = keras.metrics.BinaryAccuracy if multi_label else keras.metrics.CategoricalAccuracy
    # Keras compiles with XLA wherever it can; on a CPU that is much slower for YAMNet (docs/decisions.md).
    jit_compile: Any = "auto" if devices.has_accelerator() else False
    model.compile(
        scaled(model, freed_with_its_model(optimizer or keras.optimizers.Adam(learning_rate))),
        loss or (keras.losses.BinaryCrossentropy() if multi_label else keras.losses.CategoricalCrossentropy()),
        metrics=[kind(name="accuracy")],
        jit_compile=jit_compile,
    )


def scaled(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer, with loss scaling where layers compute in float16.

    Keras itself goes by the session's precision, which says nothing of a model that was loaded from a file.
    """
    half = any(layer.compute_dtype == "float16" for layer in model.layers)
    return keras.optimizers.LossScaleOptimizer(optimizer) if half else optimizer


def freed_with_its_model(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer, changed so that the graph of its training step does not outlive the model.

    Keras adds gradients up over devices through ``tf.custom_gradient``, whose registry lasts as long as the process and
    keeps the graph: 5 MB for every model that is trained. Where there is one device there is nothing to add up.
    """
    add_up = getattr(optimizer, "_all_reduce_sum_gradients", None)  # of Keras's TensorFlow backend
    if add_up is not None:

        def over_devices(gradients: Any) -> Any:
            import tensorflow as tf

            several = tf.distribute.get_strategy().num_replicas_in_sync > 1
            return add_up(gradients) if several else list(gradients)

        optimizer._all_reduce_sum_gradients = over_devices
    return optimizer


@keras.saving.register_keras_serializable(package="tfaudiotl")
class MaskPatches(keras.layers.Layer):
    """Zeros in place of padding: ``[(batch, patches, dim), (batch, patches)]`` to ``(batch, patches, dim)``."""

    def call(self, inputs: list[Any]) -> Any:
        x, valid = inputs
        return x * valid[..., None]

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        return input_shape[0]


@keras.saving.register_keras_serializable(package="tfaudiotl")
class LastPatch(keras.layers.Layer):
    """The last valid patch: ``[(batch, patches, dim), (batch, patches)]`` to ``(batch, dim)``.

    Valid patches come first, so what a recurrent layer makes of the padding after them does not matter, and it needs no
    mask.
    """

    def call(self, inputs: list[Any]) -> Any:
        x, valid = inputs
        later = ops.concatenate([valid[:, 1:], ops.zeros_like(valid[:, :1])], axis=1)
        return ops.sum(x * (valid - later)[..., None], axis=1)

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        batch, _, dim = input_shape[0]
        return (batch, dim)


@keras.saving.register_keras_serializable(package="tfaudiotl")
class PatchStatistics(keras.layers.Layer):
    """Mean, standard deviation and maximum over the valid patches, side by side.

    ``[(batch, patches, dim), (batch, patches)]`` to ``(batch, 3 * dim)``. Of a clip of one patch the deviations are 0.
    """

    def __init__(self, **kwargs: Any):
        kwargs["dtype"] = "float32"  # a variance of half-precision numbers has hardly a digit
        super().__init__(**kwargs)

    def call(self, inputs: list[Any]) -> Any:
        x, valid = inputs
        valid = valid[..., None]
        count = ops.sum(valid, axis=1)
        mean = ops.sum(x * valid, axis=1) / count
        variance = ops.sum(ops.square(x - mean[:, None]) * valid, axis=1) / count
        # The square root's slope has no bound at 0, so it is taken of variances that are not.
        deviation = ops.where(variance > 1e-12, ops.sqrt(ops.maximum(variance, 1e-12)), ops.zeros_like(variance))
        most = ops.max(ops.where(valid > 0, x, ops.full_like(x, -3.0e38)), axis=1)
        return ops.concatenate([mean, deviation, most], axis=-1)

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        batch, _, dim = input_shape[0]
        return (batch, None if dim is None else 3 * dim)


@keras.saving.register_keras_serializable(package="tfaudiotl")
class AttentionPooling(keras.layers.Layer):
    """Weighted mean over the valid patches: ``[(batch, patches, dim), (batch, patches, 1), (batch, patches)]``.

    The weights are the softmax of the second; the result is ``(batch, dim)``.
    """

    def __init__(self, **kwargs: Any):
        kwargs["dtype"] = "float32"  # a softmax in half precision loses the small weights
        super().__init__(**kwargs)

    def call(self, inputs: list[Any]) -> Any:
        x, judged, valid = inputs
        weights = ops.softmax(judged[..., 0] + (valid - 1.0) * 1e9, axis=1)
        return ops.sum(x * weights[..., None], axis=1)

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        batch, _, dim = input_shape[0]
        return (batch, dim)
