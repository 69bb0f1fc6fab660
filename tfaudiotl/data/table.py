"""Labelled spans of sound: the columns that a reader returns, and the table made of them, with its windows and sound.

Only ``Table.from_columns`` and loading open files.
"""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from tfaudiotl._fingerprint import State, content_keys, file_state, fingerprint, plain
from tfaudiotl.audio.files import (
    BLOCK_SECONDS,
    audio_info,
    channels_cancel,
    check_channels,
    check_span,
    load_audio,
    open_span,
)
from tfaudiotl.audio.waveform import SAMPLE_RATE, Channels, Sound, check_rate, resample
from tfaudiotl.errors import AudioError, AudioErrors, OnError, check_choice, check_number

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray


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


class UnknownClassError(ValueError):
    """Labels (``names``) that are none of the classes."""

    def __init__(self, names: Sequence[str], class_names: Sequence[str]) -> None:
        self.names, self.class_names = list(names), list(class_names)
        super().__init__(
            f"labels {listed(map(repr, names))} are not in class_names={self.class_names!r}: leave them out or relabel"
        )

    def __reduce__(self) -> tuple[type[UnknownClassError], tuple[list[str], list[str]]]:
        return type(self), (self.names, self.class_names)


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
        raise UnknownClassError(unknown, names)
    return names


