"""Training a classifier's head on embeddings that are computed once.

``fit_head`` is what ``train_classifier`` does. For Keras's own ``fit``, ``embedded`` makes the batches and
``head_model`` the part of the classifier that they go into::

    head = head_model(model)
    head.fit(embedded(model, train, shuffle=True), validation_data=embedded(model, val), epochs=20, shuffle=False)
    model.evaluate(test.dataset())  # head has model's own layers: model is trained
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfaudiotl._fingerprint import fingerprint, model_parts, versions
from tfaudiotl._seeds import stream
from tfaudiotl._threads import OnProgress, ignore
from tfaudiotl.backbones.scores import class_names_of
from tfaudiotl.classifiers.anatomy import classifier_parts, parts
from tfaudiotl.classifiers.heads import compile_classifier
from tfaudiotl.data.clips import Clips
from tfaudiotl.data.dataset import check_rows, row_order
from tfaudiotl.data.splits import balanced_draw
from tfaudiotl.data.table import Table
from tfaudiotl.embeddings.engine import PatchNetwork, embed_clips, trim_padding
from tfaudiotl.errors import AudioError, OnError
from tfaudiotl.training.activation_cache import upper_model
from tfaudiotl.training.batches import Batch, generated
from tfaudiotl.training.checkpoint import BestEpoch, Checkpoint, Diverged, first_as_good, restore
from tfaudiotl.training.discriminant import Rows, fit_discriminant
from tfaudiotl.training.options import FitOptions, balanced_loss, balanced_weights, loss_of

CLIPS_AT_ONCE = 256  # whose sequences are scored together
UNEQUAL = 4.0  # a held-out clip that weighs so many times another makes the loss hang on it


@dataclass(frozen=True)
class Examples:
    """Embeddings of clips with their targets.

    Attributes:
        vectors: float32 ``(rows, dim)``: the patches of the clips, or one row per clip.
        counts: int ``(clips,)``: rows of each clip, in order.
        targets: float32 ``(clips, classes)``.
        weights: float32 ``(clips,)``.
    """

    vectors: np.ndarray
    counts: np.ndarray
    targets: np.ndarray
    weights: np.ndarray

    def rows(self, clips: np.ndarray) -> np.ndarray:
        """Row numbers of the vectors of ``clips``, clip after clip."""
        ends = np.cumsum(self.counts)
        parts = [np.arange(ends[clip] - self.counts[clip], ends[clip]) for clip in clips]
        return np.concatenate(parts) if parts else np.zeros(0, int)

    def take(self, clips: np.ndarray) -> Examples:
        """The examples of ``clips``."""
        return Examples(self.vectors[self.rows(clips)], self.counts[clips], self.targets[clips], self.weights[clips])

    def sequences(self, clips: np.ndarray, length: int | None = None) -> list[np.ndarray]:
        """The rows of ``clips`` as ``(clips, length, dim)``, zeros behind, and where rows are, ``(clips, length)``."""
        counts = self.counts[clips]
        valid = np.arange(length or counts.max()) < counts[:, None]
        padded = np.zeros((*valid.shape, self.vectors.shape[1]), np.float32)
        padded[valid] = self.vectors[self.rows(clips)]
        return [padded, valid.astype(np.float32)]

    def mean_by_clip(self, values: np.ndarray) -> np.ndarray:
        """Means over each clip's rows: ``(rows, n)`` to ``(clips, n)``."""
        starts = np.cumsum(self.counts) - self.counts
        return np.add.reduceat(values, starts, axis=0) / self.counts[:, None]

    def with_variants(self, variants: Sequence[Examples]) -> Examples:
        """These examples and other versions of the same clips, as examples of their own."""
        every = [self, *variants]
        return Examples(
            *(np.concatenate([getattr(examples, name) for examples in every]) for name in Examples.__dataclass_fields__)
        )

    def __len__(self) -> int:
        return len(self.counts)


@dataclass
class Fitted:
    """What training gave: metric values per epoch, and the number of epochs of the kept weights.

    In closed form there are no epochs, but a ``shrinkage``.
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    best_epochs: int = 0
    shrinkage: float | None = None


def clip_scores(head: keras.Model, examples: Examples) -> np.ndarray:
    """Scores of each clip, ``(clips, classes)``: the mean over its rows, as the classifier's pooling."""
    if parts(head).sequence_head:
        return _by_clips(head, examples)
    return examples.mean_by_clip(np.asarray(head(examples.vectors, training=False)))


