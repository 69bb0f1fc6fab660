"""From scratch, head only, last blocks, everything: what each is worth on one's own clips, under one budget.

``advise`` foretells it by a probe, ``compare_strategies`` trains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import keras
import numpy as np

from tfaudiotl._threads import OnProgress, ignore
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.classifiers.anatomy import blocks_of
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.classifiers.edit import set_blocks
from tfaudiotl.data.clips import Clips
from tfaudiotl.embeddings.probe import ProbeTable, probe_layers
from tfaudiotl.errors import OnError, check_number
from tfaudiotl.evaluation.metrics import evaluate_scores
from tfaudiotl.markdown import markdown_table
from tfaudiotl.training.batches import means_by_clip, patch_windows
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


# Clips of a class below which fine-tuning learns the clips instead of the class. A rule of thumb, between ESC-10 (32
# per class in training) and FSDD (270), where fine-tuning pays: benchmarks/RESULTS-fine-tuning.md.
ENOUGH_CLIPS = 100
# A domain is far when the odds of an error on the last embedding are more than so many times those on the best layer
# (with few errors: when there are so many times as many), and when the difference is more than so many standard errors:
# no errors against two say nothing.
NEAR_ODDS = 2.0
NEAR_STANDARD_ERRORS = 2.0


@dataclass(frozen=True)
class Advice:
    """What to do, and why.

    Attributes:
        case: "small and near", "small and far", "large and near" or "large and far".
        strategy: "head only", "head on a lower layer", "last blocks" or "everything".
        embedding: for ``build_classifier``.
        trainable: for ``fine_tune``.
        regularisation: arguments of ``build_classifier`` and ``fine_tune``, as a dict for each.
        reasons: why, sentence by sentence, with what was measured.
        probe: the table behind it.
    """

    case: str
    strategy: str
    embedding: str
    trainable: int | str
    regularisation: dict[str, dict[str, Any]]
    reasons: tuple[str, ...]
    probe: ProbeTable

    def to_markdown(self) -> str:
        """The advice as text."""
        code = ", ".join(f"{name}={value!r}" for name, value in self.regularisation["build_classifier"].items())
        tuning = ", ".join(f"{name}={value!r}" for name, value in self.regularisation["fine_tune"].items())
        return "\n".join(
            [
                f"**{self.strategy}** ({self.case})",
                "",
                *(f"- {reason}" for reason in self.reasons),
                "",
                "```python",
                f"model = tl.build_classifier({self.probe.backbone!r}, class_names=..., embedding={self.embedding!r}, "
                f"{code})",
                f"tl.fine_tune(model, train, val, trainable={self.trainable!r}{', ' if tuning else ''}{tuning})",
                "```",
            ]
        )


def advise(
    clips: Clips,
    backbone: str = "yamnet",
    *,
    folds: int = 5,
    weights: str | None = "audioset",
    seed: int = 0,
    on_error: OnError = "raise",
    progress: OnProgress = ignore,
) -> Advice:
    """Says how to train on ``clips``: what to train, on which layer, how regularised, and why.

    The four classic cases of transfer learning: small or large data, near to or far from what the backbone was trained
    on. Size is the number of clips of the rarest class. Nearness is measured, not asked: a linear probe on every
    layer. Near to its own domain a network's last embedding is about the best; far from it, a lower layer is, since
    the upper ones have specialised in something else.

    Args:
        clips: labelled, one label each; those to train on, never those to test on.
        backbone: a name from ``list_backbones()``.
        folds: of the probe, a number to draw.
        weights: as for the backbone's builder.
        seed: of the folds.
        on_error: "raise" or "skip" sounds that cannot be used.
        progress: as for ``probe_layers``.
    """
    spec = get_backbone(backbone)
    names = [layer.name for layer in spec.layers if layer.name not in spec.top]
    table = probe_layers(
        backbone, clips, folds=folds, embedding=names, weights=weights, seed=seed, on_error=on_error, progress=progress
    )
    return advice_of(table, int(clips.targets.sum(axis=0).min()), spec.default_embedding)


def advice_of(table: ProbeTable, rarest: int, last: str) -> Advice:
    """The advice that a probe's table and the size of the rarest class lead to.

    Args:
        table: of all layers.
        rarest: clips of the rarest class.
        last: the backbone's own embedding.
    """
    best = max(table.rows, key=lambda row: row.accuracy)
    own = table.row(last)
    errors, least = ((1 - row.accuracy) * table.clips for row in (own, best))
    near, large = not _more_errors(errors, least, table.clips), rarest >= ENOUGH_CLIPS
    case = f"{'large' if large else 'small'} and {'near' if near else 'far'}"
    strategy, embedding, trainable = _plan(table, near=near, large=large, last=last)
    measured = (
        f"Size: the rarest class has {rarest} clips; {ENOUGH_CLIPS} or more count as large.",
        f"Nearness: a linear probe reaches {own.accuracy:.3f} on the last embedding and {best.accuracy:.3f} on the "
        f"best layer, {best.layer}: {errors:.0f} errors against {least:.0f} in {table.clips} clips, near unless the "
        f"odds of an error are more than {NEAR_ODDS:g} times as high and that is more than chance makes of the same.",
    )
    return Advice(
        case, strategy, embedding, trainable, _regularisation(large=large), (*measured, _REASONS[case]), table
    )


def _more_errors(errors: float, least: float, clips: int) -> bool:
    """Whether ``errors`` of ``clips`` clips are clearly more than ``least``: by their odds, and beyond chance.

    Odds, since twice as many cannot be where the best layer errs on more than half. Chance by the usual test of two
    shares, pooled and with the correction for counts.
    """
    pooled = (errors + least) / (2 * clips)
    error = math.sqrt(2 * clips * pooled * (1 - pooled))
    sure = errors - least - 1 > NEAR_STANDARD_ERRORS * error
    return sure and errors * (clips - least) > NEAR_ODDS * least * (clips - errors)


_REASONS = {
    "small and near": (
        "The last embedding says what there is to say; few clips cannot improve on it, only be learned by heart."
    ),
    "small and far": (
        "The upper layers have specialised in other sounds, and there are too few clips to teach them: leave them out, "
        "and train a head on the layer that still tells these classes apart."
    ),
    "large and near": (
        "There are enough clips to adapt the last blocks, and little to change in them: a low rate will do."
    ),
    "large and far": (
        "There are enough clips to teach the layers that have specialised in other sounds; those below the best layer "
        "are good as they are."
    ),
}


def _plan(table: ProbeTable, *, near: bool, large: bool, last: str) -> tuple[str, str, int | str]:
    """Strategy, embedding, trainable."""
    if near:
        return ("last blocks", last, 2) if large else ("head only", last, 0)
    best = max(table.rows, key=lambda row: row.accuracy).layer
    if not large:
        return "head on a lower layer", table.recommended, 0
    # The blocks above the best layer, and that one itself, train.
    below = [layer.name for layer in get_backbone(table.backbone).layers].index(best)
    first = block_of_embedding(table.backbone, best)
    return ("everything", last, "all") if below <= 2 or not first else ("last blocks", last, first)


def block_of_embedding(backbone: str, name: str) -> str:
    """The block of ``fine_tune`` in which the embedding layer ``name`` lies; "" for one below the first block."""
    spec = get_backbone(backbone)
    layer = spec.embedding_layer(name).layer
    with keras.device("cpu:0"):
        model = spec.build(include_top=name in spec.top, weights=None)
    return next(reversed(blocks_of(keras.Model(model.input, model.get_layer(layer).output))), "")


def _regularisation(*, large: bool) -> dict[str, dict[str, Any]]:
    if large:
        return {"build_classifier": {"dropout": 0.2}, "fine_tune": {"learning_rate": 1e-3, "label_smoothing": 0.0}}
    return {
        "build_classifier": {"dropout": 0.4, "hidden": (128,)},
        "fine_tune": {"learning_rate": 3e-4, "label_smoothing": 0.1},
    }