@dataclass(frozen=True)
class Clip:
    """One row of a table: a span of a recording and its classes.

    Attributes:
        path: The file, or "array[i]" for sound in memory.
        start: Where the span begins, seconds.
        end: Where it stops, seconds; None is the end of the recording.
        duration: Its length, seconds.
        labels: Names of its classes; one for single-label clips.
        fold: Name of its fold, or None.
        group: Name of its group (recording, speaker, site), or None.
        weight: Its weight in training.
        channel: Number of the channel that is read, from 0; None is the mean of all.
        part: "train", "val" or "test", the part of a data set's own division that it is in, or None.
    """

    path: str
    start: float
    end: float | None
    duration: float
    labels: tuple[str, ...]
    fold: str | None = None
    group: str | None = None
    weight: float = 1.0
    channel: int | None = None
    part: str | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """An immutable table of labelled spans of sound, one column per attribute.

    Indexing with a number gives a ``Clip``; with a slice, a mask or an array of numbers, a table of those rows with the
    same classes.

    Attributes:
        paths: File of each row, or "array[i]" for sound in memory.
        starts: float64 (rows,), seconds from the file's start.
        ends: float64 (rows,), seconds; NaN is the file's end.
        durations: float64 (rows,), seconds.
        labels: Class names of each row.
        class_names: The classes, in the order of the columns of ``targets``.
        multi_label: Whether a row may have any number of classes rather than exactly one.
        fold: str (rows,), or None where no folds were given.
        group: str (rows,), or None where no groups were given.
        weights: float32 (rows,), at least 0.
        channel: int16 (rows,), the channel that is read, from 0; None is the mean of all channels.
        part: str (rows,), "train", "val" or "test" where the data set has a division of its own, else None.
        source: int64 (rows,): the row of the table that this one was taken from by ``split``,
            ``folds``, ``windows`` or indexing, so that features computed once for that table can be
            picked instead of computed again. Its own row number in a table just built.
        skipped: The sounds left out by ``on_error="skip"``, with their reasons.
        background: The class that is no sound of interest, declared by ``from_annotations``, or None; classifiers
            trained on these clips remember it and never report it as an event.
        ignored: Number of files in the folder that are not sound files.
    """

    paths: tuple[str, ...]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    durations: NDArray[np.float64]
    labels: tuple[tuple[str, ...], ...]
    class_names: tuple[str, ...]
    multi_label: bool
    fold: NDArray[np.str_] | None
    group: NDArray[np.str_] | None
    weights: NDArray[np.float32]
    source: NDArray[np.int64]
    channel: NDArray[np.int16] | None = None
    part: NDArray[np.str_] | None = None
    skipped: tuple[AudioError, ...] = ()
    ignored: int = 0
    background: str | None = None
    _waveforms: Mapping[str, NDArray[np.float32]] | None = None
    _keys: dict[str, Hashable] = field(default_factory=dict)  # of contents, by path; shared with what is taken from it

    def __post_init__(self) -> None:
        if self.background not in self.class_names:  # a part without that class has none
            object.__setattr__(self, "background", None)
        for column in self._arrays().values():
            column.flags.writeable = False  # rows are shared between a table and its splits

    @classmethod
    def from_columns(
        cls,
        columns: Columns,
        *,
        class_names: Sequence[str] | None = None,
        on_error: OnError = "raise",
        channels: Channels = "mean",
        held: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> Self:
        """Makes a table of what a reader found, once the header of every file was read.

        Args:
            columns: What was found.
            class_names: The classes in their order; None is all labels, sorted.
            on_error: "raise" names every unusable file in one error; "skip" lists them in ``skipped``.
            channels: What is read of a file; see ``Clips.from_directory``.
            held: Sounds in memory by the names in ``columns.paths``, mono at 16 kHz; None where these are files.

        Raises:
            ValueError: Columns differ in length, or a value is not what it should be.
            AudioErrors: (a ValueError) Files that cannot be used, with ``on_error="raise"``, or all of them.
        """
        check_choice("on_error", on_error, OnError)
        check_channels(channels)
        columns.check()
        headers = _read_headers(columns.paths) if held is None else {
            name: _Header(len(samples) / SAMPLE_RATE) for name, samples in held.items()
        }  # fmt: skip
        columns = _with_channels(columns, channels, headers)
        count = len(columns)
        labels, multi_label = clean_labels(columns.labels)
        names = clean_class_names(class_names, labels)
        starts, ends = columns.starts or [0.0] * count, columns.ends or [math.nan] * count
        spans = zip(columns.paths, starts, ends, columns.channels or [-1] * count, strict=True)
        durations = [_duration(headers[path], path, start, end, channel) for path, start, end, channel in spans]
        errors = [found for found in durations if isinstance(found, AudioError)]
        if errors and on_error == "raise":
            raise AudioErrors(errors, count)
        if len(errors) == count:
            raise AudioErrors(errors, count, "None is left to work with.")
        everything = cls(
            paths=tuple(columns.paths),
            starts=np.array(starts, np.float64),
            ends=np.array(ends, np.float64),
            durations=np.array([math.nan if isinstance(d, AudioError) else d for d in durations], np.float64),
            labels=labels,
            class_names=names,
            multi_label=multi_label,
            fold=None if columns.folds is None else np.array(columns.folds, np.str_),
            group=None if columns.groups is None else np.array(columns.groups, np.str_),
            weights=np.array(columns.weights or [1.0] * count, np.float32),
            source=np.arange(count),
            channel=None if columns.channels is None else np.array(columns.channels, np.int16),
            part=None if columns.parts is None else np.array(columns.parts, np.str_),
            ignored=columns.ignored,
            _waveforms=held,
        )
        if not errors:
            return everything
        kept = everything[~np.isnan(everything.durations)]
        return replace(kept, source=np.arange(len(kept)), skipped=tuple(errors))

    # Rows

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, rows: int | np.integer[Any]) -> Clip: ...

    @overload
    def __getitem__(self, rows: slice | Sequence[int] | Sequence[bool] | NDArray[Any]) -> Self: ...

    def __getitem__(self, rows: Any) -> Clip | Self:
        if isinstance(rows, (int, np.integer)) and not isinstance(rows, bool):
            return self._clip(range(len(self))[rows])
        if isinstance(rows, slice):
            return self._take(np.arange(len(self))[rows])
        rows = np.asarray(rows)
        if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iub"):
            raise TypeError(f"Clips are indexed by a number, a slice, a mask or numbers of rows, not {rows!r}")
        return self._take(np.arange(len(self))[rows if rows.size else []])

    def __iter__(self) -> Iterator[Clip]:
        return (self._clip(row) for row in range(len(self)))

    def __repr__(self) -> str:
        size = f"{len(self)} clips, {len(self.class_names)} classes, {self.durations.sum() / 60:.1f} min"
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"{type(self).__name__}({size}{skipped})"

    def _clip(self, row: int) -> Clip:
        return Clip(
            path=self.paths[row],
            start=float(self.starts[row]),
            end=None if np.isnan(self.ends[row]) else float(self.ends[row]),
            duration=float(self.durations[row]),
            labels=self.labels[row],
            fold=None if self.fold is None else str(self.fold[row]),
            group=None if self.group is None else str(self.group[row]) or None,
            weight=float(self.weights[row]),
            channel=None if self.channel is None or self.channel[row] < 0 else int(self.channel[row]),
            part=None if self.part is None else str(self.part[row]),
        )

    def _arrays(self) -> dict[str, NDArray[Any]]:
        """The columns that are arrays, by name."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}

    def _take(self, rows: NDArray[np.int64]) -> Self:
        taken: dict[str, Any] = {name: column[rows] for name, column in self._arrays().items()}
        taken |= {name: tuple(getattr(self, name)[row] for row in rows) for name in ("paths", "labels")}
        return replace(self, **taken)

    # Labels

    @property
    def targets(self) -> NDArray[np.float32]:
        """float32 (rows, classes): 1 where the row has the class, else 0."""
        column = {name: number for number, name in enumerate(self.class_names)}
        targets = np.zeros((len(self), len(column)), np.float32)
        for row, labels in enumerate(self.labels):
            targets[row, [column[label] for label in labels]] = 1
        return targets

    @property
    def label_ids(self) -> NDArray[np.int64]:
        """int64 (rows,): the class number of each row; ValueError for multi-label clips."""
        self._single("label_ids", "targets")
        column = {name: number for number, name in enumerate(self.class_names)}
        return np.array([column[labels[0]] for labels in self.labels], np.int64)

    def counts(self) -> dict[str, int]:
        """Number of rows of each class, classes without any included."""
        return dict(zip(self.class_names, map(int, self.targets.sum(axis=0)), strict=True))

    def class_weights(self) -> dict[int, float]:
        """Weights that make up for imbalance, for ``Model.fit(class_weight=...)``.

        Returns:
            Class number to ``rows / (classes * rows of the class)``: 1 where classes are balanced.

        Raises:
            ValueError: The clips are multi-label, or a class has none.
        """
        self._single("class_weights", "sample weights")
        empty = [name for name, count in self.counts().items() if count == 0]
        if empty:
            raise ValueError(f"no clip of {listed(map(repr, empty))}, so there is no weight that balances it")
        from sklearn.utils.class_weight import compute_class_weight

        numbers = np.arange(len(self.class_names))
        return dict(enumerate(compute_class_weight("balanced", classes=numbers, y=self.label_ids).tolist()))

    def _single(self, what: str, instead: str) -> None:
        if self.multi_label:
            raise ValueError(f"{what} needs exactly one class per clip, and these are multi-label; use {instead}")

    # Sound

    def windows(self, window_seconds: float, hop_seconds: float | None = None) -> Self:
        """Cuts the clips into spans of at most ``window_seconds``, which cover them completely.

        A clip no longer than the window stays one row. What is left at the end of a longer one is a
        row of its own if it is at least half a window, else the last window is moved back to end
        where the clip ends.

        Args:
            window_seconds: Seconds, over 0.
            hop_seconds: From one window's start to the next one's, over 0 and at most the window;
                None is the window.

        Returns:
            Clips with the labels, fold, group and weight of the rows they were cut from; ``source``
            is the number of that row.

        Raises:
            ValueError: A length is out of range.
        """
        hop = window_seconds if hop_seconds is None else hop_seconds
        check_number("window_seconds", window_seconds, above=0)
        check_number("hop_seconds", hop, above=0, most=window_seconds)
        spans = [window_spans(duration, window_seconds, hop) for duration in self.durations.tolist()]
        source = np.repeat(np.arange(len(self)), [len(span) for span in spans])
        begin, stop = np.array([pair for span in spans for pair in span], np.float64).reshape(-1, 2).T
        rows = self[source]
        whole = np.repeat([len(span) == 1 for span in spans], [len(span) for span in spans])
        return replace(
            rows,
            starts=rows.starts + begin,
            ends=np.where(whole, rows.ends, rows.starts + stop),
            durations=stop - begin,
            source=source,
        )

    # Sound

    def load(self, row: int, *, sample_rate: int = SAMPLE_RATE) -> NDArray[np.float32]:
        """Decodes one row.

        Args:
            row: Its number.
            sample_rate: Hz.

        Returns:
            float32 (samples,), mono, about [-1, 1].

        Raises:
            AudioError: The sound cannot be used; see ``load_audio``.
        """
        path, start, end = self.paths[row], float(self.starts[row]), float(self.ends[row])
        if self._waveforms is None:
            channels = self._channels(row)
            return load_audio(path, sample_rate=sample_rate, start=start, end=end, channels=channels)
        stop = None if np.isnan(end) else round(end * SAMPLE_RATE)
        held = self._waveforms[path][round(start * SAMPLE_RATE) : stop].copy()  # the table's own must not be changed
        return resample(held, SAMPLE_RATE, check_rate("sample_rate", sample_rate))

    def open(self, row: int, *, sample_rate: int = SAMPLE_RATE) -> Sound:
        """Likewise, a long recording in parts, as they are asked for: see ``audio.files.open_samples``."""
        if self._waveforms is not None or self.durations[row] < 2 * BLOCK_SECONDS:
            return self.load(row, sample_rate=sample_rate)
        start, end = float(self.starts[row]), float(self.ends[row])
        return open_span(self.paths[row], sample_rate=sample_rate, start=start, end=end, channels=self._channels(row))

    def cancelled(self, row: int) -> bool:
        """Whether a row is the mean of channels that cancel each other out; see ``audio.files.channels_cancel``."""
        if self._waveforms is not None or self._channels(row) != "mean":
            return False
        return channels_cancel(self.paths[row], start=float(self.starts[row]), end=float(self.ends[row]))

    def _channels(self, row: int) -> Channels:
        return "mean" if self.channel is None or self.channel[row] < 0 else int(self.channel[row])

    def content_keys(self) -> list[Hashable]:
        """One key per row, equal for rows whose files have the same bytes (or arrays the same samples).

        Computed once for a table and everything that is taken from it.
        """
        if not all(path in self._keys for path in self.paths):
            # Keys tell apart the sounds that they were made for together: so those known already are made again.
            together = list(dict.fromkeys([*self._keys, *self.paths]))
            self._keys.update(zip(together, content_keys(together, self._waveforms), strict=True))
        return [self._keys[path] for path in self.paths]


def window_spans(duration: float, window: float, hop: float) -> list[tuple[float, float]]:
    """(start, end) in seconds of the windows that cover a clip; see ``Clips.windows``."""
    slack = 1e-6  # s, far under a sample: durations and hops are rounded binary fractions
    if duration <= window + slack:
        return [(0.0, duration)]
    starts = [number * hop for number in range(1 + int(np.ceil((duration - window) / hop - slack)))]
    if duration - starts[-1] < window / 2:
        starts[-1] = duration - window
    return [(start, min(start + window, duration)) for start in starts]


@dataclass(frozen=True)
class _Header:
    """What is needed of a file before it is decoded: its length in seconds, and its channels."""

    duration: float
    channels: int = 1


def _read_headers(paths: Sequence[str]) -> dict[str, _Header | AudioError]:
    """Every file's header, in threads, or why it cannot be used."""
    unique = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        return dict(zip(unique, pool.map(_header, unique), strict=True))


