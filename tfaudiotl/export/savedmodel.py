"""SavedModel: the classifier for TensorFlow without this package, TF Serving included."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfaudiotl._files import SAVED_MODEL, new_path
from tfaudiotl.backbones.hub import HubEmbedding
from tfaudiotl.backbones.scores import class_names_of
from tfaudiotl.export.convert import frontend_spec
from tfaudiotl.models.builder import clip_embedding_model
from tfaudiotl.models.fold import fold_batch_norm

RATE_ASSET = "sample_rate.txt"  # Hz, of the waveforms that the signatures take


class _Serving(tf.Module):
    """What goes into the SavedModel: the variables, the labels, one function per signature."""

    def __init__(self, model: keras.Model, labels: str, rate: str):
        super().__init__()
        self.model_variables = [variable.value for variable in model.variables]
        self.boxes = [layer.module.module for layer in model.layers if isinstance(layer, HubEmbedding)]
        self.labels, self.rate = tf.saved_model.Asset(labels), tf.saved_model.Asset(rate)
        waveform = tf.TensorSpec(model.inputs[0].shape, tf.float32, name=model.inputs[0].name)
        self.functions = {"serving_default": _function(model, waveform, "scores")}
        if any(layer.name == "patch_embedding" for layer in model.layers):  # a backbone alone has none
            self.functions["embed"] = _function(clip_embedding_model(model), waveform, "embedding")
        if len(model.inputs[0].shape) == 2:
            self.functions["classify_file_bytes"] = _bytes_function(model)


def _function(model: keras.Model, spec: tf.TensorSpec, output: str) -> Any:
    return tf.function(
        lambda inputs: {output: model(inputs, training=False)}, input_signature=[spec], autograph=False
    ).get_concrete_function()


def _bytes_function(model: keras.Model) -> Any:
    """From encoded WAV files to scores, decoded in the graph, so that a server takes files as they are."""
    rate, samples = frontend_spec(model).sample_rate, model.inputs[0].shape[1]

    def one(encoded: Any) -> Any:
        sound, found = tf.audio.decode_wav(encoded)
        told = [f"classify_file_bytes takes WAV files of {rate} Hz; resample first. This one has", found]
        with tf.control_dependencies([tf.debugging.Assert(tf.equal(found, rate), told)]):
            mono = tf.reduce_mean(sound, axis=1)
        windows = mono[None] if samples is None else tf.signal.frame(mono, samples, samples, pad_end=True)
        scores = model(tf.ensure_shape(windows, (None, samples)), training=False)
        return tf.reduce_mean(scores, axis=list(range(len(scores.shape) - 1)))

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
    ``scores``. The class names are the asset ``labels.txt``, one per line; the rate in Hz is ``sample_rate.txt``. Batch
    norms are folded into the convolutions (``fold_batch_norm``).

    Args:
        model: a classifier from ``build_classifier``.
        path: the folder to write.
        overwrite: replace an existing SavedModel; it stays whole until the new one is complete. A folder that
            holds anything else is never replaced.

    Returns:
        ``path``.

    Raises:
        FileExistsError: ``path`` exists and ``overwrite`` is false, or it holds anything but a SavedModel.
        ExportError: ``path`` cannot be written.
    """
    with tempfile.TemporaryDirectory() as scratch, new_path(path, overwrite=overwrite, folder=SAVED_MODEL) as target:
        labels = Path(scratch) / "labels.txt"
        rate = Path(scratch) / RATE_ASSET
        rate.write_text(f"{frontend_spec(model).sample_rate}\n", encoding="utf-8")
        labels.write_text("".join(f"{name}\n" for name in class_names_of(model)), encoding="utf-8")
        black_box = any(isinstance(layer, HubEmbedding) for layer in model.layers)
        serving = _Serving(model if black_box else fold_batch_norm(model), str(labels), str(rate))
        tf.saved_model.save(serving, str(target), signatures=serving.functions)
    return Path(path)
