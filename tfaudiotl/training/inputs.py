"""What a step of fine-tuning is fed: cached activations, waveforms, waveforms that change every time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfaudiotl._seeds import stream
from tfaudiotl.audio.chain import as_augmentation
from tfaudiotl.audio.layer import Augmentation, SeededDraws
from tfaudiotl.training.prefix import Job, PrefixCache

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # a waveform (samples,) to another


class CachedInputs:
    """Batches of ``upper_model``'s inputs from a cache.

    Args:
        cache: the activations.
        tensors: numbers of the cache's tensors that the model takes.
    """

    def __init__(self, cache: PrefixCache, tensors: Sequence[int]):
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


def changed(change: Augment, job: Job, seed: tuple[int, ...]) -> np.ndarray:
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
        raise ValueError("augment: MixUp needs the labels too; use it in Clips.dataset(augment=...) and fit")
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
