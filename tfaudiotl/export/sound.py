"""The sound that exports are calibrated and checked on: clips cut into windows, and patches of them."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfaudiotl._seeds import stream
from tfaudiotl._threads import map_ahead
from tfaudiotl.audio.clips import Clips
from tfaudiotl.audio.waveform import is_silent, pieces_of
from tfaudiotl.backbones.frontend import LogMel, LogMelSpec, Patches, PatchGrid

Sound = Clips | Sequence[np.ndarray]  # labelled clips, or waveforms at the model's rate

CLIPS = 200  # clips to calibrate on, at most
LEAST = 10  # windows that say anything about a network's ranges


def waveforms_of(sound: Sound, *, sample_rate: int, limit: int | None = None) -> list[np.ndarray]:
    """The clips' samples at ``sample_rate``; of more than ``limit``, evenly chosen ones."""
    rows = np.arange(len(sound))
    if limit is not None and len(rows) > limit:
        rows = rows[np.linspace(0, len(rows) - 1, limit).astype(int)]
    if isinstance(sound, Clips):
        return list(map_ahead(lambda row: sound.load(int(row), sample_rate=sample_rate), rows))
    return [np.asarray(sound[int(row)], np.float32) for row in rows]


def check_calibration(sound: Sound, class_names: Sequence[str]) -> None:
    """ValueError where there is no sound, or labels have nothing to do with the model's classes."""
    if not len(sound):
        raise ValueError("calibrate is empty: give clips like those that the model will hear")
    if isinstance(sound, Clips) and class_names:
        known = {label for labels in sound.labels for label in labels}
        if not known & set(class_names):
            raise ValueError(
                f"calibrate has clips of {sorted(known)[:5]}, and the model's classes are {list(class_names)[:5]}: "
                "give clips of the model's own classes, or waveforms without labels"
            )


def calibration_windows(
    sound: Sound,
    samples: int,
    *,
    grid: PatchGrid,
    limit: int = 200,
    seed: int = 0,
) -> np.ndarray:
    """Windows ``(windows, samples)`` to calibrate on; refuses sound that says nothing about ranges.

    Args:
        sound: clips, or waveforms.
        samples: per window.
        grid: where the model's patches lie, for the cutting; waveforms have its rate already.
        limit: windows at most.
        seed: of their choice.

    Raises:
        ValueError: nothing but silence.
    """
    waveforms = waveforms_of(sound, sample_rate=grid.sample_rate, limit=CLIPS)
    windows = np.array([piece for waveform in waveforms for piece, _ in pieces_of(waveform, grid, samples)])
    windows = windows[[not is_silent(window) for window in windows]]
    if len(windows) < min(LEAST, len(waveforms)) or not len(windows):
        raise ValueError(f"calibrate has {len(windows)} windows that are not silent: nothing to take ranges from")
    chosen = stream("calibration", seed).permutation(len(windows))[:limit]
    return np.ascontiguousarray(windows[np.sort(chosen)])


def same_sounds(calibrate: Sound | None, verify: Sound | None) -> int:
    """How many sounds of ``verify`` are of recordings in ``calibrate`` as well; a warning if there are any."""
    if calibrate is None or verify is None:
        return 0
    known = set(_identities(calibrate))
    shared = sum(identity in known for identity in _identities(verify))
    if shared:
        warnings.warn(
            f"verify: {shared} of {len(verify)} clips are of recordings in calibrate; others may agree less",
            stacklevel=3,
        )
    return shared


def _identities(sound: Sound) -> list[str | bytes]:
    """Of each sound: its file, or a digest of its samples where it is in memory."""
    paths = sound.paths if isinstance(sound, Clips) else [""] * len(sound)
    found: list[str | bytes] = []
    for row, path in enumerate(paths):
        if os.path.isfile(path):
            found.append(os.path.realpath(path))
        else:
            samples = sound.load(row) if isinstance(sound, Clips) else np.asarray(sound[row], np.float32)
            found.append(hashlib.sha256(samples.tobytes()).digest())
    return found


def patch_maker(spec: LogMelSpec) -> Callable[[np.ndarray], np.ndarray]:
    """A function from waveforms ``(batch, samples)`` to patches ``(batch, patches, frames, bands)``."""
    inputs = keras.Input((None,))
    frames = LogMel(spec)(inputs)
    model = keras.Model(inputs, Patches(patch_frames=spec.patch_frames, patch_hop=spec.patch_hop)(frames))
    graph = tf.function(
        lambda x: model(x, training=False), input_signature=[tf.TensorSpec((None, None), tf.float32)], autograph=False
    )
    return lambda waveforms: graph(tf.constant(waveforms, tf.float32)).numpy()


def patches_of(windows: np.ndarray, spec: LogMelSpec) -> np.ndarray:
    """Patches ``(windows, frames, bands)`` of windows of one patch each."""
    make = patch_maker(spec)
    return np.concatenate([make(windows[i : i + 64])[:, 0] for i in range(0, len(windows), 64)])
