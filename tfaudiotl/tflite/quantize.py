"""A .tflite file in fewer bytes: 8 bits, half precision where it does no harm, and nothing that only fills it.

Which operator has how many bits is measured on real sound, not taken from a table.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfaudiotl.errors import ExportError
from tfaudiotl.tflite.audit import LAYERS, is_heavy, part_of, short_name, stored_constants
from tfaudiotl.tflite.graph import Graph, Operator
from tfaudiotl.tflite.litert import make_interpreter, run_content

GOAL = 0.995  # agreement on the calibration windows that int8 throughout aims at
NEAR = 1.5  # how far static int8 may be from the float file, over what dynamic quantisation is
MOST_WIDE = 8  # operators with 16-bit activations: they are slow where there is no kernel of their own
JUDGED = 240  # calibration windows that each choice is tried on
ROWS = 8  # positions of a feature map kept per window, evenly spaced
# Least width of a range: kernels count the 6 of a ReLU6 in steps of it, as int32; at 16 bits it has 32,767 steps.
NARROWEST = 1e-4
PEAK = 99.0  # percentile over windows of a channel's largest magnitude: all but the loudest windows

# Of one operator: "static": int8 throughout, by calibrated ranges; "static16": the same with 16-bit activations;
# "dynamic": int8 weights, activations quantised as they come. Operators without a scheme stay in float.
Scheme = Literal["static", "static16", "dynamic"]
Schemes = Mapping[str, Scheme]  # by the operator's name
Limits = Mapping[str, tuple[float, float]]  # the range of each tensor, by its name


@dataclass(frozen=True)
class Quantized:
    """A quantised file and how it came about.

    Attributes:
        graph: the file.
        schemes: of its operators.
        sensitivity: block -> agreement with the float file when that block alone is static int8; empty
            where nothing had to be chosen.
    """

    graph: Graph
    schemes: Schemes
    sensitivity: dict[str, float] = field(default_factory=dict)


def quantize_dynamic(graph: Graph) -> Quantized:
    """Int8 weights in the pointwise convolutions and dense layers; everything else in float.

    These hold 98 % of the weights. Depthwise layers and the front-end, where dynamic quantisation does the
    damage, hold little; so does the first convolution.
    """
    schemes: Schemes = {op.name: "dynamic" for op, _ in _network(graph) if is_heavy(graph, op)}
    return Quantized(Graph(apply_schemes(graph, schemes)), schemes)


def quantize_static(graph: Graph, windows: np.ndarray) -> Quantized:
    """Static int8 wherever the network bears it, dynamic where it does not; the front-end in float.

    Each block is tried alone in static int8, and the worst ones are taken out of it: as few as bring the mean
    difference of the scores within ``NEAR`` times that of dynamic quantisation throughout. The mean difference tells
    more than the agreement, which moves by single windows. Channels are not equalised: that helps static layers, but
    harms dynamic ones more.

    Args:
        graph: the float file.
        windows: ``(windows, ...)``: its inputs on real sound.
    """
    trial = _Trial(graph, measure_ranges(graph, windows), windows)
    blocks: dict[str, list[Operator]] = {}
    for op, block in _network(graph):
        blocks.setdefault(block, []).append(op)
    # A block of means alone has no weights: that one in int8 would make no int8 file.
    blocks = {block: found for block, found in blocks.items() if any(op.kind in LAYERS for op in found)}

    def schemes(static: set[str], *, others: bool) -> Schemes:
        chosen: dict[str, Scheme] = {}
        for block, operators in blocks.items():
            for op in operators:
                if block in static:
                    chosen[op.name] = "static"
                elif others and is_heavy(graph, op):
                    chosen[op.name] = "dynamic"
        return chosen

    alone = {block: trial.judge(trial.apply(schemes({block}, others=False))) for block in blocks}
    worst_first = sorted(alone, key=lambda name: (-alone[name][1], name))

    def out(count: int) -> bytes:
        return trial.apply(schemes(set(worst_first[count:]), others=True))

    most = NEAR * trial.judge(trial.apply(schemes(set(), others=True)))[1]
    taken = _least(len(blocks) - 1, lambda count: trial.judge(out(count))[1] <= most)
    sensitivity = {block: agreement for block, (agreement, _) in alone.items()}
    return Quantized(Graph(out(taken)), schemes(set(worst_first[taken:]), others=True), sensitivity)


def quantize_throughout(graph: Graph, patches: np.ndarray) -> Quantized:
    """Integers throughout, input and output too: int8, and 16-bit activations in the few worst operators.

    Channels are equalised. Each operator is then tried alone in int8, and the worst ones keep 16 bits for what
    runs through them (their weights stay int8), as few as agree with the float file on ``GOAL`` of the patches, and at
    most ``MOST_WIDE``.

    Args:
        graph: a float file of patches.
        patches: ``(patches, ...)``: its inputs on real sound.
    """
    graph = Graph(graph.content)  # of its own, to equalise
    ranges = equalize(graph, measure_ranges(graph, patches))
    trial = _Trial(graph, ranges, patches)
    layers = [op.name for op in graph.operators if op.kind in LAYERS]
    alone = {name: trial.judge(trial.apply({name: "static"})) for name in layers}
    worst_first = sorted(alone, key=lambda name: (-alone[name][1], name))

    def with_wide(count: int) -> tuple[bytes, Schemes]:
        wide = worst_first[:count]
        schemes: Schemes = {op.name: "static16" if op.name in wide else "static" for op in graph.operators}
        limits = trial.limits | {name: ranges[name].extremes() for name in wide}
        return trial.apply(schemes, limits, int8_io=True), schemes

    def enough(count: int) -> bool:
        return trial.judge(with_wide(count)[0])[0] >= GOAL

    content, schemes = with_wide(_least(min(MOST_WIDE, len(layers) - 1), enough))
    return Quantized(Graph(content), schemes, {short_name(name): agreement for name, (agreement, _) in alone.items()})


def _network(graph: Graph) -> list[tuple[Operator, str]]:
    """Layers and means behind the front-end, with their blocks.

    A layer whose filters are computed in the file, as RawNet2's sinc filters are, stays in float: its filters would be
    coded like sound, with a zero point, which the kernels refuse.
    """
    found, part = [], "front-end"
    for op in graph.operators:
        part = part_of(op, part)
        coded = op.kind == "MEAN" or (op.kind in LAYERS and graph.is_constant(op.inputs[1]))
        if part != "front-end" and coded:
            found.append((op, part))
    return found


class _Trial:
    """A file prepared for quantisation, and how far quantised versions of it are from it on real sound."""

    def __init__(self, graph: Graph, ranges: Mapping[str, Ranges], windows: np.ndarray):
        self.graph = graph
        self.limits = {name: found.limits() for name, found in ranges.items()}
        self._judged = windows[np.linspace(0, len(windows) - 1, min(JUDGED, len(windows))).astype(int)]
        self._wanted = run_content(graph.content, self._judged)

    def judge(self, content: bytes) -> tuple[float, float]:
        """Agreement with the file, and the mean absolute difference."""
        found = run_content(content, self._judged)
        agreement = (found.argmax(axis=-1) == self._wanted.argmax(axis=-1)).mean()
        return float(agreement), float(np.abs(found - self._wanted).mean())

    def apply(self, schemes: Schemes, limits: Limits | None = None, *, int8_io: bool = False) -> bytes:
        """The file quantised so, with its own ranges or others."""
        return apply_schemes(self.graph, schemes, limits or self.limits, int8_io=int8_io)


def _least(most: int, enough: Callable[[int], bool]) -> int:
    """The least number in 0 to ``most`` that is enough, if more is never worse; ``most`` if none is."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle + 1
    return low


