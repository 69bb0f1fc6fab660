"""Labelled spans of sound as columns, as a reader of folders, tables or annotations returns them; no file is opened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np

Part = Literal["train", "val", "test"]

PARTS: dict[Part, tuple[str, ...]] = {  # of a data set: their names here, and those that they usually have
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SHOWN = 5  # names listed in a message
_LARGEST_WEIGHT = float(np.finfo(np.float32).max)


@dataclass
class Columns:
    """One entry per row in each column; a column that was not given is None.

    Attributes:
        paths: files.
        labels: a class name, or a list of class names, each.
        folds: names of folds.
        groups: names of groups; "" for none.
        starts: seconds.
        ends: seconds; NaN is the file's end.
        weights: at least 0.
        channels: the channel to read, from 0; -1 is the mean of all.
        parts: keys of ``PARTS``.
        ignored: number of files that are not sound files.
    """

    paths: list[str] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    folds: list[str] | None = None
    groups: list[str] | None = None
    starts: list[float] | None = None
    ends: list[float] | None = None
    weights: list[float] | None = None
    channels: list[int] | None = None
    parts: list[str] | None = None
    ignored: int = 0

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Sequence[int]) -> Columns:
        """The same columns with these rows, in this order."""
        own = {name: column for name, column in vars(self).items() if isinstance(column, list)}
        taken: dict[str, Any] = {name: [column[row] for row in rows] for name, column in own.items()}
        return replace(self, **taken)

    def check(self) -> None:
        """ValueError where there are no rows, columns differ in length, or a weight is out of range."""
        count = len(self)
        if count == 0:
            raise ValueError("no clips: the list of sounds is empty")
        for name in (each.name for each in fields(self)):
            column = getattr(self, name)
            if isinstance(column, list) and len(column) != count:
                raise ValueError(f"{name} has {len(column)} entries for {count} clips; expected one each")
        for row, weight in enumerate(self.weights or []):
            if not 0 <= weight <= _LARGEST_WEIGHT:
                raise ValueError(f"weights[{row}]={weight!r}: expected a number of at least 0 that a float32 can hold")


# Cells


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
        ValueError: it is bytes that are not UTF-8.
    """
    if is_missing(value):
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8").strip()
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def as_number(value: Any, default: float) -> float:
    """A cell as a float, ``default`` for one without a value; ValueError for what is not a number."""
    return float(as_text(value) or default)


def part_of(value: object) -> Part:
    """The part that a cell names, by any of its usual names.

    Raises:
        ValueError: it names none.
    """
    name = as_text(value).lower()
    for part, usual in PARTS.items():
        if name in usual:
            return part
    raise ValueError(f"{value!r} is no part: expected {', '.join(name for usual in PARTS.values() for name in usual)}")


def check_separator(label_separator: str | None) -> None:
    """ValueError where what is between two labels of a cell is nothing."""
    if label_separator is not None and not label_separator:
        raise ValueError("label_separator='': expected what is between two labels, such as ';'")


def listed(names: Iterable[object]) -> str:
    """A few of the names, for a message."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(str, names[:_SHOWN])) + more


# Columns


def as_names(argument: str, column: Sequence[object] | None, *, empty: bool) -> list[str] | None:
    """A column of folds or groups as text.

    Args:
        argument: its name, for messages.
        column: names or numbers; None for no column.
        empty: whether a cell may have no value, as "".

    Raises:
        ValueError: a cell is empty and must not be, or is not UTF-8.
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
    found: list[str] = []
    for row, value in enumerate(column):
        try:
            found.append(part_of(value))
        except ValueError as error:
            raise ValueError(f"parts[{row}]: {error}") from None
    return found


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
