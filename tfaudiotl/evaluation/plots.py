"""Figures of an evaluation and of its training, drawn without pyplot: safe in threads and servers.

In a notebook a returned figure shows itself; ``save_figure`` writes it.
"""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from tfaudiotl._files import check_picture, show_name, write_atomic
from tfaudiotl.errors import check_number
from tfaudiotl.evaluation.measures import Calibration
from tfaudiotl.evaluation.metrics import ClassMetrics, Evaluation

History = Mapping[str, Sequence[float]]

DPI = 150
_MAX_ANNOTATED = 30  # classes up to which a cell has room for its count
_MAX_BARS = 60  # classes in per_class_figure: about as tall a picture as one scrolls through
_LABEL_LENGTH = 32  # characters of a class name
_FFT, _DEPTH, _LOUDEST = 512, 80.0, -30.0  # of spectrograms: samples of a frame, dB, dB per Hz
_OUTLINE = 4_000  # columns of a waveform's outline: more cannot be seen
_LETTER = 0.6 / 72  # inches that a letter takes, per point of the font's size

# Okabe and Ito's colours, which people with any colour vision can tell apart
_BLUE, _ORANGE, _GREEN = "#0072B2", "#D55E00", "#009E73"


def confusion_matrix_figure(evaluation: Evaluation) -> Figure:
    """The confusion matrix as a picture: rows are the true classes, columns the predicted ones.

    Args:
        evaluation: of a single-label classifier. Meant for 2 to 50 classes; of more, every n-th is named.

    Returns:
        A figure whose colours are the shares of each row, 0 to 1 (by their square root, so that rare
        confusions show), with the counts of clips in the cells up to 30 classes.

    Raises:
        ValueError: ``evaluation.multi_label`` is true.
    """
    counts = evaluation.confusion_matrix
    classes = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # a class without clips stays white
    side = min(classes * float(np.clip(9 / classes, 0.25, 0.75)), 24.0)  # inches; 24 is 3600 pixels
    labels = [_shorten(name) for name in evaluation.class_names]
    font = float(np.clip(50 * side / classes, 5, 10))  # of a cell's 72 points per inch, less the leading
    longest = max(map(len, labels)) * font * _LETTER
    figure = _figure(max(side + longest + 1.7, 5.0), side + longest + 1.2)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    _name_cells(axes, labels, font=font, side=side)
    if classes <= _MAX_ANNOTATED:
        _annotate(axes, counts, np.sqrt(shares), font=72 * side / classes)
    figure.suptitle(f"Confusion matrix: accuracy {evaluation.accuracy:.3f}, {counts.sum():,} clips")
    # an inset is as tall as the matrix, which a colour bar beside square axes is not
    bar = figure.colorbar(image, cax=axes.inset_axes((1 + 0.15 / side, 0, 0.15 / side, 1)))
    bar.set_ticks([0, 0.05, 0.2, 0.5, 1], labels=["0", "0.05", "0.2", "0.5", "1"])
    bar.set_label("Share of the true class")
    return figure


def _name_cells(axes: Axes, labels: Sequence[str], *, font: float, side: float) -> None:
    classes = len(labels)
    step = math.ceil(classes * font * 1.1 / (side * 72))  # name every n-th class where not all have room
    ticks = range(0, classes, step)
    fits = max(map(len, labels)) * font * _LETTER < 0.9 * side / classes
    axes.set_xticks(ticks, labels[::step], rotation=0 if fits else 90, fontsize=font, parse_math=False)
    axes.set_yticks(ticks, labels[::step], fontsize=font, parse_math=False)
    axes.set_xlabel("Predicted class")
    axes.set_ylabel("True class")
    axes.spines[:].set_visible(False)
    edges = np.arange(classes + 1) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.5)
    axes.tick_params(which="both", length=0)


def _annotate(axes: Axes, counts: np.ndarray, shades: np.ndarray, *, font: float) -> None:
    digits = len(str(counts.max()))
    size = float(np.clip(font / (0.75 * digits + 0.5), 4, 11))
    for (row, column), count in np.ndenumerate(counts):
        colour = "0.75" if not count else "white" if shades[row, column] > 0.55 else "0.1"
        axes.text(column, row, str(count), ha="center", va="center", fontsize=size, color=colour)