def norm_inputs(head: keras.Model, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """What the head's batch norm is given, float32 ``(rows, n)``, and how many rows of these each clip has."""
    found = parts(head)
    if found.statistics is None:
        return examples.vectors, examples.counts
    statistics = keras.Model(found.statistics.input, found.norm.input)
    return _by_clips(statistics, examples), np.ones(len(examples), int)


def _by_clips(model: keras.Model, examples: Examples) -> np.ndarray:
    """What a model of sequences makes of each clip."""
    batches = np.array_split(np.arange(len(examples)), -(-len(examples) // CLIPS_AT_ONCE))
    return np.concatenate([np.asarray(model(examples.sequences(clips), training=False)) for clips in batches])


def new_head(head: keras.Model) -> keras.Model:
    """A head of the same shape with its initial weights again: those of its seed, or new ones without a seed."""
    return keras.models.clone_model(head)


def fit_head(
    head: keras.Model,
    train: Examples,
    val: Examples | None,
    options: FitOptions,
    *,
    variants: Sequence[Examples] = (),
    epochs: int | None = None,
    units: np.ndarray | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> Fitted:
    """Trains a head; with ``val`` it stops early on the validation loss, with the weights of ``first_as_good``'s epoch.

    The head's batch norm takes the mean and variance of the training embeddings themselves and keeps
    them: that standardises exactly from the first step, however few the clips.

    Args:
        head: ``parts(model).head``, or from ``new_head``.
        train: the examples to learn.
        val: the examples that tell when to stop; None trains all epochs. With ``solver="discriminant"`` None.
        options: how.
        variants: other versions of the clips of ``train``; each epoch has each clip once, as it is or as one of these.
        epochs: instead of ``options.epochs``.
        units: int ``(clips,)``, for ``solver="discriminant"``: clips of ``train`` of one number (a recording, a group)
            are never on both sides of an inner fold. None: each clip is one.
        checkpoint: file that keeps every finished epoch; if it is there already, and of a training of these very
            examples, options and initial weights, training goes on from it.
        on_epoch: called with the epoch's number, from 1, and its metrics; "val_loss" and "val_accuracy"
            are of whole clips, which weigh what they weigh in training; "val_loss_error" is 0 where they weigh about
            the same.
    """
    total, multi_label = epochs or options.epochs, parts(head).multi_label
    options = options.applied(multi_label=multi_label)
    for name, part in (("train", train), ("val", val)):
        if part is not None and not np.isfinite(part.vectors).all():
            raise ValueError(f"{name} has embeddings that are not finite numbers")
    if options.solver == "discriminant":
        if val is not None:
            raise ValueError("val: solver='discriminant' needs no clips that tell when to stop; give None")
        return _fit_closed_form(head, train, options, variants, units)
    watched = _weights(val, options, multi_label) if val else None
    if watched is not None and not watched.any():
        raise ValueError("weights: every clip that is held out weighs 0, so none can tell when to stop")
    _standardise(head, norm_inputs(head, train)[0])
    loss = loss_of(options, multi_label=multi_label)
    if multi_label and options.class_weight:
        loss = balanced_loss(loss, train.targets)
    compile_classifier(head, multi_label=multi_label, learning_rate=options.learning_rate, loss=loss)
    key = _key(head, train, val, options, variants, total) if checkpoint else ""
    history, kept = restore(checkpoint, key, head) if checkpoint else ({}, {})
    done = len(history.get("loss", []))
    best = BestEpoch(patience=options.patience, history=history, kept=kept) if val else None
    keeper = Checkpoint(checkpoint, key, history, best) if checkpoint else None
    stopped = best is not None and done > 0 and done - 1 - int(np.argmin(history["val_loss"])) >= options.patience
    if done < total and not stopped:
        make = _sequence_batches if parts(head).sequence_head else _batches
        watchers = (
            _ClipValidation(val, watched) if val and watched is not None else None,
            Diverged("head"),
            best,
            keeper,
            _OnEpoch(on_epoch) if on_epoch else None,
        )
        weights = _weights(train, options, multi_label, drawn=True)
        with make(train, weights, options, variants, first=done, last=total) as batches:
            logs = head.fit(
                batches,
                steps_per_epoch=_steps(train, options),
                initial_epoch=done,
                epochs=total,
                callbacks=[watcher for watcher in watchers if watcher],
                shuffle=False,  # the batches are shuffled already
                verbose=0,
            )
        if not keeper:
            history = {name: [float(v) for v in values] for name, values in logs.history.items()}
    elif val:
        head.set_weights(kept[first_as_good(history)])
    best_epochs = 1 + first_as_good(history) if val else total
    return Fitted(history, best_epochs)


def check_linear(head: keras.Model) -> None:
    """ValueError for a head in which more is to be learned than a linear classifier after the batch norm."""
    logits = parts(head).logits
    if {id(weight) for weight in head.trainable_weights} - {id(logits.kernel), id(logits.bias)}:
        raise ValueError(
            "solver='discriminant' makes a linear classifier: give hidden=() with head='dense', 'average' or "
            "'statistics', or solver='adam'"
        )


def _fit_closed_form(
    head: keras.Model, train: Examples, options: FitOptions, variants: Sequence[Examples], units: np.ndarray | None
) -> Fitted:
    check_linear(head)
    every, copies = train.with_variants(variants), 1 + len(variants)
    x, counts = norm_inputs(head, every)
    train_counts = counts[: len(train)]
    _standardise(head, x[: int(train_counts.sum())], np.repeat(1 / train_counts, train_counts))
    norm, logits = parts(head).norm, parts(head).logits
    x = (x - np.asarray(norm.moving_mean)) / np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
    weights = _weights(train, options, multi_label=False)
    clips, of_train = np.repeat(np.arange(len(every)), counts), np.tile(np.arange(len(train)), copies)
    rows = Rows(
        x,
        labels=every.targets.argmax(axis=1)[clips],
        weights=(weights[of_train] / counts)[clips],
        clips=clips,
        units=(of_train if units is None else units[of_train])[clips],
        scored=clips < len(train),
    )
    found = fit_discriminant(rows, every.targets.shape[1], seed=options.seed)
    logits.kernel.assign(found.kernel)
    logits.bias.assign(found.bias)
    return Fitted(shrinkage=found.shrinkage)


def _key(
    head: keras.Model,
    train: Examples,
    val: Examples | None,
    options: FitOptions,
    variants: Sequence[Examples],
    epochs: int,
) -> str:
    """Of all that a training depends on: the numbers themselves, not where they came from."""
    examples = [train, val, *variants]
    return fingerprint(head=model_parts(head), examples=examples, options=options, epochs=epochs, versions=versions())


class _ClipValidation(keras.callbacks.Callback):
    """Adds loss and accuracy of held-out clips to an epoch's metrics, as the whole classifier would score them."""

    def __init__(self, val: Examples, weights: np.ndarray):
        super().__init__()
        self._val, self._weights = val, weights

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        scores, targets = clip_scores(self.model, self._val).astype(np.float32), self._val.targets
        losses = np.asarray(self.model.loss.call(targets, scores))
        metrics = logs if logs is not None else {}
        loss = float(np.average(losses, weights=self._weights))
        metrics["val_loss"] = loss
        metrics["val_loss_error"] = _weighted_error(losses, self._weights)
        if parts(self.model).multi_label:
            metrics["val_accuracy"] = float(((scores >= 0.5) == (targets >= 0.5)).mean())
        else:
            metrics["val_accuracy"] = float((scores.argmax(axis=1) == targets.argmax(axis=1)).mean())


def _weighted_error(losses: np.ndarray, weights: np.ndarray) -> float:
    """Standard error of the weighted mean where it hangs on a few heavy clips, those of rare classes; else 0."""
    if weights.max() < UNEQUAL * weights[weights > 0].min():
        return 0.0
    return float(np.linalg.norm(weights * (losses - np.average(losses, weights=weights))) / weights.sum())


class _OnEpoch(keras.callbacks.Callback):
    def __init__(self, function: Callable[[int, dict[str, float]], None]):
        super().__init__()
        self._function = function

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._function(epoch + 1, dict(logs or {}))


def _standardise(head: keras.Model, vectors: np.ndarray, weights: np.ndarray | None = None) -> None:
    norm = parts(head).norm
    if weights is None:
        mean, variance = vectors.mean(axis=0), vectors.var(axis=0)
    else:
        shares = (weights / weights.sum()).astype(np.float32)
        mean = shares @ vectors
        variance = shares @ np.square(vectors - mean)
    norm.moving_mean.assign(mean)
    norm.moving_variance.assign(variance)
    norm.trainable = False


def _batches(
    train: Examples,
    weights: np.ndarray,
    options: FitOptions,
    variants: Sequence[Examples],
    *,
    first: int,
    last: int,
) -> AbstractContextManager[tf.data.Dataset]:
    """The batches of the epochs ``first`` to ``last - 1``; an epoch's order depends on seed and number alone.

    A batch has all rows of its clips. Each clip weighs the same, however many rows it has; the weights
    of all rows have the mean 1, so that the learning rate means the same for long and short clips.
    """
    every = train.with_variants(variants)
    shares = np.tile(weights, 1 + len(variants)) / every.counts * (train.counts.sum() / weights.sum())

    def draw() -> Iterator[Batch]:
        for clips in _orders(train, options, variants, first, last):
            counts = every.counts[clips]
            yield (
                every.vectors[every.rows(clips)],
                np.repeat(every.targets[clips], counts, axis=0),
                np.repeat(shares[clips], counts),
            )

    spec = tuple(
        tf.TensorSpec((None, *shape), tf.float32) for shape in (train.vectors.shape[1:], train.targets.shape[1:], ())
    )
    return generated(draw, spec, _steps(train, options) * (last - first))


def _sequence_batches(
    train: Examples,
    weights: np.ndarray,
    options: FitOptions,
    variants: Sequence[Examples],
    *,
    first: int,
    last: int,
) -> AbstractContextManager[tf.data.Dataset]:
    """As ``_batches``, a row being the sequence of a clip's patches; all have the longest one's length."""
    every = train.with_variants(variants)
    weights, length = np.tile(weights * (len(train) / weights.sum()), 1 + len(variants)), int(every.counts.max())

    def draw() -> Iterator[Batch]:
        for clips in _orders(train, options, variants, first, last):
            yield tuple(every.sequences(clips, length)), every.targets[clips], weights[clips]

    shapes = (length, train.vectors.shape[1]), (length,), train.targets.shape[1:], ()
    vectors, valid, targets, shares = (tf.TensorSpec((None, *shape), tf.float32) for shape in shapes)
    return generated(draw, ((vectors, valid), targets, shares), _steps(train, options) * (last - first))


def _weights(examples: Examples, options: FitOptions, multi_label: bool, *, drawn: bool = False) -> np.ndarray:
    """What each clip counts; ``drawn``: as often as the sampling wants it, and so no more for that.

    Where a clip has several classes, ``class_weight`` weighs the answers for each class, not the clips.

    Held-out clips count as those in training do: else common classes alone tell when to stop, and they go on to
    gain when rare ones, known from few clips, are long learned by heart.
    """
    balanced = (options.class_weight and not multi_label) or (options.sampling and not drawn)
    return examples.weights * (balanced_weights(examples.targets) if balanced else 1.0)


def _steps(train: Examples, options: FitOptions) -> int:
    return math.ceil(len(train) / options.batch_size)


def _orders(
    train: Examples, options: FitOptions, variants: Sequence[Examples], first: int, last: int
) -> Iterator[np.ndarray]:
    """The clips of each batch, by their numbers in ``train.with_variants(variants)``."""
    for epoch in range(first, last):
        rng = stream("head batches", options.seed, epoch)
        order = balanced_draw(train.targets, rng) if options.sampling else rng.permutation(len(train))
        if variants:
            order = order + len(train) * rng.integers(1 + len(variants), size=len(order))
        yield from np.array_split(order, _steps(train, options))


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
    head = upper_model(model, [_frozen_embedding(model)])
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
    network = PatchNetwork(model, [_frozen_embedding(model)])
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
    return _embedded_batches(
        [tf.constant(column) for column in columns], rows, batch_size, shuffle, seed, drop_remainder
    )


def _embedded_batches(
    columns: list[tf.Tensor], rows: Table, batch_size: int, shuffle: bool, seed: int, drop_remainder: bool
) -> tf.data.Dataset:
    def pick(numbers: tf.Tensor) -> tuple[Any, ...]:
        vectors, valid, *labels = (tf.gather(column, numbers) for column in columns)
        return ((vectors, valid), *labels)

    numbers = row_order(rows, shuffle, seed).batch(batch_size, drop_remainder=drop_remainder)
    options = tf.data.Options()
    options.deterministic = True
    return numbers.map(pick, num_parallel_calls=2).with_options(options).prefetch(2)


def _frozen_embedding(model: keras.Model) -> Any:
    """The tensor between a frozen network and the head, one row per patch."""
    found = classifier_parts(model, waveforms=True)
    moving = [
        layer.name
        for layer in found.body
        if layer.trainable_variables or (isinstance(layer, keras.layers.BatchNormalization) and layer.trainable)
    ]
    if moving:
        raise ValueError(
            f"model {model.name!r}: its network trains from layer {moving[0]!r} on, so its embeddings change; use "
            "fine_tune(model, ...), which computes the frozen part once, or freeze(model)"
        )
    return found.embedding
