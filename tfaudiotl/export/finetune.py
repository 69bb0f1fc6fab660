"""A short fine-tuning of the network as it will be quantised, so that int8 throughout keeps the accuracy.

The folded float file's own layers run in TensorFlow with every weight and every activation rounded as the
int8 file will round them (gradients pass straight through the rounding), and learn to give the scores of
the float file. Labels are not used. The upper end of each activation's range is learnt along with the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfaudiotl.export.calibrate import Ranges
from tfaudiotl.export.flatbuffer import Graph, Operator

_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_RUNNABLE = (*_LAYERS, "MEAN", "RESHAPE", "SOFTMAX", "LOGISTIC")


@dataclass(frozen=True)
class FineTuning:
    """How the fine-tuning runs.

    Attributes:
        steps: of the optimizer.
        batch_size: patches per step.
        learning_rate: Adam's at the start; it falls to zero along a cosine.
        layers: so many layers at the end are trained. What lies before them runs once: there the patches are
            large, the rounding does little harm, and the time would go.
        seed: of the order of the patches.
    """

    steps: int = 400
    batch_size: int = 32
    learning_rate: float = 2e-5
    layers: int = 12
    seed: int = 0


def fine_tune(
    content: bytes,
    ranges: dict[str, Ranges],
    inputs: np.ndarray,
    options: FineTuning | None = None,
    *,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> tuple[bytes, dict[str, tuple[float, float]]]:
    """Teaches the network to bear its quantisation.

    Args:
        content: a float file of patches that consists of convolutions, dense layers and a mean.
        ranges: of its tensors.
        inputs: ``(patches, ...)``: what to learn on.
        options: how.
        progress: called with the step and its loss.

    Returns:
        The file with the new weights, and the limits of each tensor to quantise it with.
    """
    options = options or FineTuning()
    network = _Network(content, ranges, options.layers)
    kept = _batched(network.prepare, inputs, options.batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(options.learning_rate, options.steps)
    optimizer = keras.optimizers.Adam(schedule)
    optimizer.build(network.trained)

    @tf.function(autograph=False)
    def step(start: Any, logits: Any, features: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = network.loss(start, logits, features)
        optimizer.apply_gradients(zip(tape.gradient(loss, network.trained), network.trained, strict=True))
        return loss

    rng = np.random.default_rng(options.seed)
    for number in range(options.steps):
        rows = rng.integers(len(inputs), size=options.batch_size)
        loss = step(*(tf.constant(values[rows]) for values in kept))
        progress(number + 1, float(loss))
    return network.content(), network.limits()


def _batched(function: Callable[[Any], tuple[Any, ...]], inputs: np.ndarray, size: int) -> list[np.ndarray]:
    parts = [function(tf.constant(inputs[start : start + size])) for start in range(0, len(inputs), size)]
    return [np.concatenate([part[place].numpy() for part in parts]) for place in range(len(parts[0]))]


class _Network:
    """The file's operators in TensorFlow."""

    def __init__(self, content: bytes, ranges: dict[str, Ranges], layers: int):
        self._graph = Graph(content)
        self._operators = list(self._graph.operators())
        foreign = sorted({op.kind for op in self._operators} - set(_RUNNABLE))
        if foreign:
            raise ValueError(f"content: has {', '.join(foreign)}; allowed are {', '.join(_RUNNABLE)}")
        self._variables: dict[int, tf.Variable] = {}
        for op in self._operators:
            for tensor in op.inputs[1:3] if op.kind in _LAYERS else ():
                if tensor >= 0:
                    self._variables[tensor] = tf.Variable(self._graph.constant(tensor))
        self._range = {name: found.limits() for name, found in ranges.items()}
        # The limits are trained as factors, so that one learning rate fits all of them.
        self._factors = {name: tf.Variable(0.0) for op in self._operators if (name := op.name) in self._range}
        ends = [place for place, op in enumerate(self._operators) if op.kind in _LAYERS]
        self._cut = ends[max(0, len(ends) - layers)]
        tail = [op for op in self._operators[self._cut :] if op.kind in _LAYERS]
        self._logits = tail[-1].outputs[0]
        means = [op for op in self._operators if op.kind == "MEAN"]
        self._features = means[-1].outputs[0] if means else self._logits
        own = [self._variables[tensor] for op in tail for tensor in op.inputs[1:3] if tensor >= 0]
        self.trained = [*own, *(self._factors[op.name] for op in tail if op.name in self._factors)]
        self.prepare = tf.function(self._prepare, autograph=False)

    def _prepare(self, patches: Any) -> tuple[Any, Any, Any]:
        """What the tail starts from, as the int8 file has it; and the float file's logits and features."""
        before = self._run(patches, self._operators[: self._cut], rounded=True)
        plain = self._run(patches, self._operators, rounded=False)
        return before[self._operators[self._cut].inputs[0]], plain[self._logits], plain[self._features]

    def loss(self, start: Any, logits: Any, features: Any) -> Any:
        """Distance from the float network: of its scores' distribution, and of the features under it."""
        values = self._run(start, self._operators[self._cut :], rounded=True)
        ours, seen = values[self._logits], values[self._features]
        if self._operators[-1].kind == "SOFTMAX":
            wanted = tf.nn.softmax(logits)
            far = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(wanted, ours))
            far -= tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(wanted, logits))
        else:
            far = tf.reduce_mean(tf.square(ours - logits)) / (tf.reduce_mean(tf.square(logits)) + 1e-9)
        return far + tf.reduce_mean(tf.square(seen - features)) / (tf.reduce_mean(tf.square(features)) + 1e-9)

    def _run(self, start: Any, operators: Sequence[Operator], *, rounded: bool) -> dict[int, Any]:
        first = operators[0].inputs[0] if operators else self._graph.inputs[0]
        whole = first == self._graph.inputs[0]
        values = {first: self._round(self._graph.name(first), start) if rounded and whole else start}
        for op in operators:
            y = self._compute(op, values[op.inputs[0]], rounded=rounded)
            values[op.outputs[0]] = self._round(op.name, y) if rounded and op.kind in (*_LAYERS, "MEAN") else y
        return values

    def _compute(self, op: Operator, x: Any, *, rounded: bool) -> Any:
        if op.kind == "RESHAPE":
            return tf.reshape(x, (-1, *self._graph.shape(op.outputs[0])[1:]))
        if op.kind == "MEAN":
            return tf.reduce_mean(x, axis=[int(axis) for axis in np.ravel(self._graph.constant(op.inputs[1]))])
        if op.kind in ("SOFTMAX", "LOGISTIC"):
            return x
        weights: Any = self._variables[op.inputs[1]]
        if rounded:
            weights = _round_weights(weights, 3 if op.kind == "DEPTHWISE_CONV_2D" else 0)
        y = _layer(self._graph.options(op), op.kind, x, weights)
        if len(op.inputs) > 2 and op.inputs[2] >= 0:
            y += self._variables[op.inputs[2]]
        return tf.nn.relu(y) if op.activation == "RELU" else y

    def _round(self, name: str, values: Any) -> Any:
        low, high = self._range[name]
        growth = tf.exp(self._factors[name]) if name in self._factors else 1.0
        return tf.quantization.fake_quant_with_min_max_vars(values, low * growth, high * growth)

    def limits(self) -> dict[str, tuple[float, float]]:
        """Every tensor's range, by name, after training."""
        growth = {name: float(np.exp(factor.numpy())) for name, factor in self._factors.items()}
        return {
            name: (low * growth.get(name, 1.0), high * growth.get(name, 1.0))
            for name, (low, high) in self._range.items()
        }

    def content(self) -> bytes:
        """The file with the trained weights."""
        for tensor, variable in self._variables.items():
            self._graph.set_constant(tensor, variable.numpy())
        return self._graph.pack()


def _round_weights(weights: Any, axis: int) -> Any:
    """Weights as int8 per channel will hold them; the gradient passes as if they were not rounded."""
    others = [place for place in range(len(weights.shape)) if place != axis]
    scale = tf.stop_gradient(tf.reduce_max(tf.abs(weights), axis=others, keepdims=True)) / 127 + 1e-12
    return weights + tf.stop_gradient(tf.round(weights / scale) * scale - weights)


def _layer(options: Any, kind: str, x: Any, weights: Any) -> Any:
    if kind == "FULLY_CONNECTED":
        return tf.matmul(tf.reshape(x, (-1, weights.shape[1])), weights, transpose_b=True)
    padding = "SAME" if options.padding == 0 else "VALID"
    strides = [1, options.strideH, options.strideW, 1]
    if kind == "CONV_2D":  # filters lie as (out, height, width, in)
        return tf.nn.conv2d(x, tf.transpose(weights, (1, 2, 3, 0)), strides, padding)
    return tf.nn.depthwise_conv2d(x, tf.transpose(weights, (1, 2, 3, 0)), strides, padding)