def _header(path: str) -> _Header | AudioError:
    try:
        info = audio_info(path)
    except AudioError as error:
        return error
    return _Header(info.duration, info.channels)


def _with_channels(columns: Columns, channels: Channels, headers: Mapping[str, _Header | AudioError]) -> Columns:
    """The column of channels that ``channels`` asks for; with "all" a row for each channel of each file."""
    if channels == "mean":
        return columns
    if columns.channels is not None:
        raise ValueError(f"channels={channels!r}: the table says which channel to read; leave one of them out")
    if channels != "all":
        return replace(columns, channels=[0 if channels == "first" else channels] * len(columns))
    counts = [1 if isinstance(header := headers[path], AudioError) else header.channels for path in columns.paths]
    rows = columns.take([row for row, count in enumerate(counts) for _ in range(count)])
    return replace(rows, channels=[number for count in counts for number in range(count)])


def _duration(header: _Header | AudioError, path: str, start: float, end: float, channel: int) -> float | AudioError:
    """Seconds of a span, or why it cannot be used."""
    if isinstance(header, AudioError):
        return header
    if channel >= header.channels:
        return AudioError(path, f"has {header.channels} channels, so none of number {channel} (from 0)")
    try:
        begin, finish = check_span(path, start, end, header.duration)
    except AudioError as error:
        return error
    return finish - begin


