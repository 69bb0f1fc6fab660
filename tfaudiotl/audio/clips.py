"""Clips: the table of labelled spans of sound that everything downstream works on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tfaudiotl.audio import sources, splits
from tfaudiotl.audio.files import (
    AUDIO_EXTENSIONS,
    SAMPLE_RATE,
    check_rate,
    check_waveform,
    load_audio,
    resample,
)
from tfaudiotl.audio.table import Clip, ClipTable
from tfaudiotl.errors import AudioErrors

if TYPE_CHECKING:
    import tensorflow as tf
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Clip", "Clips", "OnError"]

OnError = Literal["raise", "skip"]
PathLike = str | os.PathLike[str]
Labels = Sequence[str] | Sequence[Sequence[str]]

_SKIP_ADVICE = 'Mend or remove them, or pass on_error="skip" to go on without them.'


class Clips(ClipTable):
    """An immutable table of labelled spans of sound, one column per attribute.

    Build it with ``from_directory``, ``from_files``, ``from_csv`` or ``from_arrays``. Indexing with a
    number gives a ``Clip``; with a slice, a mask or an array of numbers, ``Clips`` of those rows with
    the same classes.

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
        source: int64 (rows,): the row of the table that this one was taken from by ``split``,
            ``folds``, ``windows`` or indexing, so that features computed once for that table can be
            picked instead of computed again. Its own row number in a table just built.
        skipped: The sounds left out by ``on_error="skip"``, with their reasons.
        ignored: Number of files in the folder that are not sound files.
    """

    # Building

    @classmethod
    def from_directory(
        cls,
        directory: PathLike,
        *,
        fold_pattern: str | None = None,
        group_pattern: str | None = None,
        class_names: Sequence[str] | None = None,
        on_error: OnError = "raise",
        extensions: Sequence[str] = AUDIO_EXTENSIONS,
    ) -> Clips:
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
            on_error: "raise" names every unusable file in one error; "skip" lists them in
                ``skipped``.
            extensions: Suffixes of sound files.

        Raises:
            ValueError: The folder has another layout, fewer than two classes, a class without a
                usable sound, a folder not in ``class_names``; or a pattern does not fit all names.
            AudioErrors: (a ValueError) Files that cannot be used, with ``on_error="raise"``.
        """
        rows = sources.scan_directory(directory, extensions)
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
        clips = cls._from_rows(rows, class_names, on_error)
        lost = [name for name in found if name not in {labels[0] for labels in clips.labels}]
        if lost:
            reasons = "\n".join(f"  {error}" for error in clips.skipped[:10])
            raise ValueError(f"no sound of {sources.listed(map(repr, lost))} can be used:\n{reasons}")
        return clips

    @classmethod
    def from_files(
        cls,
        paths: Sequence[PathLike],
        labels: Labels,
        *,
        folds: Sequence[object] | None = None,
        groups: Sequence[object] | None = None,
        starts: Sequence[float | None] | None = None,
        ends: Sequence[float | None] | None = None,
        weights: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
        on_error: OnError = "raise",
    ) -> Clips:
        """Takes files, or spans of them, with their labels: one row each.

        Args:
            paths: (rows,) files; one file may have several rows.
            labels: (rows,) class names, or a list of class names for each row (multi-label; may be
                empty).
            folds: (rows,) names or numbers of folds.
            groups: (rows,) what must not be on both sides of a split: recording, speaker, site.
            starts: (rows,) seconds; None is 0.
            ends: (rows,) seconds; None or NaN is the file's end.
            weights: (rows,) at least 0, for training; None is 1.
            class_names: The classes in their order; None is all labels, sorted.
            on_error: "raise" names every unusable file in one error; "skip" lists them in
                ``skipped``.

        Raises:
            ValueError: Columns differ in length, or a value is not what it should be.
            AudioErrors: (a ValueError) Files that cannot be used, with ``on_error="raise"``.
        """
        rows = sources.Rows(
            paths=[os.fspath(path) for path in paths],
            labels=list(labels),
            folds=None if folds is None else [str(fold) for fold in folds],
            groups=None if groups is None else [str(group) for group in groups],
            starts=None if starts is None else [0.0 if start is None else float(start) for start in starts],
            ends=None if ends is None else [np.nan if end is None else float(end) for end in ends],
            weights=None if weights is None else [float(weight) for weight in weights],
        )
        return cls._from_rows(rows, class_names, on_error)

    @classmethod
    def from_csv(
        cls,
        table: PathLike,
        *,
        path: str = "path",
        label: str = "label",
        fold: str | None = None,
        group: str | None = None,
        start: str | None = None,
        end: str | None = None,
        weight: str | None = None,
        label_separator: str | None = None,
        root: PathLike | None = None,
        class_names: Sequence[str] | None = None,
        on_error: OnError = "raise",
    ) -> Clips:
        """Takes a CSV table, or a TSV table by its suffix (.tsv, .tab), with column names in line 1.

        Args:
            table: The file, UTF-8.
            path: Name of the column with the files.
            label: Name of the column with the class names.
            fold: Name of the column with folds, as ``group``, ``start`` and ``end`` (seconds) and
                ``weight``; None if there is none. Empty cells of the last three are the defaults.
            group: See ``fold``.
            start: See ``fold``.
            end: See ``fold``.
            weight: See ``fold``.
            label_separator: Where a cell holds several labels (multi-label), what is between them.
            root: Folder of relative paths; None is the table's folder.
            class_names: As in ``from_files``.
            on_error: As in ``from_files``.

        Raises:
            ValueError: The table cannot be read, or a column is missing (the message lists those
                there are), or a cell is not what it should be (the message has its line).
            AudioErrors: (a ValueError) Files that cannot be used, with ``on_error="raise"``.
        """
        columns: dict[str, str | None] = {"path": path, "label": label, "fold": fold, "group": group}
        columns |= {"start": start, "end": end, "weight": weight}
        rows = sources.read_table(table, columns=columns, label_separator=label_separator, root=root)
        return cls._from_rows(rows, class_names, on_error)

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
    ) -> Clips:
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
            folds=None if folds is None else [str(fold) for fold in folds],
            groups=None if groups is None else [str(group) for group in groups],
        )
        return cls._from_rows(rows, class_names, "raise", held)

    @classmethod
    def _from_rows(
        cls,
        rows: sources.Rows,
        class_names: Sequence[str] | None,
        on_error: OnError,
        held: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> Clips:
        if on_error not in ("raise", "skip"):
            raise ValueError(f'on_error={on_error!r}: expected "raise" or "skip"')
        count = len(rows.paths)
        sources.check_columns(rows)
        labels, multi_label = sources.clean_labels(rows.labels)
        names = sources.clean_class_names(class_names, labels)
        starts, ends = rows.starts or [0.0] * count, rows.ends or [np.nan] * count
        lengths = None if held is None else {name: len(samples) / SAMPLE_RATE for name, samples in held.items()}
        durations, errors = sources.span_durations(rows.paths, starts, ends, lengths)
        if errors and on_error == "raise":
            raise AudioErrors(list(errors.values()), count, _SKIP_ADVICE)
        if len(errors) == count:
            raise AudioErrors(list(errors.values()), count, "None is left to work with.")
        everything = cls(
            paths=tuple(rows.paths),
            starts=np.array(starts, np.float64),
            ends=np.array(ends, np.float64),
            durations=np.array(durations, np.float64),
            labels=labels,
            class_names=names,
            multi_label=multi_label,
            fold=None if rows.folds is None else np.array(rows.folds, np.str_),
            group=None if rows.groups is None else np.array(rows.groups, np.str_),
            weights=np.array(rows.weights or [1.0] * count, np.float32),
            source=np.arange(count),
            ignored=rows.ignored,
            _waveforms=held,
        )
        if not errors:
            return everything
        kept = everything[[row for row in range(count) if row not in errors]]
        return replace(kept, source=np.arange(len(kept)), skipped=tuple(errors.values()))

    # Parts

    def split(
        self,
        *,
        val: float = 0.2,
        stratify: bool = True,
        groups: splits.Groups = None,
        seed: int = 0,
    ) -> tuple[Clips, Clips]:
        """Divides the clips in two, nothing of one file or group being on both sides.

        Args:
            val: Share of the clips for the second part, between 0 and 1 exclusive; met as nearly as
                the groups allow.
            stratify: Whether both parts have the same share of each class, and every class.
            groups: What stays together beside the spans of one file: None or "group" is the group
                column (None: if there is one), "source" the file alone, or an array (rows,).
            seed: Same seed, same split.

        Returns:
            (train, val), rows in the order of this table.

        Raises:
            ValueError: ``val`` is out of range, or a class lies in one group only (the message names
                it with its count) or cannot be brought to both sides.
        """
        held_out = splits.split_mask(self, val=val, stratify=stratify, groups=groups, seed=seed)
        return self[~held_out], self[held_out]

    def folds(
        self, k: int | None = None, *, groups: splits.Groups = None, seed: int = 0
    ) -> list[tuple[str, Clips, Clips]]:
        """Cross-validation: each clip is in the test part of one fold.

        Args:
            k: Number of folds to draw, stratified and group-aware as in ``split``; None takes the
                given fold column.
            groups: As in ``split``.
            seed: Same seed, same folds.

        Returns:
            (name, train, test) for each fold, sorted by name.

        Raises:
            ValueError: There is no fold column; a class has fewer clips or groups than there are
                folds, or is missing from a fold's training part (the message names it); a file or
                group lies in two of the given folds.
        """
        names, fold = splits.fold_numbers(self, k, groups=groups, seed=seed)
        return [(name, self[fold != number], self[fold == number]) for number, name in enumerate(names)]

    def windows(self, window_seconds: float, hop_seconds: float | None = None) -> Clips:
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
        if not 0 < window_seconds < np.inf:
            raise ValueError(f"window_seconds={window_seconds!r}: expected a number of seconds over 0")
        if not 0 < hop <= window_seconds:
            raise ValueError(
                f"hop_seconds={hop_seconds!r}: expected over 0 and at most window_seconds={window_seconds!r}"
            )
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
            return load_audio(path, sample_rate=sample_rate, start=start, end=end)
        stop = None if np.isnan(end) else round(end * SAMPLE_RATE)
        held = self._waveforms[path][round(start * SAMPLE_RATE) : stop]
        return resample(held, SAMPLE_RATE, check_rate("sample_rate", sample_rate))

    def dataset(self, **options: Any) -> tf.data.Dataset:
        """Batches of waveforms and targets for Keras; see ``tfaudiotl.audio.pipeline.make_dataset``."""
        from tfaudiotl.audio.pipeline import (
            make_dataset,
        )  # here, so that a table of clips needs no TensorFlow

        return make_dataset(self, **options)


def window_spans(duration: float, window: float, hop: float) -> list[tuple[float, float]]:
    """(start, end) in seconds of the windows that cover a clip; see ``Clips.windows``."""
    slack = 1e-6  # s, far under a sample: durations and hops are rounded binary fractions
    if duration <= window + slack:
        return [(0.0, duration)]
    starts = [number * hop for number in range(1 + int(np.ceil((duration - window) / hop - slack)))]
    if duration - starts[-1] < window / 2:
        starts[-1] = duration - window
    return [(start, min(start + window, duration)) for start in starts]
