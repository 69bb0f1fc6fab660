"""Cross-layer equalisation: the same network with channels of like size, so that eight bits hold them all.

Between two layers with nothing but a ReLU between them (and a mean), each channel can be divided by a
number at the first layer's weights and multiplied by it again at the second's: the function stays the
same, to rounding. One scale per tensor then serves all channels. (Nagel et al. 2019, "Data-free
quantization through weight equalization and bias correction"; here with measured activations, as in
Xiao et al. 2023, "SmoothQuant".)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfaudiotl.export.calibrate import Ranges
from tfaudiotl.export.graph import Graph, Operator

# The axis of a filter that runs over output channels, and over input channels.
_AXES = {"CONV_2D": (0, 3), "DEPTHWISE_CONV_2D": (3, 3), "FULLY_CONNECTED": (0, 1)}
_LIMIT = 64.0  # a channel is scaled by at most this, either way
_PASSED = ("MEAN",)  # operators between two layers that scaling goes through


@dataclass(frozen=True)
class Equalized:
    """A file of the same function with channels of like size.

    Attributes:
        content: the file.
        ranges: of its tensors, by name.
    """

    content: bytes
    ranges: dict[str, Ranges]


def equalize(
    content: bytes, ranges: dict[str, Ranges], *, balance: float = 0.5, balances: dict[str, float] | None = None
) -> Equalized:
    """Scales channels between neighbouring layers of a float file.

    Args:
        content: a .tflite file in float32.
        ranges: from ``measure_ranges`` of the same file.
        balance: how far the sizes of channels are made equal where the next layer's weights pay for it,
            in [0, 1]. A depthwise layer has a weight scale of its own per channel, so there it is 1.
        balances: other values for single layers, by the name of the first of the two.
    """
    graph = Graph(content)
    ranges = dict(ranges)
    for first in list(graph.operators()):
        pair = _next_layer(graph, first)
        if pair is None:
            continue
        second, between = pair
        peaks = ranges[first.name].channel_peaks()
        if graph.shape(second.inputs[1])[_AXES[second.kind][1]] != len(peaks):
            continue  # a reshape in disguise, or a depthwise layer that multiplies its channels
        loud = np.median(peaks[peaks > 0]) if (peaks > 0).any() else 1.0
        ratio = np.where(peaks > 0, np.maximum(peaks, 1e-3 * loud) / loud, 1.0)
        power = 1.0 if second.kind == "DEPTHWISE_CONV_2D" else (balances or {}).get(first.name, balance)
        ratio = np.clip(ratio**power, 1 / _LIMIT, _LIMIT)
        _scale(graph, first, second, ratio)
        for name in between:
            ranges[name] = ranges[name].scaled(1 / ratio)
    return Equalized(graph.pack(), ranges)


def paired_layers(content: bytes) -> list[str]:
    """Names of the layers whose balance with the next one is free: those that no depthwise layer follows."""
    graph = Graph(content)
    pairs = [(op.name, _next_layer(graph, op)) for op in graph.operators()]
    return [name for name, pair in pairs if pair is not None and pair[0].kind != "DEPTHWISE_CONV_2D"]


def _next_layer(graph: Graph, first: Operator) -> tuple[Operator, list[str]] | None:
    """The layer that alone reads ``first``'s output, if scaling may pass; and the tensors between them."""
    if first.kind not in _AXES or first.activation not in ("NONE", "RELU") or not _is_plain(graph, first):
        return None
    tensor, between = first.outputs[0], []
    while True:
        between.append(graph.name(tensor))
        readers = graph.consumers(tensor)
        if len(readers) != 1 or tensor in graph.outputs or graph.type(tensor) != "FLOAT32":
            return None
        (reader,) = readers
        if reader.kind in _AXES and reader.inputs[0] == tensor:
            return (reader, between) if _is_plain(graph, reader) else None
        if reader.kind not in _PASSED:
            return None
        tensor = reader.outputs[0]


def _is_plain(graph: Graph, layer: Operator) -> bool:
    """Whether the layer's weights and bias are float constants."""
    weights = layer.inputs[1]
    plain = graph.is_constant(weights) and graph.type(weights) == "FLOAT32"
    return plain and all(tensor < 0 or graph.is_constant(tensor) for tensor in layer.inputs[2:3])


def _scale(graph: Graph, first: Operator, second: Operator, ratio: np.ndarray) -> None:
    out_axis, _ = _AXES[first.kind]
    _, in_axis = _AXES[second.kind]
    _multiply(graph, first.inputs[1], 1 / ratio, out_axis)
    if len(first.inputs) > 2 and first.inputs[2] >= 0:
        _multiply(graph, first.inputs[2], 1 / ratio, 0)
    _multiply(graph, second.inputs[1], ratio, in_axis)


def _multiply(graph: Graph, tensor: int, factors: np.ndarray, axis: int) -> None:
    values = graph.constant(tensor)
    shape = [1] * values.ndim
    shape[axis] = len(factors)
    graph.set_constant(tensor, (values * factors.reshape(shape)).astype(np.float32))
