"""What runs the network on a batch of patches: LiteRT interpreters on a CPU, a compiled Keras model elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import keras
import numpy as np
import tensorflow as tf

from tfaudiotl._threads import cores
from tfaudiotl.devices import has_accelerator
from tfaudiotl.errors import ExportError, check_choice
from tfaudiotl.tflite.graph import Graph
from tfaudiotl.tflite.litert import Interpreters, convert
from tfaudiotl.tflite.quantize import quantize_dynamic

Runtime = Literal["auto", "litert", "keras"]
Quantize = Literal["int8"]
# Cosine to Keras's own output that every row must reach before an interpreter is used.
PARITY = {None: 0.9999, "int8": 0.95}

_log = logging.getLogger(__name__)


class ParityError(RuntimeError):
    """A converted network that does not give what the Keras model gives."""


class Runner(Protocol):
    """Runs batches of one size; may be called from several threads."""

    def __call__(self, batch: np.ndarray) -> list[np.ndarray]:
        """``(batch, height, width, 1)`` float32 to one ``(batch, dim)`` per output."""


class KerasRunner:
    """The network as a compiled Keras model.

    Args:
        network: from patches to the outputs.
        batch_size: rows of every batch.
    """

    def __init__(self, network: keras.Model, batch_size: int):
        self._function = tf.function(
            lambda batch: keras.tree.flatten(network(batch, training=False)),  # always a list
            input_signature=[tf.TensorSpec((batch_size, *network.inputs[0].shape[1:]), tf.float32)],
            autograph=False,
        )

    def __call__(self, batch: np.ndarray) -> list[np.ndarray]:
        return [np.asarray(output, np.float32) for output in self._function(batch)]


class LiteRTRunner:
    """The network as LiteRT interpreters of one thread each, as many as there are workers.

    Two interpreters of one thread outrun one of two: nothing waits for the other half of a layer. An
    interpreter lets other Python threads run while it computes.

    Args:
        content: a .tflite file's bytes.
        workers: number of interpreters.
    """

    def __init__(self, content: bytes, workers: int):
        self._interpreters = Interpreters(content, count=workers)
        with self._interpreters.free_one() as interpreter:
            self._input = interpreter.get_input_details()[0]["index"]
            details = interpreter.get_signature_runner("serving_default").get_output_details()
        self._outputs = [details[f"output_{number:02d}"]["index"] for number in range(len(details))]

    def __call__(self, batch: np.ndarray) -> list[np.ndarray]:
        with self._interpreters.free_one() as interpreter:
            interpreter.set_tensor(self._input, batch)
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in self._outputs]


def to_litert(network: keras.Model, batch_size: int, quantize: Quantize | None = None) -> bytes:
    """Converts the network for batches of one size.

    Args:
        network: from patches to the outputs.
        batch_size: rows of every batch.
        quantize: None for float32; "int8": the weights of pointwise convolutions and dense layers in 8 bits and
            their inputs quantised as they come (``quantize_dynamic``), all else in float32: what holds YAMNet's
            accuracy.

    Raises:
        ValueError: the network has no form in built-in operators, or the quantizer is missing.
    """
    spec = tf.TensorSpec((batch_size, *network.inputs[0].shape[1:]), tf.float32, name="patches")

    def outputs(batch: Any) -> dict[str, Any]:
        found = keras.tree.flatten(network(batch, training=False))
        return {f"output_{number:02d}": output for number, output in enumerate(found)}

    try:
        content = convert(outputs, spec, network.variables, name=network.name)
        return content if quantize is None else quantize_dynamic(Graph(content)).graph.content
    except ExportError as error:
        raise ValueError(f"runtime='litert': {error}") from error
    except ImportError as error:
        raise ValueError(f"quantize='int8' needs the package ai-edge-quantizer: {error}") from error


def cosines(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Cosine of each row of ``found`` to that of ``expected``; rows that are both zero agree."""
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    same = np.abs(found - expected).max(axis=1) < 1e-6
    return np.where(same, 1.0, (found * expected).sum(axis=1) / np.maximum(norms, 1e-30))


def check_parity(runner: Runner, network: keras.Model, sample: np.ndarray, quantize: str | None) -> None:
    """Runs both on the sample and raises ParityError where a row of an output points elsewhere."""
    expected = keras.tree.flatten(network(sample, training=False))
    for number, (found, wanted) in enumerate(zip(runner(sample), expected, strict=True)):
        rows = (len(sample), -1)  # a layer's picture counts as one vector
        worst = float(cosines(found.reshape(rows), np.asarray(wanted, np.float32).reshape(rows)).min())
        if not worst >= PARITY[quantize]:
            raise ParityError(
                f"output {number} of the converted network has a cosine of {worst:.5f} to Keras's, "
                f"expected at least {PARITY[quantize]}"
            )


def make_runner(
    network: keras.Model,
    sample: np.ndarray,
    *,
    runtime: Runtime = "auto",
    quantize: Quantize | None = None,
    workers: int | None = None,
) -> Runner:
    """The fastest runner that gives what the Keras model gives.

    Args:
        network: from patches to the outputs.
        sample: a batch of patches to check on; its size is that of every batch.
        runtime: "litert", "keras", or "auto": LiteRT on a CPU, Keras where there is an accelerator,
            under a reduced precision policy, and where the conversion fails or disagrees.
        quantize: None or "int8" (LiteRT only).
        workers: interpreters; None: one per core.

    Raises:
        ParityError: with "litert" or "int8", a network that disagrees with Keras.
        ValueError: with "litert" or "int8", a network that cannot be converted.
    """
    check_runtime(runtime, quantize)
    if runtime == "auto" and quantize is None and (has_accelerator() or not _is_float32(network)):
        runtime = "keras"
    if runtime != "keras":
        try:
            runner = LiteRTRunner(to_litert(network, len(sample), quantize), workers or cores())
            check_parity(runner, network, sample, quantize)
            return runner
        except (ValueError, ParityError) as error:
            if runtime == "litert" or quantize is not None:
                raise
            _log.warning("LiteRT is not used: %s", str(error).splitlines()[0])
    return KerasRunner(network, len(sample))


def check_runtime(runtime: str, quantize: str | None) -> None:
    """ValueError unless both are allowed, together."""
    check_choice("runtime", runtime, Runtime)
    check_choice("quantize", quantize, Quantize | None)
    if quantize is not None and runtime == "keras":
        raise ValueError(f"quantize={quantize!r}: needs runtime='litert' or 'auto', not 'keras'")


def _is_float32(network: keras.Model) -> bool:
    dtypes: Sequence[str] = [layer.compute_dtype for layer in network.layers]
    return all(dtype == "float32" for dtype in dtypes)
