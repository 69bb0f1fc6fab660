"""The inside of a .tflite file: its operators, tensors and constants, read, changed and written back."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfaudiotl.errors import ExportError

_OPERATOR_NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
_TYPE_NAMES = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
_TYPE_BYTES = {"FLOAT32": 4, "FLOAT16": 2, "INT32": 4, "INT64": 8, "INT16": 2, "INT8": 1, "UINT8": 1, "BOOL": 1}
_DTYPES = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT32": np.int32, "INT8": np.int8, "INT64": np.int64}


@dataclass(frozen=True)
class Operator:
    """One operator of a .tflite file.

    Attributes:
        index: its place in the order of execution.
        kind: the operator's name, such as "CONV_2D".
        name: its first output's name, by which the quantizer knows it.
        inputs, outputs: tensor numbers; -1 is an input left out.
        activation: of a convolution or dense layer: "NONE", "RELU", "RELU6" ...; "" for others.
    """

    index: int
    kind: str
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    activation: str


class Graph:
    """A .tflite file's main graph, unpacked.

    Args:
        content: the file's bytes.

    Raises:
        ExportError: the bytes are no .tflite file, or hold more than one graph.
    """

    def __init__(self, content: bytes):
        if content[4:8] != b"TFL3":
            raise ExportError("content is no .tflite file: the identifier TFL3 is missing")
        self.model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(content), 0))
        if len(self.model.subgraphs) != 1:
            raise ExportError(f"the file holds {len(self.model.subgraphs)} graphs; allowed is one")
        self._graph = self.model.subgraphs[0]
        self.model.buffers = [_Buffer(buffer, content) for buffer in self.model.buffers]
        self._content: bytes | None = content  # None once something was changed
        self._operators: list[Operator] | None = None  # likewise

    @property
    def content(self) -> bytes:
        """The file's bytes, with all changes; what no tensor uses any more is left out of a changed file."""
        if self._content is None:
            self._content = self._packed()
        return self._content

    @property
    def inputs(self) -> list[int]:
        """Tensor numbers of the inputs."""
        return [int(tensor) for tensor in self._graph.inputs]

    @property
    def outputs(self) -> list[int]:
        """Tensor numbers of the outputs."""
        return [int(tensor) for tensor in self._graph.outputs]

    @property
    def operators(self) -> list[Operator]:
        """In the order of execution."""
        if self._operators is None:
            self._operators = list(self._read_operators())
        return self._operators

    def _read_operators(self) -> Iterator[Operator]:
        for index, op in enumerate(self._graph.operators):
            code = self.model.operatorCodes[op.opcodeIndex]
            kind = _OPERATOR_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]
            if kind == "CUSTOM":
                kind = f"CUSTOM {(code.customCode or b'').decode()}"
            outputs = tuple(int(tensor) for tensor in op.outputs)
            options = getattr(op.builtinOptions, "fusedActivationFunction", None)
            yield Operator(
                index,
                kind,
                self.name(outputs[0]),
                tuple(int(tensor) for tensor in op.inputs),
                outputs,
                "" if options is None else _ACTIVATIONS[options],
            )

    def _changed(self) -> None:
        self._content = self._operators = None

    def options(self, op: Operator) -> Any:
        """The operator's settings (strides, padding ...), as the schema's generated class has them."""
        return self._graph.operators[op.index].builtinOptions

    def name(self, tensor: int) -> str:
        """The tensor's name."""
        return (self._graph.tensors[tensor].name or b"").decode()

    def shape(self, tensor: int) -> tuple[int, ...]:
        """The tensor's shape."""
        return tuple(int(size) for size in self._graph.tensors[tensor].shape)

    def type(self, tensor: int) -> str:
        """The tensor's type, such as "FLOAT32" or "INT8"."""
        return _TYPE_NAMES[self._graph.tensors[tensor].type]

    def coding(self, tensor: int) -> tuple[float, int] | None:
        """Scale and zero point of a tensor of integers that has one of each; None for others."""
        coded = self._graph.tensors[tensor].quantization
        if coded is None or coded.scale is None or len(coded.scale) != 1:
            return None
        return float(coded.scale[0]), int(coded.zeroPoint[0])

    def is_constant(self, tensor: int) -> bool:
        """Whether the file holds the tensor's values."""
        return self.constant_bytes(tensor) > 0

    def constant_bytes(self, tensor: int) -> int:
        """Bytes of the tensor's values in the file; 0 for what is computed."""
        if tensor < 0:
            return 0
        data = self.model.buffers[self._graph.tensors[tensor].buffer].data
        return 0 if data is None else len(data)

    def activation_bytes(self, tensor: int) -> int:
        """Bytes that a computed tensor takes in memory."""
        return int(np.prod(self.shape(tensor))) * _TYPE_BYTES.get(self.type(tensor), 8)

    def constant(self, tensor: int) -> np.ndarray:
        """The tensor's values."""
        data = self.model.buffers[self._graph.tensors[tensor].buffer].data
        return np.frombuffer(bytes(data), _DTYPES[self.type(tensor)]).reshape(self.shape(tensor)).copy()

    def set_constant(self, tensor: int, values: np.ndarray) -> None:
        """Replaces the tensor's values; shape and type stay. Tensors that shared them keep the old ones."""
        if values.shape != self.shape(tensor):
            raise ValueError(f"values of shape {values.shape} for a tensor of shape {self.shape(tensor)}")
        self._graph.tensors[tensor].buffer = self.add_buffer(values.astype(_DTYPES[self.type(tensor)]).tobytes())

    def add_buffer(self, data: bytes) -> int:
        """Adds bytes to the file; gives their buffer's number."""
        self._changed()
        buffer = _Buffer(schema.BufferT(), b"")
        buffer.data = np.frombuffer(data, np.uint8)
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    def description(self, tensor: int) -> Any:
        """A copy of what the file says of the tensor, a ``schema.TensorT``."""
        return copy.copy(self._graph.tensors[tensor])

    @property
    def tensors(self) -> range:
        """All tensor numbers."""
        return range(len(self._graph.tensors))

    def compress_constant(self, tensor: int, compressed: Any, values: np.ndarray, operator: int, version: int) -> None:
        """Stores a constant in another form, which an operator brings back as the file is loaded.

        Args:
            tensor: the constant's number; its readers stay as they are.
            compressed: the stored tensor's description, a ``schema.TensorT``; its buffer is set here.
            values: what is stored.
            operator: a ``schema.BuiltinOperator`` that takes the stored tensor and gives the constant.
            version: the operator's, as the runtime counts them.
        """
        compressed.buffer, self._graph.tensors[tensor].buffer = self.add_buffer(values.tobytes()), 0
        self._graph.tensors.append(compressed)
        op = schema.OperatorT()
        op.opcodeIndex = self._operator_code(operator, version)
        op.inputs, op.outputs = np.array([len(self._graph.tensors) - 1], np.int32), np.array([tensor], np.int32)
        self._graph.operators = [op, *self._graph.operators]

    def shorten(self, tensor: int, name: str) -> None:
        """Gives the tensor another name, "" for none, and drops a description of codes that it does not have."""
        self._changed()
        found = self._graph.tensors[tensor]
        found.name = name.encode() or None
        if found.quantization is not None and found.quantization.scale is None:
            found.quantization = None

    def set_metadata(self, name: bytes, data: bytes, *, description: str) -> None:
        """Puts ``data`` into the file under ``name``, in place of what was there, and describes the model."""
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, self.add_buffer(data)
        self.model.metadata = [*(other for other in self.model.metadata or [] if other.name != name), entry]
        self.model.description = description.encode()

    def _operator_code(self, kind: int, version: int) -> int:
        for number, code in enumerate(self.model.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == kind and code.version >= version:
                return number
        code = schema.OperatorCodeT()
        code.builtinCode, code.version = kind, version
        code.deprecatedBuiltinCode = min(kind, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def consumers(self, tensor: int) -> list[Operator]:
        """The operators that read the tensor."""
        return [op for op in self.operators if tensor in op.inputs]

    def _packed(self) -> bytes:
        tensors = [tensor for graph in self.model.subgraphs for tensor in graph.tensors]
        used = {0, *(tensor.buffer for tensor in tensors), *(entry.buffer for entry in self.model.metadata or [])}
        for number, buffer in enumerate(self.model.buffers):
            if number not in used:
                buffer.data = None
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


class _Buffer(schema.BufferT):
    """A buffer whose data lies inside the flatbuffer, on a multiple of 16 bytes.

    The quantizer writes data behind the flatbuffer, which microcontrollers do not read and which moves when the
    file is written again; the generated code packs data on any byte, and the schema wants 16.
    """

    def __init__(self, buffer: Any, content: bytes):
        super().__init__()
        self.data = buffer.data
        if buffer.offset > 1:
            self.data = np.frombuffer(content[buffer.offset : buffer.offset + buffer.size], np.uint8)

    def Pack(self, builder: Any) -> int:
        """As the generated code, with the schema's ``force_align``."""
        place = None
        if self.data is not None:
            data = np.asarray(self.data, np.uint8).tobytes()
            builder.StartVector(1, len(data), 16)
            builder.head -= len(data)
            builder.Bytes[builder.head : builder.head + len(data)] = data
            place = builder.EndVector()
        schema.BufferStart(builder)
        if place is not None:
            schema.BufferAddData(builder, place)
        return schema.BufferEnd(builder)


_ACTIVATIONS: dict[Any, str] = {
    value: name for name, value in vars(schema.ActivationFunctionType).items() if isinstance(value, int)
}
