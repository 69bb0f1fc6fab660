"""Which layer for my task? A linear probe on every layer, from one pass over the sounds."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tfaudiotl._files import show_name
from tfaudiotl._seeds import stream
from tfaudiotl._threads import OnProgress, Progress, cores, ignore, one_blas_thread
from tfaudiotl.backbones.embedding import cut_backbone, multiply_adds, pooled_layers, resolve_embedding
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.backbones.spec import Pooling, Recipe
from tfaudiotl.data.clips import Clips
from tfaudiotl.data.splits import units
from tfaudiotl.embeddings.engine import PatchNetwork, clip_results
from tfaudiotl.embeddings.extract import EngineOptions, pool_patches
from tfaudiotl.errors import AudioError, AudioErrors, OnError, check_choice, check_number

Split = tuple[np.ndarray, np.ndarray]  # row numbers: train, test


@dataclass(frozen=True)
class ProbeRow:
    """What a linear probe reached on one layer, or on several side by side.

    Attributes:
        layer: the name of a layer or recipe, or layers' names joined by "+".
        width: numbers per clip.
        share: share of the backbone's multiply-adds that it takes, 0 to 1.
        accuracy: mean over the splits.
        spread: standard deviation over the splits.
        few_shot: mean accuracy of few-shot draws, or None.
        few_shot_spread: standard deviation over the draws, or None.
    """

    layer: str
    width: int
    share: float
    accuracy: float
    spread: float
    few_shot: float | None = None
    few_shot_spread: float | None = None


@dataclass
class ProbeTable:
    """The probes of all layers, in the network's order, pairs last.

    Attributes:
        backbone: the network.
        rows: one per layer or pair.
        recommended: the layer to take.
        reason: why.
        splits: what the accuracies are about, in words.
        clips: clips used.
        skipped: sounds left out.
        seconds: "extract" and "probe".
        few_shot: clips of each class that the few-shot accuracies rest on, or None.
    """

    backbone: str
    rows: list[ProbeRow]
    recommended: str
    reason: str
    splits: str
    clips: int
    skipped: list[AudioError] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    few_shot: int | None = None

    def row(self, layer: str) -> ProbeRow:
        """The row of a layer; ValueError lists those there are."""
        for row in self.rows:
            if row.layer == layer:
                return row
        raise ValueError(f"layer={layer!r}: the table has {', '.join(row.layer for row in self.rows)}")

    def to_markdown(self) -> str:
        """The table, the recommended layer in bold."""
        few = any(row.few_shot is not None for row in self.rows)
        head = ["layer", "width", "work", "accuracy", *([f"{self.few_shot} clips a class"] if few else [])]
        lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        for row in self.rows:
            name = f"**{row.layer}**" if row.layer == self.recommended else row.layer
            cells = [name, str(row.width), f"{row.share:.0%}", f"{row.accuracy:.3f} ± {row.spread:.3f}"]
            if few:
                cells.append("" if row.few_shot is None else f"{row.few_shot:.3f} ± {row.few_shot_spread:.3f}")
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join([*lines, "", f"{self.splits}. Recommended: {self.recommended}: {self.reason}."])

    def plot(self, path: str | Path | None = None) -> Any:
        """Accuracy by layer as a matplotlib figure; also written to ``path`` if one is given."""
        from matplotlib.figure import Figure

        from tfaudiotl.evaluation.plots import save_figure

        figure = Figure(figsize=(max(5.0, 0.55 * len(self.rows)), 4), layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(self.rows))
        axes.errorbar(
            places, [r.accuracy for r in self.rows], [r.spread for r in self.rows], marker="o", capsize=3, label="all"
        )
        shots = [(x, r.few_shot, r.few_shot_spread) for x, r in zip(places, self.rows, strict=True) if r.few_shot]
        if shots:
            x, y, spread = zip(*shots, strict=True)
            axes.errorbar(x, y, spread, marker="s", capsize=3, label=f"{self.few_shot} clips a class")
            axes.legend()
        chosen = [row.layer for row in self.rows].index(self.recommended)
        axes.axvline(chosen, color="0.8", zorder=0)
        axes.set_xticks(places, [row.layer for row in self.rows], rotation=60, ha="right", parse_math=False)
        axes.set_ylabel("accuracy of a linear probe")
        axes.set_title(f"{self.backbone}: {self.recommended} recommended", parse_math=False)
        if path is not None:
            save_figure(figure, path)
        return figure


def probe_layers(
    backbone: str,
    clips: Clips,
    *,
    folds: int | str | Sequence[Split] = 5,
    embedding: Sequence[str] | None = None,
    pairs: Iterable[tuple[str, str]] = (),
    few_shot: int | None = None,
    repeats: int = 10,
    pooling: Pooling | None = None,
    on_error: OnError = "raise",
    seed: int = 0,
    weights: str | None = "audioset",
    engine: EngineOptions | None = None,
    progress: OnProgress = ignore,
) -> ProbeTable:
    """Measures what a linear classifier makes of every layer of a backbone.

    Each clip goes through the network once, all layers being taken on the way; a clip's vector is the
    mean over its patches. The probe is scikit-learn's logistic regression on standardised numbers.

    Args:
        backbone: a name from ``list_backbones()``.
        clips: labelled, one label each.
        folds: the number of folds to draw (stratified, groups and files kept together), "given" for the
            clips' own folds, or pairs of row numbers (train, test) with no recording on both sides.
        embedding: names of layers, each probed alone, and of recipes; None: all layers.
        pairs: pairs of layers to probe side by side as well.
        few_shot: also train on this number of clips per class, drawn ``repeats`` times from the training part
            of each split, tested on that split's test part.
        repeats: draws.
        pooling: "avg", "max", "avgmax" or "freq"; None: a recipe's own, of layers "avg".
        on_error: "raise" or "skip" sounds that cannot be used.
        seed: of folds and draws.
        weights: as for the backbone's builder.
        engine: how the network is run.
        progress: called after each clip and each layer.

    Returns:
        The table, with the layer to take: the cheapest of those that are within noise of the best.
    """
    if clips.multi_label:
        raise ValueError("clips: probe_layers takes clips with one label each, these are multi-label")
    check_choice("on_error", on_error, OnError)
    if few_shot is not None and few_shot < 1:
        raise ValueError(f"few_shot={few_shot!r}: at least 1 clip per class, or None")
    splits, _ = _splits(clips, np.arange(len(clips)), folds, seed)  # a class that is too small is told before decoding
    _check_shots(clips, splits, few_shot)
    spec = get_backbone(backbone)
    names = list(embedding) if embedding is not None else _default_layers(backbone)
    # What a row of the table is called -> what it is probed on.
    wanted = {name: resolve_embedding(spec, name, pooling) for name in names}
    wanted |= {"+".join(pair): resolve_embedding(spec, pair, pooling) for pair in pairs}
    every = list(dict.fromkeys(single for recipe in wanted.values() for single in _singly(recipe)))
    start = perf_counter()
    base = cut_backbone(
        spec, list(dict.fromkeys(layer for single in every for layer in single.layers)), weights=weights
    )
    outputs = [output for single in every for output in pooled_layers(base, spec, single)]
    network = PatchNetwork(base, outputs, **asdict(engine or EngineOptions()))
    columns, kept, skipped = _clip_vectors(network, clips, progress)
    vectors = dict(zip(every, columns, strict=True))
    if skipped and on_error == "raise":
        raise AudioErrors(skipped, len(clips))
    seconds = {"extract": perf_counter() - start}
    start = perf_counter()
    used = clips[kept]
    labels = used.targets.argmax(axis=1)
    splits, words = _splits(clips, kept, folds, seed)
    _check_shots(used, splits, few_shot)
    shots = _shots(splits, labels, few_shot, repeats, seed) if few_shot else []
    work = multiply_adds(backbone)
    total = max(cost for cost, _ in work.values())
    rows = []
    for number, (name, recipe) in enumerate(wanted.items(), start=1):
        x = np.concatenate([vectors[single] for single in _singly(recipe)], axis=1)
        scores, few = _accuracies(x, labels, splits), _accuracies(x, labels, shots)
        share = max(work[layer][0] for layer in recipe.layers) / total
        rows.append(
            ProbeRow(
                name, x.shape[1], share, float(scores.mean()), float(scores.std()),
                float(few.mean()) if few_shot else None, float(few.std()) if few_shot else None,
            )
        )  # fmt: skip
        progress(Progress("Training probes", number, len(wanted)))
    seconds["probe"] = perf_counter() - start
    # Windows of one recording are nearly one observation.
    tested = len(np.unique(units(used, "source")[np.concatenate([test for _, test in splits])]))
    best, reason = recommend(rows, tested)
    return ProbeTable(backbone, rows, best, reason, words, len(used), skipped, seconds, few_shot)


def _singly(recipe: Recipe) -> list[Recipe]:
    """The layers of a recipe, each by itself."""
    return [replace(recipe, layers=(layer,)) for layer in recipe.layers]


def _default_layers(backbone: str) -> list[str]:
    spec = get_backbone(backbone)
    # VGGish's post-processing needs a file of its own and loses to the embedding it is made from.
    return [layer.name for layer in spec.layers if layer.name not in ("pca", "scores")]


def _clip_vectors(
    network: PatchNetwork, clips: Clips, progress: OnProgress
) -> tuple[list[np.ndarray], np.ndarray, list[AudioError]]:
    """For each of the network's outputs one vector per clip, the rows that have one, and the sounds that have none."""
    found: list[list[np.ndarray]] = []
    kept: list[int] = []
    skipped: list[AudioError] = []
    load = partial(clips.load, sample_rate=network.frontend.spec.sample_rate)
    for row, result in enumerate(clip_results(network, clips, load, progress=progress)):
        if isinstance(result, AudioError):
            skipped.append(result)
        else:
            kept.append(row)
            found.append([pool_patches(rows, "avg") for rows in result])
    if not found:
        raise AudioErrors(skipped, len(clips), "None is left to work with.")
    return [np.stack(column) for column in zip(*found, strict=True)], np.array(kept), skipped


