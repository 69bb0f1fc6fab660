"""Classifying sound as it comes: a ring buffer of one window, and events as soon as they are certain."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import soxr

from tfaudiotl.audio.files import check_rate
from tfaudiotl.errors import AudioError
from tfaudiotl.runtime.events import Event, EventTracker
from tfaudiotl.runtime.predictor import Predictor


class StreamingClassifier:
    """A classifier for a microphone: push samples in chunks of any size, get events back.

    It gives the events that ``Predictor.predict`` gives for the whole sound. ``push`` runs the windows that
    are complete and returns; it never waits for more sound. Memory does not grow with the stream.

    Args:
        model: a Keras model, the path of one, of a SavedModel or a .tflite file, or a ``Predictor``, whose
            settings are then used.
        sample_rate: of the samples pushed, Hz; other rates than the model's are resampled as they come.
        **options: as for ``Predictor``: ``window_seconds``, ``hop_seconds``, ``threshold``, ``release``,
            ``smoothing``, ``min_duration``, ``min_gap``, ``class_names``, ``background``, ``report_background``.
    """

    def __init__(self, model: str | Path | keras.Model | Predictor, *, sample_rate: int = 16_000, **options: Any):
        if isinstance(model, Predictor) and options:
            raise ValueError(f"{', '.join(options)}: a Predictor has its own; give them to it")
        self.predictor = model if isinstance(model, Predictor) else Predictor(model, **options)
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
        self._tracker = EventTracker(p.class_names, p.options, hop=p.hop / rate, window=p.window / rate)
        self.scores: np.ndarray | None = None  # of the last window

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
            samples: ``(samples,)`` float in [-1, 1] or int16, mono, any number of them.

        Raises:
            AudioError: more than one dimension, or numbers that are not finite.
        """
        chunk = _as_float(samples)
        if self._resampler is not None:
            chunk = self._resampler.resample_chunk(chunk)
        return self._take(chunk)

    def finish(self) -> list[Event]:
        """Ends the stream: the last window is filled up with silence; gives the events still open."""
        done: list[Event] = []
        if self._resampler is not None:
            done += self._take(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        # As for a file: the windows cover every sample, and there is at least one.
        p = self.predictor
        covered = self._windows and (self._windows - 1) * p.hop + p.window
        if self._samples > covered:
            padded = np.pad(self._buffer[: self._filled], (0, p.window - self._filled))
            done += self._run(padded)
        done += self._tracker.finish(self.seconds)
        self.reset()
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
                done += self._run(self._buffer)
                kept = max(0, p.window - p.hop)
                self._buffer[:kept] = self._buffer[p.window - kept :]
                self._filled, self._skip = kept, max(0, p.hop - p.window)
        return done

    def _run(self, window: np.ndarray) -> list[Event]:
        self.scores = self.predictor.artifact.scores(window[None])[0]
        self._windows += 1
        return self._tracker.push(self.scores)


def _as_float(samples: Any) -> np.ndarray:
    array = np.asarray(samples)
    if array.ndim != 1:
        raise AudioError("samples", f"shape {array.shape}: allowed is (samples,), mono")
    if array.dtype == np.int16:
        return array.astype(np.float32) / 32_768
    array = array.astype(np.float32, copy=False)
    finite = math.isfinite(array[0]) if len(array) == 1 else np.isfinite(array).all()  # samples may come singly
    if not finite:
        raise AudioError("samples", "numbers that are not finite")
    return array
