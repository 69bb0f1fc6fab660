"""The columns of a table of labelled spans of sound, and picking rows from it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from tfaudiotl.audio import splits
from tfaudiotl.audio.content import content_keys
from tfaudiotl.audio.sources import listed
from tfaudiotl.errors import AudioError

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Clip:
    """One row of ``Clips``: a span of a recording and what is heard in it.

    Attributes:
        path: The file, or "array[i]" for sound in memory.
        start: Where the span begins, seconds.
        end: Where it stops, seconds; None is the end of the recording.
        duration: Its length, seconds.
        labels: Names of its classes; one for single-label clips.
        fold: Name of its fold, or None.
        group: Name of its group (recording, speaker, site), or None.
        weight: Its weight in training.
        channel: Number of the channel that is heard, from 0; None is the mean of all.
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
class ClipTable:
    """The columns of ``Clips``, which says what they hold; a base class to keep files short."""

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
        for column in (
            self.starts,
            self.ends,
            self.durations,
            self.fold,
            self.group,
            self.weights,
            self.source,
            self.channel,
            self.part,
        ):
            if column is not None:
                column.flags.writeable = False  # rows are shared between a table and its splits

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

    def content_keys(self) -> list[Hashable]:
        """One key per row, equal for rows whose files have the same bytes (or arrays the same samples)."""
        if not all(path in self._keys for path in self.paths):
            # Keys tell apart the sounds that they were made for together: so those known already are made again.
            together = list(dict.fromkeys([*self._keys, *self.paths]))
            self._keys.update(zip(together, content_keys(together, self._waveforms), strict=True))
        return [self._keys[path] for path in self.paths]

    def _take(self, rows: NDArray[np.int64]) -> Self:
        return replace(
            self,
            paths=tuple(self.paths[row] for row in rows),
            starts=self.starts[rows],
            ends=self.ends[rows],
            durations=self.durations[rows],
            labels=tuple(self.labels[row] for row in rows),
            fold=None if self.fold is None else self.fold[rows],
            group=None if self.group is None else self.group[rows],
            weights=self.weights[rows],
            source=self.source[rows],
            channel=None if self.channel is None else self.channel[rows],
            part=None if self.part is None else self.part[rows],
        )

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
        return splits.balanced_weights(self.label_ids, len(self.class_names))

    def _single(self, what: str, instead: str) -> None:
        if self.multi_label:
            raise ValueError(f"{what} needs exactly one class per clip, and these are multi-label; use {instead}")
