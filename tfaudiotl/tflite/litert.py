"""LiteRT: functions become .tflite files, and interpreters run them."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tfaudiotl._seeds import stream
from tfaudiotl.errors import ExportError

RUNS = 60  # timed runs of each file


def convert(function: Callable[[Any], Any], spec: Any, variables: Iterable[Any], *, name: str) -> bytes:
    """A function in built-in operators, as a .tflite file with the signature ``serving_default``.

    Args:
        function: from one tensor to a dictionary of them.
        spec: a ``tf.TensorSpec`` of the input, batch included.
        variables: the Keras variables that the function uses.
        name: what errors call it.

    Raises:
        ExportError: it has no such form.
    """
    import tensorflow as tf  # here, so that running a file needs no TensorFlow

    traced = tf.function(function, autograph=False).get_concrete_function(spec)
    module = tf.Module()
    module.list = [variable.value for variable in variables]  # else the converter loses them
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], module)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        return bytes(converter.convert())
    except Exception as error:  # the converter's own errors have no common public class
        raise ExportError(f"model {name!r} has no form in built-in operators: {error}") from error


def make_interpreter(file: bytes | Path, *, num_threads: int = 1, keep_tensors: bool = False) -> Interpreter:
    """An interpreter, ready to run.

    Args:
        file: a .tflite file's bytes or path.
        num_threads: threads that it computes with.
        keep_tensors: every computed tensor can be read after a run, not only the outputs.

    Raises:
        ExportError: the interpreter does not take the file.
    """
    source = {"model_path": str(file)} if isinstance(file, Path) else {"model_content": file}
    try:
        with warnings.catch_warnings():
            if keep_tensors:
                warnings.simplefilter("ignore")  # that this is for debugging; here it is what is wanted
            made = Interpreter(**source, num_threads=num_threads, experimental_preserve_all_tensors=keep_tensors)
        made.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        which = str(file) if isinstance(file, Path) else "the .tflite file"
        raise ExportError(f"{which} does not load: {error}") from error
    return made


class Interpreters:
    """A file's interpreters; each runs one call at a time.

    Args:
        content: a .tflite file's bytes.
        num_threads: threads of each interpreter.
        count: interpreters made at once.
        grow: make another where none is free, instead of waiting for one.
    """

    def __init__(self, content: bytes, *, num_threads: int = 1, count: int = 1, grow: bool = False):
        self._content, self._num_threads, self._grow = content, num_threads, grow
        self._free: SimpleQueue[Interpreter] = SimpleQueue()
        for _ in range(count):
            self._free.put(self._make())

    def _make(self) -> Interpreter:
        return make_interpreter(self._content, num_threads=self._num_threads)

    @contextmanager
    def free_one(self) -> Iterator[Interpreter]:
        """One that nobody else uses meanwhile."""
        try:
            interpreter = self._free.get(block=not self._grow)
        except Empty:
            interpreter = self._make()
        try:
            yield interpreter
        finally:
            self._free.put(interpreter)


def run_content(content: bytes, windows: Iterable[np.ndarray]) -> np.ndarray:
    """Outputs ``(windows, ...)`` of a file in memory, one window at a time; int8 ends are coded and decoded.

    Raises:
        ExportError: the interpreter does not take the file.
    """
    interpreter = make_interpreter(content)
    (taken,), (given, *_) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for window in windows:
        interpreter.set_tensor(taken["index"], encode(window[None], taken))
        interpreter.invoke()
        rows.append(decode(interpreter.get_tensor(given["index"])[0], given))
    return np.stack(rows)


def encode(values: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    """Float values as the tensor (an interpreter's description of it) takes them."""
    dtype = tensor["dtype"]
    if not np.issubdtype(dtype, np.integer):
        return np.asarray(values, dtype)
    scale, zero = tensor["quantization"]
    limits = np.iinfo(dtype)
    return np.clip(np.round(values / scale) + zero, limits.min, limits.max).astype(dtype)


def decode(values: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    """The tensor's values as float32."""
    if not np.issubdtype(values.dtype, np.integer):
        return values.astype(np.float32)
    scale, zero = tensor["quantization"]
    return ((values.astype(np.float32) - zero) * scale).astype(np.float32)


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one window: median and 95th percentile, of the file and of its float twin in turns."""

    threads: int
    median: float
    p95: float
    float_median: float
    float_p95: float

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return self.median / self.float_median


def measure_latency(path: Path, twin: Path, *, threads: int, runs: int = RUNS) -> Latency:
    """Times a file and its float twin in turns."""
    own, other = time_in_turns([path, twin], threads=threads, runs=runs)
    return Latency(threads, *own, *other)


def time_in_turns(paths: Sequence[Path], *, threads: int, runs: int = RUNS) -> list[tuple[float, float]]:
    """Median and 95th percentile of each file's runs, milliseconds of one window.

    The files run in turns, so that whatever else the machine does falls on all of them.
    """
    steps = [_stepper(file, threads) for file in paths]
    times: list[list[float]] = [[] for _ in paths]
    for _ in range(5):
        for step in steps:
            step()
    for _ in range(runs):
        for step, kept in zip(steps, times, strict=True):
            start = perf_counter()
            step()
            kept.append(1e3 * (perf_counter() - start))
    return [(float(np.median(taken)), float(np.percentile(taken, 95))) for taken in times]


def _stepper(path: Path, threads: int) -> Callable[[], None]:
    """Runs the file once, on noise."""
    interpreter = make_interpreter(path, num_threads=threads)
    (taken,) = interpreter.get_input_details()
    window = stream("network check", 0, "window").uniform(-0.5, 0.5, taken["shape"])
    interpreter.set_tensor(taken["index"], encode(window, taken))
    invoke: Callable[[], None] = interpreter.invoke
    return invoke


def peak_memory(path: Path) -> int | None:
    """Bytes that loading and running the file adds to a process of its own; None where /proc is missing."""
    script = f"import sys; from {__name__} import _added_kilobytes; print(_added_kilobytes(sys.argv[1]))"
    try:
        run = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=120, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return int(run.stdout.split()[-1]) * 1024


def _added_kilobytes(path: str) -> int:
    """What ``peak_memory`` measures in the process of its own."""

    def kilobytes(field: str) -> int:
        with open("/proc/self/status", encoding="utf-8") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(field))

    before = kilobytes("VmRSS")
    interpreter = make_interpreter(Path(path))
    (taken,) = interpreter.get_input_details()
    interpreter.set_tensor(taken["index"], np.zeros(taken["shape"], taken["dtype"]))
    interpreter.invoke()
    return kilobytes("VmHWM") - before
