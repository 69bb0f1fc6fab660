"""Where labelled clips come from: folders, tables, and the headers of their files."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfaudiotl._files import show_name
from tfaudiotl.audio.files import AUDIO_EXTENSIONS, audio_info, check_span
from tfaudiotl.errors import AudioError

logger = logging.getLogger(__name__)

_SHOWN = 5  # names listed in a message
PARTS = {  # of a data set: their names here, and those that they usually have
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing", "eval", "evaluation"),
}
LARGEST_WEIGHT = float(np.finfo(np.float32).max)
_EXAMPLE = """expected one sub-folder per class, with sound files in it:
    sounds/
      dog/    bark1.wav  bark2.ogg
      rain/   shower.flac"""


@dataclass
class Rows:
    """Labelled spans as columns, before their files were looked at; None stands for a column not given."""

    paths: list[str] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    folds: list[str] | None = None
    groups: list[str] | None = None
    starts: list[float] | None = None
    ends: list[float] | None = None
    weights: list[float] | None = None
    channels: list[int] | None = None  # -1: the mean of all
    parts: list[str] | None = None
    ignored: int = 0


def is_missing(value: Any) -> bool:
    """Whether a cell has no value: None, NaN, a data frame's NA or NaT, or an empty text."""
    if value is None or (isinstance(value, (str, bytes)) and not value.strip()):
        return True
    try:
        return bool(value != value)
    except TypeError:  # pandas.NA is neither equal to itself nor not
        return True
    except ValueError:  # an array
        return False


def as_text(value: Any) -> str:
    """A cell as text, "" for one without a value; data frames turn whole numbers with gaps into floats.

    Raises:
        ValueError: It is bytes that are no UTF-8.
    """
    if is_missing(value):
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8").strip()
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def as_names(argument: str, column: Sequence[object] | None, *, empty: bool) -> list[str] | None:
    """A column of folds or groups as text.

    Args:
        argument: Its name, for messages.
        column: Names or numbers; None for no column.
        empty: Whether a cell may have no value, as "".

    Raises:
        ValueError: A cell is empty and must not be, or is no UTF-8.
    """
    if column is None:
        return None
    names = [as_text(value) for value in column]
    for row, (name, value) in enumerate(zip(names, column, strict=True)):
        if not name and not empty:
            raise ValueError(f"{argument}[{row}]={value!r}: expected a name or a number")
    return names


def as_parts(column: Sequence[object] | None) -> list[str] | None:
    """A column of parts by their names here; ValueError names the row that has none."""
    if column is None:
        return None
    found = []
    for row, value in enumerate(column):
        try:
            found.append(part_of(value))
        except ValueError as error:
            raise ValueError(f"parts[{row}]: {error}") from None
    return found


def part_of(value: object) -> str:
    """The name here of a part that is called as usual, one of ``PARTS``.

    Raises:
        ValueError: It is none of them.
    """
    name = as_text(value).lower()
    for part, usual in PARTS.items():
        if name in usual:
            return part
    raise ValueError(f"{value!r} is no part: expected {', '.join(name for usual in PARTS.values() for name in usual)}")


