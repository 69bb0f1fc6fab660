"""What each training step gets: windows of long clips, cached or as sound, in an order that seed and epoch decide."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import tensorflow as tf

from tfaudiotl._fingerprint import State, fingerprint, unchanged
from tfaudiotl._seeds import stream
from tfaudiotl.audio.files import CANCELLING
from tfaudiotl.audio.waveform import QUIET, SAMPLE_RATE, Grid, Piece, cut, is_silent, mark_end, own_window, sounding
from tfaudiotl.augment.chain import as_augmentation
from tfaudiotl.augment.layers import Augmentation, SeededDraws
from tfaudiotl.data.clips import Clips
from tfaudiotl.data.table import file_states, sound_parts
from tfaudiotl.errors import AudioError
from tfaudiotl.training.activation_cache import ActivationCache, Job
from tfaudiotl.training.options import balanced_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray


Batch = tuple[Any, ...]  # inputs, targets and, if there are any, weights
Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # a waveform (samples,) to another


@contextmanager
def generated(draw: Callable[[], Iterator[Batch]], signature: Any, batches: int) -> Iterator[tf.data.Dataset]:
    """A dataset of what ``draw()`` yields, for the time of the block.

    TensorFlow keeps the function behind ``from_generator`` until the process ends, and with it all that the function
    refers to, such as the embeddings of a training. After the block it refers to nothing.

    Args:
        draw: gives the batches from the beginning.
        signature: of a batch, as for ``from_generator``.
        batches: how many there are.
    """
    held, options = [draw], tf.data.Options()
    # Several devices share each batch; a generator has no files to share out.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    try:
        dataset = tf.data.Dataset.from_generator(lambda: held[0](), output_signature=signature)
        yield dataset.apply(tf.data.experimental.assert_cardinality(batches)).with_options(options).prefetch(4)
    finally:
        held.clear()


class Inputs(Protocol):
    """Gives a model's inputs for rows of a table."""

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of one row, by input."""

    def batch(self, rows: np.ndarray, draw: Sequence[int] | None = None) -> tuple[np.ndarray, ...]:
        """The inputs of ``rows``, each ``(rows, ...)``; ``draw`` seeds what is random in training."""


@dataclass(frozen=True)
class BatchPlan:
    """Which rows make up which batch.

    Attributes:
        inputs: where a batch's inputs come from.
        targets: float32 ``(rows, classes)`` of the whole table.
        weights: float32 ``(rows,)`` of the whole table.
        batch_size: rows per step.
        seed: of the order, and of the variants drawn.
        variants: ``(variants, rows)``: the input rows that may stand for a row, one drawn per epoch; None: itself.
        full_batches: leave out an epoch's last rows when they do not fill a batch: static shapes, for TPU.
        devices: that share each batch. They wait for each other, so each gets as many rows as the others: a batch that
            does not come out even is filled with rows of its own that weigh 0.
    """

    inputs: Inputs
    targets: np.ndarray
    weights: np.ndarray
    batch_size: int
    seed: int = 0
    variants: np.ndarray | None = None
    full_batches: bool = False
    devices: int = 1

    @property
    def size(self) -> int:
        """Rows of a full batch: ``batch_size``, or the next multiple of ``devices``."""
        return -(-self.batch_size // self.devices) * self.devices

    def steps(self, rows: np.ndarray) -> int:
        """Batches of an epoch over ``rows``."""
        if self.full_batches:
            if len(rows) < self.size:
                raise ValueError(
                    f"batch_size={self.batch_size}: there are {len(rows)} rows to train on, none would be used"
                )
            return len(rows) // self.size
        return math.ceil(len(rows) / self.size)

    def training(
        self, rows: np.ndarray, *, balanced: bool, first: int, last: int
    ) -> AbstractContextManager[tf.data.Dataset]:
        """Shuffled batches of ``rows`` for the epochs ``first`` to ``last - 1``, with sample weights of mean 1."""
        weights, steps = self._weights(rows, balanced), self.steps(rows)

        def draw() -> Iterator[Batch]:
            for epoch in range(first, last):
                rng = stream("batches", self.seed, epoch)
                order = rng.permutation(len(rows))
                stands_in = rows
                if self.variants is not None:
                    stands_in = self.variants[rng.integers(len(self.variants), size=len(rows)), rows]
                for step, (some, shares) in enumerate(self._parts(order[: steps * self.size])):
                    yield (
                        self._inputs(stands_in[some], (self.seed, epoch, step)),
                        self.targets[rows[some]],
                        weights[some] * shares,
                    )

        return self._dataset(draw, steps * (last - first), full=self.full_batches)

    def in_order(self, rows: np.ndarray, *, balanced: bool = False) -> AbstractContextManager[tf.data.Dataset]:
        """The batches of ``rows`` as they come, once, for validation, with weights as in training.

        What fills the last batch up comes behind all rows.
        """
        weights = self._weights(rows, balanced)

        def draw() -> Iterator[Batch]:
            for some, shares in self._parts(np.arange(len(rows))):
                yield self._inputs(rows[some]), self.targets[rows[some]], weights[some] * shares

        return self._dataset(draw, math.ceil(len(rows) / self.size), full=False)

    def _parts(self, order: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """``order`` in batches, with what each row weighs: 1, or more beside rows of 0, so that the mean is 1."""
        for start in range(0, len(order), self.size):
            some = order[start : start + self.size]
            filled = -(-len(some) // self.devices) * self.devices
            yield np.resize(some, filled), np.where(np.arange(filled) < len(some), np.float32(filled / len(some)), 0)

    def _weights(self, rows: np.ndarray, balanced: bool) -> np.ndarray:
        weights = self.weights[rows] * (balanced_weights(self.targets[rows]) if balanced else 1.0)
        return (weights / weights.mean()).astype(np.float32)

    def _inputs(self, rows: np.ndarray, draw: Sequence[int] | None = None) -> Any:
        inputs = self.inputs.batch(rows, draw)
        return inputs if len(inputs) > 1 else inputs[0]

    def _dataset(
        self, draw: Callable[[], Iterator[Batch]], batches: int, *, full: bool
    ) -> AbstractContextManager[tf.data.Dataset]:
        size = self.size if full else None
        inputs = tuple(tf.TensorSpec((size, *shape), tf.float32) for shape in self.inputs.shapes)
        signature: tuple[object, ...] = (
            inputs if len(inputs) > 1 else inputs[0],
            tf.TensorSpec((size, self.targets.shape[1]), tf.float32),
            tf.TensorSpec((size,), tf.float32),
        )
        return generated(draw, signature, batches)


class CachedInputs:
    """Batches of ``upper_model``'s inputs from a cache.

    Args:
        cache: the activations.
        tensors: numbers of the cache's tensors that the model takes.
    """

    def __init__(self, cache: ActivationCache, tensors: Sequence[int]):
        self.cache, self.tensors = cache, list(tensors)
        patches = cache.patches
        self.shapes = [(patches, *cache.shapes[tensor]) for tensor in self.tensors] + [(patches,)]

    def batch(self, rows: np.ndarray, draw: Sequence[int] | None = None) -> tuple[np.ndarray, ...]:
        """The inputs of ``rows``, each ``(rows, patches, ...)``, zeros where a sound has fewer patches."""
        inputs = [np.zeros((len(rows), *shape), np.float32) for shape in self.shapes]
        for place, row in enumerate(rows.tolist()):
            count = self.cache.counts[row]
            for values, tensor in zip(inputs, self.tensors, strict=False):
                values[place, :count] = self.cache.read(tensor, row)
            inputs[-1][place, :count] = 1.0
        return tuple(inputs)


class WaveformInputs:
    """Batches of waveforms, decoded when they are drawn.

    Args:
        jobs: one per row.
        samples: length that they are padded or cut to.
    """

    def __init__(self, jobs: Sequence[Job], samples: int):
        self.jobs, self.shapes = jobs, [(samples,)]

    def batch(self, rows: np.ndarray, draw: Sequence[int] | None = None) -> tuple[np.ndarray, ...]:
        """The waveforms of ``rows``, ``(rows, samples)``."""
        return (self._filled([self.jobs[row]() for row in rows.tolist()]),)

    def _filled(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Padded or cut to one length."""
        filled = np.zeros((len(waveforms), *self.shapes[0]), np.float32)
        for row, waveform in zip(filled, waveforms, strict=True):
            row[: len(waveform)] = waveform[: len(row)]
        return filled


