"""From scores of window after window to events (smoothing, hysteresis, gaps, least duration), and events as text.

One state machine serves files and streams, so that both give the same events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tfaudiotl._files import EVENT_SUFFIXES, text_format, write_atomic
from tfaudiotl.backbones.scores import THRESHOLD, check_background, class_thresholds
from tfaudiotl.errors import check_choice
from tfaudiotl.markdown import csv_line, json_text


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


@dataclass(frozen=True)
class EventOptions:
    """What counts as an event.

    Attributes:
        threshold: a class begins to be heard at this score, in [0, 1]: one for all; or a mapping from class name to
            score, such as ``choose_thresholds`` gives (other classes: 0.5); or one for each class in their order.
        release: and ceases below this one, at most ``threshold``: likewise one for all or for each; a class that a
            mapping lacks, and every class with None, ceases below its threshold (no hysteresis).
        smoothing: scores are averaged over so many windows, an odd number; 1 for none.
        min_duration: seconds; shorter events are dropped, after gaps are closed.
        min_gap: seconds; two events of a class with less between them are one.
        background: a class that is never an event, or None.
    """

    threshold: float | Mapping[str, Any] | Sequence[Any] = THRESHOLD
    release: float | Mapping[str, Any] | Sequence[Any] | None = None
    smoothing: int = 1
    min_duration: float = 0.0
    min_gap: float = 0.0
    background: str | None = None

    def __post_init__(self) -> None:
        for name in ("threshold", "release"):  # what needs no names of classes is checked here, the rest by ``scores``
            value = getattr(self, name)
            if value is not None:
                class_thresholds(value, tuple(value) if hasattr(value, "__len__") else ("",), name)
        if isinstance(self.threshold, (int, float)) and isinstance(self.release, (int, float)):
            self.scores(("",))
        if not isinstance(self.smoothing, int) or self.smoothing < 1 or self.smoothing % 2 == 0:
            raise ValueError(f"smoothing={self.smoothing!r}: allowed are odd numbers of windows: 1, 3, 5 ...")
        for name in ("min_duration", "min_gap"):
            value = getattr(self, name)
            if not np.isfinite(value) or value < 0:
                raise ValueError(f"{name}={value!r}: a number of seconds, 0 or more")

    def scores(self, class_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Where each class begins and where it ceases, float64 ``(classes,)`` each.

        Raises:
            ValueError: a class that is not there, another number of thresholds than of classes, or a release above its
                class's threshold.
        """
        begin = class_thresholds(self.threshold, class_names)
        release: Any = begin if self.release is None else self.release
        if isinstance(release, Mapping):
            release = {**dict(zip(class_names, begin, strict=True)), **release}
        cease = class_thresholds(release, class_names, "release")
        for name, high, low in zip(class_names, begin, cease, strict=True):
            if low > high:
                of = f" of class {name!r}" if name else ""
                raise ValueError(f"release={low!r}: allowed is 0 to threshold={high!r}{of}")
        return np.array(begin), np.array(cease)


# Of a window: "sound"; "part": so little of it was there that it begins no event, though one may go on; "silence".
Kind = Literal["sound", "part", "silence"]

AUDIBLE = 1e-5  # full scale is 1; half a step of 16 bits, above what resampling filters leave of digital silence
FRAME_SECONDS = 0.025  # least of audible samples in a window that is not silence: a frame of a spectrum, or half of it


def kind_of(window: np.ndarray, filled: int, *, least: int, sample_rate: int) -> Kind:
    """What a window holds.

    Args:
        window: ``(samples,)``, filled up with zeros where the sound ended.
        filled: how many of its samples were there.
        least: samples that must be there to begin an event.
        sample_rate: Hz.
    """
    audible = int(np.count_nonzero(np.abs(window) > AUDIBLE))
    if audible < min(FRAME_SECONDS * sample_rate, filled / 2):
        return "silence"
    return "sound" if filled >= least else "part"


@dataclass
class _Open:
    """An event that may still grow: window numbers of its first and last window."""

    first: int
    last: int
    score: float
    heard: bool = True  # False once the score fell: it waits for the gap to grow too long


