"""TFLite (LiteRT) files: one window of sound in, scores out, built-in operators only."""

from __future__ import annotations

from pathlib import Path

import keras
import tensorflow as tf

from tfaudiotl.backbones.frontend import LogMel
from tfaudiotl.errors import ExportError
from tfaudiotl.export.atomic import new_path

QUANTIZE = (None, "float16")


def export_tflite(
    model: keras.Model,
    path: str | Path,
    *,
    quantize: str | None = None,
    samples: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes ``model`` as a .tflite file for phones, boards and browsers.

    The signature ``serving_default`` takes ``waveform (1, samples)``, float32 in [-1, 1] at 16 kHz, and
    gives ``scores (1, classes)``. Longer sound is run window by window, as ``Predictor`` does.

    Args:
        model: a classifier from ``build_classifier``.
        path: the file to write.
        quantize: None for float32, or "float16": weights in half precision, half the size.
        samples: samples per window; None: the model's own fixed length, else the least that the
            backbone hears at once (YAMNet: 15,600, 0.975 s).
        overwrite: replace an existing file; it stays whole until the new one is complete.

    Returns:
        ``path``.

    Raises:
        FileExistsError: ``path`` exists and ``overwrite`` is false.
        ExportError: the model needs more than built-in operators, or ``path`` cannot be written.
    """
    if quantize not in QUANTIZE:
        raise ValueError(f"quantize={quantize!r}: allowed are {', '.join(map(repr, QUANTIZE))}")
    window = window_samples(model, samples)
    name = model.inputs[0].name
    variables = tf.Module()
    variables.list = [variable.value for variable in model.variables]  # else the converter loses them
    function = tf.function(lambda x: {"scores": model(x, training=False)}, autograph=False).get_concrete_function(
        tf.TensorSpec((1, *window), tf.float32, name=name)
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], variables)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if quantize == "float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    try:
        content = converter.convert()
    except Exception as error:  # the converter's own errors have no common public class
        raise ExportError(f"model {model.name!r} has no form in built-in TFLite operators: {error}") from error
    with new_path(path, overwrite=overwrite) as target:
        target.write_bytes(content)
    return Path(path)


def window_samples(model: keras.Model, samples: int | None) -> tuple[int, ...]:
    """Shape of one window of the model's input, without the batch: ``(samples,)`` for waveforms."""
    fixed = tuple(model.inputs[0].shape[1:])
    if None not in fixed:
        if samples is not None and fixed != (samples,):
            raise ValueError(f"samples={samples}: the model was built for an input of shape {fixed}")
        return fixed
    if samples is None:
        frontends = [layer for layer in model.layers if isinstance(layer, LogMel)]
        if not frontends:
            raise ValueError("samples=None: this model has no fixed input length; give samples=")
        return (frontends[0].spec.min_samples,)
    if not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples={samples!r}: a positive whole number of samples, or None")
    return (samples,)
