"""Reading a .tflite file back: which operators it needs, which of them are int8, and what they weigh."""

from __future__ import annotations

import math
import re
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfaudiotl.errors import ExportError
from tfaudiotl.markdown import markdown_table
from tfaudiotl.tflite.graph import Graph, Operator

LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
HYBRID = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL")  # take float sound, int8 weights

_SMALL = ("int8", "int16", "dynamic")  # weights in int8

# The built-in operators of TFLite Micro, all of them. Source: tensorflow/tflite-micro,
# tensorflow/lite/micro/micro_mutable_op_resolver.h, the Add... methods that call AddBuiltin.
_MICRO = """
    ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BROADCAST_ARGS
    BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS CUMSUM DEPTH_TO_SPACE DEPTHWISE_CONV_2D
    DEQUANTIZE DIV ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED
    GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL
    LOG LOG_SOFTMAX LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC MAX_POOL_2D MAXIMUM MEAN MINIMUM MIRROR_PAD MUL
    NEG NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_MAX REDUCE_MIN RELU RELU6 RESHAPE
    RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX
    SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM
    SVDF TANH TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE
"""
MICRO_OPERATORS = frozenset(_MICRO.split())


@dataclass(frozen=True)
class Audited:
    """One operator as found in the file.

    Attributes:
        kind: "CONV_2D" and so on.
        block: the part of the network it belongs to: "front-end", "layer8", "head" ...
        scheme: "int8" (computes on int8), "int16" (int8 weights, 16-bit
            activations), "dynamic" (int8 weights, sound quantised as it comes), "float16"
            or "weight" (weights stored small, computed in float), "float", or "other" (integers, shapes).
        bytes: of its constants.
        weights: how many numbers its filter or matrix has; 0 without one.
        heavy: whether its weights are what quantisation is for (``is_heavy``).
    """

    kind: str
    block: str
    scheme: str
    bytes: int
    weights: int
    heavy: bool


@dataclass(frozen=True)
class Audit:
    """A .tflite file's contents.

    Attributes:
        file: its name.
        bytes: its size.
        operators: every operator, in order.
        inputs, outputs: type and shape of each, such as "INT8 1x96x64".
        arena: bytes of activations alive at once, at most: the least a microcontroller needs beside the file.
    """

    file: str
    bytes: int
    operators: tuple[Audited, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    arena: int

    @property
    def kinds(self) -> dict[str, int]:
        """Number of operators of each kind."""
        return dict(Counter(op.kind for op in self.operators))

    @property
    def layers(self) -> list[Audited]:
        """The convolutions and dense layers behind the front-end: what quantisation is about."""
        return [op for op in self.operators if op.kind in LAYERS and op.block != "front-end"]

    @property
    def int8_share(self) -> float:
        """Share of the layers' weights that are int8, by number."""
        return _int8_share(self.layers)

    def blocks(self) -> dict[str, tuple[str, int]]:
        """Schemes and bytes of each part of the network, in order."""
        found: dict[str, tuple[list[str], int]] = {}
        for op in self.operators:
            schemes, size = found.get(op.block, ([], 0))
            if op.kind in LAYERS and op.scheme not in schemes:
                schemes = [*schemes, op.scheme]
            found[op.block] = (schemes, size + op.bytes)
        return {block: ("+".join(schemes), size) for block, (schemes, size) in found.items()}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "kinds": self.kinds, "int8_share": self.int8_share}

    def to_markdown(self) -> str:
        """The parts of the network with their schemes and sizes, and the operators by kind."""
        rows = [(block, schemes or "-", f"{size / 1e3:.1f}") for block, (schemes, size) in self.blocks().items()]
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kinds.items()))
        table = markdown_table(["Part", "Computes in", "kB"], rows)
        return f"{table}\n\nOperators: {kinds}. Input {', '.join(self.inputs)}; output {', '.join(self.outputs)}."


def audit_tflite(path: str | Path) -> Audit:
    """Reads back the file at ``path``; ExportError with its name if it is damaged or no such file."""
    try:
        return audit_graph(Graph(Path(path).read_bytes()), Path(path).name)
    except (ExportError, ArithmeticError, AttributeError, IndexError, TypeError, ValueError, struct.error) as error:
        raise ExportError(f"{path}: damaged, or no .tflite file of a network: {error}") from error


def audit_graph(graph: Graph, name: str) -> Audit:
    """Looks through a file that was read already; ``name`` is what errors call it."""
    operators, part = [], "front-end"
    stored = stored_constants(graph)
    for op in graph.operators:
        if op.outputs[0] in stored:
            continue
        part = part_of(op, part)
        constants = [stored.get(tensor, tensor) for tensor in op.inputs]
        size = sum(graph.constant_bytes(tensor) for tensor in constants)
        weights = math.prod(graph.shape(op.inputs[1])) if op.kind in LAYERS else 0
        operators.append(Audited(op.kind, part, _scheme(graph, op, stored), size, weights, is_heavy(graph, op)))
    return Audit(
        name,
        len(graph.content),
        tuple(operators),
        tuple(_described(graph, tensor) for tensor in graph.inputs),
        tuple(_described(graph, tensor) for tensor in graph.outputs),
        _peak_activations(graph),
    )


