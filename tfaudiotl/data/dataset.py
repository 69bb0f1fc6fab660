"""Clips to a tf.data pipeline of fixed-length waveforms that keeps the accelerator busy."""

from __future__ import annotations

import logging
import math
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfaudiotl._fingerprint import State, check_unchanged, fingerprint, versions
from tfaudiotl._seeds import derived_seed
from tfaudiotl.audio.waveform import SAMPLE_RATE, check_rate
from tfaudiotl.augment.chain import augment_dataset
from tfaudiotl.augment.layers import Augmentation
from tfaudiotl.data.splits import rarest_class
from tfaudiotl.data.table import Table, clips_parts, file_states
from tfaudiotl.data.tfio import Decoder, GraphDecoder, in_graph
from tfaudiotl.errors import AudioError, OnError, check_choice, check_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_WINDOW_SECONDS", "make_dataset"]

logger = logging.getLogger(__name__)

MAX_WINDOW_SECONDS = 10.0  # the length of AudioSet's clips, which YAMNet was trained on


def make_dataset(
    clips: Table,
    *,
    batch_size: int = 32,
    window_seconds: float | None = None,
    shuffle: bool = False,
    seed: int = 0,
    sample_rate: int = SAMPLE_RATE,
    drop_remainder: bool = False,
    cache: bool | str | os.PathLike[str] = False,
    on_error: OnError = "raise",
    log: list[AudioError] | None = None,
    num_parallel_calls: int | None = None,
    repeat: bool = False,
    augment: bool | Augmentation | Sequence[Augmentation] = False,
    balance: bool = False,
    shard: tuple[int, int] | None = None,
    decoder: Decoder = "auto",
) -> tf.data.Dataset:
    """Makes a dataset of (waveform, target) batches for ``Model.fit``, ``evaluate`` and ``predict``.

    Every row has the same length: clips longer than the window become several rows, cut as
    ``Clips.windows`` does; shorter ones are padded with zeros at the end. The classifiers of this
    package leave trailing zeros out when they pool, so that padding does not change what they say.

    Files are decoded and resampled in parallel; the order and the content of batches depend on
    ``seed`` only, epoch after epoch.

    Example:
        >>> train, val = clips.split(val=0.2)
        >>> model.fit(
        ...     make_dataset(train, batch_size=32, shuffle=True, cache=True),
        ...     validation_data=make_dataset(val),
        ...     epochs=20,
        ... )

    Args:
        clips: What to read.
        batch_size: Rows of a batch, at least 1.
        window_seconds: Length of every row, over 0; None is the longest clip, 10 s at most.
        shuffle: Whether to draw a new order for every epoch.
        seed: Of the shuffling.
        sample_rate: Of the waveforms, Hz.
        drop_remainder: Whether to leave out a last batch that is not full, for a fully static shape.
        cache: Keep decoded waveforms, so that each file is decoded once: True in memory (64 kB per
            second at 16 kHz), a path in files whose names begin with it and end in a digest of the rows, labels and
            options, so that two tables may share a path; old ones are yours to remove. What is random comes after it.
        on_error: What to do with a sound that turns out unusable while it is read: "raise" stops
            the iteration with an error that names it and the reason; "skip" leaves it out, warns
            once in the log and lists it in ``log``.
        log: A list to which skipped sounds are added, once each.
        num_parallel_calls: Rows decoded at a time; None is one per core, ``tf.data.AUTOTUNE`` lets tf.data decide.
        repeat: Whether to go on without end; batches then run across epochs.
        augment: Change the waveforms of every batch: True is a mild chain (see docs/augmentation.md), or
            layers such as ``RandomNoise``. For training data only: it changes whatever is read here.
        balance: Draw rows so that every class comes equally often, in as many rows as there are; nothing is
            rejected, rare classes are repeated. A row of several classes counts for its rarest. Shuffles.
        decoder: "python" (soundfile and soxr in threads), "tfio" (tensorflow-io and a resampler in the graph, for
            the formats it has, TensorFlow 2.16 and on_error="raise"), or "auto": "tfio" where it is the faster of the
            two, which is WAV at ``sample_rate``. They differ by less than -50 dB of the sound.
        shard: (number, count): this host's rows, every ``count``-th from ``number``, for training on several hosts.

    Returns:
        A dataset of float32 (batch, samples), about [-1, 1], ``samples = window_seconds *
        sample_rate``, and float32 (batch, classes), 1 where the row has the class; and, where the
        clips carry weights other than 1, float32 (batch,) sample weights.

    Raises:
        ValueError: An argument is out of range, or there are no clips.
    """
    rate = check_rate("sample_rate", sample_rate)
    rows, samples = check_rows(clips, batch_size, window_seconds, on_error, rate)
    if drop_remainder and len(rows) < batch_size:
        raise ValueError(f"batch_size={batch_size} with drop_remainder=True leaves nothing of {len(rows)} rows")
    if shard is not None:
        rows = _shard(rows, shard)
    in_memory = cache is True and on_error == "raise"
    if balance and cache and not in_memory:
        raise ValueError(
            'balance=True repeats rows at random: it needs cache=True with on_error="raise", or cache=False'
        )
    parallel = num_parallel_calls if num_parallel_calls is not None else os.cpu_count() or 1
    reader = _Reader(rows, samples, rate, on_error, log)
    if on_error == "skip" and decoder == "tfio":
        raise ValueError(
            "decoder='tfio' cannot say which sound was unusable; use decoder='python' with on_error='skip'"
        )
    if in_graph("python" if on_error == "skip" else decoder, rows, rate):
        reader.decoder = GraphDecoder(rows, samples, rate)
    if in_memory:
        numbers = row_order(rows, shuffle, seed, balance, repeat)
        numbers = numbers.batch(batch_size, drop_remainder=drop_remainder)
        dataset = _from_memory(reader, numbers, parallel, in_order=not (shuffle or balance or repeat))
    else:
        kept = cache if isinstance(cache, bool) else _cache_file(cache, reader)
        dataset = _row_by_row(reader, shuffle, seed, balance, kept, parallel)
        dataset = dataset.repeat() if repeat else dataset
        dataset = dataset.batch(batch_size, drop_remainder=drop_remainder)
    dataset = augment_dataset(dataset, augment, sample_rate=rate, seed=seed)
    options = tf.data.Options()
    options.deterministic = True
    return dataset.with_options(options).prefetch(2)