def _splits(clips: Clips, kept: np.ndarray, folds: int | str | Sequence[Split], seed: int) -> tuple[list[Split], str]:
    """Row numbers among the clips used, which are ``clips[kept]``, and what they are in words."""
    used = clips[kept]
    if isinstance(folds, str) and folds != "given":
        raise ValueError(f"folds={folds!r}: a number of folds, 'given', or pairs of row numbers")
    if isinstance(folds, int):
        check_number("folds", folds, least=2, whole=True)
    if isinstance(folds, (int, str)):
        # Windows of a recording and rows drawn again have the source in common, so rows are numbered here.
        numbered = replace(used, source=np.arange(len(used)))
        drawn = numbered.folds("given" if folds == "given" else int(folds), seed=seed)
        splits = [(train.source, test.source) for _, train, test in drawn]
        return splits, f"{len(splits)} {'given' if folds == 'given' else 'drawn'} folds, {len(used)} clips"
    place = {int(row): number for number, row in enumerate(kept)}
    _check_pairs(folds, clips)
    pairs = [tuple(np.array([place[int(row)] for row in part if int(row) in place]) for part in pair) for pair in folds]
    if not pairs or any(len(part) == 0 for pair in pairs for part in pair):
        raise ValueError("folds: every pair needs rows to train on and rows to test on")
    words = (
        f"{len(pairs[0][0])} clips to train on, {len(pairs[0][1])} to test on"
        if len(pairs) == 1
        else f"{len(pairs)} given splits"
    )
    return [(train, test) for train, test in pairs], words


