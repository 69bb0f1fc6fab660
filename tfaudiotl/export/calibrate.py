"""What values run through a network: ranges of every tensor on real sound, for static quantisation."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from tfaudiotl.export.graph import Graph

ROWS = 8  # positions of a picture kept per window, evenly spaced
# Least width of a range: kernels count the 6 of a ReLU6 in steps of it, as int32; at 16 bits it has 32,767 steps.
NARROWEST = 1e-4


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

    def channel_peaks(self, percentile: float = 99.0) -> np.ndarray:
        """Each channel's largest magnitude, ``(channels,)``, in all but the loudest windows."""
        return np.percentile(np.maximum(self.high, -self.low), percentile, axis=0)

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


def measure_ranges(content: bytes, windows: np.ndarray) -> dict[str, Ranges]:
    """Runs a float file over the windows and looks at every computed float tensor.

    Args:
        content: a .tflite file in float32 with one input.
        windows: ``(windows, ...)``: one row per run.

    Returns:
        Ranges by tensor name.
    """
    from ai_edge_litert.interpreter import Interpreter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that keeping all tensors is for debugging; here it is what is wanted
        interpreter = Interpreter(model_content=content, num_threads=1, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    (taken,) = interpreter.get_input_details()
    graph = Graph(content)
    read = {tensor for op in graph.operators() for tensor in op.inputs} | set(graph.outputs)
    # An operator's output that nothing reads, such as one part of a split, has no memory.
    computed = {
        tensor
        for op in graph.operators()
        for tensor in op.outputs
        if graph.type(tensor) == "FLOAT32" and tensor in read
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