def listed(names: Iterable[object]) -> str:
    """A few of the names, for a message."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(str, names[:_SHOWN])) + more


def scan_directory(directory: str | os.PathLike[str], extensions: Collection[str], *, parts: bool = False) -> Rows:
    """Finds the sound files of a folder with one sub-folder per class.

    Args:
        directory: The folder; what begins with a dot is passed over.
        extensions: Suffixes of sound files, in any case.
        parts: Whether classes may all be called as parts of a data set are, "train" and "test".

    Returns:
        Paths sorted within sorted classes, and the number of other files ("ignored").

    Raises:
        ValueError: It is missing or not a folder, holds no sub-folders, or one has no sound file.
    """
    root, suffixes = Path(directory), {suffix.lower() for suffix in extensions}
    if not root.is_dir():
        found = "is not a directory" if root.exists() else "does not exist"
        raise ValueError(f"directory={str(directory)!r} {found}; {_EXAMPLE}")
    visible = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    folders = [entry for entry in visible if entry.is_dir()]
    loose = [entry.name for entry in visible if not entry.is_dir()]
    if not folders:
        found = f"holds {len(loose)} files ({listed(loose)}) but no sub-folders" if loose else "is empty"
        raise ValueError(f"directory={str(directory)!r} {found}; {_EXAMPLE}")
    if not parts:
        check_no_parts(root, folders)
    unlabelled = [name for name in loose if Path(name).suffix.lower() in suffixes]
    if unlabelled:
        logger.warning(
            "%s: %d sound files lie outside the class folders: %s", root, len(unlabelled), listed(unlabelled)
        )
    rows = Rows(ignored=len(loose))
    for folder in folders:
        files = files_below(folder, inside=root)
        sounds = [file for file in files if Path(file).suffix.lower() in suffixes]
        if not sounds:
            raise ValueError(
                f"directory={str(directory)!r}: class folder {folder.name!r} has no sound file "
                f"({len(files)} other files); fill or remove it. Sound files end in "
                f"{' '.join(sorted(suffixes))}"
            )
        rows.paths += sounds
        rows.labels += [folder.name] * len(sounds)
        rows.ignored += len(files) - len(sounds)
    return rows


def check_no_parts(root: Path, folders: Sequence[Path]) -> None:
    """ValueError where the sub-folders are called as parts of a data set are, and nothing else."""
    usual = {name for names in PARTS.values() for name in names}
    if len(folders) < 2 or not all(folder.name.lower() in usual for folder in folders):
        return
    inside = sorted({e.name for f in folders for e in f.iterdir() if e.is_dir() and not e.name.startswith(".")})
    found = f"with the sub-folders {listed(map(repr, inside))}" if inside else "without sub-folders of their own"
    ordered = sorted(folders, key=lambda folder: list(PARTS).index(part_of(folder.name)))
    train, test = ordered[0], ordered[-1]
    raise ValueError(
        f"directory={str(root)!r} has the sub-folders {listed(repr(folder.name) for folder in folders)}, {found}. They "
        "look like parts of a data set rather than classes: read each by itself and put them together with "
        f"Clips.from_parts(train=..., test=...), on the command line {train} --test {test}. If they are classes, "
        "say so with class_names="
    )


def files_below(folder: Path, *, inside: Path | None = None) -> list[str]:
    """Files at any depth, links followed once (none back to ``inside``), hidden ones passed over; sorted by path."""
    found, visited = [], set()
    if inside is not None:
        status = os.stat(inside)
        visited.add((status.st_dev, status.st_ino))
    for parent, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in visited:  # a link back into the tree
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [os.path.join(parent, name) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda path: Path(path).parts)


def sound_files(folder: str | os.PathLike[str], extensions: Collection[str] = AUDIO_EXTENSIONS) -> list[Path]:
    """All sound files in a folder and below: the one rule for every command and function that takes a folder.

    Links are followed, each folder once; what begins with a dot is passed over, such as the "._a.wav" that macOS leaves
    beside "a.wav" on other file systems; so are folders that are called like sounds.

    Args:
        folder: The folder.
        extensions: Suffixes of sound files, in any case.

    Returns:
        The files, sorted by path.

    Raises:
        ValueError: It is no folder, or has no sound file.
    """
    root, suffixes = Path(folder), {suffix.lower() for suffix in extensions}
    if not root.is_dir():
        raise ValueError(f"{show_name(root)} {'is not a folder' if root.exists() else 'does not exist'}")
    found = [path for path in map(Path, files_below(root)) if path.suffix.lower() in suffixes]
    if not found:
        raise ValueError(
            f"{show_name(root)}: no sound file in this folder; sound files end in {' '.join(sorted(suffixes))}"
        )
    return found


def from_names(paths: Sequence[str], argument: str, pattern: str) -> list[str]:
    """The first capture group of ``pattern``, searched in each file's name.

    Raises:
        ValueError: The pattern is no regular expression, has no group, or some names do not match.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{argument}={pattern!r} is not a regular expression: {error}") from None
    if not expression.groups:
        raise ValueError(f"{argument}={pattern!r} has no capture group: put what is meant in (), such as '^(\\d)-'")
    matches = [expression.search(os.path.basename(path)) for path in paths]
    # A group that took no part in the match says as little as no match.
    missed = [path for path, match in zip(paths, matches, strict=True) if match is None or match[1] is None]
    if missed:
        raise ValueError(
            f"{argument}={pattern!r} does not match the names of {len(missed)} of {len(paths)} files: {listed(missed)}"
        )
    return [match[1] for match in matches if match is not None]


