"""Small clips, classifiers and heads for the tests of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

from tests.helpers.sounds import KINDS, sound
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.classifiers.heads import dense_head
from tfaudiotl.data.clips import Clips
from tfaudiotl.training.head import Examples

QUICK: dict[str, Any] = {"trainable": 1, "head_epochs": 2, "epochs": 2, "batch_size": 6, "verbose": False}


def clips(per_class: int = 6, seed: int = 0, *, seconds: tuple[float, float] = (0.5, 1.6)) -> Clips:
    rng = np.random.default_rng(seed)
    labels = [kind for kind in KINDS for _ in range(per_class)]
    waveforms = [sound(kind, rng, seconds=rng.uniform(*seconds)) for kind in labels]
    return Clips.from_arrays(waveforms, labels, sample_rate=16_000)


def turned_fold(folder: Path) -> Clips:
    """The clips of ``write_folder`` in their folds, with the labels of fold 2 turned round."""
    clips = Clips.from_directory(folder, fold_pattern=r"^(\d)-")
    turn = {"high": "low", "low": "noise", "noise": "high"}
    folds = list(clips.fold)  # type: ignore[arg-type]
    labels = [turn[names[0]] if fold == "2" else names[0] for names, fold in zip(clips.labels, folds, strict=True)]
    return Clips.from_files(clips.paths, labels, folds=folds)


def classifier(stand_in: Path, **options: Any) -> keras.Model:
    options = {"embedding": "layer3", "hidden": (8,), "seed": 1, **options}
    return build_classifier("yamnet", class_names=sorted(KINDS), weights=str(stand_in), **options)


class Steps(keras.callbacks.Callback):
    """The mean loss of the epoch so far, after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.losses.append((logs or {})["loss"])


def examples(clips: int = 60, *, seed: int = 0, spread: float = 1.0) -> Examples:
    """Three classes of vectors around three centres; clips of one to four patches."""
    rng = np.random.default_rng(seed)
    labels = np.arange(clips) % 3
    counts = rng.integers(1, 5, clips)
    centres = np.random.default_rng(99).normal(size=(3, 8)) * [1, 1, 1, 1, 100, 100, 0.01, 0.01]
    noise = rng.normal(size=(counts.sum(), 8)) * [1, 1, 1, 1, 100, 100, 0.01, 0.01] * spread
    vectors = centres[np.repeat(labels, counts)] + noise
    return Examples(vectors.astype(np.float32), counts, np.eye(3, dtype=np.float32)[labels], np.ones(clips, np.float32))


def head(*, multi_label: bool = False, hidden: tuple[int, ...] = (16,), seed: int = 0) -> keras.Model:
    inputs = keras.Input((8,))
    return keras.Model(inputs, dense_head(inputs, ["a", "b", "c"], hidden=hidden, multi_label=multi_label, seed=seed))