def row_order(rows: Table, shuffle: bool, seed: int, balance: bool = False, repeat: bool = False) -> tf.data.Dataset:
    """Numbers of rows, epoch after epoch."""
    count = len(rows)
    if balance:
        classes = rarest_class(rows.targets)
        members = [np.flatnonzero(classes == label) for label in np.unique(classes)]
        each = [
            tf.data.Dataset.from_tensor_slices(m)
            .shuffle(len(m), seed=derived_seed("dataset balance", seed, n), reshuffle_each_iteration=True)
            .repeat()
            for n, m in enumerate(members)
        ]
        dataset = tf.data.Dataset.sample_from_datasets(
            each, seed=derived_seed("dataset balance", seed), rerandomize_each_iteration=True
        ).take(count)
    else:
        dataset = tf.data.Dataset.range(count)
        if shuffle:
            dataset = dataset.shuffle(count, seed=derived_seed("dataset shuffle", seed), reshuffle_each_iteration=True)
    return dataset.repeat() if repeat else dataset


def _from_memory(reader: _Reader, batches: tf.data.Dataset, parallel: int, *, in_order: bool) -> tf.data.Dataset:
    """Batches picked from one array of all decoded rows: tf.data's own cache hands rows out one by one, slower."""
    rows = tf.data.Dataset.range(len(reader.rows))
    rows = rows.map(reader.read, num_parallel_calls=parallel, deterministic=True)
    everything = rows.map(lambda usable, row, waveform: waveform).batch(len(reader.rows)).cache()

    def pick(waveforms: tf.Tensor, numbers: tf.Tensor) -> tuple[tf.Tensor, ...]:
        # A slice of whole rows shares their memory.
        rows = waveforms[numbers[0] : numbers[-1] + 1] if in_order else tf.gather(waveforms, numbers)
        rows.set_shape((numbers.shape[0], reader.samples))
        return reader.with_labels(rows, numbers)

    # repeat hands the same array out again, without a copy.
    return tf.data.Dataset.zip((everything.repeat(), batches)).map(pick, num_parallel_calls=2, deterministic=True)


def _row_by_row(
    reader: _Reader, shuffle: bool, seed: int, balance: bool, cache: bool | str | os.PathLike[str], parallel: int
) -> tf.data.Dataset:
    count = len(reader.rows)
    # Rows' numbers are shuffled, which costs nothing, unless decoded rows are kept, which fixes their order.
    dataset = row_order(reader.rows, shuffle and not cache, seed, balance)
    dataset = dataset.map(reader.read, num_parallel_calls=parallel, deterministic=True)
    if reader.skip:  # only then: a filter hides the number of batches from Keras's progress bar
        dataset = dataset.filter(lambda usable, *_: usable)
    dataset = dataset.map(reader.label, num_parallel_calls=parallel, deterministic=True)
    if cache:
        dataset = dataset.cache("" if cache is True else os.fspath(cache))
        if shuffle:
            dataset = dataset.shuffle(count, seed=derived_seed("dataset shuffle", seed), reshuffle_each_iteration=True)
    return dataset


def _cache_file(path: str | os.PathLike[str], reader: _Reader) -> str:
    """A file's name that is another one for everything that the kept rows depend on; also notes the files' states."""
    reader.states = file_states(reader.rows)
    key = fingerprint(
        clips=clips_parts(reader.rows, reader.states),
        samples=reader.samples,
        sample_rate=reader.sample_rate,
        skip=reader.skip,
        in_graph=reader.decoder is not None,
        versions=versions(),
    )
    return f"{os.fspath(path)}-{key[:16]}"


