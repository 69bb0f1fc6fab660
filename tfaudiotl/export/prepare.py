"""A Keras model as a float .tflite file: one window of sound in, scores or an embedding out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import keras
import tensorflow as tf

from tfaudiotl.backbones.frontend import LogMel, LogMelSpec, PatchPooling, ValidPatches, WindowSpec
from tfaudiotl.backbones.tfhub import HubEmbedding
from tfaudiotl.classifiers.anatomy import parts
from tfaudiotl.classifiers.edit import clone_with
from tfaudiotl.errors import ExportError
from tfaudiotl.runtime.load import timeline_window
from tfaudiotl.tflite.graph import Graph
from tfaudiotl.tflite.litert import convert

Input = Literal["waveform", "patches"]
Frontend = Literal["fft", "matmul"]


def float_graph(
    model: keras.Model, *, input: Input = "waveform", samples: int | None = None, frontend: Frontend = "fft"
) -> Graph:
    """The model as a .tflite file in float32.

    Args:
        model: a classifier or an embedding model.
        input: "waveform", or "patches": without the front-end.
        samples: samples per window, or None for the model's own.
        frontend: "fft" or "matmul", for waveforms.
    """
    boxes = [layer for layer in model.layers if isinstance(layer, HubEmbedding)]
    if boxes:
        raise ExportError(
            f"model {model.name!r}: the SavedModel {boxes[0].settings['handle']!r} inside is a black box without a "
            "form in .tflite; export a SavedModel, or use a backbone of list_backbones()"
        )
    model = in_single_precision(model)
    own = parts(model)
    output = "embedding" if own.scores is None else "scores"
    if input == "patches":
        function, name = patch_function(model), "patches"
        shape: tuple[int, ...] = patch_shape(model)
    else:
        shape, name = window_shape(model, samples), model.inputs[0].name
        model = unrolled(with_frontend(model, frontend), shape)

        def function(x: Any) -> Any:
            return model(x, training=False)

    def run(x: Any) -> dict[str, Any]:
        return {output: over_patches(function(x), x, own.grid)}

    spec = tf.TensorSpec((1, *shape), tf.float32, name=name)
    return Graph(convert(run, spec, model.variables, name=model.name))


def over_patches(rows: Any, waveforms: Any, grid: LogMelSpec | WindowSpec | None) -> Any:
    """Of a backbone that keeps its patches the mean over those that hold sound; others as they are."""
    return rows if len(rows.shape) == 2 else PatchPooling("avg")([rows, ValidPatches(grid)(waveforms)])


def in_single_precision(model: keras.Model) -> keras.Model:
    """The same model computing in float32, as its weights are; .tflite files have no half-precision operators."""
    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model
    return _changed(model, lambda layer: {"dtype": "float32"})


def with_frontend(model: keras.Model, method: Frontend) -> keras.Model:
    """The same model, its Fourier transform computed by ``method``; weights are copied."""
    fronts = [layer for layer in model.layers if isinstance(layer, LogMel)]
    if all(layer.method == method for layer in fronts):
        return model
    return _changed(model, lambda layer: {"method": method} if isinstance(layer, LogMel) else {})


def unrolled(model: keras.Model, shape: tuple[int, ...]) -> keras.Model:
    """The same model for one input shape, its recurrent layers written out step by step; weights are copied.

    A loop would be a graph of its own in the file, which not every runtime of .tflite files takes.
    """
    if not any(isinstance(layer, keras.layers.RNN) for layer in model.layers):
        return model
    inputs = keras.Input(shape, name=model.inputs[0].name)
    return _changed(model, lambda layer: {"unroll": True} if isinstance(layer, keras.layers.RNN) else {}, inputs)


def _changed(
    model: keras.Model, changes: Callable[[keras.layers.Layer], dict[str, Any]], inputs: Any = None
) -> keras.Model:
    """A copy of a model, weights included, with ``changes`` to each layer's config; on other inputs if given."""
    twin = clone_with(model, changes, inputs=inputs)
    twin.set_weights(model.get_weights())
    return twin


def has_patches(model: keras.Model) -> bool:
    """Whether the model takes patches, or has a front-end of patches that can be left out."""
    own = parts(model)
    return own.takes_patches or (own.rows is not None and not own.sequence_head and isinstance(own.grid, LogMelSpec))


def frontend_spec(model: keras.Model) -> LogMelSpec | WindowSpec:
    """The numbers of the front-end that the model has, or of which it takes patches; ExportError if it does not say."""
    spec = parts(model).frontend
    if spec is None:
        raise ExportError(
            f"model {model.name!r} does not say which front-end it belongs to, so its sample rate and patches are not "
            "known; build it with build_classifier or a backbone's builder (input='patches' keeps the front-end's "
            "numbers) and load its weights into that"
        )
    return spec


def window_shape(model: keras.Model, samples: int | None) -> tuple[int, ...]:
    """Shape of one window of the model's input, without the batch: ``(samples,)`` for waveforms."""
    fixed = tuple(model.inputs[0].shape[1:])
    if None not in fixed:
        if samples is not None and fixed != (samples,):
            raise ValueError(f"samples={samples}: the model was built for an input of shape {fixed}")
        return fixed
    grid = parts(model).grid
    if samples is None:
        if grid is None:
            raise ValueError("samples=None: this model has no fixed input length; give samples=")
        return (timeline_window(model),)
    least = grid.min_samples if grid else 1
    if not isinstance(samples, int) or samples < least:
        seconds = f" ({least / grid.sample_rate:g} s, what the backbone hears at once)" if grid else ""
        raise ValueError(f"samples={samples!r}: a whole number of samples, at least {least}{seconds}, or None")
    return (samples,)


def patch_shape(model: keras.Model) -> tuple[int, ...]:
    """Frames and bands of one patch."""
    if parts(model).takes_patches:
        return tuple(model.inputs[0].shape[1:3])
    return frontend_spec(model).patch_shape


def patch_function(model: keras.Model) -> Callable[[Any], Any]:
    """The model from patches ``(batch, frames, bands)`` on: what a microcontroller runs.

    Pooling over a clip's patches is left out: of one patch, it is the patch itself.
    """
    own = parts(model)
    if own.takes_patches:
        return lambda x: model(x, training=False)
    if own.sequence_head:
        raise ValueError("input='patches': this model's head takes all patches of a clip in their order")
    if not has_patches(model):
        raise ValueError(f"input='patches': model {model.name!r} has no front-end of patches to leave out")
    shape = tuple(own.rows.shape[1:])
    if own.scores is not None and own.embedding is not None:
        body, head = keras.Model(own.rows, own.embedding), own.head
        return lambda x: head(body(tf.reshape(x, (-1, *shape)), training=False), training=False)
    ends = (own.scores.output if own.scores else None, own.embedding, own.sequence_rows)
    whole = keras.Model(own.rows, next(end for end in ends if end is not None))
    return lambda x: whole(tf.reshape(x, (-1, *shape)), training=False)