def check_columns(rows: Rows) -> None:
    """Raises ValueError where columns differ in length or weights are out of range."""
    count = len(rows.paths)
    if count == 0:
        raise ValueError("no clips: the list of sounds is empty")
    for name in ("labels", "folds", "groups", "starts", "ends", "weights", "channels", "parts"):
        column = getattr(rows, name)
        if column is not None and len(column) != count:
            raise ValueError(f"{name} has {len(column)} entries for {count} clips; expected one each")
    for row, weight in enumerate(rows.weights or []):
        if not 0 <= weight <= LARGEST_WEIGHT:
            raise ValueError(f"weights[{row}]={weight!r}: expected a number of at least 0 that a float32 can hold")


def clean_labels(labels: Sequence[Any]) -> tuple[tuple[tuple[str, ...], ...], bool]:
    """Class names of each row without repeats, and whether they are multi-label (given as lists)."""
    single = [isinstance(label, (str, bytes)) for label in labels]
    if any(single) and not all(single):
        row = single.index(not single[0])
        raise ValueError(f"labels[{row}]={labels[row]!r}: expected all names, or all lists of names, not a mixture")
    rows = []
    for row, label in enumerate(labels):
        names = (label,) if single[row] else label
        if not isinstance(names, Iterable) or not all(isinstance(n, (str, bytes)) and not is_missing(n) for n in names):
            raise ValueError(f"labels[{row}]={label!r}: expected a class name, or a list of class names")
        try:
            rows.append(tuple(dict.fromkeys(n.decode("utf-8") if isinstance(n, bytes) else str(n) for n in names)))
        except UnicodeDecodeError as error:
            raise ValueError(f"labels[{row}]={label!r} is not UTF-8: {error}") from None
    return tuple(rows), not any(single)


def clean_class_names(class_names: Sequence[str] | None, labels: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The classes in their order: those given, which must name every label, or the labels, sorted."""
    found = sorted({name for row in labels for name in row})
    if class_names is None:
        return tuple(found)
    names = tuple(class_names)
    if isinstance(class_names, str) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"class_names={class_names!r}: expected a sequence of names")
    if len(set(names)) < len(names):
        raise ValueError(f"class_names={list(names)!r}: expected each name once")
    unknown = [name for name in found if name not in names]
    if unknown:
        raise ValueError(
            f"labels {listed(map(repr, unknown))} are not in class_names={list(names)!r}: leave them out or relabel"
        )
    return names


@dataclass(frozen=True)
class Header:
    """What is needed of a file before it is decoded: its length in seconds, and its channels."""

    duration: float
    channels: int = 1


def read_headers(paths: Sequence[str]) -> dict[str, Header | AudioError]:
    """Every file's header, in threads, or why it cannot be used."""
    unique = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        return dict(zip(unique, pool.map(_header, unique), strict=True))


def _header(path: str) -> Header | AudioError:
    try:
        info = audio_info(path)
    except AudioError as error:
        return error
    return Header(info.duration, info.channels)


def per_channel(rows: Rows, headers: Mapping[str, Header | AudioError]) -> Rows:
    """A row for each channel of each file instead of one for all of them."""
    counts = [1 if isinstance(header := headers[path], AudioError) else header.channels for path in rows.paths]
    taken = [row for row, count in enumerate(counts) for _ in range(count)]
    columns: dict[str, Any] = {
        name: None if (column := getattr(rows, name)) is None else [column[row] for row in taken]
        for name in ("paths", "labels", "folds", "groups", "starts", "ends", "weights", "parts")
    }
    return replace(rows, **columns, channels=[number for count in counts for number in range(count)])


def span_durations(rows: Rows, headers: Mapping[str, Header | AudioError]) -> tuple[list[float], dict[int, AudioError]]:
    """Measures the spans.

    Args:
        rows: Files, and where spans start and end, NaN for the file's end.
        headers: From ``read_headers``.

    Returns:
        Seconds of each span (NaN where it cannot be used), and the reasons by row.
    """
    count = len(rows.paths)
    starts, ends = rows.starts or [0.0] * count, rows.ends or [math.nan] * count
    channels = rows.channels or [-1] * count
    durations, errors = [], {}
    for row, (path, start, end, channel) in enumerate(zip(rows.paths, starts, ends, channels, strict=True)):
        header = headers[path]
        try:
            if isinstance(header, AudioError):
                raise header
            if channel >= header.channels:
                raise AudioError(path, f"has {header.channels} channels, so none of number {channel} (from 0)")
            begin, finish = check_span(path, start, end, header.duration)
            durations.append(finish - begin)
        except AudioError as error:
            errors[row] = error
            durations.append(math.nan)
    return durations, errors
