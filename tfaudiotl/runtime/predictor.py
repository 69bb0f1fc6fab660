"""What is heard when: a classifier over files and waveforms of any length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfaudiotl._threads import map_ahead
from tfaudiotl.audio.files import CANCELLING, channels_cancel, open_samples
from tfaudiotl.audio.waveform import QUIET, Sound, check_waveform, frames
from tfaudiotl.backbones.scores import THRESHOLD, check_background
from tfaudiotl.errors import AudioError, WeightsError
from tfaudiotl.runtime.events import AUDIBLE, FRAME_SECONDS, Event, EventOptions, EventTracker, Kind, in_order, kind_of
from tfaudiotl.runtime.load import Artifact, open_artifact, score_clip

__all__ = ["Event", "Prediction", "Predictor", "Summary"]

BATCH = 32  # windows of a timeline in one run
SHORT = 0.1  # of what the model takes: what is shorter than that is mostly the zeros that fill it up
LOOK = 1 << 20  # samples looked at together


@dataclass(frozen=True)
class Summary:
    """One class over a whole file.

    Attributes:
        label: the class.
        mean, peak: of its scores over the windows.
        seconds: how long it was heard, by its events.
        events: how often.
    """

    label: str
    mean: float
    peak: float
    seconds: float
    events: int


@dataclass(frozen=True)
class Prediction:
    """What was heard in one sound.

    Attributes:
        sound: ``(samples,)`` at ``sample_rate``; of a long file what reads it in parts.
        sample_rate: Hz, the model's.
        class_names: in the order of the scores.
        starts: ``(windows,)`` seconds.
        scores: ``(windows, classes)``, as they came, not smoothed.
        window_seconds: length of a window.
        events: in order of their start.
    """

    sound: Sound
    sample_rate: int
    class_names: tuple[str, ...]
    starts: np.ndarray
    scores: np.ndarray
    window_seconds: float
    events: list[Event]

    @property
    def duration(self) -> float:
        """Seconds of the sound."""
        return len(self.sound) / self.sample_rate

    @property
    def waveform(self) -> np.ndarray:
        """``(samples,)`` at ``sample_rate``: all of the sound, which of a long file is read for it."""
        return self.sound[:]

    def summary(self) -> list[Summary]:
        """Every class over the whole sound, the one with the highest mean score first."""
        rows = []
        for column, label in enumerate(self.class_names):
            own = [event for event in self.events if event.label == label]
            scores = self.scores[:, column]
            seconds = sum(event.end - event.start for event in own)
            rows.append(Summary(label, float(scores.mean()), float(scores.max()), seconds, len(own)))
        return sorted(rows, key=lambda row: -row.mean)

    def plot(self, path: str | Path, *, classes: int = 8) -> Path:
        """Draws waveform, spectrogram and the timeline of the ``classes`` highest classes into a picture file."""
        from tfaudiotl.evaluation.plots import save_figure, timeline_figure  # here, since matplotlib takes its time

        figure = timeline_figure(
            self.waveform,
            self.sample_rate,
            starts=self.starts,
            scores=self.scores,
            class_names=self.class_names,
            window_seconds=self.window_seconds,
            events=[(event.start, event.end, event.label) for event in self.events],
            classes=classes,
        )
        return save_figure(figure, path, dpi=110)


class Predictor:
    """A classifier from a Keras model, a .keras file, a SavedModel or a .tflite file.

    Args:
        model: the model or its path.
        window_seconds: length of the windows of a timeline; None: what the file was exported for, else what the model
            hears at once (a patch; 10 s where its head hears a clip's patches together), else 0.975 s.
        hop_seconds: from one window's start to the next's; None: half a window in whole patches of the model (where the
            window is one patch, to the next one: YAMNet's 0.48 s).
        threshold: a class is heard from this score on, in [0, 1]: one for all, or a mapping from class name to score,
            such as ``choose_thresholds`` gives (other classes: 0.5), or one for each class in output order; None: what
            the file says, else 0.5.
        class_names: names in output order, for files that do not carry them.
        release: a class heard ceases below this score, at most ``threshold``, likewise; None: at ``threshold``.
        smoothing: scores are averaged over so many windows, an odd number.
        min_duration: seconds; shorter events are dropped.
        min_gap: seconds; events of a class with less between them are joined.
        background: a class that is never an event; None: the one that the file says, if it does.
        report_background: give events of that class all the same.
        num_threads: for .tflite files; None: one per core.

    Raises:
        ValueError: an argument outside what is allowed.
        WeightsError: a model that cannot be opened, has no class names, or is no classifier.
    """

    def __init__(
        self,
        model: str | Path | keras.Model,
        *,
        window_seconds: float | None = None,
        hop_seconds: float | None = None,
        threshold: float | Mapping[str, Any] | Sequence[Any] | None = None,
        class_names: Sequence[str] | None = None,
        release: float | Mapping[str, Any] | Sequence[Any] | None = None,
        smoothing: int = 1,
        min_duration: float = 0.0,
        min_gap: float = 0.0,
        background: str | None = None,
        report_background: bool = False,
        num_threads: int | None = None,
    ):
        self.artifact: Artifact = open_artifact(model, class_names=class_names, num_threads=num_threads)
        if not self.artifact.class_names:
            raise WeightsError(
                f"model={self.artifact.path!r}: gives embeddings, not scores, or is a classifier without class names; "
                "for a classifier pass class_names="
            )
        if threshold is None:
            threshold = THRESHOLD if self.artifact.score_threshold is None else self.artifact.score_threshold
        background = check_background(background, self.class_names) or self.artifact.background
        background = None if report_background else background
        self.options = EventOptions(threshold, release, smoothing, min_duration, min_gap, background)
        self.options.scores(self.class_names)  # refuses thresholds of other classes
        rate, fixed = self.artifact.sample_rate, self.artifact.samples
        if fixed and window_seconds is not None and round(window_seconds * rate) != fixed:
            raise ValueError(f"window_seconds={window_seconds}: {self.artifact.path} takes {fixed / rate} s at a time")
        own = self.artifact.window
        self.window = own if window_seconds is None else _samples("window_seconds", window_seconds, rate)
        step = half_in_patches(self.window, self.artifact.grid.patch_hop_samples)
        self.hop = step if hop_seconds is None else _samples("hop_seconds", hop_seconds, rate)

    @property
    def threshold(self) -> float | Mapping[str, Any] | Sequence[Any]:
        """The score from which a class is heard: one for all, or for each."""
        return self.options.threshold

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the scores."""
        return self.artifact.class_names

    def scores(self, waveform: Any, *, sample_rate: int) -> np.ndarray:
        """Scores of the whole clip, ``(classes,)``: see ``score_clip``."""
        return score_clip(self.artifact, self._checked(waveform, sample_rate))

    def scores_of_file(self, path: str | Path) -> np.ndarray:
        """Scores of the whole file, ``(classes,)``."""
        return score_clip(self.artifact, self.open(path))

    def scores_of_files(self, paths: Sequence[str | Path]) -> np.ndarray:
        """Scores of many files, ``(files, classes)``; the next ones are decoded while one is classified."""
        return np.stack([score_clip(self.artifact, sound) for sound in map_ahead(self.open, paths)])

    def _checked(self, waveform: Any, sample_rate: int) -> np.ndarray:
        return check_waveform(waveform, sample_rate=sample_rate, target_rate=self.artifact.sample_rate)

    def timeline(self, waveform: Sound) -> tuple[np.ndarray, np.ndarray]:
        """Start of each window in seconds ``(windows,)``, and its scores ``(windows, classes)``."""
        scores = np.concatenate([rows for rows, _ in self._batches(waveform)])
        return self._starts(len(scores)), scores

    def _starts(self, windows: int) -> np.ndarray:
        return np.arange(windows) * self.hop / self.artifact.sample_rate

    def _batches(self, sound: Sound) -> Iterator[tuple[np.ndarray, list[Kind]]]:
        """Scores ``(windows, classes)`` of some windows after the other, and what they hold."""
        windows = 1 + max(0, -(-(len(sound) - self.window) // self.hop))
        for first in range(0, windows, BATCH):  # cut batch by batch: windows overlap, and files are long
            cut = frames(sound, self.window, self.hop, first, min(BATCH, windows - first))
            filled = [min(self.window, len(sound) - (first + place) * self.hop) for place in range(len(cut))]
            yield self.artifact.scores(cut), [self.kind_of(*pair) for pair in zip(cut, filled, strict=True)]

    def kind_of(self, window: np.ndarray, filled: int) -> Kind:
        """Whether a window ``(samples,)`` of which ``filled`` samples were there may begin an event, or go on with one.

        Digital silence is never an event. What is shorter than a window, or than a patch of the model where its windows
        have several, begins none.
        """
        return kind_of(window, filled, least=self._least(), sample_rate=self.artifact.sample_rate)

    def open(self, path: str | Path) -> Sound:
        """A file's samples at the model's rate, ``(samples,)``; of a long file what reads it in parts."""
        return open_samples(path, sample_rate=self.artifact.sample_rate)

    def doubt(self, sound: Sound, path: str | Path | None = None) -> str | None:
        """Why the scores of a whole clip say nothing of it; None of most.

        Args:
            sound: as ``open`` gives it. A classifier has some score for silence and for a click as well.
            path: the file, where it is one: its channels may cancel each other out.
        """
        rate, enough = self.artifact.sample_rate, round(FRAME_SECONDS * self.artifact.sample_rate)
        audible, loudest = 0, 0.0
        for start in range(0, len(sound), LOOK):
            block = np.abs(sound[start : start + LOOK])
            audible, loudest = audible + int(np.count_nonzero(block > AUDIBLE)), max(loudest, float(block.max()))
            if audible >= enough and loudest >= QUIET:
                break
        if path is not None and loudest < QUIET and channels_cancel(path):
            return CANCELLING
        if not audible:
            return "is silent"
        if audible < min(enough, len(sound) / 2):
            return f"is silent but for {audible} samples"
        least = self._least()
        if len(sound) < SHORT * least:
            return f"lasts {len(sound) / rate:.2g} s, and the model takes {least / rate:.3g} s at a time"
        return None

    def _least(self) -> int:
        """Samples that the model takes at the least; fewer are filled up with zeros."""
        grid = self.artifact.grid
        return self.window if grid.min_samples == 1 else min(self.window, grid.min_samples)

    def predict(self, waveform: Any, *, sample_rate: int) -> list[Event]:
        """The events in a waveform: an array in [-1, 1] or of integers, ``(samples,)`` or ``(samples, channels)``.

        Digital silence is never an event, and what is shorter than a window begins none.
        """
        return self.analyze(waveform, sample_rate=sample_rate).events

    def predict_file(self, path: str | Path) -> list[Event]:
        """The events in a file, in order of their start."""
        return self.analyze_file(path).events

    def analyze(self, waveform: Any, *, sample_rate: int) -> Prediction:
        """The events in a waveform with everything they come from, for summaries and plots."""
        return self._analyze(self._checked(waveform, sample_rate))

    def analyze_file(self, path: str | Path) -> Prediction:
        """Likewise of a file."""
        return self._analyze(self.open(path))

    def _analyze(self, sound: Sound) -> Prediction:
        if not len(sound):
            raise AudioError("waveform", "has no samples")
        rate = self.artifact.sample_rate
        tracker = EventTracker(self.class_names, self.options, hop=self.hop / rate, window=self.window / rate)
        events: list[Event] = []
        parts: list[np.ndarray] = []
        for scores, kinds in self._batches(sound):
            parts.append(scores)
            for row, kind in zip(scores, kinds, strict=True):
                events += tracker.push(row, kind)
        events += tracker.finish(len(sound) / rate)
        scores = np.concatenate(parts)
        starts = self._starts(len(scores))
        return Prediction(sound, rate, self.class_names, starts, scores, self.window / rate, in_order(events))


def half_in_patches(window: int, patch_hop: int) -> int:
    """Half a window in whole patches, at least one: a model's windows then begin where its patches do.

    Of windows shorter than the step from patch to patch it is half the window itself.
    """
    return max(1, window // 2 // patch_hop) * patch_hop if window >= patch_hop else max(1, window // 2)


def _samples(name: str, seconds: float, rate: int) -> int:
    samples = round(seconds * rate) if np.isfinite(seconds) else 0
    if samples < 1:
        raise ValueError(f"{name}={seconds!r}: a positive number of seconds")
    return samples


@dataclass(frozen=True)
class ClassifiedSound:
    """What ``classify_sound`` found.

    Attributes:
        sounds: the labels, in order of their start.
        timestamps: ``(sounds, 2)``: start and end of each in seconds.
        results: the events, with the highest score of each.
    """

    sounds: list[str]
    timestamps: np.ndarray
    results: list[Event]


def classify_sound(
    audio: Any,
    sample_rate: int,
    *,
    model: str | Path | keras.Model | Predictor,
    threshold: float = 0.35,
    minimum_sound_separation: float = 0.25,
    minimum_sound_duration: float = 0.5,
) -> ClassifiedSound:
    """MATLAB's ``classifySound``: names the sounds in a recording, with its names and defaults.

    Windows and hop are the model's own (YAMNet's: 0.975 s every 0.48 s). ``classifySound`` smooths and thresholds in
    its own way, which is not published; the meaning of the three numbers is the same.

    Args:
        audio: the waveform, as for ``Predictor.predict``.
        sample_rate: Hz.
        model: a classifier, such as ``tl.YAMNet(patch_pooling="avg")`` with its 521 classes, or a ``Predictor``
            (whose own settings then hold).
        threshold: a sound is reported from this score on.
        minimum_sound_separation: seconds; sounds of a class closer than this are one.
        minimum_sound_duration: seconds; shorter sounds are left out.
    """
    predictor = model
    if not isinstance(predictor, Predictor):
        predictor = Predictor(
            predictor, threshold=threshold, min_gap=minimum_sound_separation, min_duration=minimum_sound_duration
        )
    events = predictor.predict(audio, sample_rate=sample_rate)
    times = np.array([(event.start, event.end) for event in events], np.float64).reshape(-1, 2)
    return ClassifiedSound([event.label for event in events], times, events)