def training_curves_figure(histories: Mapping[str, History]) -> Figure:
    """Loss and accuracy over the epochs, training beside validation.

    Args:
        histories: name of a run (a fold, a phase) -> metric -> one value per epoch, as in Keras's
            ``History.history``. Drawn are ``loss`` and the first metric whose name ends in ``accuracy`` or
            ``acc``, each with its ``val_`` twin; runs may differ in length, and lack metrics.

    Returns:
        A figure with a panel for the loss and, where there is one, for the accuracy. Several runs are
        drawn lightly, with their mean over the epochs that all of them have.

    Raises:
        ValueError: no run has a value of the loss or an accuracy.
    """
    metrics = [metric for metric in ("loss", _accuracy_name(histories)) if metric and _curves(histories, metric)]
    if not metrics:
        found = {name: sorted(history) for name, history in histories.items()}
        raise ValueError(
            f"histories={found!r} has no values of 'loss' or of a metric whose name ends in 'accuracy'; give "
            "name -> {metric: list of values per epoch}"
        )
    figure = _figure(4.8 * len(metrics) + 0.4, 3.8)
    for number, metric in enumerate(metrics, start=1):
        axes = figure.add_subplot(1, len(metrics), number)
        _draw_curves(axes, _curves(histories, metric), label="training", colour=_BLUE)
        _draw_curves(axes, _curves(histories, f"val_{metric}"), label="validation", colour=_ORANGE)
        axes.set_title("Accuracy" if metric == "acc" else metric.replace("_", " ").capitalize())
        axes.set_xlabel("Epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    if len(histories) > 1:
        figure.suptitle(f"{len(histories)} runs (light) and their mean (bold)", fontsize="medium")
    return figure


def _accuracy_name(histories: Mapping[str, History]) -> str | None:
    for history in histories.values():
        for metric in history:
            if metric.endswith(("accuracy", "acc")) and not metric.startswith("val_"):
                return metric
    return None


def _curves(histories: Mapping[str, History], metric: str) -> list[np.ndarray]:
    curves = [np.asarray(history.get(metric, ()), dtype=float) for history in histories.values()]
    return [curve for curve in curves if curve.size]


def _draw_curves(axes: Axes, curves: Sequence[np.ndarray], *, label: str, colour: str) -> None:
    if not curves:
        return
    if len(curves) > 1:
        for curve in curves:
            _draw_curve(axes, curve, color=colour, alpha=0.3, linewidth=1)
        shortest = min(map(len, curves))  # early stopping: beyond it the mean would jump as runs drop out
        curves = [np.mean([curve[:shortest] for curve in curves], axis=0)]
    _draw_curve(axes, curves[0], color=colour, linewidth=2, label=label)


def _draw_curve(axes: Axes, curve: np.ndarray, **style: object) -> None:
    # one epoch is a point, which a line alone would not show
    marker = "o" if len(curve) == 1 else None
    axes.plot(np.arange(1, len(curve) + 1), curve, marker=marker, markersize=4, **style)  # type: ignore[arg-type]


def per_class_figure(evaluation: Evaluation) -> Figure:
    """F1, precision and recall of each class as horizontal bars, the best F1 on top.

    Args:
        evaluation: single- or multi-label. Of more than 60 classes the 60 with the lowest F1 are drawn.

    Returns:
        A figure with the number of clips behind each class's name.
    """
    ranked = sorted(evaluation.per_class, key=lambda m: -m.f1)
    shown = ranked[-_MAX_BARS:]
    title = "Per class, sorted by F1"
    if len(shown) < len(ranked):
        title = f"The {len(shown)} classes of {len(ranked)} with the lowest F1"
    labels = [f"{_shorten(m.name)} ({m.support:,})" for m in shown]
    longest = max(map(len, labels)) * 9 * _LETTER
    figure = _figure(5.0 + longest, 0.34 * len(shown) + 1.5)
    axes = figure.add_subplot()
    _draw_bars(axes, shown)
    axes.set_yticks(range(len(shown)), labels, fontsize=9, parse_math=False)
    axes.set_ylim(len(shown) - 0.4, -0.6)  # the first on top
    axes.set_xlim(0, 1)
    axes.set_xlabel("Score")
    axes.set_ylabel("Class (clips)")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _draw_bars(axes: Axes, metrics: Sequence[ClassMetrics]) -> None:
    bars = (
        ("F1", [m.f1 for m in metrics], _BLUE),
        ("Precision", [m.precision for m in metrics], _ORANGE),
        ("Recall", [m.recall for m in metrics], _GREEN),
    )
    height = 0.8 / len(bars)
    for number, (label, values, colour) in enumerate(bars):
        offset = (number - (len(bars) - 1) / 2) * height
        axes.barh(np.arange(len(metrics)) + offset, values, height, label=label, color=colour)


def draw_spectrogram(axes: Axes, waveform: np.ndarray, sample_rate: int, *, loudest: float | None = None) -> AxesImage:
    """Draws a spectrogram, 80 dB deep; every spectrogram of this package is drawn here.

    Args:
        axes: where; it gets seconds to the right and Hz upwards, and no labels.
        waveform: ``(samples,)``, about [-1, 1]; at least one sample.
        sample_rate: Hz.
        loudest: top of the colours, dB per Hz, to compare several sounds; None is the loudest point of this one.

    Returns:
        The image, for a colour bar in dB per Hz.
    """
    padded = np.pad(waveform, (0, max(0, 3 * _FFT // 2 - len(waveform))))  # two frames
    with np.errstate(divide="ignore"):  # silence is at minus infinity, under the scale
        spectrum, *_, image = axes.specgram(padded, NFFT=_FFT, Fs=sample_rate, noverlap=_FFT // 2, cmap="magma")
    top = 10 * math.log10(max(float(spectrum.max()), 1e-14)) if loudest is None else loudest
    image.set_clim(top - _DEPTH, top)
    return image


def spectrograms_figure(waveforms: Sequence[np.ndarray], names: Sequence[str], sample_rate: int) -> Figure:
    """Spectrograms side by side, on one scale of decibels.

    Args:
        waveforms: ``(samples,)`` each, in [-1, 1].
        names: the titles.
        sample_rate: Hz.
    """
    figure = _figure(3.2 * len(waveforms) + 0.8, 3.2)
    axes = figure.subplots(1, len(waveforms), sharey=True, squeeze=False)[0]
    for place, waveform, name in zip(axes, waveforms, names, strict=True):
        image = draw_spectrogram(place, waveform, sample_rate, loudest=_LOUDEST)
        place.set_title(show_name(name), parse_math=False)
        place.set_xlabel("Seconds")
    axes[0].set_ylabel("Hz")
    figure.colorbar(image, ax=axes, label="dB per Hz")
    return figure


def reliability_figure(found: Calibration) -> Figure:
    """Accuracy by confidence beside the diagonal that calibrated scores follow, and how many decisions there are.

    Args:
        found: from ``calibration``.
    """
    figure = _figure(4.8, 4.8)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    width = found.edges[1] - found.edges[0]
    full = found.counts > 0
    middles = (found.edges[:-1] + found.edges[1:]) / 2
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="calibrated")
    axes.bar(middles[full], found.accuracy[full], width, color=_BLUE, alpha=0.4, edgecolor="white")
    axes.plot(found.confidence[full], found.accuracy[full], "o", markersize=4, color=_BLUE, label="found")
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("Share that is right")
    axes.legend(frameon=False, loc="upper left")
    below.bar(middles, found.counts, width, color="0.6", edgecolor="white")
    below.set_xlim(0, 1)
    below.set_xlabel("Score")
    below.set_ylabel("Decisions")
    for part in (axes, below):
        part.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"Reliability: expected calibration error {found.expected_error:.3f}", fontsize="medium")
    return figure


def spectrogram_figure(waveform: np.ndarray, rate: int) -> Figure:
    """A small spectrogram of a sound.

    Args:
        waveform: (samples,).
        rate: Hz.
    """
    figure = _figure(4.0, 2.0)
    axes = figure.add_subplot()
    draw_spectrogram(axes, waveform, rate)
    axes.set_xlabel("Seconds", fontsize=8)
    axes.set_ylabel("Hz", fontsize=8)
    axes.tick_params(labelsize=8)
    return figure


def timeline_figure(
    waveform: np.ndarray,
    sample_rate: int,
    *,
    starts: np.ndarray,
    scores: np.ndarray,
    class_names: Sequence[str],
    window_seconds: float,
    events: Sequence[tuple[float, float, str]],
    classes: int = 8,
) -> Figure:
    """What was found in a recording: waveform, spectrogram, and the scores over time with the events in red.

    Args:
        waveform: ``(samples,)``.
        sample_rate: Hz.
        starts: ``(windows,)`` seconds.
        scores: ``(windows, classes)``.
        class_names: in the order of the scores.
        window_seconds: length of a window.
        events: start and end in seconds, and class.
        classes: rows of the timeline: the classes with the highest peaks.

    Raises:
        ValueError: ``classes`` is not a whole number from 1.
    """
    check_number("classes", classes, least=1, whole=True)
    figure = _figure(10, 6.5)
    wave, spectrum, timeline = figure.subplots(3, 1, sharex=True, height_ratios=[1, 1.5, 2])
    step = max(1, len(waveform) // _OUTLINE)
    blocks = waveform[: len(waveform) // step * step].reshape(-1, step)
    times = np.arange(len(blocks)) * step / sample_rate
    wave.fill_between(times, blocks.min(axis=1), blocks.max(axis=1), linewidth=0.5)
    wave.set(ylabel="Waveform", ylim=(-1, 1))
    draw_spectrogram(spectrum, waveform, sample_rate)
    spectrum.set(ylabel="Hz")
    columns = np.argsort(-scores.max(axis=0), kind="stable")[:classes]
    hop = starts[1] - starts[0] if len(starts) > 1 else window_seconds
    edges, rows = np.append(starts, starts[-1] + hop), np.arange(len(columns) + 1)
    shown = timeline.pcolormesh(edges, rows, scores[:, columns].T, vmin=0, vmax=1, cmap="Blues")
    places = {class_names[column]: row for row, column in enumerate(columns)}
    for start, end, label in events:
        if label in places:
            timeline.plot([start, end], [places[label] + 0.5] * 2, color="tab:red", linewidth=3)
    names = [show_name(class_names[column]) for column in columns]
    timeline.set_yticks(rows[:-1] + 0.5, names, parse_math=False)
    timeline.invert_yaxis()
    timeline.set(xlabel="Seconds", xlim=(0, max(len(waveform) / sample_rate, hop)))
    figure.colorbar(shown, ax=timeline, label="Score (red: event)")
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str], *, dpi: int = DPI) -> Path:
    """Writes a figure, whole or not at all.

    Args:
        figure: any matplotlib figure.
        path: the file to write or replace; its suffix is the format, PNG without one. Its folder must exist.
        dpi: dots per inch.

    Returns:
        The path.

    Raises:
        OSError: the file cannot be written; what stood there before is untouched.
        ValueError: no suffix of a picture; the message lists those that are.
    """
    check_picture("path", path)
    return write_atomic(path, figure_bytes(figure, dpi=dpi, format=Path(path).suffix[1:].lower() or "png"))


def figure_bytes(figure: Figure, *, dpi: int = DPI, format: str = "png") -> bytes:
    """A figure as the content of a file, PNG or another of matplotlib's formats."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Class names in scripts that matplotlib's own font lacks are drawn as boxes: nothing to act on.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        # "tight" follows what was drawn: the layout plans labels beside square axes a little too closely
        figure.savefig(buffer, format=format, dpi=dpi, facecolor="white", bbox_inches="tight")
    return buffer.getvalue()


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # becomes the figure's canvas
    return figure


def _shorten(name: str) -> str:
    # both ends stay: names that differ often do so at the end ("engine, idling", "engine, starting")
    name = " ".join(show_name(name).split())
    if len(name) <= _LABEL_LENGTH:
        return name
    tail = _LABEL_LENGTH // 3
    return f"{name[: _LABEL_LENGTH - tail - 1].rstrip()}…{name[-tail:].lstrip()}"