class ChangedInputs(WaveformInputs):
    """Waveforms changed again in every batch of the training, in the same way for the same draw.

    Args:
        jobs: one per row.
        samples: length that they are padded or cut to.
        change: how.
    """

    def __init__(self, jobs: Sequence[Job], samples: int, change: Augment):
        super().__init__(jobs, samples)
        self._change = change

    def batch(self, rows: np.ndarray, draw: Sequence[int] | None = None) -> tuple[np.ndarray, ...]:
        """As they are without a ``draw``, for validation; what is changed is each sound without its padding."""
        if draw is None:
            return super().batch(rows)
        rng = stream("changed batch", *draw)
        return (self._filled([self._change(self.jobs[row](), rng) for row in rows.tolist()]),)


@dataclass(frozen=True)
class Sounds:
    """What a classifier learns from: windows of clips, each decoded when it is needed.

    Attributes:
        jobs: for each window a function that gives its waveform ``(samples,)``; behind them those of changed copies.
        paths: the file of each job, for messages.
        targets: float32 ``(windows, classes)``.
        weights: float32 ``(windows,)``.
        samples: of the longest window.
        digest: changes with all that the jobs give.
        variants: int ``(1 + copies, windows)``: the jobs that may stand for a window in training, first its own; None:
            its own alone.
    """

    jobs: Sequence[Job]
    paths: Sequence[str]
    targets: np.ndarray
    weights: np.ndarray
    samples: int
    digest: str
    variants: np.ndarray | None = None

    @classmethod
    def of(cls, clips: Sequence[Clips], *, sample_rate: int, allow_silence: bool = True) -> Sounds:
        """The windows of several tables, one after another; silent ones raise AudioError unless they are allowed."""
        states = [file_states(part) for part in clips]
        jobs = [
            partial(
                _read,
                partial(part.load, row, sample_rate=sample_rate),
                path,
                known.get(path),
                allow_silence,
                partial(part.cancelled, row),
            )
            for part, known in zip(clips, states, strict=True)
            for row, path in enumerate(part.paths)
        ]
        longest = max(float(part.durations.max()) for part in clips)
        parts = [sound_parts(part, known) for part, known in zip(clips, states, strict=True)]
        return cls(
            jobs,
            [path for part in clips for path in part.paths],
            np.concatenate([part.targets for part in clips]),
            np.concatenate([part.weights for part in clips]),
            max(1, int(np.ceil(longest * sample_rate - 1e-3))),
            fingerprint(sounds=parts, sample_rate=sample_rate, allow_silence=allow_silence),
        )

    def changed(self, augment: Augmentation | Augment, *, copies: int, rows: np.ndarray, seed: int) -> Sounds:
        """These sounds with ``copies`` changed versions of those of ``rows``; the same ones for the same seed."""
        if copies < 1:
            raise ValueError(f"copies={copies!r}: augment= needs a whole number of at least 1")
        change, windows = as_function(augment), len(self.targets)
        jobs, variants = list(self.jobs), np.tile(np.arange(windows), (1 + copies, 1))
        for copy in range(1, 1 + copies):
            variants[copy, rows] = len(jobs) + np.arange(len(rows))
            jobs += [partial(_changed, change, self.jobs[row], (seed, copy, row)) for row in rows.tolist()]
        return replace(
            self,
            jobs=jobs,
            paths=[*self.paths, *[self.paths[row] for row in rows.tolist()] * copies],
            variants=variants,
            digest=fingerprint(sounds=self.digest, augment=augment, copies=copies, rows=rows, seed=seed),
        )