def _check_pairs(folds: Sequence[Split], clips: Clips) -> None:
    """Raises ValueError for rows that there are none of, and for a recording on both sides of a split."""
    recording = units(clips, "source", copies=False)
    for number, pair in enumerate(folds):
        train, test = (np.asarray(part, int) for part in pair)
        outside = [int(row) for row in [*train, *test] if not 0 <= row < len(clips)]
        if outside:
            raise ValueError(
                f"folds[{number}]: row {outside[0]} is none of the {len(clips)} clips, 0 to {len(clips) - 1}"
            )
        shared = test[np.isin(recording[test], recording[train])]
        if len(shared):
            raise ValueError(
                f"folds[{number}]: {show_name(clips.paths[shared[0]])} is on both sides, in {len(shared)} of "
                f"{len(test)} rows to test on: keep the windows of a recording together"
            )


def _check_shots(clips: Clips, splits: Sequence[Split], few_shot: int | None) -> None:
    """ValueError where a split has fewer clips of a class to draw from than are to be drawn."""
    labels = clips.targets.argmax(axis=1)
    for train, _ in splits:
        numbers, counts = np.unique(labels[np.asarray(train, int)], return_counts=True)
        if few_shot is not None and few_shot > counts.min():
            name = clips.class_names[numbers[counts.argmin()]]
            raise ValueError(
                f"few_shot={few_shot}: {name!r} has {counts.min()} clips to train on where others are tested; "
                f"{counts.min()} at most can be drawn"
            )


