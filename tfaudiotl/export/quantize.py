"""Quantising a .tflite file operator by operator, with ai-edge-quantizer."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterable

import numpy as np

from tfaudiotl.errors import ExportError
from tfaudiotl.export.graph import Graph

SCHEMES = ("static", "static16", "dynamic", "weight")


def apply_schemes(
    content: bytes,
    schemes: dict[str, str],
    limits: dict[str, tuple[float, float]] | None = None,
    *,
    graph: Graph,
    int8_io: bool = False,
) -> bytes:
    """Quantises the operators named; all others stay in float.

    Args:
        content: a .tflite file in float32.
        schemes: operator's name -> "static" (int8 throughout, by calibrated ranges), "static16"
            (the same with 16-bit activations), "dynamic" (int8 weights,
            activations quantised as they come) or "weight" (int8 weights, widened for the computation).
        limits: range of each of the file's tensors, by name; needed for "static".
        graph: the same file, parsed: once for all trials.
        int8_io: also inputs and outputs.

    Raises:
        ExportError: the quantizer cannot do it.
    """
    from ai_edge_quantizer import qtyping, quantizer

    static = int8_io or bool({"static", "static16"} & set(schemes.values()))
    if static and limits is None:
        raise ValueError("limits=None: static quantisation needs calibrated ranges")
    run = quantizer.Quantizer(bytearray(content))
    kinds = {op.name: op.kind for op in graph.operators()}
    if int8_io:
        for end in ("INPUT", "OUTPUT"):
            run.add_static_config(".*", qtyping.TFLOperationName(end), 8, 8)
    for name, scheme in schemes.items():
        operation, exactly = qtyping.TFLOperationName(kinds[name]), f"^{re.escape(name)};?$"
        if scheme in ("static", "static16"):
            run.add_static_config(exactly, operation, 16 if scheme == "static16" else 8, 8)
        elif scheme == "dynamic":
            run.add_dynamic_config(exactly, operation, 8)
        elif scheme == "weight":
            run.add_weight_only_config(exactly, operation, 8)
        else:
            raise ValueError(f"scheme={scheme!r}: allowed are {', '.join(SCHEMES)}")
    statistics = _statistics(limits) if static and limits is not None else None
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars, one per pass
            done = run.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        raise ExportError(f"the model cannot be quantised: {error}") from error
    return bytes(done.quantized_model)


def without_integers(graph: Graph) -> list[str]:
    """Kinds of operators in a float file that the quantizer has no integer form of."""
    from ai_edge_quantizer import qtyping

    known = {operation.value for operation in qtyping.TFLOperationName}
    return sorted({op.kind for op in graph.operators()} - known)


def _statistics(limits: dict[str, tuple[float, float]]) -> dict[str, dict[str, np.ndarray]]:
    """The ranges as ai-edge-quantizer takes them."""
    return {
        name: {"min": np.array([[low]], np.float32), "max": np.array([[high]], np.float32)}
        for name, (low, high) in limits.items()
    }


def run_content(content: bytes, windows: Iterable[np.ndarray]) -> np.ndarray:
    """Scores ``(windows, ...)`` of a file in memory, one window at a time; int8 ends are coded and decoded.

    Raises:
        ExportError: the interpreter does not take the file.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ExportError(f"the model cannot be quantised: its file does not load: {error}") from error
    (taken,), (given, *_) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for window in windows:
        interpreter.set_tensor(taken["index"], encode(window[None], taken))
        interpreter.invoke()
        rows.append(decode(interpreter.get_tensor(given["index"])[0], given))
    return np.stack(rows)


def encode(values: np.ndarray, tensor: dict) -> np.ndarray:
    """Float values as the tensor (an interpreter's description of it) takes them."""
    dtype = tensor["dtype"]
    if not np.issubdtype(dtype, np.integer):
        return np.asarray(values, dtype)
    scale, zero = tensor["quantization"]
    limits = np.iinfo(dtype)
    return np.clip(np.round(values / scale) + zero, limits.min, limits.max).astype(dtype)


def decode(values: np.ndarray, tensor: dict) -> np.ndarray:
    """The tensor's values as float32."""
    if not np.issubdtype(values.dtype, np.integer):
        return values.astype(np.float32)
    scale, zero = tensor["quantization"]
    return ((values.astype(np.float32) - zero) * scale).astype(np.float32)
