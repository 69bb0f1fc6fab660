"""Clips: the table of labelled spans of sound that users build, divide, change, describe and train on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tfaudiotl._files import write_atomic
from tfaudiotl._seeds import stream
from tfaudiotl._threads import OnProgress, ignore
from tfaudiotl.audio.files import AUDIO_EXTENSIONS
from tfaudiotl.audio.waveform import Channels, check_waveform
from tfaudiotl.data import splits
from tfaudiotl.data.annotations import read_annotations
from tfaudiotl.data.folders import from_names, read_directory
from tfaudiotl.data.inspection import Description, describe
from tfaudiotl.data.label_tables import DataSet, read_data_set, read_table
from tfaudiotl.data.table import PARTS, Clip, Columns, Table, as_names, as_parts, clean_class_names, listed
from tfaudiotl.errors import AudioErrors, OnError

if TYPE_CHECKING:
    from typing import Self

    import tensorflow as tf
    from numpy.typing import ArrayLike

    from tfaudiotl.data.dataset import make_dataset

__all__ = ["Clip", "Clips", "OnError"]

PathLike = str | os.PathLike[str]
Labels = Sequence[str | bytes] | Sequence[Sequence[str | bytes]] | np.ndarray

_SAVED = "tfaudiotl clips"


class Clips(Table):
    """An immutable table of labelled spans of sound; ``Table`` describes its columns.

    Build it with ``from_directory``, ``from_files``, ``from_table``, ``from_dataset``, ``from_annotations`` or
    ``from_arrays``. Indexing with a number gives a ``Clip``; with a slice, a mask or an array of numbers, ``Clips`` of
    those rows with the same classes.
    """

    # Where clips come from

    @classmethod
    def from_directory(
        cls,
        directory: PathLike,
        *,
        fold_pattern: str | None = None,
        group_pattern: str | None = None,
        class_names: Sequence[str] | None = None,
        channels: Channels = "mean",
        on_error: OnError = "raise",
        extensions: Sequence[str] = AUDIO_EXTENSIONS,
    ) -> Self:
        r"""Takes a folder with one sub-folder per class; the folder's name is the class.

        Files may lie deeper. Names that begin with a dot are passed over, files that are not sound
        by their suffix are counted in ``ignored``. Rows are sorted by class, then by path.

        Args:
            directory: The folder.
            fold_pattern: Regular expression searched in each file's name; its first group is the
                name of the fold. ``r"^(\d)-"`` reads ESC-50 names.
            group_pattern: Likewise, for the group.
            class_names: The classes in their order, and classes that have no folder here; None is
                the folders, sorted.
            channels: What is read of a file: the "mean" of its channels, the "first", the number of one
                (from 0), or "all", each as a row of its own.
            on_error: "raise" names every unusable file in one error; "skip" lists them in
                ``skipped``.
            extensions: Suffixes of sound files.

        Raises:
            ValueError: The folder has another layout, fewer than two classes, a class without a
                usable sound, a folder not in ``class_names``; or a pattern does not fit all names.
            AudioErrors: (a ValueError) Files that cannot be used, with ``on_error="raise"``.
        """
        rows = read_directory(directory, extensions, parts=class_names is not None)
        if fold_pattern is not None:
            rows.folds = from_names(rows.paths, "fold_pattern", fold_pattern)
        if group_pattern is not None:
            rows.groups = from_names(rows.paths, "group_pattern", group_pattern)
        found = sorted(set(rows.labels))
        if len(class_names if class_names is not None else found) < 2:
            raise ValueError(
                f"directory={str(directory)!r} holds one class, {found[0]!r}; a classifier needs two: "
                "one sub-folder per class, and one for other sounds if there is nothing else to tell apart"
            )
        clips = cls.from_columns(rows, class_names=class_names, on_error=on_error, channels=channels)
        lost = [name for name in found if name not in {labels[0] for labels in clips.labels}]
        if lost:
            reasons = "\n".join(f"  {error}" for error in clips.skipped[:10])
            raise ValueError(f"no sound of {listed(map(repr, lost))} can be used:\n{reasons}")
        return clips

    @classmethod
    def from_files(
        cls,
        paths: Sequence[PathLike | bytes],
        labels: Labels,
        *,
        folds: Sequence[object] | None = None,
        groups: Sequence[object] | None = None,
        starts: Sequence[float | None] | None = None,
        ends: Sequence[float | None] | None = None,
        weights: Sequence[float | None] | None = None,
        parts: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        channels: Channels = "mean",
        on_error: OnError = "raise",
    ) -> Self:
        """Takes files, or spans of them, with their labels: one row each.

        Args:
            paths: (rows,) files; one file may have several rows.
            labels: (rows,) class names, or a list of class names for each row (multi-label; may be
                empty).
            folds: (rows,) names or numbers of folds.
            groups: (rows,) what must not be on both sides of a split: recording, speaker, site. None, NaN and "" say
                that a row belongs to none: it may be on either side.
            starts: (rows,) seconds; None is 0.
            ends: (rows,) seconds; None or NaN is the file's end.
            weights: (rows,) at least 0, for training; None is 1.
            parts: (rows,) "train", "val" or "test" (or "training", "valid", "validation", "testing", "eval",
                "evaluation"), where the data set has a division of its own: ``split`` and trainings then keep to it.
            class_names: The classes in their order; None is all labels, sorted.
            channels: As in ``from_directory``.
            on_error: "raise" names every unusable file in one error; "skip" lists them in
                ``skipped``.

        Raises:
            ValueError: Columns differ in length, or a value is not what it should be.
            AudioErrors: (a ValueError) Files that cannot be used, with ``on_error="raise"``.
        """
        rows = Columns(
            paths=[os.fsdecode(path) for path in paths],
            labels=list(labels),
            folds=as_names("folds", folds, empty=False),
            groups=as_names("groups", groups, empty=True),
            starts=None if starts is None else [0.0 if start is None else float(start) for start in starts],
            ends=None if ends is None else [np.nan if end is None else float(end) for end in ends],
            weights=None if weights is None else [1.0 if weight is None else float(weight) for weight in weights],
            parts=as_parts(parts),
        )
        return cls.from_columns(rows, class_names=class_names, on_error=on_error, channels=channels)

    @classmethod
    def from_table(
        cls,
        table: Any,
        *,
        path: str = "path",
        label: str = "label",
        fold: str | None = None,
        group: str | None = None,
        start: str | None = None,
        end: str | None = None,
        weight: str | None = None,
        part: str | None = None,
        channel: str | None = None,
        label_separator: str | None = None,
        merge_repeats: bool = False,
        root: PathLike | None = None,
        class_names: Sequence[str] | None = None,
        channels: Channels = "mean",
        on_error: OnError = "raise",
    ) -> Self:
        """Takes a table: a CSV, TSV or Parquet file, a data frame, or a dict of columns.

        Args:
            table: A file, told by its suffix (.tsv and .tab, .parquet, else CSV; text is UTF-8 with column names
                in line 1), a pandas or polars DataFrame, or columns by name.
            path: Name of the column with the files; or a pattern of columns in braces, such as
                ``"audio/fold{fold}/{name}.wav"``.
            label: Name of the column with the class names; its cells may hold lists (multi-label; an empty list is
                background).
            fold: Name of the column with folds, as ``group``, ``start`` and ``end`` (seconds) and
                ``weight``; None if there is none. Empty cells of the last three are the defaults, a row whose group is
                empty belongs to none, and an empty fold is an error.
            group: See ``fold``.
            start: See ``fold``.
            end: See ``fold``.
            weight: See ``fold``.
            part: Name of the column with the data set's own division; its cells as ``parts`` of ``from_files``.
            channel: Name of the column with the number of the channel to read, from 0; empty cells are the mean.
            label_separator: Where a cell holds several labels (multi-label), what is between them; an empty cell is
                background.
            merge_repeats: Whether rows of the same span are one clip with the labels of all (multi-label).
            root: Folder of relative paths; None is the table's folder.
            class_names: As in ``from_files``.
            channels: As in ``from_directory``.
            on_error: As in ``from_files``.

        Raises:
            ValueError: The table cannot be read, or a column is missing (the message lists those
                there are), or a cell is not what it should be (the message has its line).
            AudioErrors: (a ValueError) Files that cannot be used, with ``on_error="raise"``.
        """
        columns: dict[str, str | None] = {"path": path, "label": label, "fold": fold, "group": group}
        columns |= {"start": start, "end": end, "weight": weight, "part": part, "channel": channel}
        rows = read_table(
            table, columns=columns, label_separator=label_separator, root=root, merge_repeats=merge_repeats
        )
        return cls.from_columns(rows, class_names=class_names, on_error=on_error, channels=channels)

    @classmethod
    def from_dataset(
        cls,
        dataset: DataSet,
        root: PathLike,
        *,
        class_names: Sequence[str] | None = None,
        channels: Channels = "mean",
        on_error: OnError = "raise",
    ) -> Self:
        """Takes a published data set as it comes out of its archive, with its folds and groups.

        Args:
            dataset: "esc50", "esc10", "urbansound8k", "fsd50k" or "fsd50k_eval" (multi-label).
            root: Its folder.
            class_names: As in ``from_files``.
            channels: As in ``from_directory``.
            on_error: As in ``from_files``.

        Raises:
            ValueError: There is no such data set, or its table is not there.
            AudioErrors: (a ValueError) Files that cannot be used, with ``on_error="raise"``.
        """
        rows = read_data_set(dataset, root)
        return cls.from_columns(rows, class_names=class_names, on_error=on_error, channels=channels)

    @classmethod
    def from_annotations(
        cls,
        directory: PathLike,
        *,
        background: str | None = None,
        background_seconds: float = 1.0,
        label_separator: str | None = None,
        label_column: str | None = None,
        class_names: Sequence[str] | None = None,
        channels: Channels = "mean",
        on_error: OnError = "raise",
        extensions: Sequence[str] = AUDIO_EXTENSIONS,
    ) -> Self:
        """Takes long recordings with marked events: Audacity's label tracks, Raven's selection tables.

        The marks of ``a.wav`` are in ``a.txt``, or ``a.`` and anything ending in ``.txt``, beside it. Each
        marked span is a row.

        Args:
            directory: The folder; recordings may lie deeper.
            background: Class of what is not marked, a negative class; None leaves it out. Classifiers trained on
                the clips score it, and never report it as an event.
            background_seconds: Shortest span of that class.
            label_separator: Where a mark holds several labels (multi-label), what is between them.
            label_column: Raven's column of the label; None is a usual one.
            class_names: As in ``from_files``.
            channels: As in ``from_directory``.
            on_error: As in ``from_files``; a recording without marks is an error too, unless there is a
                background.
            extensions: Suffixes of sound files.

        Raises:
            ValueError: No marks were found, or a line cannot be read (the message has its number).
            AudioErrors: (a ValueError) Files that cannot be used, with ``on_error="raise"``.
        """
        rows, unmarked = read_annotations(
            directory,
            extensions,
            background=background,
            background_seconds=background_seconds,
            label_separator=label_separator,
            label_column=label_column,
        )
        if unmarked and on_error == "raise":
            raise AudioErrors(unmarked, len(set(rows.paths)) + len(unmarked))
        clips = cls.from_columns(rows, class_names=class_names, on_error=on_error, channels=channels)
        return replace(clips, skipped=(*unmarked, *clips.skipped), background=background)

    @classmethod
    def from_parts(cls, *, train: Self, val: Self | None = None, test: Self | None = None) -> Self:
        """Puts the parts of a data set's own division together: ``split`` and trainings then keep to it.

        Args:
            train: What to learn from; its classes are those of the result.
            val: What stops a training.
            test: What is reported.

        Returns:
            The rows of all, with the column ``part``.

        Raises:
            ValueError: There is only one part, or one has classes that ``train`` lacks.
        """
        given = {"train": train, "val": val, "test": test}
        parts = {name: clips for name, clips in given.items() if clips is not None}
        if len(parts) < 2:
            raise ValueError("from_parts: give val= or test= beside train=")
        for name, clips in parts.items():
            used = {label for own in clips.labels for label in own}
            unknown = [label for label in clips.class_names if label in used and label not in train.class_names]
            if unknown:
                raise ValueError(
                    f"{name} has clips of {listed(map(repr, unknown))}, which train has not; its classes are "
                    f"{listed(map(repr, train.class_names))}"
                )
        marked = [
            replace(clips, part=np.full(len(clips), name), class_names=train.class_names)
            for name, clips in parts.items()
        ]
        return marked[0].merge(*marked[1:])

    @classmethod
    def from_saved(cls, path: PathLike) -> Self:
        """Opens a table that ``save`` wrote; the files must still be there."""
        rows, class_names, multi_label, background = _read_saved(path)
        return replace(cls.from_columns(rows, class_names=class_names), multi_label=multi_label, background=background)

    @classmethod
    def from_arrays(
        cls,
        waveforms: Sequence[ArrayLike],
        labels: Labels,
        *,
        sample_rate: int,
        folds: Sequence[object] | None = None,
        groups: Sequence[object] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Self:
        """Takes sounds in memory; they are kept as mono float32 at 16 kHz.

        Args:
            waveforms: (samples,) or (samples, channels) each, of any length, float in about [-1, 1]
                or integer (see ``check_waveform``).
            labels: As in ``from_files``.
            sample_rate: Rate of the waveforms, Hz.
            folds: As in ``from_files``.
            groups: As in ``from_files``.
            class_names: As in ``from_files``.

        Raises:
            ValueError: A waveform or a column is not what it should be; the message names it.
        """
        names = [f"array[{row}]" for row in range(len(waveforms))]
        held = {
            name: check_waveform(waveform, sample_rate=sample_rate, name=name)
            for name, waveform in zip(names, waveforms, strict=True)
        }
        rows = Columns(
            paths=names,
            labels=list(labels),
            folds=as_names("folds", folds, empty=False),
            groups=as_names("groups", groups, empty=True),
        )
        return cls.from_columns(rows, class_names=class_names, held=held)

    # Parts

    def split(
        self,
        *,
        test: float | None = None,
        val: float | None = None,
        stratify: bool = True,
        groups: splits.Groups = None,
        seed: int = 0,
    ) -> tuple[Clips, Clips]:
        """Divides the clips in two, nothing of one file or group being on both sides.

        Clips with a division of their own (the column ``part``) keep to it: the result is their part "train", and "val"
        or, where there is none, "test". ``parts`` has all of them.

        Example:
            >>> train, test = clips.split(test=0.2)  # test is reported
            >>> train, val = train.split(val=0.15)  # val stops the training

        Args:
            test: Share of the clips for the second part, between 0 and 1 exclusive; met as nearly as
                the groups allow. None is 0.2.
            val: The same share under the name of clips that stop a training; give one of the two.
            stratify: Whether both parts have the same share of each class, and every class.
            groups: What stays together beside the spans of one file: None or "group" is the group
                column (None: if there is one), "source" the file alone, or an array (rows,).
            seed: Same seed, same split.

        Returns:
            The clips to train on and the others, rows in the order of this table.

        Raises:
            ValueError: The share is out of range, or a class lies in one group only (the message names
                it with its count) or cannot be brought to both sides. Or a share is given for clips with a division of
                their own, or these have no part "train".
        """
        given = {name: share for name, share in (("test", test), ("val", val)) if share is not None}
        if len(given) > 1:
            raise ValueError(f"test={test!r} and val={val!r}: give one of them, and split twice for three parts")
        name, share = next(iter(given.items()), ("test", 0.2))
        parts = self.parts()
        if len(parts) > 1:
            if given:
                raise ValueError(
                    f"{name}={share!r}: these clips have their own parts, {', '.join(parts)}, which are not mixed; "
                    f'parts()["train"].split({name}=...) divides one of them'
                )
            if "train" not in parts:
                raise ValueError(f"the clips have the parts {', '.join(parts)}, and none to train on")
            splits.check_parts(self)
            return parts["train"], parts.get("val", parts.get("test", parts["train"]))
        held_out = splits.split_mask(self, name, share, stratify=stratify, groups=groups, seed=seed)
        return self[~held_out], self[held_out]

    def parts(self) -> dict[str, Clips]:
        """The parts of the data set's own division, of "train", "val" and "test" those that have clips.

        Returns:
            Name -> clips, in that order; empty where there is no such division.
        """
        if self.part is None:
            return {}
        return {name: self[rows] for name in PARTS if (rows := self.part == name).any()}

    def folds(
        self, folds: splits.Folds = "given", *, groups: splits.Groups = None, seed: int = 0
    ) -> list[tuple[str, Clips, Clips]]:
        """Cross-validation: each clip is in the test part of one fold.

        Args:
            folds: Number of folds to draw, stratified and group-aware as in ``split``; "given" takes the
                fold column.
            groups: As in ``split``.
            seed: Same seed, same folds.

        Returns:
            (name, train, test) for each fold, sorted by name.

        Raises:
            ValueError: There is no fold column; a class has fewer clips or groups than there are
                folds, or is missing from a fold's training part (the message names it); a file or
                group lies in two of the given folds.
        """
        if len(parts := self.parts()) > 1:
            raise ValueError(
                f'folds would mix the clips\' own parts, {", ".join(parts)}; parts()["train"].folds(...) divides one'
            )
        names, fold = splits.fold_numbers(self, folds, groups=groups, seed=seed)
        return [(name, self[fold != number], self[fold == number]) for number, name in enumerate(names)]

    # Other tables of the same sounds

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
        every: list[Self] = [self, *others]
        for name in ("fold", "group", "part"):
            if len({getattr(clips, name) is None for clips in every}) > 1:
                raise ValueError(f"merge: some tables have a {name} column and some do not")
        if any(clips.channel is not None for clips in every):  # where it is missing, the mean of all
            mean = [np.full(len(clips), -1, np.int16) for clips in every]
            every = [c if c.channel is not None else replace(c, channel=m) for c, m in zip(every, mean, strict=True)]
        if len({clips._waveforms is None for clips in every}) > 1:
            raise ValueError("merge: some tables hold their sounds in memory and some are files; save the former first")
        paths, held = [clips.paths for clips in every], None
        if self._waveforms is not None:  # every table calls its sounds array[0] and so on
            paths = [tuple(f"table[{n}].{path}" for path in clips.paths) for n, clips in enumerate(every)]
            held = {f"table[{n}].{k}": w for n, clips in enumerate(every) for k, w in (clips._waveforms or {}).items()}
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(clips, name) for clips in every]) for name in every[0]._arrays()
        }
        columns["source"] = np.arange(sum(map(len, every)))
        return replace(
            self,
            paths=tuple(path for part in paths for path in part),
            labels=tuple(own for clips in every for own in clips.labels),
            class_names=tuple(dict.fromkeys(name for clips in every for name in clips.class_names)),
            multi_label=any(clips.multi_label for clips in every),
            background=next((clips.background for clips in every if clips.background is not None), None),
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

    def balance(self, per_class: int | Literal["largest", "smallest"] = "largest", *, seed: int = 0) -> Self:
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

    # What is there

    def describe(self, *, against: Sequence[Table] = (), progress: OnProgress = ignore) -> Description:
        """Decodes every file once, and says what is in the table and what may be wrong with it.

        Args:
            against: Other parts of a split: files, groups and contents that this table shares with them are leaks.
            progress: Called after each file.
        """
        return describe(self, against=against, progress=progress)

    if TYPE_CHECKING:  # so that editors and type checkers see every argument
        dataset = make_dataset
    else:

        def dataset(self, **options: Any) -> tf.data.Dataset:
            """Batches of waveforms and targets for Keras; see ``tfaudiotl.data.dataset.make_dataset``."""
            from tfaudiotl.data.dataset import make_dataset  # here, so that a table of clips needs no TensorFlow

            return make_dataset(self, **options)

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


def _read_saved(path: str | os.PathLike[str]) -> tuple[Columns, list[str], bool, str | None]:
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
        Columns(
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
