"""The main recipe: labelled clips in, a trained and honestly evaluated classifier out.

Every clip is decoded once and run through the frozen backbone once; folds, early stopping and the
final model all train small heads on those embeddings.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import keras
import numpy as np

from tfaudiotl._files import write_atomic
from tfaudiotl._fingerprint import check_unchanged, fingerprint, model_parts, versions
from tfaudiotl._seeds import derived_seed, stream
from tfaudiotl._threads import OnProgress, Progress, ignore
from tfaudiotl.audio.chain import as_augmentation
from tfaudiotl.audio.clips import Clips
from tfaudiotl.audio.layer import Augmentation
from tfaudiotl.audio.splits import shared_units, units
from tfaudiotl.audio.table import file_states, sound_parts
from tfaudiotl.audio.waveform import is_silent
from tfaudiotl.audio.windows import means_by_clip, patch_windows
from tfaudiotl.backbones.assembly import grid_of_model
from tfaudiotl.embeddings.engine import ClipEmbeddings, PatchNetwork, embed_clips
from tfaudiotl.errors import AudioError, OnError
from tfaudiotl.evaluation.metrics import FEW, Evaluation, evaluate_scores
from tfaudiotl.models.builder import build_classifier
from tfaudiotl.training.head import Examples, Fitted, clip_scores, fit_head, head_of, new_head
from tfaudiotl.training.options import FitOptions
from tfaudiotl.training.variants import augmented_embeddings

INNER_VAL = 0.15  # share of a fold's training clips that decides when to stop
logger = logging.getLogger(__name__)
TESTABLE = 8  # recordings or groups of each class that must be left to train on, for a test part that decides nothing
KEPT_WAVEFORMS = 100  # held-out clips that exported files are compared on, at most


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
        return f"{count}, which decided nothing: other clips told when to stop it."


def train_classifier(
    clips: Clips,
    *,
    folds: int | str | None = None,
    val: float = 0.2,
    window_seconds: float = 10.0,
    fit: FitOptions | None = None,
    on_error: OnError = "raise",
    allow_silence: bool = False,
    augment: bool | Augmentation | Sequence[Augmentation] = False,
    copies: int = 4,
    workdir: str | Path | None = None,
    progress: OnProgress = ignore,
    **classifier: Any,
) -> TrainingResult:
    """Trains a classifier's head on a frozen backbone, and measures it on clips it never saw.

    Without folds, a share ``val`` of the clips is held out (stratified; whole files and groups), and is what the
    evaluation is about. The number of epochs is chosen on a part (15 %) of the other clips, then the head is trained on
    all of these. Where fewer than eight recordings (or groups) of a class are left to train on, the held-out clips stop
    the training themselves, and the result says so (``stopped_by_held_out``). With folds, each fold is predicted by a
    head that was trained on the others, with the number of epochs chosen on a part of those others;
    then the final head is trained on all clips for the median of these numbers.

    Clips with a division of their own (``Clips.parts``) keep to it: "train" is learned from, "val" (or a share ``val``
    of "train") stops the training, and "test" (or "val", where there is none) is what the evaluation is about.

    Args:
        clips: the labelled clips.
        folds: None, the number of folds to draw, or "given" for the clips' own fold column.
        val: share held out, in (0, 1); not used with folds.
        window_seconds: longer clips are cut into windows of about this length (whole patches of the network), each an
            example; a clip's score is the mean of its windows', weighed by their patches.
        fit: how heads are trained.
        on_error: "raise" or "skip" unusable sounds.
        allow_silence: keep clips in which every sample is zero.
        augment: True, or layers such as ``RandomNoise``: training parts also get ``copies`` changed
            versions of each clip, embedded once; each epoch hears each clip once, as it is or as one of these. What is
            held out is never changed.
        copies: versions of each clip with ``augment``, at least 1.
        workdir: folder for state that survives a kill: embeddings and every finished epoch. If it has
            state of the same clips and settings, the training goes on from there.
        progress: called after each clip and each epoch.
        **classifier: arguments of ``build_classifier`` other than ``classes``.

    Returns:
        A ``TrainingResult``.
    """
    fit = (fit or FitOptions()).applied(multi_label=clips.multi_label)
    workdir = Path(workdir) if workdir is not None else None
    if not isinstance(copies, int) or copies < 1:
        raise ValueError(f"copies={copies!r}: a whole number of at least 1")
    refuse_chosen_layer(classifier)
    check_splits(clips.windows(window_seconds), folds, val, seed=fit.seed)
    start = perf_counter()
    model = build_classifier(
        classes=clips.class_names,
        multi_label=clips.multi_label,
        learning_rate=fit.learning_rate,
        seed=fit.seed,
        **{"background": clips.background, **classifier},
    )
    seconds = {"build": perf_counter() - start}
    grid = grid_of_model(model)
    if grid is None:
        raise ValueError("input='patches': training takes a model of waveforms")
    windows = patch_windows(clips, grid, window_seconds)
    layer = as_augmentation(augment, sample_rate=grid.sample_rate)
    embedded = _embed(model, windows, allow_silence, on_error, workdir, progress)
    seconds |= embedded.seconds
    usable = replace(windows[embedded.kept], source=np.arange(len(embedded.kept)))  # splits then name its rows
    parents = windows.source[embedded.kept]
    patches = Examples(embedded.vectors, embedded.counts, usable.targets, usable.weights)
    examples = _for_head(patches, classifier)
    start = perf_counter()
    trainer = _HeadTrainer(head_of(model), examples, fit, workdir, progress)
    if layer is not None:
        trainer.variants = [
            _for_head(Examples(vectors, counts, usable.targets, usable.weights), classifier)
            for vectors, counts in augmented_embeddings(model, usable, layer, copies=copies, seed=fit.seed)
        ]
        seconds["augment"], start = perf_counter() - start, perf_counter()
    if folds is None:
        trainer.hold_out(usable, val)
    else:
        trainer.cross_validate(usable, None if folds == "given" else int(folds))
    model.optimizer.build(model.trainable_variables)  # saved with its state, so that reloading warns of nothing
    seconds["train"] = perf_counter() - start
    rows, scores = by_clip(trainer.scores, trainer.scored, parents, embedded.counts)
    held_out = clips[rows]
    kept = check_windows(rows, parents, fit.seed)
    return TrainingResult(
        model=model,
        evaluation=evaluate_clips(held_out, scores),
        folds=[trainer.fold_result(name, parents, rows, scores, clips) for name in trainer.folds],
        histories=trainer.histories,
        epochs=trainer.epochs,
        clips=clips[np.unique(parents)],
        held_out=held_out,
        kept=clips[parents[kept]],
        kept_waveforms=[usable.load(row, sample_rate=grid.sample_rate) for row in kept.tolist()],
        skipped=[*clips.skipped, *embedded.skipped],
        stopped_by_held_out=trainer.stopped_by_held_out,
        seconds=seconds,
        patches=len(embedded.vectors),
    )


def check_splits(windows: Clips, folds: int | str | None, val: float, *, seed: int) -> None:
    """ValueError for a split that cannot be, the inner ones of folds too, before any sound is decoded."""
    if folds is None:
        *_, test = given_parts(windows, val, seed=seed)
        held = len(np.unique(test.source))
        if held < FEW:
            logger.warning(
                "%d of %d clips are reported: each is %.0f %% of the accuracy; folds test every clip",
                held,
                len(np.unique(windows.source)),
                100 / held,
            )
        return
    for name, train, _ in windows.folds(None if folds == "given" else int(folds), seed=seed):
        inner_split(train, seed=seed, fold=name)


def given_parts(windows: Clips, val: float, *, seed: int) -> tuple[Clips, Clips, Clips]:
    """The parts of clips with a division of their own: to train on, to tell when to stop, and to report.

    Where there is no part "val", a share ``val`` of "train" tells when to stop; where there is no "test", "val" is
    reported.

    Raises:
        ValueError: there is nothing to train on, or nothing of a class; or "train" cannot be divided.
    """
    if len(windows.parts()) < 2:
        train, held = windows.split(val=val, seed=seed)
        return train, held, held
    train, held = windows.split()
    learned, present = train.counts(), windows.counts()
    names = [name for name in windows.class_names if present[name] and not learned[name]]
    if names:
        raise ValueError(f"the clips' part 'train' has none of {', '.join(map(repr, names))}, which other parts have")
    if "val" in windows.parts():
        return train, held, windows.parts().get("test", held)
    learn, stop = train.split(val=val, seed=seed)
    return learn, stop, held


def inner_split(train: Clips, *, seed: int, fold: str) -> tuple[Clips, Clips]:
    """What a fold is trained on, and the part of it that tells when to stop; ValueError where there is none."""
    try:
        return train.split(val=INNER_VAL, seed=derived_seed("inner part", seed))
    except ValueError as error:
        raise ValueError(
            f"folds: of what is trained on for fold {fold!r}, a part must tell when to stop, with every class on both "
            f"sides: {error}"
        ) from None


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


def _for_head(patches: Examples, classifier: dict[str, Any]) -> Examples:
    """What the head is trained on: patches, or their means for the head "average" or ``aggregate="embeddings"``."""
    if classifier.get("aggregate") != "embeddings" and classifier.get("head") != "average":
        return patches
    means = patches.mean_by_clip(patches.vectors)
    return Examples(means, np.ones(len(patches), int), patches.targets, patches.weights)


class _HeadTrainer:
    """Trains heads on the cached embeddings, and collects scores for examples that a head never saw."""

    def __init__(
        self, head: keras.Model, examples: Examples, fit: FitOptions, workdir: Path | None, progress: OnProgress
    ):
        self.head, self.examples, self.fit, self.workdir, self.progress = (
            head,
            examples,
            fit,
            workdir,
            progress,
        )
        self.variants: list[Examples] = []
        self.scores = np.zeros(examples.targets.shape, np.float32)
        self.scored = np.zeros(len(examples), bool)
        self.histories: dict[str, dict[str, list[float]]] = {}
        self.folds: dict[str, tuple[np.ndarray, int]] = {}  # name -> rows held out, epochs
        self.epochs = 0
        self.stopped_by_held_out = False

    def hold_out(self, usable: Clips, val: float) -> None:
        """Trains the final head on one part; the other is scored, and stops it early where there are few clips."""
        if usable.parts():
            learn, stop, test = given_parts(usable, val, seed=self.fit.seed)
            self.epochs = self._run("train", self.head, learn.source, stop.source, file="train").best_epochs
            self._score(self.head, test.source)
            self.stopped_by_held_out = stop is test
            return
        train, held = usable.split(val=val, seed=self.fit.seed)
        self.stopped_by_held_out = not testable(train)
        if self.stopped_by_held_out:
            self.epochs = self._run("train", self.head, train.source, held.source, file="train").best_epochs
        else:
            self.epochs = self._choose_epochs("train", train, file="train")
            self._run("final", self.head, train.source, None, file="final", epochs=self.epochs)
        self._score(self.head, held.source)

    def cross_validate(self, usable: Clips, k: int | None) -> None:
        """Scores every fold by a head trained on the others, then trains the final head on everything."""
        for name, train, test in usable.folds(k, seed=self.fit.seed):
            number = len(self.folds) + 1  # names are any text, and no names of files
            epochs = self._choose_epochs(f"fold {name}", train, file=f"fold-{number}")
            head = new_head(self.head)
            self._run(f"fold {name}, refit", head, train.source, None, file=f"fold-{number}-refit", epochs=epochs)
            self._score(head, test.source)
            self.folds[name] = (test.source, epochs)
        self.epochs = int(np.median([epochs for _, epochs in self.folds.values()]))
        self._run("final", self.head, np.arange(len(usable)), None, file="final", epochs=self.epochs)

    def _choose_epochs(self, run: str, train: Clips, *, file: str) -> int:
        """The number of epochs that is best on an inner part of the training clips, never on the fold itself."""
        inner, stop = train.split(val=INNER_VAL, seed=derived_seed("inner part", self.fit.seed))
        head = new_head(self.head)
        return self._run(run, head, inner.source, stop.source, file=file).best_epochs

    def _run(
        self,
        run: str,
        head: keras.Model,
        train: np.ndarray,
        val: np.ndarray | None,
        *,
        file: str,
        epochs: int | None = None,
    ) -> Fitted:
        fitted = fit_head(
            head,
            self.examples.take(train),
            None if val is None else self.examples.take(val),
            self.fit,
            variants=[variant.take(train) for variant in self.variants],
            epochs=epochs,
            checkpoint=self.workdir / f"{file}.npz" if self.workdir else None,
            on_epoch=lambda epoch, logs: self.progress(
                Progress(f"Training: {run}", epoch, epochs or self.fit.epochs, logs)
            ),
        )
        if val is not None:
            self.histories[run] = fitted.history
        return fitted

    def _score(self, head: keras.Model, rows: np.ndarray) -> None:
        self.scores[rows] = clip_scores(head, self.examples.take(rows))
        self.scored[rows] = True

    def fold_result(
        self, name: str, parents: np.ndarray, rows: np.ndarray, scores: np.ndarray, clips: Clips
    ) -> FoldResult:
        """The fold's measures, clip by clip."""
        windows, epochs = self.folds[name]
        return FoldResult.of(name, np.isin(rows, parents[windows]), rows, scores, clips, epochs)


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


