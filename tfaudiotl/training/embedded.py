"""Plain Keras training on what the frozen network gives, which is computed once instead of in every epoch.

``embedded`` makes the batches, ``head_model`` the part of the classifier that they go into::

    head = head_model(model)
    head.fit(embedded(model, train, shuffle=True), validation_data=embedded(model, val), epochs=20)
    model.evaluate(test.dataset())  # head has model's own layers: model is trained
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfaudiotl._threads import OnProgress, ignore
from tfaudiotl.audio.clips import Clips, OnError
from tfaudiotl.audio.dataset import check_rows, row_order
from tfaudiotl.backbones.assembly import grid_of_model
from tfaudiotl.backbones.scores import class_names_of
from tfaudiotl.embeddings.engine import PatchNetwork, embed_clips, trim_padding
from tfaudiotl.errors import AudioError
from tfaudiotl.training.prefix import upper_model


def head_model(model: keras.Model) -> keras.Model:
    """The part of a classifier above its frozen network, with the classifier's own layers: fit it, and both are fitted.

    Args:
        model: a classifier of waveforms whose network is frozen (``trainable=0``), as ``build_classifier`` makes.

    Returns:
        A model from ``[(batch, patches, dim), (batch, patches)]``, the embeddings of a clip's patches and which of
        them hold sound, to scores ``(batch, classes)``: what ``embedded`` gives. Compiled as ``model`` is, with an
        optimizer of its own.

    Raises:
        ValueError: ``model`` is no such classifier, or a part of its network trains.
    """
    head = upper_model(model, [_embedding(model)])
    if model.compiled:
        head.compile_from_config(model.get_compile_config())
    return head


def embedded(
    model: keras.Model,
    clips: Clips,
    *,
    batch_size: int = 32,
    window_seconds: float | None = None,
    shuffle: bool = False,
    seed: int = 0,
    drop_remainder: bool = False,
    on_error: OnError = "raise",
    log: list[AudioError] | None = None,
    progress: OnProgress | None = None,
) -> tf.data.Dataset:
    """Batches for ``head_model(model)``: each clip is decoded and goes through the frozen network once, now.

    The rows and their order are those of ``clips.dataset`` with the same options, and so are the results of a training
    with it, which runs the network again in every epoch; but padding counts in no batch norm's statistics here, and
    does in a plain fit of the model on clips of different lengths. Sound that is augmented is other sound each time:
    for that, fit the model itself on ``clips.dataset(augment=...)``.

    Args:
        model: as for ``head_model``; its network's weights as they are now.
        clips: what to read.
        batch_size: Rows of a batch, at least 1.
        window_seconds: Length of every row, over 0; None is the longest clip, 10 s at most.
        shuffle: Whether to draw a new order for every epoch.
        seed: Of the shuffling.
        drop_remainder: Whether to leave out a last batch that is not full.
        on_error: "raise": one AudioErrors that lists every unusable sound, once all were tried; "skip" leaves them out.
        log: A list to which skipped sounds are added.
        progress: Called with what is done.

    Returns:
        A dataset of ((float32 (batch, patches, dim), float32 (batch, patches)), float32 (batch, classes)), and float32
        (batch,) sample weights where the clips carry weights other than 1. All embeddings are in memory: 4 kB for each
        patch of YAMNet's own embedding.

    Raises:
        ValueError: An argument is out of range, the clips have other classes than the model, or as for ``head_model``.
        AudioErrors: (a ValueError) Sounds that cannot be used.
    """
    network = PatchNetwork(model, [_embedding(model)])
    rows, samples = check_rows(clips, batch_size, window_seconds, on_error, network.frontend.spec.sample_rate)
    names = class_names_of(model)
    if tuple(clips.class_names) != names:
        raise ValueError(f"clips has the classes {list(clips.class_names)}, the model {list(names)}")
    spec = network.frontend.spec
    counts = np.zeros(len(rows), int)

    def count(row: int, path: str, waveform: np.ndarray) -> None:
        counts[row] = spec.patches(len(trim_padding(waveform)))

    # Padding goes through the network as it does in the model: a patch that does not count may hold the end of a sound.
    found = embed_clips(network, rows, on_error=on_error, check=count, progress=progress or ignore, samples=samples)
    if log is not None:
        log += found.skipped
    rows, counts = rows[found.kept], counts[found.kept]
    if len(rows) < (batch_size if drop_remainder else 1):
        raise ValueError(f"batch_size={batch_size}: {len(rows)} usable rows make no batch")
    vectors = found.vectors.reshape(len(rows), -1, found.vectors.shape[1])
    valid = np.arange(vectors.shape[1]) < counts[:, None]
    columns = [vectors, valid.astype(np.float32), rows.targets]
    columns += [rows.weights] if (rows.weights != 1).any() else []
    return _batches([tf.constant(column) for column in columns], rows, batch_size, shuffle, seed, drop_remainder)


def _batches(
    columns: list[tf.Tensor], rows: Clips, batch_size: int, shuffle: bool, seed: int, drop_remainder: bool
) -> tf.data.Dataset:
    def pick(numbers: tf.Tensor) -> tuple[Any, ...]:
        vectors, valid, *labels = (tf.gather(column, numbers) for column in columns)
        return ((vectors, valid), *labels)

    numbers = row_order(rows, shuffle, seed).batch(batch_size, drop_remainder=drop_remainder)
    options = tf.data.Options()
    options.deterministic = True
    return numbers.map(pick, num_parallel_calls=2).with_options(options).prefetch(2)


def _embedding(model: keras.Model) -> Any:
    """The tensor between a frozen network and the head, one row per patch."""
    names = {layer.name for layer in model.layers}
    if "patch_embedding" not in names or grid_of_model(model) is None:
        raise ValueError(
            f"model {model.name!r}: expected a classifier of waveforms, network and head, as build_classifier makes"
        )
    embedding = model.get_layer("patch_embedding").output
    network = keras.Model(model.inputs, embedding)
    moving = [
        layer.name
        for layer in network.layers
        if layer.trainable_variables or (isinstance(layer, keras.layers.BatchNormalization) and layer.trainable)
    ]
    if moving:
        raise ValueError(
            f"model {model.name!r}: its network trains from layer {moving[0]!r} on, so its embeddings change; use "
            "fine_tune(model, ...), which computes the frozen part once, or freeze(model)"
        )
    return embedding