# What a table's sounds are, for fingerprints


def file_states(clips: Table) -> dict[str, State]:
    """The state of each of a table's files; of sound in memory nothing."""
    return {} if clips._waveforms is not None else {path: file_state(path) for path in dict.fromkeys(clips.paths)}


def clips_parts(clips: Table, states: Mapping[str, State] | None = None) -> dict[str, str]:
    """Digests of all that a table says, by column.

    Args:
        clips: the table.
        states: of its files, if they are known already.
    """
    return {
        **sound_parts(clips, states),
        "class_names": fingerprint(names=clips.class_names, multi_label=clips.multi_label),
        "labels": fingerprint(labels=clips.labels),
        "weights": fingerprint(weights=clips.weights),
        "groups": fingerprint(group=clips.group),
        "folds": fingerprint(fold=clips.fold),
        "parts": fingerprint(part=clips.part),
        "background": fingerprint(name=clips.background),
    }


def sound_parts(clips: Table, states: Mapping[str, State] | None = None) -> dict[str, str]:
    """Digests of what a table's rows sound like: files or samples, spans, channels."""
    states = file_states(clips) if states is None else states
    held = clips._waveforms or {}
    sounds = {path: plain(held[path]) if path in held else states[path] for path in dict.fromkeys(clips.paths)}
    return {
        "sounds": fingerprint(paths=clips.paths, sounds=sounds),
        "spans": fingerprint(starts=clips.starts, ends=clips.ends, durations=clips.durations),
        "channels": fingerprint(channel=clips.channel),
    }