def apply_schemes(graph: Graph, schemes: Schemes, limits: Limits | None = None, *, int8_io: bool = False) -> bytes:
    """The file with the operators named quantised by ai-edge-quantizer; all others stay in float.

    Args:
        graph: a .tflite file in float32.
        schemes: operator's name -> scheme.
        limits: range of each of the file's tensors, by name; needed for "static" and "static16".
        int8_io: also inputs and outputs.

    Raises:
        ExportError: the quantizer cannot do it.
    """
    from ai_edge_quantizer import qtyping, quantizer

    static = int8_io or not set(schemes.values()) <= {"dynamic"}
    if static and limits is None:
        raise ValueError("limits=None: static quantisation needs calibrated ranges")
    run = quantizer.Quantizer(bytearray(graph.content))
    kinds = {op.name: op.kind for op in graph.operators}
    if int8_io:
        for end in ("INPUT", "OUTPUT"):
            run.add_static_config(".*", qtyping.TFLOperationName(end), 8, 8)
    for name, scheme in schemes.items():
        operation, exactly = qtyping.TFLOperationName(kinds[name]), f"^{re.escape(name)};?$"
        if scheme == "dynamic":
            run.add_dynamic_config(exactly, operation, 8)
        else:
            run.add_static_config(exactly, operation, 16 if scheme == "static16" else 8, 8)
    statistics = _statistics(limits) if static and limits is not None else None
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars, one per pass
            done = run.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        raise ExportError(f"the model cannot be quantised: {error}") from error
    return bytes(done.quantized_model)


