"""The training recipe: labelled clips in, a trained and honestly evaluated classifier out.

Every clip is decoded once and run through the frozen part of the network once. One of two trainers then learns on what
is kept of that: ``_HeadTrainer`` the head alone, ``_BlockTrainer`` the last blocks of the backbone too. Held-out parts,
folds, augmentation, early stopping, restarts and measures are the same for both.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import keras
import numpy as np

from tfaudiotl._seeds import derived_seed, stream
from tfaudiotl._threads import OnProgress, Progress, ignore
from tfaudiotl.augment.layers import Augmentation
from tfaudiotl.backbones.frontend import LogMelSpec, WindowSpec
from tfaudiotl.classifiers.anatomy import classifier_parts, parts
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.classifiers.edit import replace_head
from tfaudiotl.data.clips import Clips
from tfaudiotl.data.splits import Folds, shared_units, units
from tfaudiotl.errors import AudioError, AudioErrors, check_number
from tfaudiotl.evaluation.metrics import FEW, Evaluation, evaluate_scores
from tfaudiotl.training.activation_cache import ActivationCache
from tfaudiotl.training.batches import Augment, Sounds, checked_augment, means_by_clip, patch_windows
from tfaudiotl.training.fine_tune import FineTuner
from tfaudiotl.training.head import Examples, check_linear, clip_scores, fit_head, new_head
from tfaudiotl.training.options import VAL, FineTuneOptions, FitOptions

TEST = 0.2  # share of all clips that is reported
TESTABLE = 8  # recordings or groups of each class that must be left to train on, for a test part that decides nothing
KEPT_WAVEFORMS = 100  # held-out clips that exported files are compared on, at most
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldResult:
    """One fold: its name, the accuracy and macro F1 on its clips, the epochs trained, its size."""

    name: str
    accuracy: float
    macro_f1: float
    epochs: int
    clips: int

    @classmethod
    def of(
        cls, name: str, of_fold: np.ndarray, rows: np.ndarray, scores: np.ndarray, clips: Clips, epochs: int
    ) -> FoldResult:
        """The fold whose clips are ``rows[of_fold]`` of ``clips``, with their ``scores``."""
        measured = evaluate_scores(
            scores[of_fold],
            clips.targets[rows[of_fold]],
            class_names=clips.class_names,
            multi_label=clips.multi_label,
        )
        return cls(name, measured.accuracy, measured.macro_f1, epochs, int(of_fold.sum()))


@dataclass
class TrainingResult:
    """What ``train_classifier`` gives.

    Attributes:
        model: the classifier, a compiled ``keras.Model``.
        evaluation: on clips that the evaluated weights never saw: the held-out clips, or with folds
            every clip, by the head of the fold that held it out.
        stopped_by_held_out: whether these clips also told when to stop the training, so that the figures may be a
            little too good. With folds, and where there are clips enough, others did.
        folds: one entry per fold; empty without folds.
        histories: training curves by run.
        epochs: epochs the final head was trained.
        clips: the clips that were used, after skipping.
        held_out: the clips that ``evaluation`` is about, in its order.
        kept: up to 100 of them, drawn, to check exported files with, and
        kept_waveforms: their sound, of a long one its first window.
        skipped: sounds left out, with reasons.
        seconds: where the time went, by stage.
        patches: patches that went through the backbone.
        shrinkage: of the final head, where it was made in closed form (``solver="discriminant"``); else None.
        best_epochs: of the final model's fine-tuning, by stage; 0: the stage made nothing better and was taken back.
    """

    model: keras.Model
    evaluation: Evaluation
    folds: list[FoldResult]
    histories: dict[str, dict[str, list[float]]]
    epochs: int
    clips: Clips
    held_out: Clips
    kept: Clips
    kept_waveforms: list[np.ndarray]
    skipped: list[AudioError]
    stopped_by_held_out: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    patches: int = 0
    best_epochs: dict[str, int] = field(default_factory=dict)
    shrinkage: float | None = None

    def how_trained(self) -> str:
        """How the head came about, in a sentence."""
        if self.shrinkage is None:
            return f"{self.epochs} epochs with Adam"
        return (
            f"linear discriminant analysis in closed form, its covariance shrunk by {self.shrinkage:g}; inner folds of "
            "the clips trained on chose that and the scale of the scores"
        )

    def how_measured(self) -> str:
        """What the figures rest on, in a sentence."""
        if self.folds:
            return (
                f"Every clip is predicted by a classifier trained on the other folds ({len(self.folds)} folds), and "
                "decided nothing about it. The saved one is trained on all clips; these figures are what to expect "
                "of it on like recordings."
            )
        count = f"On {len(self.held_out)} clips held out of the training"
        if self.stopped_by_held_out:
            return (
                f"{count}, which also told when to stop it, so the figures may be a little too good; more clips, or "
                "folds, would leave them out of every decision."
            )
        others = "told when to stop it" if self.shrinkage is None else "alone made the head"
        return f"{count}, which decided nothing: other clips {others}."


def train_classifier(
    clips: Clips,
    *,
    fit: FitOptions | None = None,
    fine_tune: FineTuneOptions | None = None,
    folds: Folds | None = None,
    val: float = VAL,
    test: float = TEST,
    window_seconds: float = 10.0,
    on_error: str = "raise",
    allow_silence: bool = False,
    augment: bool | Augmentation | Sequence[Augmentation] | Augment = False,
    workdir: str | Path | None = None,
    progress: OnProgress = ignore,
    **classifier: Any,
) -> TrainingResult:
    """Trains a classifier's head, or with ``fine_tune`` its last blocks too, and measures it on clips it never saw.

    Without folds, a share ``test`` of the clips is held out (stratified; whole files and groups), and is what the
    evaluation is about. The number of epochs is chosen on a share ``val`` of the other clips, then the classifier is
    trained on all of these. Where fewer than eight recordings (or groups) of a class are left to train on, the held-out
    clips stop the training themselves, and the result says so (``stopped_by_held_out``). With folds, each fold is
    predicted by a classifier that was trained on the others, with the number of epochs chosen on a share ``val`` of
    those others; then the final one is trained on all clips for the median of these numbers. A head in closed form
    (``solver="discriminant"``) has no epochs: it learns from all that is not reported, and ``val`` does nothing.

    Clips with a division of their own (``Clips.parts``) keep to it: "train" is learned from, "val" (or a share ``val``
    of "train") stops the training, and "test" (or "val", where there is none) is what the evaluation is about.

    Args:
        clips: the labelled clips.
        fit: how the head is trained, the backbone being frozen; None: the defaults of ``FitOptions``.
        fine_tune: train the last blocks of the backbone too, in this way; not with ``fit``. ``refit`` is as above.
        folds: None, the number of folds to draw, or "given" for the clips' own fold column.
        val: share of what is trained on that tells when to stop, in (0, 1).
        test: share of the clips that is reported, in (0, 1); not used with folds.
        window_seconds: longer clips are cut into windows of about this length (whole patches of the network, one at
            least), each an example; a clip's score is the mean of its windows', weighed by their patches.
        on_error: "raise" or "skip" unusable sounds.
        allow_silence: keep clips in which every sample is zero.
        augment: True, layers such as ``RandomGain``, or ``(waveform (samples,), numpy Generator) -> waveform``:
            training parts also get ``copies`` changed versions of each clip (an option of ``fit`` and ``fine_tune``),
            which go through the frozen part once; each epoch has each clip once, as it is or as one of these. What is
            held out is never changed.
        workdir: folder for state that survives a kill: what the frozen part gives and every finished epoch. If it has
            state of the same clips and settings, the training goes on from there.
        progress: called after each clip and each epoch.
        **classifier: arguments of ``build_classifier`` other than ``class_names``.

    Returns:
        A ``TrainingResult``.

    Raises:
        ValueError: an argument out of range, or clips that cannot be divided like that.
        AudioErrors: sounds that cannot be used, all of them, with ``on_error="raise"``.
    """
    if fit is not None and fine_tune is not None:
        raise ValueError("give fit= (the head alone) or fine_tune= (the last blocks too), not both")
    options = (fine_tune or fit or FitOptions()).applied(multi_label=clips.multi_label)
    refuse_chosen_layer(classifier)
    check_number("window_seconds", window_seconds, above=0)
    stops = getattr(options, "solver", "adam") == "adam"
    if not stops:
        classifier = {"hidden": (), **classifier}
    check_splits(clips, folds, val=val, test=test, seed=options.seed, stops=stops)
    start = perf_counter()
    model = build_classifier(
        class_names=clips.class_names,
        multi_label=clips.multi_label,
        learning_rate=options.learning_rate,
        seed=options.seed,
        **{"background": clips.background, **classifier},
    )
    seconds = {"build": perf_counter() - start}
    grid = classifier_parts(model, waveforms=True).grid
    assert grid is not None
    change = checked_augment(augment, sample_rate=grid.sample_rate)
    _tell_longer_windows(grid, window_seconds)
    windows = patch_windows(clips, grid, window_seconds)
    sounds = Sounds.of([windows], sample_rate=grid.sample_rate, allow_silence=allow_silence)
    with ExitStack() as stack:
        folder = Path(workdir or stack.enter_context(tempfile.TemporaryDirectory()))
        start = perf_counter()
        trainer = _trainer(model, sounds, options, change, folder, progress)
        kept, skipped = _usable(trainer.cache, sounds, on_error)
        seconds["embed"] = perf_counter() - start
        start = perf_counter()
        parents = windows.source[kept]
        used = np.unique(parents)
        usable = replace(clips[used], source=np.arange(len(used)))  # splits then name its rows
        recipe = _Recipe(trainer, kept, np.searchsorted(used, parents), usable, val=val, seed=options.seed)
        if folds is None:
            recipe.hold_out(test)
        else:
            recipe.cross_validate(folds)
        model.optimizer.build(model.trainable_variables)  # saved with its state, so that reloading warns of nothing
        seconds["train"] = perf_counter() - start
        counts = np.array([trainer.cache.counts[row] for row in kept.tolist()])
    rows, scores = by_clip(recipe.scores, recipe.scored, parents, counts)
    held_out = clips[rows]
    chosen = check_windows(rows, parents, options.seed)
    return TrainingResult(
        model=model,
        evaluation=evaluate_clips(held_out, scores),
        folds=[
            FoldResult.of(name, np.isin(rows, used[clips_of]), rows, scores, clips, sum(epochs.values()))
            for name, (clips_of, epochs) in recipe.folds.items()
        ],
        histories=recipe.histories,
        best_epochs=recipe.epochs,
        shrinkage=recipe.shrinkage,
        epochs=sum(recipe.epochs.values()),
        clips=clips[used],
        held_out=held_out,
        kept=clips[parents[chosen]],
        kept_waveforms=[windows.load(row, sample_rate=grid.sample_rate) for row in kept[chosen].tolist()],
        skipped=[*clips.skipped, *skipped],
        stopped_by_held_out=recipe.stopped_by_held_out,
        seconds=seconds,
        patches=int(counts.sum()),
    )


def _usable(cache: ActivationCache, sounds: Sounds, on_error: str) -> tuple[np.ndarray, list[AudioError]]:
    """The rows of ``sounds`` that can be used, and what is wrong with the others.

    Raises:
        AudioErrors: with ``on_error="raise"`` there are others; or changed copies of usable sounds cannot be used.
    """
    total = len(sounds.targets)
    skipped = [cache.skipped[row] for row in sorted(cache.skipped) if row < total]
    if skipped and on_error == "raise":
        raise AudioErrors(skipped, total, "Fix or remove them, or pass on_error='skip' to leave them out.")
    kept = np.array([row for row in range(total) if row in cache.counts], int)
    lost = {error.path: error for row, error in cache.skipped.items() if row >= total}
    spoilt = [lost[path] for row in kept.tolist() if (path := sounds.paths[row]) in lost]
    if spoilt:
        raise AudioErrors(spoilt, total, "They are fine as they are, but not changed by this augment=.")
    return kept, skipped


@dataclass(frozen=True)
class Run:
    """One training of the recipe.

    Attributes:
        name: for messages; any text.
        file: the same, for files.
        train: rows of the sounds to learn.
        val: rows that tell when to stop; None trains for ``epochs``.
        epochs: of each stage.
        units: of the rows to learn, for trainers that make folds of them: those of one number stay together.
    """

    name: str
    file: str
    train: np.ndarray
    val: np.ndarray | None = None
    epochs: Mapping[str, int] | None = None
    units: np.ndarray | None = None


@dataclass(frozen=True)
class Trained:
    """What a training gave: epochs of the kept weights by stage, metric -> value of each epoch, and the shrinkage."""

    epochs: dict[str, int]
    history: dict[str, list[float]]
    shrinkage: float | None = None


class Trainer(Protocol):
    """Trains classifiers that share one frozen part, whose activations ``cache`` holds.

    Attributes:
        cache: of all sounds, as they are and changed.
        final: what is trained in the end; the result's model is made of its layers.
        stops: whether some clips must tell when to stop.
    """

    cache: ActivationCache
    final: Any
    stops: bool

    def fresh(self) -> Any:
        """Another like ``final``, with first weights."""

    def fit(self, model: Any, run: Run) -> Trained:
        """Trains ``model``, which is ``final`` or a ``fresh`` one."""

    def scores(self, model: Any, rows: np.ndarray) -> np.ndarray:
        """Scores of sounds as they are, ``(rows, classes)``."""


def _trainer(
    model: keras.Model,
    sounds: Sounds,
    options: FitOptions | FineTuneOptions,
    change: Augmentation | Augment | None,
    folder: Path,
    progress: OnProgress,
) -> Trainer:
    every = np.arange(len(sounds.targets))
    if isinstance(options, FineTuneOptions):
        return _BlockTrainer(model, sounds, replace(options, refit=False), change, every, folder, progress)
    if change is not None:
        sounds = sounds.changed(change, copies=options.copies, rows=every, seed=options.seed)
    return _HeadTrainer(model, sounds, options, folder, progress)


class _HeadTrainer:
    """Trains heads on embeddings."""

    def __init__(
        self, model: keras.Model, sounds: Sounds, options: FitOptions, folder: Path, progress: OnProgress
    ) -> None:
        found = classifier_parts(model)
        self.stops = options.solver == "adam"
        if not self.stops:
            check_linear(found.head)
        self.cache = ActivationCache.build(
            folder / "cache",
            model,
            [found.embedding],
            sounds.jobs,
            key=sounds.digest,
            paths=sounds.paths,
            progress=progress,
        )
        self.final, self.sounds = parts(model).head, sounds
        self._of_means = found.scores_clips and not found.sequence_head
        self._options, self._folder, self._progress = options, folder, progress
        self._read: dict[int, np.ndarray] = {}

    def fresh(self) -> keras.Model:
        return new_head(self.final)

    def fit(self, model: keras.Model, run: Run) -> Trained:
        most = run.epochs["head"] if run.epochs else self._options.epochs

        def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
            self._progress(Progress(f"Training: {run.name}", epoch, most, metrics))

        copies = self.sounds.variants[1:] if self.sounds.variants is not None else ()
        fitted = fit_head(
            model,
            self._examples(run.train, run.train),
            None if run.val is None else self._examples(run.val, run.val),
            self._options,
            variants=[self._examples(run.train, rows[run.train]) for rows in copies],
            epochs=most,
            units=run.units,
            checkpoint=self._folder / f"{run.file}.npz",
            on_epoch=on_epoch,
        )
        return Trained({"head": fitted.best_epochs}, fitted.history, fitted.shrinkage)

    def scores(self, model: keras.Model, rows: np.ndarray) -> np.ndarray:
        return clip_scores(model, self._examples(rows, rows))

    def _examples(self, rows: np.ndarray, heard: np.ndarray) -> Examples:
        """The labels of ``rows`` with the embeddings of ``heard``: patches, or their means if the head takes these."""
        read = [self._embedding(row) for row in heard.tolist()]
        counts = np.array([len(vectors) for vectors in read])
        return Examples(np.concatenate(read), counts, self.sounds.targets[rows], self.sounds.weights[rows])

    def _embedding(self, row: int) -> np.ndarray:
        if row not in self._read:
            vectors = self.cache.read(0, row)
            self._read[row] = vectors.mean(axis=0, keepdims=True) if self._of_means else vectors
        return self._read[row]


class _BlockTrainer:
    """Trains heads and the last blocks below them, in stages."""

    stops = True

    def __init__(
        self,
        model: keras.Model,
        sounds: Sounds,
        options: FineTuneOptions,
        change: Augmentation | Augment | None,
        rows: np.ndarray,
        folder: Path,
        progress: OnProgress,
    ) -> None:
        self._tuner = FineTuner(
            model, sounds, options, folder, augment=change, augmented=rows, progress=progress, epoch=self._epoch
        )
        self.cache, self.final = self._tuner.cache, model
        self._folder, self._progress, self._run = folder, progress, ""

    def fresh(self) -> keras.Model:
        names = classifier_parts(self.final).class_names
        return replace_head(self.final, names, keep=False, seed=self._tuner.options.seed)

    def fit(self, model: keras.Model, run: Run) -> Trained:
        self._run, folder = run.name, self._folder / run.file
        folder.mkdir(exist_ok=True)
        done = self._tuner.fit(model, run.train, run.val, folder, epochs=run.epochs)
        return Trained(done.best_epochs, _one_after_another(list(done.histories.values())))

    def scores(self, model: keras.Model, rows: np.ndarray) -> np.ndarray:
        return self._tuner.scores(model, rows)

    def _epoch(self, stage: str, epoch: int, epochs: int, metrics: dict[str, float]) -> None:
        self._progress(Progress(f"Training: {self._run}, {stage}", epoch, epochs, metrics))


def _one_after_another(stages: Sequence[dict[str, list[float]]]) -> dict[str, list[float]]:
    """The curves of a training in stages as those of one run."""
    names = dict.fromkeys(name for stage in stages for name in stage)
    return {name: [value for stage in stages for value in stage.get(name, [])] for name in names}


class _Recipe:
    """What is trained on what; collects scores of windows by classifiers that never saw them.

    Whole clips are divided, so that shares and counts are those of clips whatever the windows are.

    Args:
        trainer: trains.
        kept: (windows,) the trainer's rows of the usable windows.
        clip: (windows,) the usable clip of each.
        usable: the usable clips; ``source`` is their number.
        val: share of what is trained on that tells when to stop.
        seed: of the parts and folds.
    """

    def __init__(
        self, trainer: Trainer, kept: np.ndarray, clip: np.ndarray, usable: Clips, *, val: float, seed: int
    ) -> None:
        self._trainer, self._kept, self._clip, self._usable = trainer, kept, clip, usable
        self._val, self._seed = val, seed
        self.scores = np.zeros((len(kept), len(usable.class_names)), np.float32)
        self.scored = np.zeros(len(kept), bool)
        self.histories: dict[str, dict[str, list[float]]] = {}
        self.folds: dict[str, tuple[np.ndarray, dict[str, int]]] = {}  # name -> clips held out, epochs by stage
        self.epochs: dict[str, int] = {}  # of the final training, by stage
        self.stopped_by_held_out = False
        self.shrinkage: float | None = None  # of what was trained last

    def hold_out(self, test: float) -> None:
        """Trains on one part; the other is scored, and tells when to stop where there are few clips."""
        final = self._trainer.final
        stops = self._trainer.stops
        learn, stop, held = held_out_parts(self._usable, val=self._val, test=test, seed=self._seed, stops=stops)
        if not stops:
            self.epochs = self._fit(final, learn, None, run="final", file="final")
        elif stop is not None:
            self.stopped_by_held_out = stop is held
            self.epochs = self._fit(final, learn, stop, run="train", file="train")
        else:
            self.epochs = self._choose_epochs(learn, run="train", file="train")
            self._fit(final, learn, None, run="final", file="final", epochs=self.epochs)
        self._score(final, held)

    def cross_validate(self, folds: Folds) -> None:
        """Scores every fold by a classifier trained on the others, then trains the final one on everything."""
        for name, train, held in self._usable.folds(folds, seed=self._seed):
            file = f"fold-{len(self.folds) + 1}"  # names are any text, and no names of files
            chosen = self._choose_epochs(train, run=f"fold {name}", file=file) if self._trainer.stops else None
            model = self._trainer.fresh()
            epochs = self._fit(model, train, None, run=f"fold {name}, refit", file=f"{file}-refit", epochs=chosen)
            self._score(model, held)
            self.folds[name] = (held.source, epochs)
        stages = [epochs for _, epochs in self.folds.values()]
        self.epochs = {stage: int(np.median([epochs[stage] for epochs in stages])) for stage in stages[0]}
        self._fit(self._trainer.final, self._usable, None, run="final", file="final", epochs=self.epochs)

    def _choose_epochs(self, train: Clips, *, run: str, file: str) -> dict[str, int]:
        """The epochs that are best on an inner part of the training clips, never on those that are reported."""
        learn, stop = inner_split(train, val=self._val, seed=self._seed)
        return self._fit(self._trainer.fresh(), learn, stop, run=run, file=file)

    def _fit(
        self,
        model: Any,
        train: Clips,
        stop: Clips | None,
        *,
        run: str,
        file: str,
        epochs: Mapping[str, int] | None = None,
    ) -> dict[str, int]:
        val = None if stop is None else self._kept[self._windows(stop)]
        windows = self._windows(train)
        together = None if self._trainer.stops else self._together(train, windows)
        trained = self._trainer.fit(model, Run(run, file, self._kept[windows], val, epochs, together))
        self.shrinkage = trained.shrinkage
        if val is not None:
            self.histories[run] = trained.history
        return trained.epochs

    def _score(self, model: Any, held: Clips) -> None:
        windows = self._windows(held)
        self.scores[windows] = self._trainer.scores(model, self._kept[windows])
        self.scored[windows] = True

    def _windows(self, part: Clips) -> np.ndarray:
        return np.flatnonzero(np.isin(self._clip, part.source))

    def _together(self, part: Clips, windows: np.ndarray) -> np.ndarray:
        """For each window the number of its recording or group."""
        order = np.argsort(part.source)
        return units(part, None)[order[np.searchsorted(part.source[order], self._clip[windows])]]


def _tell_longer_windows(grid: LogMelSpec | WindowSpec, window_seconds: float) -> None:
    least = grid.min_samples / grid.sample_rate
    if window_seconds < least:
        logger.warning(
            "window_seconds=%g: the network takes %g s at least; clips are cut into windows of that length",
            window_seconds,
            least,
        )


def check_splits(
    clips: Clips, folds: Folds | None, *, val: float = VAL, test: float = TEST, seed: int, stops: bool = True
) -> None:
    """ValueError for a split that cannot be, the inner ones of folds too, before any sound is decoded."""
    for name, share in (("val", val), ("test", test)):
        if isinstance(share, bool) or not isinstance(share, (int, float, np.number)) or not 0 < share < 1:
            raise ValueError(f"{name}={share!r}: expected a share of the clips over 0 and under 1, such as 0.2")
    if folds is None:
        learn, stop, held = held_out_parts(clips, val=val, test=test, seed=seed, stops=stops)
        if stops and stop is None:
            inner_split(learn, val=val, seed=seed)
        if len(held) < FEW:
            logger.warning(
                "%d of %d clips are reported: each is %.0f %% of the accuracy; folds test every clip",
                len(held),
                len(clips),
                100 / len(held),
            )
        return
    for name, train, _ in clips.folds(folds, seed=seed):
        if not stops:
            continue
        try:
            inner_split(train, val=val, seed=seed)
        except ValueError as error:
            raise ValueError(
                f"folds: of what is trained on for fold {name!r}, a part must tell when to stop, with every class on "
                f"both sides: {error}"
            ) from None


def held_out_parts(
    clips: Clips, *, val: float = VAL, test: float = TEST, seed: int, stops: bool = True
) -> tuple[Clips, Clips | None, Clips]:
    """What is trained on, what tells when to stop, and what is reported.

    Clips with a division of their own keep to it: where there is no part "val", a share ``val`` of "train" tells when
    to stop; where there is no "test", "val" is reported. Of others a share ``test`` is reported; it tells when to stop
    too where there are few clips. Else the second is None: ``inner_split`` of the first tells it. Where nothing need
    tell (``stops=False``), it is always None, and "val" is unused if there is a "test".

    Raises:
        ValueError: there is nothing to train on, or nothing of a class; or "train" cannot be divided.
    """
    if len(clips.parts()) < 2:
        train, held = clips.split(test=test, seed=seed)
        return train, None if not stops or testable(train) else held, held
    train, held = clips.split()
    learned, present = train.counts(), clips.counts()
    names = [name for name in clips.class_names if present[name] and not learned[name]]
    if names:
        raise ValueError(f"the clips' part 'train' has none of {', '.join(map(repr, names))}, which other parts have")
    if not stops:
        return train, None, clips.parts().get("test", held)
    if "val" in clips.parts():
        return train, held, clips.parts().get("test", held)
    learn, stop = train.split(val=val, seed=seed)
    return learn, stop, held


def inner_split(train: Clips, *, val: float, seed: int) -> tuple[Clips, Clips]:
    """Divides what is trained on: a share ``val`` of it tells when to stop."""
    return train.split(val=val, seed=derived_seed("inner part", seed))


def refuse_chosen_layer(classifier: dict[str, Any]) -> None:
    """ValueError for a layer that would be chosen on labels of clips that are then reported as never seen."""
    if classifier.get("embedding") == "auto" or classifier.get("probe_clips") is not None:
        raise ValueError(
            "embedding='auto': would choose the layer on clips that the evaluation is about; choose it on others, "
            "probe_layers(backbone, others).recommended, and give its name"
        )


def testable(train: Clips) -> bool:
    """Whether there are clips enough to leave the held-out ones out of every decision: 8 units of each class remain."""
    together = units(train, None)
    counts = [len(np.unique(together[column > 0])) for column in train.targets.T]
    return min(counts) >= TESTABLE


def evaluate_clips(clips: Clips, scores: np.ndarray) -> Evaluation:
    """The measures of ``clips`` by their scores ``(clips, classes)``; ValueError names those without finite ones."""
    lost = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(lost):
        named = ", ".join(clips.paths[row] for row in lost[:3])
        raise ValueError(
            f"{len(lost)} of {len(clips)} clips have scores that are not finite numbers: {named}"
            f"{' ...' if len(lost) > 3 else ''}"
        )
    return evaluate_scores(
        scores,
        clips.targets,
        class_names=clips.class_names,
        multi_label=clips.multi_label,
        names=clips.paths,
        groups=shared_units(clips),
    )


def by_clip(
    scores: np.ndarray, scored: np.ndarray, parents: np.ndarray, patches: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the clips of which windows were scored, and the mean of each one's, weighed by their ``patches``."""
    return means_by_clip(scores[scored], parents[scored], patches[scored])


def check_windows(rows: np.ndarray, parents: np.ndarray, seed: int) -> np.ndarray:
    """The windows that exported files are compared on: the first usable one of up to 100 clips.

    Args:
        rows: the clips to choose from, those with scores.
        parents: the clip of each usable window.
        seed: of the choice.

    Returns:
        Window numbers, in the order of the clips.
    """
    chosen = np.sort(stream("export check", seed).permutation(rows)[:KEPT_WAVEFORMS])
    present, first = np.unique(parents, return_index=True)
    windows: np.ndarray = first[np.searchsorted(present, chosen)]
    return windows