def _shard(rows: Table, shard: tuple[int, int]) -> Table:
    number, count = shard
    if not 0 <= number < count:
        raise ValueError(f"shard={shard!r}: expected (number, count) with 0 <= number < count")
    if len(rows) < count:
        raise ValueError(f"shard={shard!r}: there are only {len(rows)} rows to share out")
    return rows[np.arange(number, len(rows), count)]


class _Weakly:
    """Calls a method of an object without keeping the object.

    TensorFlow keeps what it is given for ``numpy_function`` until the process ends, and with it would keep a table of
    clips and all its sounds in memory. The reader lives as long as its dataset does, which has other methods of it.
    """

    def __init__(self, method: Callable[..., Any]):
        self._method = weakref.WeakMethod(method)

    def __call__(self, *args: Any) -> Any:
        method = self._method()
        if method is None:
            raise ReferenceError("the dataset of this element is not there any more")
        return method(*args)


class _Reader:
    """Decodes rows of a table inside a tf.data graph."""

    def __init__(
        self, rows: Table, samples: int, sample_rate: int, on_error: OnError, log: list[AudioError] | None
    ) -> None:
        self.rows, self.samples, self.sample_rate = rows, samples, sample_rate
        self.skip, self.log = on_error == "skip", log
        self.targets = tf.constant(rows.targets)
        self.weights = tf.constant(rows.weights) if (rows.weights != 1).any() else None
        self.decoder: GraphDecoder | None = None
        self.lock, self.seen = threading.Lock(), set[str]()
        # Made inside another graph (flat_map) nothing but TensorFlow keeps the reader.
        eager = tf.executing_eagerly()
        self._read: Callable[..., Any] = _Weakly(self._decode) if eager else self._decode
        self._check: Callable[..., Any] = _Weakly(self._still_the_same) if eager else self._still_the_same
        self.states: dict[str, State] = {}

    def read(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Row number -> (usable, row number, waveform (samples,)), as graph operations."""
        if self.decoder is not None:
            return tf.constant(True), row, self._checked(self.decoder.read(row), row)
        waveform, usable = tf.numpy_function(self._read, [row], (tf.float32, tf.bool), stateful=True)
        waveform.set_shape((self.samples,))
        usable.set_shape(())
        return usable, row, waveform

    def _checked(self, waveform: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
        """What the graph decoded, after a check that rows are kept of the very files that they are kept for."""
        if not self.states:
            return waveform
        with tf.control_dependencies([waveform]):
            checked = tf.numpy_function(self._check, [row], tf.bool, stateful=True)
        with tf.control_dependencies([checked]):
            return tf.identity(waveform)

    def label(self, usable: tf.Tensor, row: tf.Tensor, waveform: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Puts the target, and the weight if there are any, beside the waveform."""
        del usable
        return self.with_labels(waveform, row)

    def with_labels(self, waveform: tf.Tensor, row: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The same for one row or a batch of them."""
        labelled = (waveform, tf.gather(self.targets, row))
        return labelled if self.weights is None else (*labelled, tf.gather(self.weights, row))

    def _decode(self, row: np.int64) -> tuple[NDArray[np.float32], np.bool_]:
        try:
            waveform = self.rows.load(int(row), sample_rate=self.sample_rate)
            self._still_the_same(row)
        except AudioError as error:
            if not self.skip:
                raise
            self._note(error)
            return np.zeros(self.samples, np.float32), np.bool_(False)
        if len(waveform) < self.samples:
            waveform = np.pad(waveform, (0, self.samples - len(waveform)))
        return np.ascontiguousarray(waveform[: self.samples]), np.bool_(True)

    def _still_the_same(self, row: np.int64) -> np.bool_:
        """True, or AudioError where the row's file has changed since its state was taken."""
        check_unchanged(path := self.rows.paths[int(row)], self.states.get(path))
        return np.bool_(True)

    def _note(self, error: AudioError) -> None:
        """Warns of a file once, however many rows and epochs it has."""
        with self.lock:
            if error.path in self.seen:
                return
            self.seen.add(error.path)
            if self.log is not None:
                self.log.append(error)
        logger.warning("skipped %s", error)


def check_rows(
    clips: Table, batch_size: Any, window_seconds: float | None, on_error: OnError, sample_rate: int
) -> tuple[Table, int]:
    """The rows that clips become in a dataset, and the samples of each; ValueError for arguments out of range."""
    if len(clips) == 0:
        raise ValueError("clips is empty: there is nothing to make batches of")
    check_number("batch_size", batch_size, least=1, whole=True)
    check_choice("on_error", on_error, OnError)
    if window_seconds is not None:
        check_number("window_seconds", window_seconds, above=0)
    window = window_seconds if window_seconds is not None else min(float(clips.durations.max()), MAX_WINDOW_SECONDS)
    samples = max(1, math.ceil(window * sample_rate - 1e-3))  # durations are rounded fractions
    return clips.windows(window), samples