class EventTracker:
    """Takes the scores of one window after another and gives events as soon as they are certain.

    Args:
        class_names: in the order of the scores.
        options: what counts as an event.
        hop: seconds from one window's start to the next's.
        window: seconds of a window.
    """

    def __init__(self, class_names: Sequence[str], options: EventOptions, *, hop: float, window: float):
        self._names, self._options, self._hop, self._window = tuple(class_names), options, hop, window
        self._threshold, self._release = options.scores(self._names)
        background = check_background(options.background, self._names)
        self._threshold[[name == background for name in self._names]] = np.inf  # never reached
        self._recent: deque[np.ndarray] = deque(maxlen=options.smoothing)
        self._kinds: deque[Kind] = deque(maxlen=options.smoothing)  # of the same windows
        self._half = options.smoothing // 2
        self._windows = 0  # seen
        self._judged = 0  # smoothed and looked at
        self._open: dict[int, _Open] = {}  # class -> its event

    @property
    def active(self) -> list[str]:
        """The classes heard at the moment."""
        return [self._names[column] for column, event in sorted(self._open.items()) if event.heard]

    def push(self, scores: np.ndarray, kind: Kind = "sound") -> list[Event]:
        """Takes the scores ``(classes,)`` of the next window; gives the events that ended for good."""
        self._recent.append(np.zeros_like(scores) if kind == "silence" else scores)
        self._kinds.append(kind)
        self._windows += 1
        if self._windows <= self._half:
            return []
        return self._judge()

    def finish(self, duration: float) -> list[Event]:
        """Ends the sound after ``duration`` seconds; gives the events that were still open."""
        done: list[Event] = []
        while self._judged < self._windows:
            done += self._judge()
        rest = [self._event(column, event, duration) for column, event in self._open.items()]
        self._open.clear()
        return done + [event for event in rest if event is not None]

    def _judge(self) -> list[Event]:
        """Looks at the next window, smoothed over its neighbours as far as there are any."""
        index = self._judged
        oldest = self._windows - len(self._recent)
        low, high = max(index - self._half, oldest), min(index + self._half, self._windows - 1)
        smoothed = np.mean([self._recent[place - oldest] for place in range(low, high + 1)], axis=0)
        kind = self._kinds[index - oldest]
        if kind == "silence":
            smoothed = np.full_like(smoothed, -np.inf, dtype=np.float64)
        self._judged += 1
        done = []
        for column in sorted({*np.flatnonzero(smoothed >= self._threshold).tolist(), *self._open}):
            ended = self._update(column, float(smoothed[column]), index, begins=kind == "sound")
            if ended is not None:
                done.append(ended)
        return done

    def _update(self, column: int, score: float, index: int, *, begins: bool) -> Event | None:
        event = self._open.get(column)
        ended = None
        if event is not None and not event.heard:
            start = index * self._hop
            gap = start - (event.last * self._hop + self._window)
            # Windows that touch or overlap leave no gap, but a window below the release parts two events.
            if gap >= self._options.min_gap:
                ended = self._event(column, event, np.inf)
                del self._open[column]
                event = None
        if event is None:
            if begins and score >= self._threshold[column]:
                self._open[column] = _Open(index, index, score)
        elif score >= (self._release if event.heard else self._threshold)[column]:
            event.last, event.score, event.heard = index, max(event.score, score), True
        else:
            event.heard = False
        return ended

    def _event(self, column: int, event: _Open, duration: float) -> Event | None:
        start = event.first * self._hop
        end = min(duration, event.last * self._hop + self._window)
        if end - start < self._options.min_duration - 1e-9:
            return None
        return Event(start, end, self._names[column], event.score)


def in_order(events: Sequence[Event]) -> list[Event]:
    """By start; the louder of two that start together first."""
    return sorted(events, key=lambda event: (event.start, -event.score, event.label))


# Events as text.

Format = Literal["table", "csv", "json", "audacity", "raven"]
LOW_HZ, HIGH_HZ = 0.0, 8_000.0  # of a box in Raven: it spans all frequencies, since a classifier has no others


def events_table(events: Sequence[Event]) -> str:
    """One line per event, in columns."""
    return "".join(f"{event}\n" for event in events)


def events_csv(events: Sequence[Event]) -> str:
    """Comma-separated, with a header."""
    header = ["start", "end", "label", "score"]
    return "".join(map(csv_line, [header, *([event.to_dict()[name] for name in header] for event in events)]))


def events_json(events: Sequence[Event]) -> str:
    """A list of objects."""
    return json_text([event.to_dict() for event in events])


def events_audacity(events: Sequence[Event]) -> str:
    """A label track for Audacity: start, end and label with tabs between."""
    return "".join(f"{event.start:.6f}\t{event.end:.6f}\t{_line(event.label)}\n" for event in events)


def events_raven(events: Sequence[Event]) -> str:
    """A selection table for Raven; the box spans all frequencies, since a classifier has no others."""
    columns = ["Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"]
    lines = ["\t".join([*columns, "Label", "Score"])]
    for number, event in enumerate(events, start=1):
        span = f"{event.start:.6f}\t{event.end:.6f}\t{LOW_HZ:.1f}\t{HIGH_HZ:.1f}"
        lines.append(f"{number}\tSpectrogram 1\t1\t{span}\t{_line(event.label)}\t{event.score:.4f}")
    return "\n".join(lines) + "\n"


FORMATS: dict[Format, Callable[[Sequence[Event]], str]] = {
    "table": events_table,
    "csv": events_csv,
    "json": events_json,
    "audacity": events_audacity,
    "raven": events_raven,
}


def format_events(events: Sequence[Event], format: Format = "table") -> str:
    """Events as text: a table, CSV, JSON, Audacity's label track or Raven's selection table."""
    check_choice("format", format, Format)
    return FORMATS[format](events)


def write_events(path: str | Path, events: Sequence[Event], format: Format | None = None) -> Path:
    """Writes events to a file, whole or not at all; without a format in the one that the file's suffix stands for.

    That is CSV of .csv, JSON of .json and a table of .txt.
    """
    format = text_format(path, format, EVENT_SUFFIXES, plain="table")
    return write_atomic(path, format_events(events, format))


def _line(text: str) -> str:
    return " ".join(text.split())