def refuse_silence(path: str, waveform: np.ndarray) -> None:
    """AudioError for a sound in which every sample is zero."""
    if is_silent(waveform):
        raise AudioError(
            path,
            "silent: every sample is zero; if that is a class of yours, pass allow_silence=True",
        )


def _embed(
    model: keras.Model,
    windows: Clips,
    allow_silence: bool,
    on_error: OnError,
    workdir: Path | None,
    progress: OnProgress,
) -> ClipEmbeddings:
    """The clips' embeddings, from ``workdir`` if an earlier run has made the same ones."""
    vectors = model.get_layer("patch_embedding").output
    states = file_states(windows)
    key = fingerprint(
        network=model_parts(keras.Model(model.inputs, vectors)),
        sounds=sound_parts(windows, states),
        allow_silence=allow_silence,
        versions=versions(),
    )
    saved = workdir / f"embeddings-{key[:32]}.npz" if workdir else None
    if saved and saved.is_file():
        with np.load(saved, allow_pickle=False) as file:
            skipped = [AudioError(path, reason) for path, reason in file["skipped"].tolist()]
            found = ClipEmbeddings(file["vectors"], file["counts"], file["kept"], skipped)
        if not (skipped and on_error == "raise"):
            return found

    def check(row: int, path: str, waveform: np.ndarray) -> None:
        check_unchanged(path, states.get(path))
        if not allow_silence:
            refuse_silence(path, waveform)

    embedded = embed_clips(PatchNetwork(model, [vectors]), windows, on_error=on_error, check=check, progress=progress)
    if saved:
        saved.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {
            "vectors": embedded.vectors,
            "kept": embedded.kept,
            "counts": embedded.counts,
            "skipped": np.array([(e.path, e.reason) for e in embedded.skipped], np.str_).reshape(-1, 2),
        }
        write_atomic(saved, lambda file: np.savez(file, **arrays))
    return embedded
