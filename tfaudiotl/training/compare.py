"""From scratch, head only, last blocks, everything: what each is worth on one's own clips, under one budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import keras
import numpy as np

from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.classifiers.edit import set_blocks
from tfaudiotl.data.clips import Clips
from tfaudiotl.data.windows import means_by_clip, patch_windows
from tfaudiotl.errors import check_number
from tfaudiotl.evaluation.metrics import evaluate_scores
from tfaudiotl.markdown import markdown_table
from tfaudiotl.training.fine_tune import fine_tune, grid_of
from tfaudiotl.training.options import VAL, FineTuneOptions
from tfaudiotl.training.train import inner_split


@dataclass(frozen=True)
class Strategy:
    """A way to train: what trains, from which weights, and its own options of ``fine_tune``.

    Attributes:
        name: in the table.
        pretrained: begin with the backbone's weights, else with random ones.
        options: of ``fine_tune``; those given to ``compare_strategies`` come before them.
    """

    name: str
    pretrained: bool = True
    options: dict[str, Any] = field(default_factory=dict)


def strategies(trainable: int | str = 2) -> tuple[Strategy, ...]:
    """The four that are compared: from scratch, head only, last blocks, everything."""
    last = f"last {trainable} blocks" if isinstance(trainable, int) else f"from {trainable}"
    return (
        # Without weights there is no head to train first, and nothing that a high rate could spoil.
        Strategy(
            "from scratch",
            pretrained=False,
            options={
                "trainable": "all",
                "head_epochs": 0,
                "batch_norm": "train",
                "learning_rate": 2e-3,
                "block_decay": 1.0,
                "patience": 15,  # the first epochs show nothing yet
            },
        ),
        Strategy("head only", options={"trainable": 0}),
        Strategy(last, options={"trainable": trainable}),
        Strategy("everything", options={"trainable": "all"}),
    )


@dataclass(frozen=True)
class Run:
    """One training: strategy, seed, accuracy and macro F1 on the test clips, seconds, parameters that train."""

    strategy: str
    seed: int
    accuracy: float
    macro_f1: float
    seconds: float
    trainable: int


@dataclass
class Comparison:
    """All trainings; ``a + b`` puts the runs of several folds together.

    Attributes:
        runs: one per strategy and seed.
        budget: what each had, in words.
    """

    runs: list[Run]
    budget: str

    def __add__(self, other: Comparison) -> Comparison:
        return Comparison([*self.runs, *other.runs], self.budget)

    @property
    def names(self) -> list[str]:
        """The strategies, in order."""
        return list(dict.fromkeys(run.strategy for run in self.runs))

    def values(self, strategy: str, measure: str = "accuracy") -> np.ndarray:
        """A measure of each run of a strategy; the mean over folds for each seed, if there are folds."""
        runs = [run for run in self.runs if run.strategy == strategy]
        if not runs:
            raise ValueError(f"strategy={strategy!r}: there are {', '.join(self.names)}")
        seeds = dict.fromkeys(run.seed for run in runs)
        return np.array([np.mean([getattr(run, measure) for run in runs if run.seed == seed]) for seed in seeds])

    def to_markdown(self) -> str:
        """The table: mean and standard deviation over the seeds."""
        rows = []
        for name in self.names:
            accuracy, f1, seconds = (self.values(name, measure) for measure in ("accuracy", "macro_f1", "seconds"))
            trainable = next(run.trainable for run in self.runs if run.strategy == name)
            rows.append(
                (
                    name,
                    f"{accuracy.mean():.4f} ± {accuracy.std():.4f}",
                    f"{f1.mean():.4f} ± {f1.std():.4f}",
                    f"{seconds.mean():.1f}",
                    f"{trainable:,}",
                    str(len(accuracy)),
                )
            )
        head = ["Strategy", "Accuracy", "Macro F1", "Seconds", "Parameters that train", "Seeds"]
        return f"{markdown_table(head, rows)}\n\nBudget of each training: {self.budget}."

    def plot(self, path: str | Path | None = None) -> Any:
        """Accuracy against seconds as a matplotlib figure; also written to ``path`` if one is given."""
        from matplotlib.figure import Figure

        from tfaudiotl.evaluation.plots import save_figure

        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for name in self.names:
            accuracy, seconds = self.values(name), self.values(name, "seconds")
            axes.errorbar(
                seconds.mean(), accuracy.mean(), accuracy.std(), seconds.std(), marker="o", capsize=3, label=name
            )
        axes.set(xscale="log", xlabel="seconds of training", ylabel="accuracy", title="Mean and spread over the seeds")
        for text in axes.legend().get_texts():
            text.set_parse_math(False)
        if path is not None:
            save_figure(figure, path)
        return figure


class TimeBudget(keras.callbacks.Callback):
    """Ends a training when its seconds are spent, at the end of the epoch in which that happens."""

    def __init__(self, seconds: float, start: float):
        super().__init__()
        self._end = start + seconds

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if perf_counter() >= self._end:
            self.model.stop_training = True


def compare_strategies(
    train: Clips,
    test: Clips,
    *,
    backbone: str = "yamnet",
    weights: str = "audioset",
    trainable: int | str = 2,
    which: Sequence[Strategy] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    seconds: float | None = None,
    window_seconds: float = 10.0,
    classifier: dict[str, Any] | None = None,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> Comparison:
    """Trains the same classifier in several ways, each with the same budget, and measures each on ``test``.

    Each has as many epochs at most, ``head_epochs + epochs``: in two stages where it trains the head first, in one
    where it trains the head alone or begins with random weights. Early stopping may end it before. An epoch of more
    blocks takes longer; ``seconds`` is the budget of time.

    When a training stops is decided on a part of ``train``, so the figures are of clips that decided nothing.

    Args:
        train: clips to learn.
        test: clips to measure on; they decide nothing.
        backbone: a name from ``list_backbones()``.
        weights: as for the backbone's builder; random instead in "from scratch".
        trainable: of "last blocks".
        which: other strategies than these four.
        seeds: each strategy is trained once with each: of the inner split, weights and batches.
        seconds: a training ends with the epoch in which so many are over, the cache counted; None: no limit. Not with
            ``refit=True``, which trains twice.
        window_seconds: longer clips are cut into windows.
        classifier: further arguments of ``build_classifier``.
        say: gets a line per training.
        **options: fields of ``FineTuneOptions`` for all strategies.

    Returns:
        The table.

    Raises:
        ValueError: an argument out of range; ``test`` with other classes; blocks that the backbone does not have.
    """
    if seconds and options.get("refit"):
        raise ValueError(f"seconds={seconds!r}: a second training (refit=True) would find them spent")
    if seconds is not None:
        check_number("seconds", seconds, above=0)
    if len(seeds) == 0:
        raise ValueError(f"seeds={seeds!r}: at least one")
    if test.class_names != train.class_names:
        raise ValueError(f"test has the classes {test.class_names}, train {train.class_names}")
    ways, settings = which or strategies(trainable), {"multi_label": train.multi_label, **(classifier or {})}
    trial = build_classifier(backbone, class_names=train.class_names, weights=weights, **settings)
    for way in ways:  # a mistake in the last one is told before hours of the first
        set_blocks(trial, {**options, **way.options}.get("trainable", FineTuneOptions.trainable))
    tuning = {way.name: _with_budget(way, options) for way in ways}
    parts = [inner_split(train, val=VAL, seed=seed) for seed in seeds]
    runs = []
    for seed, (learn, stop) in zip(seeds, parts, strict=True):
        for way in ways:
            model = build_classifier(
                backbone,
                class_names=train.class_names,
                weights=weights if way.pretrained else None,
                seed=seed,
                **settings,
            )
            start = perf_counter()
            fine_tune(
                model,
                learn,
                stop,
                window_seconds=window_seconds,
                seed=seed,
                verbose=False,
                callbacks=[TimeBudget(seconds, start)] if seconds else [],
                **tuning[way.name],
            )
            taken = perf_counter() - start
            measured = evaluate_scores(
                window_scores(model, test, window_seconds),
                test.targets,
                class_names=test.class_names,
                multi_label=test.multi_label,
            )
            trainable = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
            runs.append(Run(way.name, seed, measured.accuracy, measured.macro_f1, taken, trainable))
            if say:
                say(f"{way.name}, seed {seed}: accuracy {measured.accuracy:.4f}, {taken:.1f} s")
    return Comparison(runs, _budget(tuning) + (f", and {seconds:g} s" if seconds else ""))


def _with_budget(way: Strategy, options: dict[str, Any]) -> dict[str, Any]:
    """Options of ``fine_tune`` for a strategy; what trains in one stage alone has the epochs of both there."""
    merged = {**options, **way.options}
    both = sum(options.get(name, getattr(FineTuneOptions, name)) for name in ("head_epochs", "epochs"))
    if merged.get("head_epochs") == 0 and "epochs" not in way.options:
        return {**merged, "epochs": both}
    if merged.get("trainable", FineTuneOptions.trainable) == 0 and "head_epochs" not in way.options:
        return {**merged, "head_epochs": both}
    return merged


def _budget(tuning: dict[str, dict[str, Any]]) -> str:
    """The epochs that each strategy has at most, in words."""
    parts: dict[str, tuple[int, int]] = {}
    for name, options in tuning.items():
        chosen = FineTuneOptions(**options)
        parts[name] = (chosen.head_epochs, 0 if chosen.trainable == 0 else chosen.epochs)
    totals = {sum(epochs) for epochs in parts.values()}
    if len(totals) > 1:
        return "; ".join(f"{name} at most {sum(epochs)} epochs" for name, epochs in parts.items())
    staged = [epochs for epochs in parts.values() if all(epochs)]
    told = f" (with blocks: {staged[0][0]} of the head, then {staged[0][1]} with them)" if staged else ""
    return f"at most {totals.pop()} epochs{told}"


def window_scores(model: keras.Model, clips: Clips, window_seconds: float, *, batch_size: int = 32) -> np.ndarray:
    """Scores of each clip ``(clips, classes)``: the mean of its windows', weighed by their patches."""
    grid = grid_of(model)
    windows = patch_windows(clips, grid, window_seconds)
    longest = math.ceil(float(windows.durations.max()) * grid.sample_rate) / grid.sample_rate
    dataset = windows.dataset(batch_size=batch_size, window_seconds=longest, sample_rate=grid.sample_rate).map(
        lambda waveforms, *_: waveforms
    )
    return means_by_clip(np.asarray(model.predict(dataset, verbose=0)), windows.source, windows.patches)[1]
