"""Events as text: a table, CSV, JSON, Audacity's label track, Raven's selection table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tfaudiotl._files import write_atomic
from tfaudiotl.evaluation.markdown import csv_line, json_text
from tfaudiotl.runtime.events import Event


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


def events_raven(events: Sequence[Event], *, low_hz: float = 0.0, high_hz: float = 8_000.0) -> str:
    """A selection table for Raven; the box spans all frequencies, since a classifier has no others."""
    columns = ["Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"]
    lines = ["\t".join([*columns, "Label", "Score"])]
    for number, event in enumerate(events, start=1):
        span = f"{event.start:.6f}\t{event.end:.6f}\t{low_hz:.1f}\t{high_hz:.1f}"
        lines.append(f"{number}\tSpectrogram 1\t1\t{span}\t{_line(event.label)}\t{event.score:.4f}")
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[Sequence[Event]], str]] = {
    "table": events_table,
    "csv": events_csv,
    "json": events_json,
    "audacity": events_audacity,
    "raven": events_raven,
}


def format_events(events: Sequence[Event], format: str = "table") -> str:
    """Events as text in one of ``FORMATS``."""
    if format not in FORMATS:
        raise ValueError(f"format={format!r}: allowed are {', '.join(FORMATS)}")
    return FORMATS[format](events)


def write_events(path: str | Path, events: Sequence[Event], format: str = "csv") -> Path:
    """Writes events to a file, whole or not at all."""
    return write_atomic(path, format_events(events, format))


def _line(text: str) -> str:
    return " ".join(text.split())