def _read(load: Job, path: str, state: State, allow_silence: bool, cancelled: Callable[[], bool]) -> np.ndarray:
    waveform = unchanged(load, path, state)
    if allow_silence or np.max(np.abs(waveform), initial=0) >= QUIET:
        return waveform
    if cancelled():
        raise AudioError(path, CANCELLING)
    if is_silent(waveform):
        raise AudioError(path, "silent: every sample is zero; if that is a class of yours, pass allow_silence=True")
    return waveform


def _changed(change: Augment, job: Job, seed: tuple[int, ...]) -> np.ndarray:
    """The job's waveform, changed in the way of ``seed``."""
    return np.asarray(change(job(), stream("changed copy", *seed)), np.float32)


def checked_augment(augment: Any, *, sample_rate: int) -> Any:
    """What ``augment=`` means: True and layers as for ``Clips.dataset``, a function as it is; None for nothing.

    Args:
        augment: as the caller gave it.
        sample_rate: of the waveforms, Hz.

    Raises:
        ValueError: something else, or ``MixUp``, which needs the labels.
    """
    if callable(augment) and not isinstance(augment, Augmentation):
        return augment
    layer = as_augmentation(augment, sample_rate=sample_rate)
    if layer is not None and layer.changes_labels:
        raise ValueError("augment: MixUp mixes clips and their labels; use it in Clips.dataset(augment=...) and fit")
    return layer


