"""Evaluations, training curves and readers of what reports contain."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from matplotlib.image import imread

from tfaudiotl.evaluation.metrics import Evaluation, evaluate_scores


def evaluation(classes: int, *, multi_label: bool = False) -> Evaluation:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 20 * classes)
    scores = 0.5 * rng.random((len(labels), classes)) + 0.4 * np.eye(classes)[labels]
    names = [f"Vehicle horn, car horn, honking and more {i}" for i in range(classes)]
    return evaluate_scores(scores, np.eye(classes)[labels], class_names=names, multi_label=multi_label)


def check_png(path: Path) -> None:
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = imread(path)[..., :3]
    assert min(pixels.shape[:2]) > 150
    assert len(np.unique(pixels @ np.array([1.0, 300.0, 90000.0]))) > 20  # drawn, not blank
    np.testing.assert_array_equal(pixels[[0, 0, -1, -1], [0, -1, 0, -1]], 1)  # and with nothing cut at the rim
    assert (pixels[[0, -1]] == 1).all()
    assert (pixels[:, [0, -1]] == 1).all()


def history(epochs: int, offset: float = 0.0) -> dict[str, list[float]]:
    loss = [offset + 1 / (1 + epoch) for epoch in range(epochs)]
    accuracy = [1 - value / 2 for value in loss]
    return {
        "loss": loss,
        "val_loss": loss,
        "accuracy": accuracy,
        "val_accuracy": accuracy,
        "lr": [0.1] * epochs,
    }


def parse(table: str) -> list[list[str]]:
    """The cells as GitHub reads them: split at pipes that no backslash escapes, then unescaped."""
    rows = []
    for line in table.splitlines():
        cells = re.findall(r"((?:\\.|[^|\\])*)\|", line[1:])
        rows.append([re.sub(r"\\([\W_])", r"\1", cell.strip()) for cell in cells])
    return rows
