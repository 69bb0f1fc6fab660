"""The main recipe with fine-tuning: head and last blocks are trained and evaluated as ``recipe`` does with heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import keras
import numpy as np

from tfaudiotl._seeds import derived_seed
from tfaudiotl._threads import OnProgress, Progress, ignore
from tfaudiotl.audio.clips import Clips
from tfaudiotl.audio.windows import patch_windows
from tfaudiotl.errors import AudioErrors, OnError
from tfaudiotl.models.builder import build_classifier
from tfaudiotl.models.replace import replace_head
from tfaudiotl.training.activation_cache import Job, Sounds
from tfaudiotl.training.fine_tune import FineTuned, FineTuner, grid_of, sample_rate_of
from tfaudiotl.training.options import FineTuneOptions
from tfaudiotl.training.recipe import (
    INNER_VAL,
    FoldResult,
    TrainingResult,
    by_clip,
    check_splits,
    check_windows,
    evaluate_clips,
    given_parts,
    refuse_chosen_layer,
    refuse_silence,
    testable,
)


def train_fine_tuned(
    clips: Clips,
    *,
    fine_tune: FineTuneOptions,
    folds: int | str | None = None,
    val: float = 0.2,
    window_seconds: float = 10.0,
    on_error: OnError = "raise",
    allow_silence: bool = False,
    workdir: str | Path,
    progress: OnProgress = ignore,
    **classifier: Any,
) -> TrainingResult:
    """Trains a classifier's head and its last blocks, and measures it on clips it never saw.

    Without folds, a share ``val`` of the clips is held out, and is what the evaluation is about. A part of the others
    decides when to stop, then all of these are learned for as many epochs; where there are few clips (see
    ``train_classifier``) the held-out ones decide. With folds, each is predicted by a classifier trained on the others
    in this way, and the final one is trained on all clips.

    Args:
        clips: the labelled clips.
        fine_tune: how; ``refit`` is as described here.
        folds: None, the number of folds to draw, or "given" for the clips' own fold column.
        val: share held out, in (0, 1); not used with folds.
        window_seconds: longer clips are cut into windows of this length, each an example.
        on_error: "raise" or "skip" unusable sounds.
        allow_silence: keep clips in which every sample is zero.
        workdir: folder for the cache and every finished epoch; the training goes on from what it holds.
        progress: called after each clip and each epoch.
        **classifier: arguments of ``build_classifier`` other than ``classes``.

    Returns:
        A ``TrainingResult``, as ``train_classifier``'s.
    """
    workdir = Path(workdir)
    refuse_chosen_layer(classifier)
    check_splits(clips.windows(window_seconds), folds, val, seed=fine_tune.seed)
    start = perf_counter()
    seed = fine_tune.seed
    model = build_classifier(
        classes=clips.class_names,
        multi_label=clips.multi_label,
        seed=seed,
        **{"background": clips.background, **classifier},
    )
    seconds = {"build": perf_counter() - start}
    rate = sample_rate_of(model)
    windows = patch_windows(clips, grid_of(model), window_seconds)
    sounds = Sounds.of([windows], sample_rate=rate)
    if not allow_silence:
        jobs = [partial(_sounding, job, path) for job, path in zip(sounds.jobs, windows.paths, strict=True)]
        sounds = replace(sounds, jobs=jobs, digest=f"{sounds.digest}, none silent")
    own_stop = folds is not None or (not clips.parts() and testable(clips.split(val=val, seed=seed)[0]))
    fine_tune = replace(fine_tune, refit=own_stop)
    tuner = FineTuner(model, sounds, fine_tune, workdir, progress=progress)
    try:
        skipped = list(tuner.cache.skipped.values())
        if skipped and on_error == "raise":
            raise AudioErrors(skipped, len(windows))
        seconds["embed"] = tuner.seconds
        start = perf_counter()
        kept = np.array(sorted(tuner.cache.counts))
        usable = replace(windows[kept], source=np.arange(len(kept)))  # splits then name its rows
        trainer = _Trainer(model, tuner, kept, workdir, progress, clips)
        if folds is None:
            trainer.hold_out(usable, val, own_stop=own_stop)
        else:
            trainer.cross_validate(usable, None if folds == "given" else int(folds))
        seconds["train"] = perf_counter() - start
    finally:
        tuner.cache.close()
    parents = windows.source[kept]
    counts = np.array([tuner.cache.counts[row] for row in kept.tolist()])
    rows, scores = by_clip(trainer.scores, trainer.scored, parents, counts)
    held_out = clips[rows]
    chosen = check_windows(rows, parents, seed)
    return TrainingResult(
        model=model,
        evaluation=evaluate_clips(held_out, scores),
        folds=[trainer.fold_result(name, parents, rows, scores) for name in trainer.folds],
        histories=trainer.histories,
        best_epochs=trainer.best_epochs,
        epochs=trainer.epochs,
        clips=clips[np.unique(parents)],
        held_out=held_out,
        kept=clips[parents[chosen]],
        kept_waveforms=[usable.load(row, sample_rate=rate) for row in chosen.tolist()],
        skipped=[*clips.skipped, *skipped],
        stopped_by_held_out=trainer.stopped_by_held_out,
        seconds=seconds,
        patches=sum(tuner.cache.counts.values()),
    )


def _sounding(job: Job, path: str) -> np.ndarray:
    waveform = job()
    refuse_silence(path, waveform)
    return waveform


def _one_after_another(stages: Sequence[dict[str, list[float]]]) -> dict[str, list[float]]:
    """The curves of a training in stages as those of one run."""
    names = dict.fromkeys(name for stage in stages for name in stage)
    return {name: [value for stage in stages for value in stage.get(name, [])] for name in names}


class _Trainer:
    """Fine-tunes classifiers on one cache, and collects scores for windows that a classifier never saw."""

    def __init__(
        self, model: keras.Model, tuner: FineTuner, kept: np.ndarray, workdir: Path, progress: OnProgress, clips: Clips
    ):
        self.model, self.tuner, self.kept, self.workdir, self.clips = model, tuner, kept, workdir, clips
        self.scores = np.zeros((len(kept), len(clips.class_names)), np.float32)
        self.scored = np.zeros(len(kept), bool)
        self.histories: dict[str, dict[str, list[float]]] = {}
        self.best_epochs: dict[str, int] = {}  # of the training that came last, the final model's
        self.folds: dict[str, tuple[np.ndarray, int]] = {}  # name -> rows held out, epochs
        self.epochs = 0
        self.stopped_by_held_out = False
        self._progress, self._run = progress, ""
        tuner.epoch = self._epoch

    def hold_out(self, usable: Clips, val: float, *, own_stop: bool) -> None:
        """Trains the model on one part; the other is scored, and tells when to stop unless a part of the first does."""
        if usable.parts():
            learn, stop, test = given_parts(usable, val, seed=self.tuner.options.seed)
            self.epochs = self._fit("train", self.model, learn.source, stop.source, "train")
            self._score(self.model, test.source)
            self.stopped_by_held_out = stop is test
            return
        train, held = usable.split(val=val, seed=self.tuner.options.seed)
        learn, stop = train, held
        self.stopped_by_held_out = not own_stop
        if own_stop:
            learn, stop = train.split(val=INNER_VAL, seed=derived_seed("inner part", self.tuner.options.seed))
        self.epochs = self._fit("train", self.model, learn.source, stop.source, "train")
        self._score(self.model, held.source)

    def cross_validate(self, usable: Clips, k: int | None) -> None:
        """Scores every fold by a classifier trained on the others, then trains the model on all of them."""
        seed = self.tuner.options.seed
        for name, train, test in usable.folds(k, seed=seed):
            model = replace_head(self.model, self.clips.class_names, keep=False, seed=seed)
            learn, stop = train.split(val=INNER_VAL, seed=derived_seed("inner part", seed))
            epochs = self._fit(f"fold {name}", model, learn.source, stop.source, f"fold-{len(self.folds) + 1}")
            self._score(model, test.source)
            self.folds[name] = (test.source, epochs)
        learn, stop = usable.split(val=INNER_VAL, seed=derived_seed("inner part", seed))
        self.epochs = self._fit("final", self.model, learn.source, stop.source, "final")

    def fold_result(self, name: str, parents: np.ndarray, rows: np.ndarray, scores: np.ndarray) -> FoldResult:
        """The fold's measures, clip by clip."""
        held, epochs = self.folds[name]
        return FoldResult.of(name, np.isin(rows, parents[held]), rows, scores, self.clips, epochs)

    def _fit(self, run: str, model: keras.Model, train: np.ndarray, val: np.ndarray, folder: str) -> int:
        self._run = run
        (self.workdir / folder).mkdir(exist_ok=True)
        done: FineTuned = self.tuner.fit(model, self.kept[train], self.kept[val], self.workdir / folder)
        self.histories[run] = _one_after_another(list(done.histories.values()))
        self.best_epochs = done.best_epochs
        return sum(done.best_epochs.values())

    def _score(self, model: keras.Model, rows: np.ndarray) -> None:
        self.scores[rows] = self.tuner.scores(model, self.kept[rows])
        self.scored[rows] = True

    def _epoch(self, stage: str, epoch: int, epochs: int, metrics: dict[str, float]) -> None:
        self._progress(Progress(f"Training: {self._run}, {stage}", epoch, epochs, metrics))