def _statistics(limits: Limits) -> dict[str, dict[str, np.ndarray]]:
    """The ranges as ai-edge-quantizer takes them."""
    return {
        name: {"min": np.array([[low]], np.float32), "max": np.array([[high]], np.float32)}
        for name, (low, high) in limits.items()
    }


def without_integers(graph: Graph) -> list[str]:
    """Kinds of operators in a float file that the quantizer has no integer form of."""
    from ai_edge_quantizer import qtyping

    known = {operation.value for operation in qtyping.TFLOperationName}
    return sorted({op.kind for op in graph.operators} - known)


# Ranges: what values run through a network.


@dataclass(frozen=True)
class Ranges:
    """Values of one tensor over the calibration windows.

    Attributes:
        values: float32 ``(windows * rows, channels)``: an even sample of the positions.
        low, high: float32 ``(windows, channels)``: least and largest value in each window.
    """

    values: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def channel_peaks(self) -> np.ndarray:
        """Each channel's largest magnitude, ``(channels,)``, in all but the loudest windows."""
        return np.percentile(np.maximum(self.high, -self.low), PEAK, axis=0)

    def limits(self) -> tuple[float, float]:
        """The range that 8 bits serve best: the extremes, drawn in as long as the squared error falls.

        A range that ends before the rarest peaks clips those and holds all others more finely. It always
        includes zero, which must have a code of its own.
        """
        low, high = self.extremes()
        values = self.values.reshape(-1)
        values = values[:: max(1, len(values) // 200_000)]
        errors = [_squared_error(values, low * share, high * share) for share in _SHARES]
        best = _SHARES[int(np.argmin(errors))]
        return low * best, high * best

    def extremes(self) -> tuple[float, float]:
        """The least and the largest value; includes zero, and is at least ``NARROWEST`` wide."""
        low, high = min(0.0, float(self.low.min())), max(0.0, float(self.high.max()))
        return low, max(high, low + NARROWEST)

    def scaled(self, factors: np.ndarray) -> Ranges:
        """The ranges after channels are multiplied by positive ``factors``."""
        factors = factors.astype(np.float32)
        return Ranges(self.values * factors, self.low * factors, self.high * factors)


_SHARES = np.linspace(1.0, 0.2, 33)


def _squared_error(values: np.ndarray, low: float, high: float) -> float:
    step = (high - low) / 255
    coded = np.clip(np.round((values - low) / step), 0, 255) * step + low
    return float(np.square(coded - values).mean())


def measure_ranges(graph: Graph, windows: np.ndarray) -> dict[str, Ranges]:
    """Runs a float file over the windows and looks at every computed float tensor.

    Args:
        graph: a .tflite file in float32 with one input.
        windows: ``(windows, ...)``: one row per run.

    Returns:
        Ranges by tensor name.
    """
    interpreter = make_interpreter(graph.content, keep_tensors=True)
    (taken,) = interpreter.get_input_details()
    read = {tensor for op in graph.operators for tensor in op.inputs} | set(graph.outputs)
    # An operator's output that nothing reads, such as one part of a split, has no memory.
    computed = {
        tensor for op in graph.operators for tensor in op.outputs if graph.type(tensor) == "FLOAT32" and tensor in read
    }
    tensors = sorted(computed | set(graph.inputs))
    values: dict[int, list[np.ndarray]] = {tensor: [] for tensor in tensors}
    low: dict[int, list[np.ndarray]] = {tensor: [] for tensor in tensors}
    high: dict[int, list[np.ndarray]] = {tensor: [] for tensor in tensors}
    for window in windows:
        interpreter.set_tensor(taken["index"], window[None])
        interpreter.invoke()
        for tensor in tensors:
            x = interpreter.get_tensor(tensor)
            rows = x.reshape(-1, x.shape[-1])
            values[tensor].append(rows[:: max(1, -(-len(rows) // ROWS))].copy())
            low[tensor].append(rows.min(axis=0))
            high[tensor].append(rows.max(axis=0))
    return {
        graph.name(tensor): Ranges(np.concatenate(values[tensor]), np.stack(low[tensor]), np.stack(high[tensor]))
        for tensor in tensors
    }


# Cross-layer equalisation: the same network with channels of like size, so that eight bits hold them all.
#
# Between two layers with nothing but a ReLU between them (and a mean), each channel can be divided by a number at the
# first layer's weights and multiplied by it again at the second's: the function stays the same, to rounding. One scale
# per tensor then serves all channels. (Nagel et al. 2019, "Data-free quantization through weight equalization and bias
# correction"; here with measured activations, as in Xiao et al. 2023, "SmoothQuant".)

# The axis of a filter that runs over output channels, and over input channels.
_AXES = {"CONV_2D": (0, 3), "DEPTHWISE_CONV_2D": (3, 3), "FULLY_CONNECTED": (0, 1)}
_LIMIT = 64.0  # a channel is scaled by at most this, either way
_PASSED = ("MEAN",)  # operators between two layers that scaling goes through
# How far the sizes of channels are made equal, where the next layer's weights pay for it: a depthwise layer has a
# weight scale of its own per channel, so there it is all the way.
_BALANCE = 0.5


def equalize(graph: Graph, ranges: Mapping[str, Ranges]) -> dict[str, Ranges]:
    """Scales channels between neighbouring layers of a float file.

    Args:
        graph: a .tflite file in float32, whose weights are changed.
        ranges: from ``measure_ranges`` of the same file.

    Returns:
        The ranges after it.
    """
    ranges = dict(ranges)
    for first in graph.operators:
        pair = _next_layer(graph, first)
        if pair is None:
            continue
        second, between = pair
        peaks = ranges[first.name].channel_peaks()
        if graph.shape(second.inputs[1])[_AXES[second.kind][1]] != len(peaks):
            continue  # a reshape in disguise, or a depthwise layer that multiplies its channels
        loud = np.median(peaks[peaks > 0]) if (peaks > 0).any() else 1.0
        ratio = np.where(peaks > 0, np.maximum(peaks, 1e-3 * loud) / loud, 1.0)
        power = 1.0 if second.kind == "DEPTHWISE_CONV_2D" else _BALANCE
        ratio = np.clip(ratio**power, 1 / _LIMIT, _LIMIT)
        _scale(graph, first, second, ratio)
        for name in between:
            ranges[name] = ranges[name].scaled(1 / ratio)
    return ranges


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


LEAST_HALVED = 512  # bytes of a constant: what widening a smaller one takes in the file is as much as it saves
LEAST_ZEROS = 0.75  # share of zeros from which a matrix is stored without them: places take half as much as numbers
_HALF_MAX = float(np.finfo(np.float16).max)


def halve_constants(graph: Graph) -> None:
    """The network's filters, matrices and biases in half precision, widened again as the file is loaded.

    The front-end stays in float32: a window or Fourier matrix in half precision leaks loud tones into empty mel
    bands, where the log shows it, and the scores of a pure tone then move by 0.7.

    Args:
        graph: a file in float32, which is changed.
    """
    part = "front-end"
    for op in graph.operators:
        part = part_of(op, part)
        for tensor in op.inputs[1:] if op.kind in LAYERS and part != "front-end" else ():
            if graph.type(tensor) == "FLOAT32" and graph.constant_bytes(tensor) >= LEAST_HALVED:
                values = graph.constant(tensor)
                if np.abs(values).max() <= _HALF_MAX:
                    half = _like(graph, tensor, b"_half")
                    half.type = schema.TensorType.FLOAT16
                    widen = schema.BuiltinOperator.DEQUANTIZE
                    graph.compress_constant(tensor, half, values.astype(np.float16), widen, version=3)


def drop_fill(graph: Graph) -> None:
    """Takes out of a file what only fills it: zeros of sparse matrices (the mel filters), and long names.

    The converter writes into a tensor's name all that it has fused, up to 350 characters; computed tensors keep the
    layer's name, constants none. No runtime reads either.
    """
    for op in graph.operators:
        if op.kind == "FULLY_CONNECTED" and graph.type(op.inputs[1]) == "FLOAT32" and graph.is_constant(op.inputs[1]):
            _drop_zeros(graph, op.inputs[1])
    constants = {number for pair in stored_constants(graph).items() for number in pair}
    constants |= {tensor for op in graph.operators for tensor in op.inputs if graph.is_constant(tensor)}
    for tensor in graph.tensors:
        name = graph.name(tensor)
        kept = name if tensor in (*graph.inputs, *graph.outputs) else short_name(name)
        graph.shorten(tensor, "" if tensor in constants else kept)


def _drop_zeros(graph: Graph, tensor: int) -> None:
    """Stores a matrix by rows (CSR, as the schema's SparsityParameters have it) if it is mostly zeros."""
    values = graph.constant(tensor)
    rows, columns = np.nonzero(values)
    if len(rows) > (1 - LEAST_ZEROS) * values.size or max(len(rows), *values.shape) > np.iinfo(np.uint16).max:
        return
    dense, sparse = schema.DimensionMetadataT(), schema.DimensionMetadataT()
    dense.format, dense.denseSize = schema.DimensionType.DENSE, len(values)
    sparse.format = schema.DimensionType.SPARSE_CSR
    sparse.arraySegmentsType = sparse.arrayIndicesType = schema.SparseIndexVector.Uint16Vector
    sparse.arraySegments, sparse.arrayIndices = schema.Uint16VectorT(), schema.Uint16VectorT()
    sparse.arraySegments.values = np.searchsorted(rows, np.arange(len(values) + 1)).astype(np.uint16)
    sparse.arrayIndices.values = columns.astype(np.uint16)
    stored = _like(graph, tensor, b"_sparse")
    stored.sparsity = schema.SparsityParametersT()
    stored.sparsity.traversalOrder = np.arange(2, dtype=np.int32)
    stored.sparsity.dimMetadata = [dense, sparse]
    graph.compress_constant(tensor, stored, values[rows, columns], schema.BuiltinOperator.DENSIFY, version=1)


def _like(graph: Graph, tensor: int, ending: bytes) -> schema.TensorT:
    like: schema.TensorT = graph.description(tensor)
    like.name += ending
    return like
