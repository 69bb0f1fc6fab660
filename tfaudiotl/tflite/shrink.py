"""Making a .tflite file smaller: half precision where it does no harm, and no bytes that hold nothing."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfaudiotl.tflite.audit import LAYERS, part_of, short_name, stored_constants
from tfaudiotl.tflite.graph import Graph

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
