"""Checkpoints that lose no finished epoch: after a kill, training goes on from the last one, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import keras
import numpy as np

from tfaudiotl._files import write_atomic
from tfaudiotl.errors import DivergedError


def first_as_good(history: dict[str, list[float]]) -> int:
    """The first epoch, from 0, whose validation loss is within ``val_loss_error`` of the least.

    After the one-standard-error rule (Breiman et al. 1984, "Classification and Regression Trees"): of trainings that
    cannot be told apart, the shortest. An epoch that was out of the bound of a later one stays out, should the error
    grow afterwards. Without the error in ``history`` it is the epoch of the least loss.
    """
    losses = history["val_loss"]
    errors = history.get("val_loss_error") or [0.0] * len(losses)
    lows: list[int] = []  # each lower than all before it, so that the last is the least
    for epoch, (loss, error) in enumerate(zip(losses, errors, strict=True)):
        if not lows or loss < losses[lows[-1]]:
            lows = [low for low in lows if losses[low] <= loss + error] + [epoch]
    return lows[0]


class BestEpoch(keras.callbacks.EarlyStopping):
    """Keras's early stopping; at the end come the weights of the epoch that ``first_as_good`` names.

    Args:
        patience: epochs without a lower validation loss before training stops.
        history: the epochs that ran before a restart, metric -> values.
        kept: the weights of those of them that may yet be chosen, by epoch.
        start: validation loss and weights from before the first epoch, to come back to if no epoch is better.
    """

    def __init__(
        self,
        *,
        patience: int,
        history: dict[str, list[float]],
        kept: dict[int, list[np.ndarray]],
        start: tuple[float, list[np.ndarray]] | None = None,
    ):
        super().__init__(monitor="val_loss", mode="min", patience=patience, restore_best_weights=True)
        self._history = {name: list(history.get(name, [])) for name in ("val_loss", "val_loss_error")}
        self.kept, self._start = dict(kept), start

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        losses = self._history["val_loss"]
        if losses:
            self.best_epoch = int(np.argmin(losses))
            self.best = losses[self.best_epoch]
            self.best_weights = self.kept.get(self.best_epoch)
            self.wait = len(losses) - 1 - self.best_epoch
        if self._start is not None and (self.best is None or self._start[0] <= self.best):
            self.best, self.best_weights = self._start
            self.best_epoch, self.wait = -1, len(losses)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        for name, values in self._history.items():
            values += [logs[name]] if name in logs else []  # type: ignore[index,operator]
        # The first epoch below any bound is lower than all before it, so it was the best in its time.
        if self.best_epoch == epoch and self.best_weights is not None:
            self.kept[epoch] = self.best_weights
        first = first_as_good(self._history)
        self.kept = {number: weights for number, weights in self.kept.items() if number >= first}

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.best_epoch >= 0:
            self.best_weights = self.kept[first_as_good(self._history)]
        super().on_train_end(logs)


class Diverged(keras.callbacks.Callback):
    """ValueError at the end of an epoch whose loss is no number, before anything of it is kept.

    Args:
        name: of the training.
    """

    def __init__(self, name: str):
        super().__init__()
        self._name = name

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for metric in ("loss", "val_loss"):
            value = (logs or {}).get(metric, 0.0)
            if not np.isfinite(value):
                raise DivergedError(
                    f"{self._name}: the training diverged: {metric} is {float(value)} in epoch {epoch + 1}; a lower "
                    "learning rate helps"
                )


class Checkpoint(keras.callbacks.Callback):
    """Writes variables, optimizer state and history to one ``.npz`` after every epoch, atomically.

    Args:
        path: the file.
        key: the fingerprint of all that the training depends on.
        history: metric -> values; epochs are appended to it.
        best: the early stopping whose kept weights belong to the state, or None.
    """

    def __init__(self, path: Path, key: str, history: dict[str, list[float]], best: BestEpoch | None):
        super().__init__()
        self.path, self.key, self.history, self.best = path, key, history, best

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        arrays: dict[str, Any] = {f"variable_{i}": np.asarray(v) for i, v in enumerate(_state(self.model))}
        for number, weights in self.best.kept.items() if self.best is not None else ():
            arrays |= {f"epoch_{number}_{i}": values for i, values in enumerate(weights)}
        arrays |= {"history": np.array(json.dumps(self.history)), "key": np.array(self.key)}
        write_atomic(self.path, lambda file: np.savez(file, **arrays))


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


def restore(path: Path, key: str, model: keras.Model) -> tuple[dict[str, list[float]], dict[int, list[np.ndarray]]]:
    """Puts a checkpoint's state into ``model``; returns the history, and the weights of the epochs that were kept.

    Without a file, or with one of a training of another ``key``, both are empty and the model is left as it is.
    """
    if not path.is_file():
        return {}, {}
    with np.load(path, allow_pickle=False) as saved:
        if "key" not in saved or str(saved["key"]) != key:
            return {}, {}
        model.optimizer.build(model.trainable_variables)
        for i, variable in enumerate(_state(model)):
            variable.assign(saved[f"variable_{i}"])
        epochs = sorted({int(name.split("_")[1]) for name in saved if name.startswith("epoch_")})
        count = len(model.get_weights())
        kept = {epoch: [saved[f"epoch_{epoch}_{i}"] for i in range(count)] for epoch in epochs}
        return json.loads(str(saved["history"])), kept


def _state(model: keras.Model) -> list[Any]:
    """Everything that a step changes: weights, dropout's seed states, optimizer."""
    return [*model.variables, *model.optimizer.variables]
