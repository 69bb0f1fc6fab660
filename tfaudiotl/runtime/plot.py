"""A picture of what was heard: waveform, spectrogram, and when each class was there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfaudiotl._files import show_name

if TYPE_CHECKING:
    from tfaudiotl.runtime.predictor import Prediction

_POINTS = 4_000  # columns of the waveform's outline: more cannot be seen


def plot_prediction(prediction: Prediction, path: str | Path, *, classes: int = 8) -> Path:
    """Draws a prediction into a picture file.

    Args:
        prediction: what to draw.
        path: the picture; its suffix says the format.
        classes: rows of the timeline: the classes with the highest peaks.
    """
    if not isinstance(classes, int) or classes < 1:
        raise ValueError(f"classes={classes!r}: a positive whole number")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from tfaudiotl.evaluation.plots import draw_spectrogram, save_figure

    figure = Figure(figsize=(10, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    wave, spectrum, timeline = figure.subplots(3, 1, sharex=True, height_ratios=[1, 1.5, 2])
    x, rate = prediction.waveform, prediction.sample_rate
    step = max(1, len(x) // _POINTS)
    blocks = x[: len(x) // step * step].reshape(-1, step)
    times = np.arange(len(blocks)) * step / rate
    wave.fill_between(times, blocks.min(axis=1), blocks.max(axis=1), linewidth=0.5)
    wave.set(ylabel="Waveform", ylim=(-1, 1))
    draw_spectrogram(spectrum, x, rate)
    spectrum.set(ylabel="Hz")
    columns = np.argsort(-prediction.scores.max(axis=0), kind="stable")[:classes]
    hop = prediction.starts[1] - prediction.starts[0] if len(prediction.starts) > 1 else prediction.window_seconds
    edges = np.append(prediction.starts, prediction.starts[-1] + hop)
    shown = timeline.pcolormesh(
        edges, np.arange(len(columns) + 1), prediction.scores[:, columns].T, vmin=0, vmax=1, cmap="Blues"
    )
    places = {prediction.class_names[column]: row for row, column in enumerate(columns)}
    for event in prediction.events:
        if event.label in places:
            row = places[event.label]
            timeline.plot([event.start, event.end], [row + 0.5] * 2, color="tab:red", linewidth=3)
    names = [show_name(prediction.class_names[column]) for column in columns]
    timeline.set_yticks(np.arange(len(columns)) + 0.5, names, parse_math=False)
    timeline.invert_yaxis()
    timeline.set(xlabel="Seconds", xlim=(0, max(prediction.duration, hop)))
    figure.colorbar(shown, ax=timeline, label="Score (red: event)")
    return save_figure(figure, path, dpi=110)
