"""What is in a table of clips, and what may be wrong with it: figures, Markdown, and a page of spectrograms."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfaudiotl._files import show_name
from tfaudiotl._seeds import stream
from tfaudiotl._threads import OnProgress, Progress, ignore
from tfaudiotl.audio.files import CANCELLING, audio_info, load_audio
from tfaudiotl.audio.waveform import QUIET, SAMPLE_RATE, cancels, mix
from tfaudiotl.data.splits import file_keys, units
from tfaudiotl.data.table import is_missing, listed
from tfaudiotl.errors import AudioError, AudioErrors
from tfaudiotl.markdown import escape_markdown, markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from tfaudiotl.data.table import Table

CLIPPED_RUN = 3  # neighbouring samples at one extreme value: a wave's flat top
CLIPPED_LEVEL = 0.5  # of full scale; flat tops below it are quantisation
CLIPPED_SHARE = 1e-4  # of the samples, from which a file is reported
OFFSET = 0.05  # of full scale, mean of all samples
_FRAME = 0.025  # s: silence is counted in such frames
_PIECE = 60.0  # s decoded at a time, so that long recordings need little memory
_LONGEST = 10.0  # s of a clip that are shown


@dataclass(frozen=True)
class Problem:
    """One thing found: its kind, the files (or groups) it is about, and what to know of it."""

    kind: str
    names: tuple[str, ...]
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {', '.join(self.names)}: {self.detail}"


@dataclass(frozen=True)
class ClassCount:
    """A class: its rows, and their hours."""

    name: str
    clips: int
    hours: float


@dataclass(frozen=True)
class Description:
    """What ``Clips.describe`` finds.

    Attributes:
        classes: The classes in order.
        clips: Rows that can be read.
        files: Distinct files of these.
        hours: Of all rows.
        seconds: Length of the rows: shortest, median, longest.
        formats: Files of each container and sample format.
        rates: Files of each sample rate, Hz.
        channels: Files of each number of channels.
        silence: Share of the files' time that is below -60 dB of full scale.
        problems: What may be wrong: "unreadable", "silent" (never above -60 dB), "cancelled" (the mean of the channels
            is silence), "clipped", "offset", "copies" (equal samples), "leak" (one group, file or content in two folds
            or tables), "no clips" and "one recording" (of a class), "one class".
    """

    classes: tuple[ClassCount, ...]
    clips: int
    files: int
    hours: float
    seconds: tuple[float, float, float]
    formats: dict[str, int] = field(default_factory=dict)
    rates: dict[int, int] = field(default_factory=dict)
    channels: dict[int, int] = field(default_factory=dict)
    silence: float = 0.0
    problems: tuple[Problem, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return asdict(self)

    def to_markdown(self) -> str:
        """The tables and the problems, to read."""
        shortest, median, longest = self.seconds
        facts = [
            ("Clips", f"{self.clips:,} in {self.files:,} files"),
            ("Hours", f"{self.hours:.3g}"),
            ("Seconds", f"{shortest:.3g} to {longest:.3g}, median {median:.3g}"),
            ("Formats", _counts(self.formats)),
            ("Rates", _counts(self.rates, " Hz")),
            ("Channels", _counts(self.channels)),
            ("Silence", f"{100 * self.silence:.1f} % of the time below -60 dB"),
        ]
        classes = [(escape_markdown(c.name), f"{c.clips:,}", f"{c.hours:.3g}") for c in self.classes]
        parts = [markdown_table(["", "What"], facts), markdown_table(["Class", "Clips", "Hours"], classes)]
        if self.problems:
            rows = []
            for problem in self.problems:
                names = escape_markdown(listed(problem.names))
                rows.append((problem.kind, names, escape_markdown(problem.detail)))
            parts.append(f"{len(rows)} problems\n\n" + markdown_table(["Problem", "Where", "What"], rows))
        else:
            parts.append("No problems found.\n")
        return "\n".join(parts)


@dataclass(frozen=True)
class _Measured:
    """One file, decoded."""

    format: str
    rate: int
    channels: int
    peak: float
    mean: float
    clipped: float
    cancelled: bool
    silent_frames: int
    frames: int
    digest: bytes


def describe(clips: Table, *, against: Sequence[Table] = (), progress: OnProgress = ignore) -> Description:
    """Decodes every file of a table once, and says what is in it.

    Args:
        clips: The table.
        against: Other parts of a split: files, groups and contents that this table shares with them are leaks.
        progress: Called after each file.
    """
    unique = list(dict.fromkeys(clips.paths))

    def measure(path: str) -> _Measured | AudioError:
        try:
            return _measure_file(path) if clips._waveforms is None else _measure_array(clips._waveforms[path])
        except AudioError as error:
            return error

    results: dict[str, _Measured | AudioError] = {}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for path, found in zip(unique, pool.map(measure, unique), strict=True):
            results[path] = found
            progress(Progress("Reading recordings", len(results), len(unique)))
    good = {path: found for path, found in results.items() if isinstance(found, _Measured)}
    if not good:
        raise AudioErrors([found for found in results.values() if isinstance(found, AudioError)], len(unique))
    bad = [*clips.skipped, *(found for found in results.values() if isinstance(found, AudioError))]
    clips = clips[[row for row, path in enumerate(clips.paths) if path in good]]  # what cannot be read is no clip
    hours = clips.durations / 3_600
    targets = clips.targets > 0
    classes = tuple(
        ClassCount(name, int(targets[:, n].sum()), float(hours[targets[:, n]].sum()))
        for n, name in enumerate(clips.class_names)
    )
    problems = [Problem("unreadable", (error.path,), error.reason) for error in bad]
    problems += [problem for path, found in good.items() for problem in _sound_problems(path, found)]
    problems += _copies(good)
    problems += list(_fold_leaks(clips))
    problems += [problem for other in against for problem in _leaks(clips, other)]
    problems += [Problem("no clips", (each.name,), "a class without any") for each in classes if not each.clips]
    problems += list(_too_few(clips))
    frames = sum(found.frames for found in good.values())
    return Description(
        classes=classes,
        clips=len(clips),
        files=len(good),
        hours=float(hours.sum()),
        seconds=(float(clips.durations.min()), float(np.median(clips.durations)), float(clips.durations.max())),
        formats=_counted(found.format for found in good.values()),
        rates=_counted(found.rate for found in good.values()),
        channels=_counted(found.channels for found in good.values()),
        silence=sum(found.silent_frames for found in good.values()) / max(frames, 1),
        problems=tuple(problems),
    )


def _too_few(clips: Table) -> Iterable[Problem]:
    """What a training would refuse."""
    together, targets = units(clips, None), clips.targets > 0
    if len(clips.class_names) == 1:
        yield Problem("one class", clips.class_names, "a classifier needs two: another one, or one for other sounds")
    for number, name in enumerate(clips.class_names):
        if len(np.unique(together[targets[:, number]])) == 1:
            yield Problem("one recording", (name,), "a class needs two, or two groups, to be on both sides of a split")


def _counted(values: Iterable[Any]) -> dict[Any, int]:
    return dict(sorted(Counter(values).items(), key=lambda pair: (-pair[1], str(pair[0]))))


def _measure_file(path: str) -> _Measured:
    info = audio_info(path)
    meter = _Meter(info.sample_rate)
    begin = 0.0
    while begin < info.duration:
        end = min(begin + _PIECE, info.duration)
        meter.add(load_audio(path, sample_rate=info.sample_rate, start=begin, end=end, channels="all"))
        begin = end if info.duration - end > 0.5 / info.sample_rate else info.duration
    return meter.result(f"{info.format} {info.subtype}", info.channels)


def _measure_array(waveform: NDArray[np.float32]) -> _Measured:
    meter = _Meter(SAMPLE_RATE)
    meter.add(waveform[:, None])
    return meter.result("array", 1)


class _Meter:
    """Sums over the pieces of a recording (frames, channels)."""

    def __init__(self, rate: int):
        self._rate, self._digest = rate, hashlib.blake2b(digest_size=16)
        self._peak = self._sum = self._power = self._mean_power = 0.0
        self._samples = self._clipped = self._silent = self._frames = 0

    def add(self, piece: NDArray[np.float32]) -> None:
        """The next piece."""
        size = np.abs(piece)
        peak = float(size.max())
        self._peak = max(self._peak, peak)
        self._sum += float(piece.sum(dtype=np.float64))
        self._power += float(np.mean(piece**2, axis=1, dtype=np.float64).sum())
        self._mean_power += float(np.sum(mix(piece) ** 2, dtype=np.float64))
        self._samples += piece.size
        if peak >= CLIPPED_LEVEL:
            at_top = size >= peak * (1 - 1e-6)
            run = at_top[: 1 - CLIPPED_RUN].copy()
            for step in range(1, CLIPPED_RUN):
                run &= at_top[step : len(at_top) + 1 - CLIPPED_RUN + step]
            self._clipped += int(run.sum())
        length = max(1, round(_FRAME * self._rate))
        frames = -(-len(size) // length)
        loudest = np.maximum.reduceat(size.max(axis=1), np.arange(frames) * length)
        self._frames += frames
        self._silent += int((loudest < QUIET).sum())
        # In 16 bits, so that a copy in another lossless format is found too.
        self._digest.update(np.round(piece * 32_767).astype("<i2").tobytes())

    def result(self, kind: str, channels: int) -> _Measured:
        """All of it."""
        per_frame = channels / max(self._samples, 1)
        return _Measured(
            format=kind,
            rate=self._rate,
            channels=channels,
            peak=self._peak,
            mean=self._sum / max(self._samples, 1),
            clipped=self._clipped / max(self._samples, 1),
            cancelled=cancels(self._power * per_frame, self._mean_power * per_frame),
            silent_frames=self._silent,
            frames=self._frames,
            digest=self._digest.digest(),
        )


def _sound_problems(path: str, found: _Measured) -> Iterable[Problem]:
    if found.peak == 0:
        yield Problem("silent", (path,), "every sample is zero")
    elif found.peak < QUIET:
        yield Problem("silent", (path,), f"never above {20 * np.log10(found.peak):.0f} dB of full scale")
    elif found.cancelled:
        yield Problem("cancelled", (path,), CANCELLING)
    if found.clipped > CLIPPED_SHARE:
        yield Problem("clipped", (path,), f"{100 * found.clipped:.2g} % of the samples lie in flat tops")
    if abs(found.mean) > OFFSET:
        yield Problem("offset", (path,), f"the mean of the samples is {found.mean:+.3f}, not 0")


def _copies(good: dict[str, _Measured]) -> list[Problem]:
    same: dict[Hashable, list[str]] = defaultdict(list)
    for path, found in good.items():
        if found.peak:
            same[found.rate, found.channels, found.digest].append(path)
    return [Problem("copies", tuple(paths), "the same samples") for paths in same.values() if len(paths) > 1]


def _fold_leaks(clips: Table) -> Iterable[Problem]:
    if clips.fold is None:
        return
    for what, keys in _identities(clips).items():
        folds: dict[Hashable, dict[str, str]] = defaultdict(dict)
        for key, fold, path in zip(keys, clips.fold.tolist(), clips.paths, strict=True):
            if is_missing(key):
                continue
            folds[key].setdefault(fold, path)
        for key, where in folds.items():
            if len(where) > 1:
                names = (str(key),) if what == "group" else tuple(where.values())
                yield Problem("leak", names, f"one {what} in folds {', '.join(where)}")


def _leaks(clips: Table, other: Table) -> Iterable[Problem]:
    theirs = _identities(other)
    for what, keys in _identities(clips).items():
        shared = {key for key in set(keys) & set(theirs.get(what, [])) if not is_missing(key)}
        for key in dict.fromkeys(key for key in keys if key in shared):
            name = str(key) if what == "group" else clips.paths[keys.index(key)]
            yield Problem("leak", (name,), f"one {what} on both sides of the split")


def _identities(clips: Table) -> dict[str, list[Hashable]]:
    """What must not be on two sides, by kind."""
    kinds: dict[str, list[Hashable]] = {"file": list(file_keys(clips.paths)), "content": list(clips.content_keys())}
    if clips.group is not None:
        kinds["group"] = list(clips.group.tolist())
    return kinds


# Written and drawn


def _counts(counts: dict[str, int] | dict[int, int], unit: str = "") -> str:
    return ", ".join(f"{name}{unit} ({count:,})" for name, count in counts.items())


def spectrogram_page(clips: Table, *, per_class: int = 3, classes: int = 12, seed: int = 0) -> Figure:
    """Spectrograms of a few clips of each class, drawn at random.

    Args:
        clips: The table.
        per_class: Clips of each class.
        classes: Classes shown at most, the first ones.
        seed: Of the choice.

    Returns:
        A figure, one row per class; what cannot be read is named in its place.
    """
    from matplotlib.figure import Figure  # takes a while to import, and a description needs none

    from tfaudiotl.evaluation.plots import draw_spectrogram

    names = clips.class_names[:classes]
    rng, targets = stream("shown clips", seed), clips.targets > 0
    figure = Figure(figsize=(3.4 * per_class, 1.7 * len(names) + 0.6), layout="constrained")
    grid = figure.subplots(len(names), per_class, squeeze=False, sharey=True)
    for number, name in enumerate(names):
        rows = rng.permutation(np.flatnonzero(targets[:, number]))[:per_class]
        for place, axes in enumerate(grid[number]):
            axes.tick_params(labelsize=6)
            if place == 0:
                axes.set_ylabel(f"{show_name(name)[:24]}\nHz", fontsize=8, parse_math=False)
            if place >= len(rows):
                axes.set_axis_off() if place else axes.set_xticks([])
                continue
            title = show_name(Path(clips.paths[rows[place]]).name)[-36:]
            axes.set_title(title, fontsize=6, parse_math=False)
            try:
                draw_spectrogram(axes, clips.load(int(rows[place]))[: round(_LONGEST * SAMPLE_RATE)], SAMPLE_RATE)
            except AudioError as error:
                axes.text(0.02, 0.5, error.reason[:40], fontsize=6, transform=axes.transAxes, parse_math=False)
    for axes in grid[-1]:
        axes.set_xlabel("s", fontsize=7)
    return figure
