"""A description of clips to read: Markdown tables, and a page of spectrograms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from tfaudiotl._files import show_name
from tfaudiotl._seeds import stream
from tfaudiotl.audio.waveform import SAMPLE_RATE
from tfaudiotl.errors import AudioError
from tfaudiotl.evaluation.writing import escape_markdown, markdown_table

if TYPE_CHECKING:
    from tfaudiotl.audio.clips import Clips
    from tfaudiotl.audio.describe import Description

_SHOWN = 5  # names of one problem
_LONGEST = 10.0  # s of a clip that are shown
_FFT, _STEP = 512, 160  # samples at 16 kHz: 32 ms every 10 ms
_RANGE = 80.0  # dB below the loudest


def description_markdown(description: Description) -> str:
    """Everything that ``Clips.describe`` found, as Markdown."""
    shortest, median, longest = description.seconds
    facts = [
        ("Clips", f"{description.clips:,} in {description.files:,} files"),
        ("Hours", f"{description.hours:.3g}"),
        ("Seconds", f"{shortest:.3g} to {longest:.3g}, median {median:.3g}"),
        ("Formats", _counts(description.formats)),
        ("Rates", _counts(description.rates, " Hz")),
        ("Channels", _counts(description.channels)),
        ("Silence", f"{100 * description.silence:.1f} % of the time below -60 dB"),
    ]
    classes = [(escape_markdown(c.name), f"{c.clips:,}", f"{c.hours:.3g}") for c in description.classes]
    parts = [markdown_table(["", "What"], facts), markdown_table(["Class", "Clips", "Hours"], classes)]
    if description.problems:
        rows = []
        for problem in description.problems:
            more = f" and {len(problem.names) - _SHOWN} more" if len(problem.names) > _SHOWN else ""
            names = ", ".join(problem.names[:_SHOWN]) + more
            rows.append((problem.kind, escape_markdown(names), escape_markdown(problem.detail)))
        parts.append(f"{len(rows)} problems\n\n" + markdown_table(["Problem", "Where", "What"], rows))
    else:
        parts.append("No problems found.\n")
    return "\n".join(parts)


def _counts(counts: dict[str, int] | dict[int, int], unit: str = "") -> str:
    return ", ".join(f"{name}{unit} ({count:,})" for name, count in counts.items())


def spectrogram_page(clips: Clips, *, per_class: int = 3, classes: int = 12, seed: int = 0) -> Figure:
    """Spectrograms of a few clips of each class, drawn at random.

    Args:
        clips: The table.
        per_class: Clips of each class.
        classes: Classes shown at most, the first ones.
        seed: Of the choice.

    Returns:
        A figure, one row per class; what cannot be read is named in its place.
    """
    names = clips.class_names[:classes]
    rng, targets = stream("shown clips", seed), clips.targets > 0
    figure = Figure(figsize=(3.4 * per_class, 1.7 * len(names) + 0.6), layout="constrained")
    grid = figure.subplots(len(names), per_class, squeeze=False, sharey=True)
    for number, name in enumerate(names):
        rows = rng.permutation(np.flatnonzero(targets[:, number]))[:per_class]
        for place, axes in enumerate(grid[number]):
            axes.tick_params(labelsize=6)
            if place == 0:
                axes.set_ylabel(f"{show_name(name)[:24]}\nkHz", fontsize=8, parse_math=False)
            if place >= len(rows):
                axes.set_axis_off() if place else axes.set_xticks([])
                continue
            title = show_name(Path(clips.paths[rows[place]]).name)[-36:]
            axes.set_title(title, fontsize=6, parse_math=False)
            try:
                picture, seconds = _decibels(clips.load(int(rows[place])))
            except AudioError as error:
                axes.text(0.02, 0.5, error.reason[:40], fontsize=6, transform=axes.transAxes, parse_math=False)
                continue
            extent = (0.0, seconds, 0.0, SAMPLE_RATE / 2_000)
            axes.imshow(picture, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-_RANGE, vmax=0)
    for axes in grid[-1]:
        axes.set_xlabel("s", fontsize=7)
    return figure


def _decibels(waveform: np.ndarray) -> tuple[np.ndarray, float]:
    """Magnitudes (frequencies, frames) in dB of the loudest, and the seconds shown."""
    shown = waveform[: int(_LONGEST * SAMPLE_RATE)]
    padded = np.pad(shown, (0, max(0, _FFT - len(shown))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::_STEP] * np.hanning(_FFT)
    size = np.abs(np.fft.rfft(frames)).T
    return 20 * np.log10(np.maximum(size, 1e-9) / max(size.max(), 1e-9)), len(shown) / SAMPLE_RATE
