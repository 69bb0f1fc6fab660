"""What is heard when: a classifier over files and waveforms of any length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfaudiotl.audio.arrays import check_waveform
from tfaudiotl.audio.files import load_audio
from tfaudiotl.embeddings.engine import trim_padding
from tfaudiotl.errors import AudioError
from tfaudiotl.export.artifact import Artifact, open_artifact
from tfaudiotl.export.verify import cut_windows

WHOLE_SECONDS = 10.0  # a clip of up to this length is classified in one piece, as in training
WINDOW_SECONDS = 0.975  # of a timeline, where the model leaves the choice: one patch of YAMNet


@dataclass(frozen=True)
class Event:
    """A stretch of sound with one label: seconds from the start, and the highest score in it."""

    start: float
    end: float
    label: str
    score: float

    def __str__(self) -> str:
        return f"{self.start:8.2f} - {self.end:8.2f} s  {self.label}  {self.score:.3f}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


class Predictor:
    """A classifier from a Keras model, a .keras file, a SavedModel or a .tflite file.

    Args:
        model: the model or its path.
        window_seconds: length of the windows of a timeline; None: what the file was exported for, else
            0.975 s.
        hop_seconds: from one window's start to the next's; None: half a window.
        threshold: a class is heard from this score on, in [0, 1].
        class_names: names in output order, for files that do not carry them.
    """

    def __init__(
        self,
        model: str | Path | keras.Model,
        *,
        window_seconds: float | None = None,
        hop_seconds: float | None = None,
        threshold: float = 0.5,
        class_names: Sequence[str] | None = None,
    ):
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold!r}: allowed is 0 to 1")
        self.artifact: Artifact = open_artifact(model, class_names=class_names)
        rate = self.artifact.sample_rate
        fixed = self.artifact.samples
        if fixed and window_seconds is not None and round(window_seconds * rate) != fixed:
            raise ValueError(f"window_seconds={window_seconds}: {self.artifact.path} takes {fixed / rate} s at a time")
        self.window = fixed or _samples("window_seconds", window_seconds or WINDOW_SECONDS, rate)
        self.hop = _samples("hop_seconds", hop_seconds, rate) if hop_seconds is not None else max(1, self.window // 2)
        self.threshold = threshold

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the scores."""
        return self.artifact.class_names

    def scores(self, waveform: Any, *, sample_rate: int) -> np.ndarray:
        """Scores of the whole clip, ``(classes,)``: in one piece up to 10 s, else the mean of its pieces'."""
        return self._whole(check_waveform(waveform, sample_rate=sample_rate, target_rate=self.artifact.sample_rate))

    def scores_of_file(self, path: str | Path) -> np.ndarray:
        """Scores of the whole file, ``(classes,)``."""
        return self._whole(load_audio(path, sample_rate=self.artifact.sample_rate))

    def _whole(self, waveform: np.ndarray) -> np.ndarray:
        waveform, samples = trim_padding(waveform), self.artifact.samples
        if samples is None:
            samples = min(max(1, len(waveform)), int(WHOLE_SECONDS * self.artifact.sample_rate))
        pieces = cut_windows(waveform, samples)
        return np.mean([self.artifact.scores(piece[None])[0] for piece in pieces], axis=0)

    def timeline(self, waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Start of each window in seconds ``(windows,)``, and its scores ``(windows, classes)``."""
        windows = cut_windows(waveform, self.window, self.hop)
        batches = [self.artifact.scores(windows[i : i + 32]) for i in range(0, len(windows), 32)]
        return np.arange(len(windows)) * self.hop / self.artifact.sample_rate, np.concatenate(batches)

    def predict(self, waveform: Any, *, sample_rate: int) -> list[Event]:
        """The events in a waveform: an array in [-1, 1] or of integers, ``(samples,)`` or ``(samples, channels)``."""
        return self._events(check_waveform(waveform, sample_rate=sample_rate, target_rate=self.artifact.sample_rate))

    def predict_file(self, path: str | Path) -> list[Event]:
        """The events in a file, in order of their start."""
        return self._events(load_audio(path, sample_rate=self.artifact.sample_rate))

    def _events(self, waveform: np.ndarray) -> list[Event]:
        if not len(waveform):
            raise AudioError("waveform", "has no samples")
        starts, scores = self.timeline(waveform)
        duration = len(waveform) / self.artifact.sample_rate
        events = []
        for column, label in enumerate(self.class_names):
            heard = np.concatenate([[False], scores[:, column] >= self.threshold, [False]])
            edges = np.flatnonzero(heard[1:] != heard[:-1]).reshape(-1, 2)
            for first, after in edges:
                end = min(duration, starts[after - 1] + self.window / self.artifact.sample_rate)
                score = float(scores[first:after, column].max())
                events.append(Event(float(starts[first]), float(end), label, score))
        return sorted(events, key=lambda event: (event.start, -event.score))


def _samples(name: str, seconds: float, rate: int) -> int:
    samples = round(seconds * rate) if np.isfinite(seconds) else 0
    if samples < 1:
        raise ValueError(f"{name}={seconds!r}: a positive number of seconds")
    return samples