def _shots(splits: Sequence[Split], labels: np.ndarray, k: int, repeats: int, seed: int) -> list[Split]:
    """``repeats`` draws of k clips per class; each split has its turn."""
    rng = stream("few-shot draw", seed)
    shots = []
    for repeat in range(repeats):
        train, test = splits[repeat % len(splits)]
        drawn = []
        for label in np.unique(labels[train]):
            rows = train[labels[train] == label]
            drawn.append(rng.choice(rows, k, replace=False))
        shots.append((np.concatenate(drawn), test))
    return shots


def _accuracies(x: np.ndarray, labels: np.ndarray, splits: Sequence[Split]) -> np.ndarray:
    """Accuracy on each split; the splits run side by side, each on one core."""
    with one_blas_thread(), ThreadPoolExecutor(cores()) as pool:
        return np.array(list(pool.map(partial(_accuracy, x, labels), splits)))


def _accuracy(x: np.ndarray, labels: np.ndarray, split: Split) -> float:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test = split
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    with warnings.catch_warnings():  # a probe compares layers: its last digits do not matter
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(x[train], labels[train])
    return float((probe.predict(x[test]) == labels[test]).mean())


def recommend(rows: Sequence[ProbeRow], tested: int) -> tuple[str, str]:
    """The cheapest layer within one standard error of the best accuracy, and the reason in words.

    Args:
        rows: the table.
        tested: clips that the accuracies were measured on; they bound what a difference means.
    """
    best = max(rows, key=lambda row: (row.accuracy, -row.share))
    # The binomial standard error; with one success and one failure added, so that 100 % has one too.
    smooth = (best.accuracy * tested + 1) / (tested + 2)
    noise = float(np.sqrt(smooth * (1 - smooth) / tested))
    within = [row for row in rows if row.accuracy >= best.accuracy - noise]
    chosen = min(within, key=lambda row: (row.share, row.width, -row.accuracy))
    if chosen is best:
        return best.layer, f"the best, {best.accuracy:.3f}; no cheaper layer is within its noise of {noise:.3f}"
    return chosen.layer, (
        f"{chosen.accuracy:.3f} at {chosen.share:.0%} of the network's work, within the noise ({noise:.3f}) of "
        f"the best, {best.layer} with {best.accuracy:.3f} at {best.share:.0%}"
    )
