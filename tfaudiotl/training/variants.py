"""Embeddings of augmented versions of clips, computed once by the extraction engine, for heads to train on."""

from __future__ import annotations

import math
from collections.abc import Iterator

import keras
import numpy as np

from tfaudiotl._seeds import derived_seed
from tfaudiotl.audio.clips import Clips
from tfaudiotl.audio.dataset import make_dataset
from tfaudiotl.audio.layer import Augmentation
from tfaudiotl.embeddings.engine import PatchNetwork, finite
from tfaudiotl.errors import AudioError, AudioErrors
from tfaudiotl.training.fine_tune import sample_rate_of


def augmented_embeddings(
    model: keras.Model, clips: Clips, augment: Augmentation, *, copies: int, seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Changes every clip ``copies`` times, and runs the changed sounds through the frozen network.

    Args:
        model: a classifier of ``build_classifier``.
        clips: what to change; no row longer than a window.
        augment: how; it must leave the labels alone.
        copies: versions of each clip.
        seed: of the changes.

    Returns:
        For each version the vectors ``(patches, dim)`` and the number of patches of each clip.

    Raises:
        ValueError: ``augment`` mixes clips (``MixUp``), which is for ``Clips.dataset`` and ``fit``.
    """
    if augment.changes_labels:
        raise ValueError(
            "augment: MixUp mixes clips that may come to lie on two sides; use it in Clips.dataset(augment=...) and fit"
        )
    network = PatchNetwork(model, [model.get_layer("patch_embedding").output])
    found, rate = [], sample_rate_of(model)
    for copy in range(copies):
        changed = changed_waveforms(clips, augment, sample_rate=rate, seed=derived_seed("changed copy", seed, copy))
        results = [finite(rows, path) for rows, path in zip(network.run(changed), clips.paths, strict=True)]
        errors = [result for result in results if isinstance(result, AudioError)]
        if errors:
            raise AudioErrors(errors, len(clips), "They are fine as they are, but not changed by this augment=.")
        outputs = [result[0] for result in results if not isinstance(result, AudioError)]
        found.append((np.concatenate(outputs), np.array([len(output) for output in outputs])))
    return found


def changed_waveforms(clips: Clips, augment: Augmentation, *, sample_rate: int, seed: int) -> Iterator[np.ndarray]:
    """One changed waveform per clip, in order, each as long as the clip: no silence behind short ones."""
    longest = float(clips.durations.max())
    dataset = make_dataset(
        clips, batch_size=16, window_seconds=longest, sample_rate=sample_rate, augment=augment, seed=seed
    )
    waveforms = (waveform for batch, *_ in dataset.as_numpy_iterator() for waveform in batch)
    for waveform, seconds in zip(waveforms, clips.durations, strict=True):
        yield waveform[: math.ceil(seconds * sample_rate)]
