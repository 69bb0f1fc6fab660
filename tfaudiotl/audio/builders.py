"""Where tables of clips come from: folders, tables, data sets, annotated recordings, arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tfaudiotl.audio import marks, sources, tables
from tfaudiotl.audio.edit import ClipEdits, read_saved
from tfaudiotl.audio.files import AUDIO_EXTENSIONS, check_channels
from tfaudiotl.audio.waveform import SAMPLE_RATE, Channels, check_waveform
from tfaudiotl.errors import AudioError, AudioErrors

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import ArrayLike, NDArray

OnError = Literal["raise", "skip"]
PathLike = str | os.PathLike[str]
Labels = Sequence[str | bytes] | Sequence[Sequence[str | bytes]] | np.ndarray

_SKIP_ADVICE = 'Fix or remove them, or pass on_error="skip" to leave them out.'


class ClipBuilders(ClipEdits):
    """The ways to build a table; a base class of ``Clips``."""

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
            channels: What is heard of a file: the "mean" of its channels, the "first", the number of one
                (from 0), or "all", each as a row of its own.
            on_error: "raise" names every unusable file in one error; "skip" lists them in
                ``skipped``.
            extensions: Suffixes of sound files.

        Raises:
            ValueError: The folder has another layout, fewer than two classes, a class without a
                usable sound, a folder not in ``class_names``; or a pattern does not fit all names.
            AudioErrors: (a ValueError) Files that cannot be used, with ``on_error="raise"``.
        """
        rows = sources.scan_directory(directory, extensions, parts=class_names is not None)
        if fold_pattern is not None:
            rows.folds = sources.from_names(rows.paths, "fold_pattern", fold_pattern)
        if group_pattern is not None:
            rows.groups = sources.from_names(rows.paths, "group_pattern", group_pattern)
        found = sorted(set(rows.labels))
        if len(class_names if class_names is not None else found) < 2:
            raise ValueError(
                f"directory={str(directory)!r} holds one class, {found[0]!r}; a classifier needs two: "
                "one sub-folder per class, and one for other sounds if there is nothing else to tell apart"
            )
        clips = cls._from_rows(rows, class_names, on_error, channels=channels)
        lost = [name for name in found if name not in {labels[0] for labels in clips.labels}]
        if lost:
            reasons = "\n".join(f"  {error}" for error in clips.skipped[:10])
            raise ValueError(f"no sound of {sources.listed(map(repr, lost))} can be used:\n{reasons}")
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
        rows = sources.Rows(
            paths=[os.fsdecode(path) for path in paths],
            labels=list(labels),
            folds=sources.as_names("folds", folds, empty=False),
            groups=sources.as_names("groups", groups, empty=True),
            starts=None if starts is None else [0.0 if start is None else float(start) for start in starts],
            ends=None if ends is None else [np.nan if end is None else float(end) for end in ends],
            weights=None if weights is None else [1.0 if weight is None else float(weight) for weight in weights],
            parts=sources.as_parts(parts),
        )
        return cls._from_rows(rows, class_names, on_error, channels=channels)

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
            channel: Name of the column with the number of the channel that is heard, from 0; empty cells are the mean.
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
        rows = tables.read_table(
            table, columns=columns, label_separator=label_separator, root=root, merge_repeats=merge_repeats
        )
        return cls._from_rows(rows, class_names, on_error, channels=channels)

    @classmethod
    def from_csv(cls, table: PathLike, **options: Any) -> Self:
        """``from_table`` by the name that people look for."""
        return cls.from_table(table, **options)

    @classmethod
    def from_dataset(
        cls,
        dataset: str,
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
        return cls._from_rows(tables.read_layout(dataset, root), class_names, on_error, channels=channels)

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
        rows, unmarked = marks.scan_annotations(
            directory,
            extensions,
            background=background,
            background_seconds=background_seconds,
            label_separator=label_separator,
            label_column=label_column,
        )
        if unmarked and on_error == "raise":
            raise AudioErrors(unmarked, len(set(rows.paths)) + len(unmarked), _SKIP_ADVICE)
        clips = cls._from_rows(rows, class_names, on_error, channels=channels)
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
                    f"{name} has clips of {sources.listed(map(repr, unknown))}, which train has not; its classes are "
                    f"{sources.listed(map(repr, train.class_names))}"
                )
        marked = [
            replace(clips, part=np.full(len(clips), name), class_names=train.class_names)
            for name, clips in parts.items()
        ]
        return marked[0].merge(*marked[1:])

    @classmethod
    def from_saved(cls, path: PathLike) -> Self:
        """Opens a table that ``save`` wrote; the files must still be there."""
        rows, class_names, multi_label, background = read_saved(path)
        return replace(cls._from_rows(rows, class_names, "raise"), multi_label=multi_label, background=background)

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
        rows = sources.Rows(
            paths=names,
            labels=list(labels),
            folds=sources.as_names("folds", folds, empty=False),
            groups=sources.as_names("groups", groups, empty=True),
        )
        return cls._from_rows(rows, class_names, "raise", held)

    @classmethod
    def _from_rows(
        cls,
        rows: sources.Rows,
        class_names: Sequence[str] | None,
        on_error: OnError,
        held: Mapping[str, NDArray[np.float32]] | None = None,
        channels: Channels = "mean",
    ) -> Self:
        if on_error not in ("raise", "skip"):
            raise ValueError(f'on_error={on_error!r}: expected "raise" or "skip"')
        check_channels(channels)
        sources.check_columns(rows)
        if rows.channels is not None and channels != "mean":
            raise ValueError(f"channels={channels!r}: the table says which channel is heard; leave one of them out")
        headers: Mapping[str, sources.Header | AudioError]
        if held is None:
            headers = sources.read_headers(rows.paths)
        else:
            headers = {name: sources.Header(len(samples) / SAMPLE_RATE) for name, samples in held.items()}
        if channels == "all":
            rows = sources.per_channel(rows, headers)
        elif channels != "mean":
            rows = replace(rows, channels=[0 if channels == "first" else channels] * len(rows.paths))
        count = len(rows.paths)
        labels, multi_label = sources.clean_labels(rows.labels)
        names = sources.clean_class_names(class_names, labels)
        durations, errors = sources.span_durations(rows, headers)
        if errors and on_error == "raise":
            raise AudioErrors(list(errors.values()), count, _SKIP_ADVICE)
        if len(errors) == count:
            raise AudioErrors(list(errors.values()), count, "None is left to work with.")
        everything = cls(
            paths=tuple(rows.paths),
            starts=np.array(rows.starts or [0.0] * count, np.float64),
            ends=np.array(rows.ends or [np.nan] * count, np.float64),
            durations=np.array(durations, np.float64),
            labels=labels,
            class_names=names,
            multi_label=multi_label,
            fold=None if rows.folds is None else np.array(rows.folds, np.str_),
            group=None if rows.groups is None else np.array(rows.groups, np.str_),
            weights=np.array(rows.weights or [1.0] * count, np.float32),
            source=np.arange(count),
            channel=None if rows.channels is None else np.array(rows.channels, np.int16),
            part=None if rows.parts is None else np.array(rows.parts, np.str_),
            ignored=rows.ignored,
            _waveforms=held,
        )
        if not errors:
            return everything
        kept = everything[[row for row in range(count) if row not in errors]]
        return replace(kept, source=np.arange(len(kept)), skipped=tuple(errors.values()))
