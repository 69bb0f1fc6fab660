"""Checkpoints that lose no finished epoch: after a kill, training goes on from the last one, bit for bit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import keras
import numpy as np


class BestEpoch(keras.callbacks.EarlyStopping):
    """Keras's early stopping with the best weights restored, able to go on from saved epochs.

    Args:
        patience: epochs without a better validation loss before training stops.
        history: the epochs that ran before a restart, metric -> values.
        best_weights: the weights of the best of them.
        start: validation loss and weights from before the first epoch, to come back to if no epoch is better.
    """

    def __init__(
        self,
        *,
        patience: int,
        history: dict[str, list[float]],
        best_weights: list[np.ndarray] | None,
        start: tuple[float, list[np.ndarray]] | None = None,
    ):
        super().__init__(monitor="val_loss", mode="min", patience=patience, restore_best_weights=True)
        self._losses, self._weights, self._start = history.get("val_loss", []), best_weights, start

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        if self._losses:
            self.best_epoch = int(np.argmin(self._losses))
            self.best = self._losses[self.best_epoch]
            self.best_weights = self._weights
            self.wait = len(self._losses) - 1 - self.best_epoch
        if self._start is not None and (self.best is None or self._start[0] <= self.best):
            self.best, self.best_weights = self._start
            self.best_epoch, self.wait = -1, len(self._losses)


class Checkpoint(keras.callbacks.Callback):
    """Writes variables, optimizer state and history to one ``.npz`` after every epoch, atomically.

    Args:
        path: the file.
        history: metric -> values; epochs are appended to it.
        best: the early stopping whose best weights belong to the state, or None.
    """

    def __init__(self, path: Path, history: dict[str, list[float]], best: BestEpoch | None):
        super().__init__()
        self.path, self.history, self.best = path, history, best

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        arrays: dict[str, Any] = {f"variable_{i}": np.asarray(v) for i, v in enumerate(_state(self.model))}
        if self.best is not None and self.best.best_weights is not None:
            arrays |= {f"best_{i}": np.asarray(v) for i, v in enumerate(self.best.best_weights)}
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(file, history=np.array(json.dumps(self.history)), **arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)


class EpochLines(keras.callbacks.Callback):
    """One line per epoch: its metrics, and the time that is left.

    Args:
        name: of the training.
        epochs: at most.
        say: gets the line; None says nothing.
        epoch: called with name, epoch from 1, epochs at most, and metrics.
    """

    def __init__(
        self,
        name: str,
        epochs: int,
        say: Callable[[str], None] | None,
        epoch: Callable[[str, int, int, dict[str, float]], None],
    ):
        super().__init__()
        self._name, self._epochs, self._say, self._epoch = name, epochs, say, epoch
        self._start, self._done = 0.0, 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._start = perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._done += 1
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        self._epoch(self._name, epoch + 1, self._epochs, metrics)
        if self._say:
            left = round((perf_counter() - self._start) / self._done * (self._epochs - epoch - 1))
            shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            self._say(f"{self._name} {epoch + 1}/{self._epochs}  {shown}  left {left // 60}:{left % 60:02d} at most")


def restore(path: Path, model: keras.Model) -> tuple[dict[str, list[float]], list[np.ndarray] | None]:
    """Puts a checkpoint's state into ``model``; returns the history and the best epoch's weights.

    Without a file, ``({}, None)`` and the model is left as it is.
    """
    if not path.is_file():
        return {}, None
    model.optimizer.build(model.trainable_variables)
    with np.load(path, allow_pickle=False) as saved:
        for i, variable in enumerate(_state(model)):
            variable.assign(saved[f"variable_{i}"])
        best = [saved[name] for name in sorted((n for n in saved if n.startswith("best_")), key=_number)]
        return json.loads(str(saved["history"])), best or None


def _number(name: str) -> int:
    return int(name.rsplit("_", 1)[1])


def _state(model: keras.Model) -> list[Any]:
    """Everything that a step changes: weights, dropout's seed states, optimizer."""
    return [*model.variables, *model.optimizer.variables]
