"""Marked events in long recordings: Audacity's label tracks and Raven's selection tables beside the sound files."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tfaudiotl.audio.files import audio_info
from tfaudiotl.data.folders import files_below
from tfaudiotl.data.table import Columns, check_separator, listed
from tfaudiotl.errors import AudioError, check_number

# Raven names the column of the label as its user does; these are usual.
LABEL_COLUMNS = ("Annotation", "Label", "Species", "Class", "Common Name", "Species Code", "Tags", "Type")
_RAVEN = ("Begin Time (s)", "End Time (s)")


@dataclass(frozen=True)
class Mark:
    """A marked span: start and end in seconds, and its label."""

    start: float
    end: float
    label: str


def read_marks(path: str | os.PathLike[str], *, label_column: str | None = None) -> list[Mark]:
    """Reads an Audacity label track (start, end, label) or a Raven selection table (by its header).

    Args:
        path: A text file with tabs, UTF-8.
        label_column: Raven's column of the label; None is the first of ``LABEL_COLUMNS`` that it has.

    Raises:
        ValueError: A line cannot be read; the message has its number.
    """
    name = os.fspath(path)
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")  # no other character ends a line here
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} cannot be read: {error}") from None
    header = lines[0].split("\t") if lines else []
    if all(column in header for column in _RAVEN):
        return _raven(name, lines, label_column)
    marks = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("\\"):  # a backslash line gives the frequencies of the mark above
            continue
        cells = line.split("\t")
        marks.append(_mark(name, number, cells[0], cells[1] if len(cells) > 1 else "", "\t".join(cells[2:])))
    return marks


def _raven(name: str, lines: Sequence[str], label_column: str | None) -> list[Mark]:
    header = lines[0].split("\t")  # Raven quotes nothing
    column = label_column or next((known for known in LABEL_COLUMNS if known in header), None)
    if column not in header:
        raise ValueError(f"{name}: label_column={label_column!r}: which column has the label? There are {header}")
    for used in (*_RAVEN, column):
        if header.count(used) > 1:
            raise ValueError(f"{name}: has the column {used!r} {header.count(used)} times; expected once")
    places = [header.index(used) for used in (*_RAVEN, column)]
    found: dict[Mark, None] = {}  # the same selection stands there once per view and channel
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = line.split("\t")
        if any(cells[len(header) :]):
            raise ValueError(f"{name}, line {number}: has {len(cells)} cells, but there are {len(header)} columns")
        begin, end, label = (cells[place] if place < len(cells) else "" for place in places)
        found.setdefault(_mark(name, number, begin, end, label))
    return list(found)


def _mark(name: str, line: int, start: str, end: str, label: str) -> Mark:
    try:
        begin, finish = float(start), float(end)
    except ValueError:
        raise ValueError(f"{name}, line {line}: expected start and end in seconds, not {start!r} and {end!r}") from None
    if not 0 <= begin < finish < math.inf:
        raise ValueError(f"{name}, line {line}: {begin:g} to {finish:g} s is no span (a point has no length: widen it)")
    if not label.strip():
        raise ValueError(f"{name}, line {line}: has no label")
    return Mark(begin, finish, label.strip())


def gaps(marks: Iterable[Mark], duration: float, least: float) -> list[tuple[float, float]]:
    """Spans of at least ``least`` seconds of a recording in which nothing is marked."""
    found, reached = [], 0.0
    for mark in [*sorted(marks, key=lambda mark: mark.start), Mark(duration, math.inf, "")]:
        if mark.start - reached >= least:
            found.append((reached, min(mark.start, duration)))
        reached = max(reached, mark.end)
    return found


def read_annotations(
    directory: str | os.PathLike[str],
    extensions: Collection[str],
    *,
    background: str | None,
    background_seconds: float,
    label_separator: str | None,
    label_column: str | None,
) -> tuple[Columns, list[AudioError]]:
    """Rows of the marked spans below a folder, and the recordings that have no annotation.

    An annotation lies beside its recording ``a.wav`` and is called ``a.txt``, or ``a.`` and anything that ends
    in ``.txt``, as Raven's ``a.Table.1.selections.txt``.
    """
    root = Path(directory)
    if not root.is_dir():
        raise ValueError(f"directory={str(directory)!r} is not a folder")
    check_number("background_seconds", background_seconds, above=0)
    check_separator(label_separator)
    suffixes = {suffix.lower() for suffix in extensions}
    files = [Path(file) for file in files_below(root)]
    sounds = [file for file in files if file.suffix.lower() in suffixes]
    texts = [file for file in files if file.suffix.lower() == ".txt"]
    if not sounds:
        raise ValueError(f"directory={str(directory)!r} has no sound file")
    of: dict[Path, list[Path]] = {sound: [] for sound in sounds}
    for text in texts:
        owners = [s for s in sounds if s.parent == text.parent and text.name.startswith(f"{s.stem}.")]
        longest = max((len(owner.stem) for owner in owners), default=0)
        owners = [owner for owner in owners if len(owner.stem) == longest]
        if len(owners) > 1:
            raise ValueError(
                f"{text}: whose marks are these? There are {listed(owner.name for owner in owners)}; give each "
                "recording a name of its own, or keep one of them"
            )
        if owners:
            of[owners[0]].append(text)
    if not any(of.values()):
        raise ValueError(f"directory={str(directory)!r}: no .txt beside a sound file bears its name ({listed(sounds)})")
    rows: list[tuple[str, str | list[str], float, float]] = []
    unmarked: list[AudioError] = []
    for sound, found in of.items():
        marks = [mark for text in found for mark in read_marks(text, label_column=label_column)]
        if background is not None:
            try:
                quiet = gaps(marks, audio_info(sound).duration, background_seconds)
            except AudioError as error:
                unmarked += [] if marks else [error]  # with marks, building the clips says so
                quiet = []
            marks += [Mark(start, end, background) for start, end in quiet]
        elif not found:
            unmarked.append(AudioError(str(sound), "has no annotation beside it; background= makes all of it one"))
        for mark in marks:
            named = mark.label if label_separator is None else [p.strip() for p in mark.label.split(label_separator)]
            rows.append((str(sound), named, mark.start, mark.end))
    paths, labels, starts, ends = map(list, zip(*rows, strict=True)) if rows else ([], [], [], [])
    return Columns(paths=paths, labels=labels, starts=starts, ends=ends), unmarked
