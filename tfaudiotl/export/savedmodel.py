"""SavedModel: the classifier for TensorFlow without this package, TF Serving included."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfaudiotl._files import SAVED_MODEL, new_path
from tfaudiotl.audio.waveform import FAINTEST, SAMPLE_RATE, own_window
from tfaudiotl.backbones.scores import class_names_of, decisions_of
from tfaudiotl.backbones.tfhub import HubEmbedding
from tfaudiotl.classifiers.anatomy import parts
from tfaudiotl.classifiers.edit import fold_batch_norm
from tfaudiotl.export.prepare import frontend_spec, over_patches
from tfaudiotl.runtime.load import FRONTEND_ASSET, RATE_ASSET, clip_grid, timeline_window


class _Serving(tf.Module):
    """What goes into the SavedModel: the variables, the assets, one function per signature."""

    def __init__(self, model: keras.Model, labels: str, rate: str, frontend: str):
        super().__init__()
        self.model_variables = [variable.value for variable in model.variables]
        self.boxes = [layer.module.module for layer in model.layers if isinstance(layer, HubEmbedding)]
        self.labels, self.rate = tf.saved_model.Asset(labels), tf.saved_model.Asset(rate)
        self.frontend = tf.saved_model.Asset(frontend)
        waveform = tf.TensorSpec(model.inputs[0].shape, tf.float32, name=model.inputs[0].name)
        self.functions = {"serving_default": _function(model, waveform, "scores")}
        own = parts(model)
        if own.embedding is not None:  # a backbone alone has none
            self.functions["embed"] = _function(own.clip_embedding, waveform, "embedding")
        if not own.takes_patches:
            self.functions["classify_file_bytes"] = _bytes_function(model)


def _function(model: keras.Model, spec: tf.TensorSpec, output: str) -> Any:
    return tf.function(
        lambda inputs: {output: model(inputs, training=False)}, input_signature=[spec], autograph=False
    ).get_concrete_function()


def _bytes_function(model: keras.Model) -> Any:
    """From encoded WAV files to scores, decoded in the graph, so that a server takes files as they are.

    The scores are those of ``load.score_clip``, its cutting written as a graph.
    """
    spec, samples = parts(model).grid, model.inputs[0].shape[1]
    rate = spec.sample_rate if spec else SAMPLE_RATE
    grid = clip_grid(spec, samples, rate)
    window = samples or own_window(grid)
    fitting = 1 + (window - grid.min_samples) // grid.patch_hop_samples
    step, inner = fitting * grid.patch_hop_samples, int(grid.min_samples + (fitting - 1) * grid.patch_hop_samples)

    def one(encoded: Any) -> Any:
        sound, found = tf.audio.decode_wav(encoded)
        told = [f"classify_file_bytes takes WAV files of {rate} Hz; resample first. This one has", found]
        with tf.control_dependencies([tf.debugging.Assert(tf.equal(found, rate), told)]):
            mono = tf.reduce_mean(sound, axis=1)
        place = tf.range(1, tf.shape(mono)[0] + 1)
        length = tf.maximum(1, tf.reduce_max(tf.where(mono != 0, place, 0)))  # without the zeros at the end
        pieces = 1 + -(-tf.maximum(0, length - window) // step)

        def score(number: Any) -> Any:
            start, last = number * step, tf.equal(number, pieces - 1)
            piece = mono[start : tf.where(last, length, tf.minimum(length, start + inner))]
            piece = tf.concat([piece[:-1], tf.where(piece[-1:] == 0, FAINTEST, piece[-1:])], axis=0)
            if samples is not None:
                piece = tf.pad(piece, [[0, samples - tf.shape(piece)[0]]])
            row = over_patches(model(tf.ensure_shape(piece, (samples,))[None], training=False), piece[None], spec)[0]
            return row * tf.cast(tf.where(last, grid.patches(length) - number * fitting, fitting), tf.float32)

        total = tf.map_fn(score, tf.range(pieces), fn_output_signature=classes)
        return tf.reduce_sum(total, axis=0) / tf.cast(grid.patches(length), tf.float32)

    classes = tf.TensorSpec((model.output_shape[-1],), tf.float32)
    return tf.function(
        lambda files: {"scores": tf.map_fn(one, files, fn_output_signature=classes)},
        input_signature=[tf.TensorSpec((None,), tf.string, name="wav")],
        autograph=False,
    ).get_concrete_function()


def export_saved_model(model: keras.Model, path: str | Path, *, overwrite: bool = False) -> Path:
    """Writes ``model`` as a SavedModel that runs without tfaudiotl and without Keras.

    Signatures: ``serving_default``, ``waveform (batch, samples)`` to ``scores (batch, classes)``;
    ``embed``, to ``embedding (batch, dim)``; and ``classify_file_bytes``, from ``wav (batch,)``, the bytes of
    16-bit PCM WAV files at the model's own rate (TensorFlow has no resampler; any number of channels), to
    ``scores``. The class names are the asset ``labels.txt``, one per line; the rate in Hz is ``sample_rate.txt``, the
    front-end's numbers, thresholds and the background class are ``frontend.json``. Batch norms are folded into the
    convolutions (``fold_batch_norm``).

    Args:
        model: a classifier from ``build_classifier``.
        path: the folder to write.
        overwrite: replace an existing SavedModel; it stays whole until the new one is complete. A folder that
            holds anything else is never replaced.

    Returns:
        ``path``.

    Raises:
        FileExistsError: ``path`` exists and ``overwrite`` is false, or it holds anything but a SavedModel.
        ValueError: ``path`` ends like a file's name, such as .tflite or .h5.
        ExportError: ``path`` cannot be written.
    """
    ending = Path(path).suffix
    if ending and not ending[1:].isdigit():  # "model-1.0" is no file's name
        raise ValueError(f"path={str(path)!r}: a SavedModel is a folder without an ending; {ending} looks like a file")
    with tempfile.TemporaryDirectory() as scratch, new_path(path, overwrite=overwrite, folder=SAVED_MODEL) as target:
        labels = Path(scratch) / "labels.txt"
        rate = Path(scratch) / RATE_ASSET
        own = parts(model)
        spec = frontend_spec(model) if own.takes_patches else own.grid
        rate.write_text(f"{spec.sample_rate if spec else SAMPLE_RATE}\n", encoding="utf-8")
        numbers: dict[str, Any] = decisions_of(model) | ({"frontend": asdict(spec)} if spec else {})
        if spec and not own.takes_patches:
            numbers["window"] = timeline_window(model)
        frontend = Path(scratch) / FRONTEND_ASSET
        frontend.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
        labels.write_text("".join(f"{name}\n" for name in class_names_of(model)), encoding="utf-8")
        black_box = any(isinstance(layer, HubEmbedding) for layer in model.layers)
        serving = _Serving(model if black_box else fold_batch_norm(model), str(labels), str(rate), str(frontend))
        tf.saved_model.save(serving, str(target), signatures=serving.functions)
    return Path(path)
