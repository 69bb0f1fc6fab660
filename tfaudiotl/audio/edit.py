"""Changing a table of clips: filter, merge, relabel, balance, describe, save."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfaudiotl._files import write_atomic
from tfaudiotl._seeds import stream
from tfaudiotl._threads import OnProgress, ignore
from tfaudiotl.audio import splits
from tfaudiotl.audio.sources import Rows, as_names, clean_class_names, listed
from tfaudiotl.audio.table import Clip, ClipTable

if TYPE_CHECKING:
    from typing import Self

    from tfaudiotl.audio.describe import Description

_SAVED = "tfaudiotl clips"


class ClipEdits(ClipTable):
    """What turns a table into another; a base class of ``Clips``."""

    def filter(
        self,
        keep: Callable[[Clip], bool] | None = None,
        *,
        labels: Collection[str] | None = None,
        min_seconds: float = 0.0,
        max_seconds: float = math.inf,
    ) -> Self:
        """The rows that pass every test.

        Args:
            keep: Called with each ``Clip``.
            labels: Classes to keep: rows with one of them, of which the other labels are taken off; they
                become ``class_names``, in their order there.
            min_seconds: Least length.
            max_seconds: Greatest length.

        Raises:
            ValueError: A label is no class.
        """
        clips = self
        if labels is not None:
            wanted = {labels} if isinstance(labels, str) else set(labels)
            unknown = sorted(wanted - set(self.class_names))
            if unknown:
                raise ValueError(f"labels={unknown!r} are not among the classes {listed(self.class_names)}")
            clips = replace(
                self[[row for row, own in enumerate(self.labels) if wanted & set(own)]],
                class_names=tuple(name for name in self.class_names if name in wanted),
            )
            clips = replace(clips, labels=tuple(tuple(n for n in own if n in wanted) for own in clips.labels))
        long_enough = (clips.durations >= min_seconds) & (clips.durations <= max_seconds)
        kept = [row for row in np.flatnonzero(long_enough).tolist() if keep is None or keep(clips[row])]
        return clips[kept]

    def merge(self, *others: Self) -> Self:
        """The rows of this table and of others, one after the other.

        The classes are this table's, then those that the others add. A column of folds, groups or parts must be in
        all tables or in none. Multi-label if one of the tables is.

        Raises:
            ValueError: Some tables have folds, groups or parts and some do not.
        """
        every = [self, *others]
        columns: dict[str, Any] = {}
        for name in ("fold", "group", "part"):
            given = [getattr(clips, name) for clips in every]
            if any(column is None for column in given) and any(column is not None for column in given):
                raise ValueError(f"merge: some tables have a {name} column and some do not")
            columns[name] = None if given[0] is None else np.concatenate(given)
        if all(clips.channel is None for clips in every):
            columns["channel"] = None
        else:
            heard = [np.full(len(c), -1, np.int16) if c.channel is None else c.channel for c in every]
            columns["channel"] = np.concatenate(heard)
        columns |= {
            name: np.concatenate([getattr(clips, name) for clips in every])
            for name in ("starts", "ends", "durations", "weights")
        }
        in_memory = [clips._waveforms is not None for clips in every]
        if any(in_memory) and not all(in_memory):
            raise ValueError("merge: some tables hold their sounds in memory and some are files; save the former first")
        paths, held = [list(clips.paths) for clips in every], None
        if all(in_memory):  # every table calls its sounds array[0] and so on
            paths = [[f"table[{n}].{path}" for path in clips.paths] for n, clips in enumerate(every)]
            held = {f"table[{n}].{k}": w for n, clips in enumerate(every) for k, w in (clips._waveforms or {}).items()}
        return replace(
            self,
            paths=tuple(path for part in paths for path in part),
            labels=tuple(own for clips in every for own in clips.labels),
            class_names=tuple(dict.fromkeys(name for clips in every for name in clips.class_names)),
            multi_label=any(clips.multi_label for clips in every),
            background=next((clips.background for clips in every if clips.background is not None), None),
            source=np.arange(sum(map(len, every))),
            skipped=tuple(error for clips in every for error in clips.skipped),
            ignored=sum(clips.ignored for clips in every),
            _waveforms=held,
            _keys={},
            **columns,
        )

    def relabel(
        self, names: Mapping[str, str | Sequence[str] | None], *, class_names: Sequence[str] | None = None
    ) -> Self:
        """Other names for classes; classes of the same new name become one.

        Args:
            names: Old name -> new name, several (then the clips become multi-label), or None: background, heard
                in no class (multi-label too). Classes not named keep their name.
            class_names: The classes in their order; None keeps the old order, new names where their first old
                one was.

        Raises:
            ValueError: An old name is no class, or ``class_names`` lacks one.
        """
        unknown = [name for name in names if name not in self.class_names]
        if unknown:
            raise ValueError(
                f"names: {listed(map(repr, unknown))} are not among the classes {listed(self.class_names)}"
            )
        new = {name: _names_of(names.get(name, name)) for name in self.class_names}
        labels = tuple(tuple(dict.fromkeys(n for old in own for n in new[old])) for own in self.labels)
        order = (
            class_names if class_names is not None else list(dict.fromkeys(n for part in new.values() for n in part))
        )
        return replace(
            self,
            labels=labels,
            class_names=clean_class_names(order, labels),
            multi_label=self.multi_label or any(len(part) != 1 for part in new.values()),
            background=next(iter(new.get(self.background or "", ())), None),
        )

    def balance(self, per_class: int | str = "largest", *, seed: int = 0) -> Self:
        """As many rows of every class, drawn at random; rows of several classes count for their rarest.

        Args:
            per_class: Rows of each class: a number, "largest" (as many as the largest has: the others' rows are
                repeated, best with ``augment=``) or "smallest" (as many as the smallest has).
            seed: Same seed, same rows.

        Returns:
            Rows in the order of this table; no row comes again before all others of its class.

        Raises:
            ValueError: ``per_class`` is none of these.
        """
        counts = np.unique(splits.rarest_class(self.targets), return_counts=True)[1]
        named = {"largest": int(counts.max()), "smallest": int(counts.min())}
        number = named.get(per_class, 0) if isinstance(per_class, str) else per_class
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
            raise ValueError(f'per_class={per_class!r}: expected "largest", "smallest" or a number of at least 1')
        rows = splits.balanced_draw(self.targets, stream("balance", seed), int(number) * len(counts))
        return self[np.sort(rows)]

    def describe(self, *, against: Sequence[Self] = (), progress: OnProgress = ignore) -> Description:
        """Decodes everything once and says what is there; see ``tfaudiotl.audio.describe``."""
        from tfaudiotl.audio.describe import describe

        return describe(self, against=against, progress=progress)

    def to_columns(self) -> dict[str, list[Any]]:
        """The table as columns by name, for ``pandas.DataFrame`` and its kin."""
        columns: dict[str, list[Any]] = {
            "path": list(self.paths),
            "label": [list(own) if self.multi_label else own[0] for own in self.labels],
            "start": self.starts.tolist(),
            "end": [None if math.isnan(end) else end for end in self.ends.tolist()],
            "weight": self.weights.tolist(),
        }
        for name, missing in (("fold", None), ("group", ""), ("channel", -1), ("part", None)):
            column = getattr(self, name)
            if column is not None:
                columns[name] = [None if value == missing else value for value in column.tolist()]
        return columns

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the table (not the sounds) as JSON, one row to a line; ``Clips.from_saved`` opens it.

        Paths are written relative to the file where they lie below its folder, so that the two can move together.

        Raises:
            ValueError: The sounds are in memory, so that there is nothing to come back to.
        """
        if self._waveforms is not None:
            raise ValueError("save: these sounds are in memory; write them with write_audio and use from_files")
        target = Path(path)
        columns = self.to_columns()
        columns["path"] = [_relative(file, target.parent) for file in self.paths]
        rows = [json.dumps(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
        head = {"format": _SAVED, "class_names": list(self.class_names), "multi_label": self.multi_label}
        head["background"] = self.background
        text = json.dumps(head)[:-1] + ', "rows": [\n' + ",\n".join(rows) + "\n]}\n"
        write_atomic(target, text)


def read_saved(path: str | os.PathLike[str]) -> tuple[Rows, list[str], bool, str | None]:
    """What ``save`` wrote: rows, class names, whether they are multi-label, and the background class.

    Raises:
        ValueError: It is no such file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["format"] != _SAVED:
            raise KeyError("format")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"path={os.fspath(path)!r} is no table that Clips.save wrote: {error!r}") from None
    rows = content["rows"]

    def column(name: str) -> list[Any] | None:
        return [row[name] for row in rows] if rows and name in rows[0] else None

    return (
        Rows(
            paths=[os.path.join(os.path.dirname(os.fspath(path)), row["path"]) for row in rows],
            labels=[row["label"] for row in rows],
            folds=column("fold"),
            groups=as_names("groups", column("group"), empty=True),
            starts=column("start"),
            ends=[math.nan if row["end"] is None else row["end"] for row in rows],
            weights=column("weight"),
            channels=None if (heard := column("channel")) is None else [-1 if c is None else c for c in heard],
            parts=column("part"),
        ),
        content["class_names"],
        content["multi_label"],
        content.get("background"),  # not in tables of earlier versions
    )


def _names_of(new: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if new is None else (new,) if isinstance(new, str) else tuple(new)


def _relative(file: str, folder: Path) -> str:
    absolute, base = os.path.abspath(file), os.path.abspath(folder)
    return os.path.relpath(absolute, base) if absolute.startswith(os.path.join(base, "")) else absolute
