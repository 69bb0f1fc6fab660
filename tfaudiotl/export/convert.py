"""A Keras model as a float .tflite file: one window of sound in, scores or an embedding out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfaudiotl.backbones.frontend import LogMel, LogMelSpec
from tfaudiotl.backbones.scores import ClassScores
from tfaudiotl.errors import ExportError

INPUTS = ("waveform", "patches")
FRONTENDS = ("fft", "matmul")


def convert(function: Any, variables: list[Any], *, name: str) -> bytes:
    """A concrete function in built-in operators; ExportError if it has no such form."""
    module = tf.Module()
    module.list = [variable.value for variable in variables]  # else the converter loses them
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        return bytes(converter.convert())
    except Exception as error:  # the converter's own errors have no common public class
        raise ExportError(f"model {name!r} has no form in built-in TFLite operators: {error}") from error


def float_content(model: keras.Model, *, input: str, samples: int | None, frontend: str = "fft") -> bytes:
    """The model as a .tflite file in float32.

    Args:
        model: a classifier or an embedding model.
        input: "waveform", or "patches": without the front-end.
        samples: samples per window, or None for the model's own.
        frontend: "fft" or "matmul", for waveforms.
    """
    output = "scores" if is_classifier(model) else "embedding"
    if input == "patches":
        function, name = patch_function(model), "patches"
        shape: tuple[int, ...] = patch_shape(model)
    else:
        model = with_frontend(model, frontend)
        shape, name = window_shape(model, samples), model.inputs[0].name

        def function(x: Any) -> Any:
            return model(x, training=False)

    def run(x: Any) -> dict[str, Any]:
        y = function(x)
        return {output: y if len(y.shape) == 2 else tf.reduce_mean(y, axis=1)}

    traced = tf.function(run, autograph=False).get_concrete_function(tf.TensorSpec((1, *shape), tf.float32, name=name))
    return convert(traced, model.variables, name=model.name)


def with_frontend(model: keras.Model, method: str) -> keras.Model:
    """The same model, its Fourier transform computed by ``method``; weights are copied."""
    if method not in FRONTENDS:
        raise ValueError(f"frontend={method!r}: allowed are {', '.join(FRONTENDS)}")
    fronts = [layer for layer in model.layers if isinstance(layer, LogMel)]
    if all(layer.method == method for layer in fronts):
        return model

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        return type(layer).from_config({**config, "method": method} if isinstance(layer, LogMel) else config)

    twin = keras.models.clone_model(model, clone_function=clone)
    twin.set_weights(model.get_weights())
    return twin


def is_classifier(model: keras.Model) -> bool:
    """Whether the model ends in class scores."""
    return any(isinstance(layer, ClassScores) for layer in model.layers)


def takes_patches(model: keras.Model) -> bool:
    """Whether the model's own input is a patch."""
    return len(model.inputs[0].shape) > 2


def frontend_spec(model: keras.Model) -> LogMelSpec:
    """The numbers of the model's front-end; YAMNet's for a model of patches, which has none."""
    fronts = [layer for layer in model.layers if isinstance(layer, LogMel)]
    return fronts[0].spec if fronts else LogMelSpec()


def window_shape(model: keras.Model, samples: int | None) -> tuple[int, ...]:
    """Shape of one window of the model's input, without the batch: ``(samples,)`` for waveforms."""
    fixed = tuple(model.inputs[0].shape[1:])
    if None not in fixed:
        if samples is not None and fixed != (samples,):
            raise ValueError(f"samples={samples}: the model was built for an input of shape {fixed}")
        return fixed
    if samples is None:
        if not any(isinstance(layer, LogMel) for layer in model.layers):
            raise ValueError("samples=None: this model has no fixed input length; give samples=")
        return (frontend_spec(model).min_samples,)
    if not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples={samples!r}: a positive whole number of samples, or None")
    return (samples,)


def patch_shape(model: keras.Model) -> tuple[int, int]:
    """Frames and bands of one patch."""
    if takes_patches(model):
        return tuple(model.inputs[0].shape[1:3])
    spec = frontend_spec(model)
    return (spec.patch_frames, spec.mel_bands)


def patch_function(model: keras.Model) -> Callable[[Any], Any]:
    """The model from patches ``(batch, frames, bands)`` on: what a microcontroller runs.

    Pooling over a clip's patches is left out: of one patch, it is the patch itself.
    """
    if takes_patches(model):
        return lambda x: model(x, training=False)
    names = {layer.name for layer in model.layers}
    if "patch_batch" not in names:
        raise ValueError(f"input='patches': model {model.name!r} has no front-end of patches to leave out")
    start = model.get_layer("patch_batch").output
    shape = tuple(start.shape[1:])
    scores = [layer for layer in model.layers if isinstance(layer, ClassScores)]
    middle = model.get_layer("patch_embedding").output if "patch_embedding" in names else None
    if scores and middle is not None:
        body = keras.Model(start, middle)
        head = keras.Model(model.get_layer("head_batch_norm").input, scores[0].output)
        return lambda x: head(body(tf.reshape(x, (-1, *shape)), training=False), training=False)
    end = scores[0].output if scores else middle
    if end is None:
        end = model.get_layer("patch_sequence").input[0]
    whole = keras.Model(start, end)
    return lambda x: whole(tf.reshape(x, (-1, *shape)), training=False)
