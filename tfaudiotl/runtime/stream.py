"""Classifying sound as it comes: a ring buffer of one window, and events as soon as they are certain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import soxr

from tfaudiotl.audio.waveform import check_rate, check_samples, resampled_length, scale
from tfaudiotl.errors import AudioError
from tfaudiotl.runtime.events import Event, EventTracker
from tfaudiotl.runtime.predictor import Predictor


class StreamingClassifier:
    """A classifier for a microphone: push samples in chunks of any size, get events back.

    It gives the events that ``Predictor.predict`` gives for the whole sound. ``push`` runs the windows that
    are complete and returns; it never waits for more sound. Memory does not grow with the stream. After ``finish`` the
    attribute ``clip_scores`` is the mean of the windows' scores by their patches: what ``Predictor.scores`` gives,
    where the windows hold each patch once (as they do by themselves where a window is one patch).

    Args:
        model: a ``Predictor`` with settings of its own; or a Keras model, the path of one, of a SavedModel or a .tflite
            file, for a ``Predictor``'s defaults.
        sample_rate: of the samples pushed, Hz; other rates than the model's are resampled as they come.
    """

    def __init__(self, model: str | Path | keras.Model | Predictor, *, sample_rate: int = 16_000):
        self.predictor = model if isinstance(model, Predictor) else Predictor(model)
        self.sample_rate = check_rate("sample_rate", sample_rate)
        self.reset()

    def reset(self) -> None:
        """Forgets all sound: the next sample is at second 0."""
        p, rate = self.predictor, self.predictor.artifact.sample_rate
        same = self.sample_rate == rate
        self._resampler = None if same else soxr.ResampleStream(self.sample_rate, rate, 1, dtype="float32")
        self._buffer = np.zeros(p.window, np.float32)  # the last samples, oldest first
        self._filled = 0  # of the buffer
        self._skip = 0  # samples to pass over, where windows leave gaps between them
        self._windows = self._samples = 0
        self._pushed = 0  # samples at the rate of the stream
        self._total = _Mean()
        self._tracker = EventTracker(p.class_names, p.options, hop=p.hop / rate, window=p.window / rate)
        self.scores: np.ndarray | None = None  # of the last window
        self.clip_scores: np.ndarray | None = None  # of the sound that was last finished

    @property
    def seconds(self) -> float:
        """How much sound has been heard."""
        return self._samples / self.predictor.artifact.sample_rate

    @property
    def active(self) -> list[str]:
        """The classes heard at the moment."""
        return self._tracker.active

    def push(self, samples: Any) -> list[Event]:
        """Takes the next samples and gives the events that have ended.

        Args:
            samples: ``(samples,)``, mono, any number of them: float in about [-1, 1], or int8, int16, int32 or uint8,
                which are scaled as ``Predictor`` scales them.

        Raises:
            AudioError: more than one dimension, another type, numbers that are not finite, or floats that were never
                scaled.
        """
        chunk = _as_float(samples)
        self._pushed += len(chunk)
        if self._resampler is not None:
            chunk = self._resampler.resample_chunk(chunk)
        return self._take(chunk)

    def finish(self) -> list[Event]:
        """Ends the stream: the last window is filled up with silence; gives the events still open.

        ``clip_scores`` is set then.
        """
        done: list[Event] = []
        rate = self.predictor.artifact.sample_rate
        if self._resampler is not None:
            rest = self._resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            missing = max(0, resampled_length(self._pushed, self.sample_rate, rate) - self._samples)
            done += self._take(np.pad(rest, (0, max(0, missing - len(rest))))[:missing])  # a file's length
        # As for a file: the windows cover every sample, and there is at least one.
        p = self.predictor
        covered = self._windows and (self._windows - 1) * p.hop + p.window
        if self._samples > covered:
            padded = np.pad(self._buffer[: self._filled], (0, p.window - self._filled))
            done += self._run(padded, self._filled)
        done += self._tracker.finish(self.seconds)
        total = self._total
        self.reset()
        self.clip_scores = total.mean
        return done

    def _take(self, chunk: np.ndarray) -> list[Event]:
        done: list[Event] = []
        p = self.predictor
        self._samples += len(chunk)
        if not self._skip and len(chunk) < p.window - self._filled:  # most pushes complete no window
            self._buffer[self._filled : self._filled + len(chunk)] = chunk
            self._filled += len(chunk)
            return done
        while len(chunk):
            passed = min(self._skip, len(chunk))
            self._skip -= passed
            chunk = chunk[passed:]
            taken = min(p.window - self._filled, len(chunk))
            self._buffer[self._filled : self._filled + taken] = chunk[:taken]
            self._filled += taken
            chunk = chunk[taken:]
            if self._filled == p.window:
                done += self._run(self._buffer, p.window)
                kept = max(0, p.window - p.hop)
                self._buffer[:kept] = self._buffer[p.window - kept :]
                self._filled, self._skip = kept, max(0, p.hop - p.window)
        return done

    def _run(self, window: np.ndarray, filled: int) -> list[Event]:
        p, grid = self.predictor, self.predictor.artifact.grid
        self.scores = p.artifact.scores(window[None])[0]
        sounding = int(np.flatnonzero(window)[-1]) + 1 if np.any(window) else 0
        patches, valid = int(grid.patches(filled)), int(grid.patches(max(1, sounding)))
        new = sounding > max(0, p.window - p.hop) if self._windows else True
        self._total.add(self.scores.astype(np.float64), patches, valid, sounds=new)
        self._windows += 1
        return self._tracker.push(self.scores, p.kind_of(window, filled))


class _Mean:
    """Mean of windows' scores by their patches; what follows the last sound is padding, and does not count."""

    def __init__(self) -> None:
        self._sum: Any = 0.0
        self._weight = 0
        self._silent: Any = 0.0  # since then
        self._silent_weight = 0

    def add(self, scores: np.ndarray, patches: int, valid: int, *, sounds: bool) -> None:
        """Takes a window of ``patches`` patches, ``valid`` of them up to its last sample that is not zero.

        ``sounds``: it holds sound that no window before it had.
        """
        if sounds:
            self._sum, self._weight = (
                self._sum + self._silent + valid * scores,
                self._weight + self._silent_weight + valid,
            )
            self._silent, self._silent_weight = 0.0, 0
            patches -= valid
        self._silent, self._silent_weight = self._silent + patches * scores, self._silent_weight + patches

    @property
    def mean(self) -> np.ndarray | None:
        """``(classes,)``; None if nothing was taken."""
        return self._sum / self._weight if self._weight else None


def _as_float(samples: Any) -> np.ndarray:
    array = np.asarray(samples)
    if array.ndim != 1:
        raise AudioError("samples", f"shape {array.shape}: allowed is (samples,), mono")
    if not len(array):
        return np.zeros(0, np.float32)
    scaled = scale("samples", array)
    check_samples("samples", scaled)
    return scaled