def as_function(augment: Augmentation | Augment | None) -> Augment:
    """A function of waveform and generator, from what ``checked_augment`` gives."""
    if augment is None:
        return lambda waveform, rng: waveform
    if not isinstance(augment, Augmentation):
        return augment

    def change(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        draws = SeededDraws(rng.integers(2**31, size=2))
        return np.asarray(augment.augment(waveform[None], draws))[0]

    return change


_TAIL_SECONDS = 1.0  # of a long clip, looked at for the end of its sound
_HALF = 0.5  # of a sample: a span's end falls on a frame of the file, and must not reach into a patch more


@dataclass(frozen=True, eq=False, repr=False)
class PatchWindows(Clips):
    """Clips of ``patch_windows``.

    Attributes:
        patches: int64 (rows,): the patches of each row, its weight in the clip's score.
        inner: int64 (rows,): samples of a row after which its clip continues, else 0.
    """

    patches: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    inner: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def load(self, row: int, *, sample_rate: int = SAMPLE_RATE) -> NDArray[np.float32]:
        """As ``Clips.load``; silence at the end of a window is marked as sound where the clip continues."""
        waveform = super().load(row, sample_rate=sample_rate)
        return mark_end(waveform[: self.inner[row]]) if self.inner[row] else waveform


def patch_windows(clips: Clips, grid: Grid, window_seconds: float) -> PatchWindows:
    """Cuts clips on a network's grid, as ``audio.waveform.cut`` does for a model in use.

    A clip that has no more patches than ``window_seconds`` of sound stays one row. Of a longer one there are no rows of
    nothing but the zeros at its end.

    Args:
        clips: what to cut.
        grid: where the network's patches lie.
        window_seconds: sound of this length fits into a row, over 0.

    Returns:
        Rows with the labels, fold, group and weight of the clips they were cut from; ``source`` is the number of the
        clip. They are to be loaded at the grid's sample rate.

    Raises:
        ValueError: ``window_seconds`` is out of range.
    """
    if not 0 < window_seconds < np.inf:
        raise ValueError(f"window_seconds={window_seconds!r}: expected a number of seconds over 0")
    rate, window = grid.sample_rate, own_window(grid, window_seconds)
    lengths = np.maximum(1, np.ceil(clips.durations * rate - 1e-6)).astype(np.int64)
    with ThreadPoolExecutor(2) as pool:
        long = np.flatnonzero(lengths > window).tolist()
        lengths[long] = list(pool.map(lambda row: _sounding(clips, row, int(lengths[row]), rate), long))
    pieces = [cut(int(length), grid, window) for length in lengths]
    counts = [len(parts) for parts in pieces]
    source = np.repeat(np.arange(len(clips)), counts)
    flat: list[Piece] = [piece for parts in pieces for piece in parts]
    last = np.cumsum(counts) - 1
    inner = np.array([piece.stop - piece.start for piece in flat], np.int64)
    inner[last] = 0
    begin = np.array([piece.start / rate for piece in flat])
    stop = np.minimum(begin + (window - _HALF) / rate, clips.durations[source])
    stop = np.where(inner, np.array([piece.stop - _HALF for piece in flat]) / rate, stop)
    ends = np.where(stop < clips.durations[source], clips.starts[source] + stop, clips.ends[source])
    rows = clips[source]
    columns = {name: getattr(rows, name) for name in Clips.__dataclass_fields__}
    columns |= {"starts": rows.starts + begin, "ends": ends, "durations": stop - begin, "source": source}
    patches = np.array([piece.patches for piece in flat], np.int64)
    return PatchWindows(**columns, patches=patches, inner=inner)


def _sounding(clips: Clips, row: int, samples: int, rate: int) -> int:
    """Samples of a long clip without the zeros at its end; all where it cannot be read, which loading raises."""
    duration, tail = float(clips.durations[row]), _TAIL_SECONDS
    try:
        while tail < 2 * duration:
            first = max(0.0, np.floor(duration - tail))
            part = replace(clips[[row]], starts=clips.starts[[row]] + first, durations=np.array([duration - first]))
            end = Clips.load(part, 0, sample_rate=rate)
            if np.any(end):
                return min(samples, round(first * rate) + sounding(end))
            tail *= 4
    except AudioError:
        return samples
    return 1


def means_by_clip(scores: np.ndarray, source: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The clips that windows with ``scores (windows, classes)`` come from, and the clips' scores.

    Args:
        scores: of the windows.
        source: ``(windows,)``: the clip of each.
        weights: ``(windows,)``: its patches.
    """
    rows, place = np.unique(source, return_inverse=True)
    sums = np.zeros((len(rows), scores.shape[1]))
    np.add.at(sums, place, scores * weights[:, None])
    return rows, sums / np.bincount(place, weights)[:, None]