def check_audit(audit: Audit, *, quantize: str | None, patches: bool) -> None:
    """Refuses a file that is not what it is called.

    Args:
        audit: of the file.
        quantize: the scheme it was asked to have.
        patches: whether it is for microcontrollers, which have fewer operators.

    Raises:
        ExportError: custom or Flex operators; weights that are not in the scheme; an int8 file whose
            layers or, for "int8_io", inputs and outputs are float.
    """
    foreign = sorted(kind for kind in audit.kinds if kind.startswith(("CUSTOM", "Flex")))
    if foreign:
        raise ExportError(f"{audit.file}: needs operators that LiteRT does not have built in: {', '.join(foreign)}")
    small = [op for op in audit.layers if op.scheme in _SMALL]
    if quantize in ("int8", "int8_io") and not any(op.scheme == "int8" for op in small):
        raise ExportError(f"{audit.file}: no layer computes in int8; this is no int8 file")
    heavy = [op for op in audit.layers if op.heavy]
    if quantize in ("dynamic", "int8", "int8_io") and heavy and _int8_share(heavy) < 0.9:
        raise ExportError(f"{audit.file}: only {_int8_share(heavy):.0%} of the layers' weights are int8")
    if quantize == "int8_io":
        wide = [text for text in (*audit.inputs, *audit.outputs) if not text.startswith("INT8")]
        floats = sorted(
            {f"{op.kind} in {op.block}" for op in audit.operators if op.scheme not in ("int8", "int16", "other")}
        )
        if wide or floats:
            raise ExportError(f"{audit.file}: not integers throughout: {', '.join([*wide, *floats])}")
    if patches and quantize == "int8_io":
        missing = sorted(set(audit.kinds) - MICRO_OPERATORS)
        if missing:
            raise ExportError(f"{audit.file}: TFLite Micro has no {', '.join(missing)}")


def is_heavy(graph: Graph, op: Operator) -> bool:
    """Whether int8 weights alone pay: dense layers, and convolutions that mix more than one channel."""
    if op.kind == "CONV_2D":
        return graph.shape(op.inputs[1])[-1] > 1
    return op.kind == "FULLY_CONNECTED"


def _int8_share(layers: Sequence[Audited]) -> float:
    total = sum(op.weights for op in layers)
    return sum(op.weights for op in layers if op.scheme in _SMALL) / max(1, total)


def part_of(op: Operator, before: str) -> str:
    """The block an operator belongs to, by its name; operators of no known name belong to the one before."""
    return part_of_name(op.name) or (before if op.kind not in LAYERS else "head")


def part_of_name(name: str) -> str:
    """The block that a tensor's name tells of; "" if none."""
    if found := re.search(r"(?:^|/)(layer\d+)_", name):
        return found[1]
    if re.search(r"(?:^|/)(log_mel|patch_batch|valid_patches)", name):
        return "front-end"
    return "head" if re.search(r"(?:^|/)(head_|class_scores|logits|scores)", name) else ""


def short_name(name: str) -> str:
    """Of "model/layer12_pointwise_conv_relu_1/Relu;model/layer12..." just "layer12_pointwise_conv_relu_1"."""
    first = name.split(";")[0]
    parts = [part for part in first.split("/") if part_of_name(part)]
    return parts[0] if parts else first


def stored_constants(graph: Graph) -> dict[int, int]:
    """Constants that an operator widens or fills in as the file is loaded, and the tensors that hold them."""
    kinds = ("DEQUANTIZE", "DENSIFY")
    return {
        op.outputs[0]: op.inputs[0] for op in graph.operators if op.kind in kinds and graph.is_constant(op.inputs[0])
    }


def _scheme(graph: Graph, op: Operator, stored: dict[int, int]) -> str:
    types = {graph.type(tensor) for tensor in (op.inputs[0], op.outputs[0]) if tensor >= 0}
    if op.kind in ("QUANTIZE", "DEQUANTIZE"):
        return "other"
    if types == {"INT8"}:
        return "int8"
    if types <= {"INT8", "INT16"}:
        return "int16"
    if "FLOAT32" not in types:
        return "other"
    weights = op.inputs[1] if len(op.inputs) > 1 else -1
    if weights in stored and graph.type(stored[weights]) != "FLOAT32":
        return "float16" if graph.type(stored[weights]) == "FLOAT16" else "weight"
    if weights >= 0 and graph.type(weights) == "INT8":
        return "dynamic" if op.kind in HYBRID else "weight"
    return "float"


def _described(graph: Graph, tensor: int) -> str:
    return f"{graph.type(tensor)} {'x'.join(map(str, graph.shape(tensor)))}"


def _peak_activations(graph: Graph) -> int:
    """The largest sum of computed tensors that are alive at one operator."""
    operators = graph.operators
    last = {tensor: op.index for op in operators for tensor in op.inputs if tensor >= 0}
    last |= dict.fromkeys(graph.outputs, len(operators))
    alive = set(graph.inputs)
    peak = 0
    for op in operators:
        alive |= set(op.outputs)
        peak = max(peak, sum(graph.activation_bytes(tensor) for tensor in alive))
        alive = {tensor for tensor in alive if last.get(tensor, -1) > op.index}
    return peak
