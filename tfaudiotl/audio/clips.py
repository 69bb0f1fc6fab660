"""Clips: the table of labelled spans of sound that everything downstream works on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tfaudiotl.audio import splits
from tfaudiotl.audio.builders import ClipBuilders, OnError
from tfaudiotl.audio.files import load_audio
from tfaudiotl.audio.sources import PARTS
from tfaudiotl.audio.table import Clip
from tfaudiotl.audio.waveform import SAMPLE_RATE, Channels, check_rate, resample

if TYPE_CHECKING:
    import tensorflow as tf
    from numpy.typing import NDArray

__all__ = ["Clip", "Clips", "OnError"]


class Clips(ClipBuilders):
    """An immutable table of labelled spans of sound, one column per attribute.

    Build it with ``from_directory``, ``from_files``, ``from_table``, ``from_dataset``, ``from_annotations`` or
    ``from_arrays``. Indexing with a
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
        channel: int16 (rows,), the channel that is heard, from 0; None is the mean of all channels.
        part: str (rows,), "train", "val" or "test" where the data set has a division of its own, else None.
        source: int64 (rows,): the row of the table that this one was taken from by ``split``,
            ``folds``, ``windows`` or indexing, so that features computed once for that table can be
            picked instead of computed again. Its own row number in a table just built.
        skipped: The sounds left out by ``on_error="skip"``, with their reasons.
        background: The class that is no sound of interest, declared by ``from_annotations``, or None; classifiers
            trained on these clips remember it and never report it as an event.
        ignored: Number of files in the folder that are not sound files.
    """

    # Parts

    def split(
        self,
        *,
        val: float | None = None,
        stratify: bool = True,
        groups: splits.Groups = None,
        seed: int = 0,
    ) -> tuple[Clips, Clips]:
        """Divides the clips in two, nothing of one file or group being on both sides.

        Clips with a division of their own (the column ``part``) keep to it: the result is their part "train", and "val"
        or, where there is none, "test". ``parts`` has all of them.

        Args:
            val: Share of the clips for the second part, between 0 and 1 exclusive; met as nearly as
                the groups allow. None is 0.2.
            stratify: Whether both parts have the same share of each class, and every class.
            groups: What stays together beside the spans of one file: None or "group" is the group
                column (None: if there is one), "source" the file alone, or an array (rows,).
            seed: Same seed, same split.

        Returns:
            (train, val), rows in the order of this table.

        Raises:
            ValueError: ``val`` is out of range, or a class lies in one group only (the message names
                it with its count) or cannot be brought to both sides. Or ``val`` is given for clips with a division of
                their own, or these have no part "train".
        """
        parts = self.parts()
        if len(parts) > 1:
            if val is not None:
                raise ValueError(
                    f"val={val!r}: these clips have their own parts, {', '.join(parts)}, which are not mixed; "
                    'parts()["train"].split(val=...) divides one of them'
                )
            if "train" not in parts:
                raise ValueError(f"the clips have the parts {', '.join(parts)}, and none to train on")
            splits.check_parts(self)
            return parts["train"], parts.get("val", parts.get("test", parts["train"]))
        val = 0.2 if val is None else val
        held_out = splits.split_mask(self, val=val, stratify=stratify, groups=groups, seed=seed)
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
        if len(parts := self.parts()) > 1:
            raise ValueError(
                f'folds would mix the clips\' own parts, {", ".join(parts)}; parts()["train"].folds(...) divides one'
            )
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
            channels: Channels = "mean" if self.channel is None or self.channel[row] < 0 else int(self.channel[row])
            return load_audio(path, sample_rate=sample_rate, start=start, end=end, channels=channels)
        stop = None if np.isnan(end) else round(end * SAMPLE_RATE)
        held = self._waveforms[path][round(start * SAMPLE_RATE) : stop].copy()  # the table's own must not be changed
        return resample(held, SAMPLE_RATE, check_rate("sample_rate", sample_rate))

    def dataset(self, **options: Any) -> tf.data.Dataset:
        """Batches of waveforms and targets for Keras; see ``tfaudiotl.audio.dataset.make_dataset``."""
        from tfaudiotl.audio.dataset import (
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
