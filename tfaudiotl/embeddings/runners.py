"""What runs the network on a batch of patches: LiteRT interpreters on a CPU, a compiled Keras model elsewhere."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

RUNTIMES = ("auto", "litert", "keras")
QUANTIZE = (None, "int8")
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
        from ai_edge_litert.interpreter import Interpreter

        self._free: SimpleQueue[Any] = SimpleQueue()
        for _ in range(workers):
            interpreter = Interpreter(model_content=content, num_threads=1)
            interpreter.allocate_tensors()
            self._free.put(interpreter)
        self._input = interpreter.get_input_details()[0]["index"]
        details = interpreter.get_signature_runner("serving_default").get_output_details()
        self._outputs = [details[f"output_{number:02d}"]["index"] for number in range(len(details))]

    def __call__(self, batch: np.ndarray) -> list[np.ndarray]:
        interpreter = self._free.get()
        try:
            interpreter.set_tensor(self._input, batch)
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in self._outputs]
        finally:
            self._free.put(interpreter)


def to_litert(network: keras.Model, batch_size: int, quantize: str | None = None) -> bytes:
    """Converts the network for batches of one size.

    Args:
        network: from patches to the outputs.
        batch_size: rows of every batch.
        quantize: None for float32; "int8": the weights of pointwise convolutions in 8 bits and their
            inputs quantised as they come (dynamic range), all else in float32: what holds YAMNet's
            accuracy. A network without pointwise convolutions has its other convolutions and dense
            layers treated so.

    Raises:
        ValueError: the network has no form in built-in operators, or the quantizer is missing.
    """
    variables = tf.Module()
    variables.list = [variable.value for variable in network.variables]  # else the converter loses them
    spec = tf.TensorSpec((batch_size, *network.inputs[0].shape[1:]), tf.float32, name="patches")
    function = tf.function(
        lambda x: {f"output_{n:02d}": y for n, y in enumerate(keras.tree.flatten(network(x, training=False)))},
        autograph=False,
    ).get_concrete_function(spec)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], variables)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        content: bytes = converter.convert()
    except Exception as error:  # the converter's own errors have no common public class
        raise ValueError(f"runtime='litert': the network has no form in built-in operators: {error}") from error
    return content if quantize is None else _quantized(content, network)


def _quantized(content: bytes, network: keras.Model) -> bytes:
    try:
        from ai_edge_quantizer import qtyping, quantizer, recipe_manager
    except ImportError as error:
        raise ValueError(f"quantize='int8' needs the package ai-edge-quantizer: {error}") from error
    pointwise = any(layer.name.endswith("pointwise_conv") for layer in network.layers)
    names = qtyping.TFLOperationName
    recipe = recipe_manager.RecipeManager()
    for operation in (names.CONV_2D,) if pointwise else (names.CONV_2D, names.FULLY_CONNECTED):
        recipe.add_quantization_config(
            regex=".*pointwise_conv.*" if pointwise else ".*",
            operation_name=operation,
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=qtyping.TensorQuantizationConfig(
                    num_bits=8, symmetric=True, granularity=qtyping.QuantGranularity.CHANNELWISE
                ),
                compute_precision=qtyping.ComputePrecision.INTEGER,
            ),
        )
    from absl import logging as absl_logging

    level = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        tool = quantizer.Quantizer(bytearray(content))
        tool.load_quantization_recipe(recipe.get_quantization_recipe())
        return bytes(tool.quantize().quantized_model)
    finally:
        absl_logging.set_verbosity(level)


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
    runtime: str = "auto",
    quantize: str | None = None,
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
    if runtime == "auto" and quantize is None and (_has_accelerator() or not _is_float32(network)):
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
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime={runtime!r}: allowed are {', '.join(RUNTIMES)}")
    if quantize not in QUANTIZE:
        raise ValueError(f"quantize={quantize!r}: allowed are {', '.join(map(repr, QUANTIZE))}")
    if quantize is not None and runtime == "keras":
        raise ValueError(f"quantize={quantize!r}: needs runtime='litert' or 'auto', not 'keras'")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _has_accelerator() -> bool:
    return any(not device.startswith("cpu") for device in keras.distribution.list_devices())


def _is_float32(network: keras.Model) -> bool:
    dtypes: Sequence[str] = [layer.compute_dtype for layer in network.layers]
    return all(dtype == "float32" for dtype in dtypes)
