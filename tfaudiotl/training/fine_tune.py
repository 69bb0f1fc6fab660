"""Fine-tuning: the head first, then the last blocks at a lower rate, on a frozen part that runs once per sound."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfaudiotl._files import claim
from tfaudiotl._fingerprint import fingerprint, model_parts, versions
from tfaudiotl._threads import OnProgress, ignore
from tfaudiotl.augment.layers import Augmentation
from tfaudiotl.backbones.frontend import LogMelSpec, WindowSpec
from tfaudiotl.backbones.scores import class_names_of
from tfaudiotl.classifiers.anatomy import classifier_parts, parts
from tfaudiotl.classifiers.edit import set_blocks
from tfaudiotl.classifiers.heads import compile_classifier
from tfaudiotl.data.clips import Clips
from tfaudiotl.data.table import clips_parts
from tfaudiotl.devices import check_scope
from tfaudiotl.errors import AudioErrors
from tfaudiotl.training.activation_cache import ActivationCache, cut, upper_model, whole_model
from tfaudiotl.training.batches import (
    Augment,
    BatchPlan,
    CachedInputs,
    ChangedInputs,
    Sounds,
    WaveformInputs,
    as_function,
    checked_augment,
    patch_windows,
)
from tfaudiotl.training.checkpoint import BestEpoch, Checkpoint, Diverged, EpochLines, first_as_good, restore
from tfaudiotl.training.optimizers import BlockAdam, block_factors, cosine, following_statistics
from tfaudiotl.training.options import FineTuneOptions, balanced_loss, loss_of


@dataclass(frozen=True)
class Stage:
    """A part of the training: its name, the last blocks that train, epochs at most, learning rate."""

    name: str
    blocks: int
    epochs: int
    learning_rate: float


@dataclass(frozen=True)
class State:
    """Where a stage's finished epochs are kept, and the fingerprint of all that they depend on."""

    file: Path
    key: str


@dataclass
class FineTuned:
    """What ``fine_tune`` did.

    Attributes:
        histories: metrics of every epoch, by stage.
        best_epochs: epoch whose weights were kept, by stage; 0: those from before the stage.
        seconds: "cache" (the frozen part, once) and each stage; "head, refit" and so on with ``refit``.
        cached_bytes: size of the cache.
    """

    histories: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    best_epochs: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    cached_bytes: int = 0


def fine_tune(
    model: keras.Model,
    train: Clips,
    val: Clips | None = None,
    *,
    augment: bool | Augmentation | Sequence[Augmentation] | Augment | None = None,
    window_seconds: float = 10.0,
    workdir: str | Path | None = None,
    tensorboard: str | Path | None = None,
    verbose: bool = True,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **options: Any,
) -> FineTuned:
    """Trains a classifier's head, then its last blocks too, and keeps the weights that are best on ``val``.

    The layers below the blocks run once per sound; what they say is kept in files, and only the part above is
    trained. Afterwards ``model`` is what it was, an ordinary compiled Keras model, with other weights.

    Args:
        model: a classifier of ``build_classifier`` for waveforms.
        train: clips to learn.
        val: clips that tell when to stop, and which weights to keep; None trains all epochs.
        augment: True or layers, as for ``Clips.dataset``, or ``(waveform (samples,), numpy Generator) -> waveform``.
            Each sound also has ``copies`` changed versions in the cache, and an epoch takes it as it is or as one of
            these; with ``cache=False`` it is changed in another way in every epoch of the blocks.
        window_seconds: longer clips are cut into windows of this length, each an example.
        workdir: folder for the cache and every finished epoch: the same call after a kill goes on from there and
            ends the same. None: a temporary one.
        tensorboard: folder for TensorBoard's files.
        verbose: print a line per epoch.
        callbacks: further Keras callbacks; they see each stage as a training of its own.
        **options: fields of ``FineTuneOptions``.

    Returns:
        What happened. ``model`` is changed in place.

    Raises:
        ValueError: an option out of range; clips of other classes; a ``workdir`` of another training.
        AudioErrors: sounds that cannot be used.
    """
    chosen = FineTuneOptions(**options)
    tables = [train] if val is None else [train, val]
    for name, table in zip(("train", "val"), tables, strict=False):
        if tuple(table.class_names) != class_names_of(model):
            raise ValueError(f"{name} has the classes {table.class_names}, the model {list(class_names_of(model))}")
    check_scope(model)
    windows = [patch_windows(table, grid_of(model), window_seconds) for table in tables]
    sounds = Sounds.of(windows, sample_rate=sample_rate_of(model))
    change = checked_augment(augment, sample_rate=sample_rate_of(model))
    with ExitStack() as stack:
        folder = Path(workdir) if workdir else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if workdir:
            stack.push(_Begin(model))
        _claim(folder, _parts(model, windows, chosen, change))
        tuner = FineTuner(
            model,
            sounds,
            chosen,
            folder,
            augment=change,
            augmented=np.arange(len(windows[0])),
            extra=lambda stage: [*callbacks, *_tensorboard(tensorboard, stage)],
            say=print if verbose else None,
        )
        tuner.refuse_skipped()
        rows = np.arange(len(sounds.jobs))
        return tuner.fit(model, rows[: len(windows[0])], rows[len(windows[0]) :] if val is not None else None, folder)


class FineTuner:
    """Fine-tunes classifiers of one kind on one cache: one of them, or one per fold.

    Args:
        model: a classifier; its backbone's weights make the cache.
        sounds: all that is learned or validated.
        options: how.
        folder: for the cache.
        augment: what ``checked_augment`` gives.
        augmented: rows of ``sounds`` that get changed copies; None: all.
        extra: further callbacks, by the stage's name.
        say: gets a line per epoch.
        progress: called after each sound that is cached.
        epoch: called with stage, epoch from 1, epochs at most, and metrics.
    """

    def __init__(
        self,
        model: keras.Model,
        sounds: Sounds,
        options: FineTuneOptions,
        folder: Path,
        *,
        augment: Any = None,
        augmented: np.ndarray | None = None,
        extra: Callable[[str], Sequence[keras.callbacks.Callback]] = lambda stage: (),
        say: Callable[[str], None] | None = None,
        progress: OnProgress = ignore,
        epoch: Callable[[str, int, int, dict[str, float]], None] = lambda stage, epoch, epochs, metrics: None,
    ):
        self.multi_label = parts(model).multi_label
        self.options = options = options.applied(multi_label=self.multi_label)
        self.extra, self.say, self.epoch = extra, say, epoch
        if augment is not None and options.cache:
            rows = np.arange(len(sounds.targets)) if augmented is None else augmented
            sounds = sounds.changed(augment, copies=options.copies, rows=rows, seed=options.seed)
        self.sounds = sounds
        tensors, self.head_cut, self.low_cut = _cuts(model, options)
        start = perf_counter()
        self.cache = ActivationCache.build(
            folder / "cache",
            model,
            tensors,
            sounds.jobs,
            key=sounds.digest,
            paths=sounds.paths,
            progress=progress,
        )
        self._made_from = {
            "sounds": sounds.digest,
            "targets": sounds.targets,
            "weights": sounds.weights,
            "augment": augment,
            "options": options,
            "versions": versions(),
        }
        self.seconds = perf_counter() - start
        self._waveforms: WaveformInputs | None = None
        if not options.cache:
            samples = model.input.shape[1] or sounds.samples
            self._waveforms = (
                WaveformInputs(sounds.jobs, samples)
                if augment is None
                else ChangedInputs(sounds.jobs, samples, as_function(augment))
            )

    def refuse_skipped(self) -> None:
        """AudioErrors if there are sounds that cannot be used."""
        if self.cache.skipped:
            errors = list({error.path: error for error in self.cache.skipped.values()}.values())
            raise AudioErrors(errors, len(self.sounds.targets), "Fix or remove them.")

    def fit(
        self,
        model: keras.Model,
        train: np.ndarray,
        val: np.ndarray | None,
        folder: Path | None,
        *,
        epochs: Mapping[str, int] | None = None,
    ) -> FineTuned:
        """Runs all stages on a classifier with the cache's backbone.

        Args:
            model: the classifier.
            train: rows to learn.
            val: rows that tell when to stop; None trains all epochs.
            folder: keeps finished epochs.
            epochs: of each stage, instead of those of the options.
        """
        done = FineTuned(seconds={"cache": self.seconds}, cached_bytes=self.cache.bytes)
        begin = model.get_weights() if self.options.refit and val is not None else None
        key = fingerprint(**self._made_from, model=model_parts(model), train=train, val=val) if folder else ""
        self._stages(model, train, val, folder, key, done, epochs=epochs)
        if begin is not None and val is not None:
            model.set_weights(begin)
            again = FineTuned()
            every = np.concatenate([train, val])
            self._stages(model, every, None, folder, key, again, epochs=done.best_epochs, suffix=", refit")
            done.seconds |= again.seconds
        compile_classifier(model, multi_label=self.multi_label, learning_rate=self.options.learning_rate)
        model.optimizer.build(model.trainable_variables)  # saved with its state, so that reloading warns of nothing
        return done

    def _stages(
        self,
        model: keras.Model,
        train: np.ndarray,
        val: np.ndarray | None,
        folder: Path | None,
        key: str,
        done: FineTuned,
        *,
        epochs: Mapping[str, int] | None = None,
        suffix: str = "",
    ) -> None:
        """One training; with ``epochs``, each stage ends after so many of its own; ``suffix`` of the stages' names."""
        tensors, head_cut, low_cut = _cuts(model, self.options)
        factors = block_factors(model, self.options.block_decay)
        for stage in self.stages(model):
            start = perf_counter()
            head_only = stage.blocks == 0
            if head_only:
                _standardise(model, self.cache, tensors, head_cut, train)
            set_blocks(model, stage.blocks, batch_norm=self.options.batch_norm)
            parts(model).norm.trainable = self.options.batch_norm == "train" and not head_only
            numbers = head_cut if head_only else low_cut
            inputs: CachedInputs | WaveformInputs
            if self._waveforms is None or head_only:
                part, inputs = upper_model(model, [tensors[n] for n in numbers]), CachedInputs(self.cache, numbers)
            else:
                part, inputs = whole_model(model), self._waveforms
            name = f"{stage.name}{suffix}"
            checkpoint = folder / f"{name.replace(',', '').replace(' ', '-')}.npz" if folder else None
            steps = self._plan(inputs).steps(train)
            rates = cosine(stage.learning_rate, steps=steps * stage.epochs, warmup=self.options.warmup)
            loss = loss_of(self.options, multi_label=self.multi_label)
            if self.multi_label and self.options.class_weight:
                loss = balanced_loss(loss, self.sounds.targets[train])
            optimizer = BlockAdam(rates, factors=factors)
            compile_classifier(part, multi_label=self.multi_label, loss=loss, optimizer=optimizer)
            with following_statistics(part, steps), ExitStack() as feeds:
                last = stage.epochs if epochs is None else epochs[stage.name]
                state = State(checkpoint, fingerprint(training=key, stage=name, epochs=last)) if checkpoint else None
                self._run(stage, part, inputs, train, val, state, done, feeds, name=name, last=last)
            done.seconds[name] = perf_counter() - start

    def scores(self, model: keras.Model, rows: np.ndarray) -> np.ndarray:
        """Scores of sounds as they are, ``(rows, classes)``."""
        tensors, _, low_cut = _cuts(model, self.options)
        part = upper_model(model, [tensors[n] for n in low_cut])
        with self._plan(CachedInputs(self.cache, low_cut)).in_order(rows) as batches:
            return np.asarray(part.predict(batches, verbose=0))[: len(rows)]

    def stages(self, model: keras.Model) -> list[Stage]:
        """The parts of the training, in order."""
        options = self.options
        blocks = _count(model, options.trainable)
        stages = [Stage("head", 0, options.head_epochs, options.head_learning_rate)] if options.head_epochs else []
        if options.gradual:
            share = math.ceil(options.epochs / max(1, blocks))
            return stages + [Stage(f"blocks {n}", n, share, options.learning_rate) for n in range(1, blocks + 1)]
        return stages + ([Stage("blocks", blocks, options.epochs, options.learning_rate)] if blocks else [])

    def _plan(self, inputs: Any, *, varied: bool = False) -> BatchPlan:
        strategy = tf.distribute.get_strategy()
        return BatchPlan(
            inputs,
            self.sounds.targets,
            self.sounds.weights,
            self.options.batch_size,
            seed=self.options.seed,
            variants=self.sounds.variants if varied else None,
            full_batches=type(strategy).__name__.startswith("TPU"),
            devices=strategy.num_replicas_in_sync,
        )

    def _run(
        self,
        stage: Stage,
        part: keras.Model,
        inputs: Any,
        train: np.ndarray,
        val: np.ndarray | None,
        state: State | None,
        done: FineTuned,
        feeds: ExitStack,
        *,
        name: str,
        last: int,
    ) -> None:
        options = self.options
        plan = self._plan(inputs, varied=isinstance(inputs, CachedInputs))
        balanced = bool(options.class_weight) and not self.multi_label
        held_out = feeds.enter_context(plan.in_order(val, balanced=balanced)) if val is not None else None
        start = None
        if held_out is not None:
            start = (float(part.evaluate(held_out, verbose=0, return_dict=True)["loss"]), part.get_weights())
        history, kept = restore(state.file, state.key, part) if state else ({}, {})
        first = len(history.get("loss", []))
        best = None
        if val is not None:
            best = BestEpoch(patience=options.patience, history=history, kept=kept, start=start)
        losses = history.get("val_loss", [])
        stopped = start is not None and first - _best([start[0], *losses]) >= options.patience
        if first < last and not stopped:
            watchers = [
                Diverged(name),
                best,
                Checkpoint(state.file, state.key, history, best) if state else None,
                EpochLines(name, last, self.say, self.epoch),
                *self.extra(name),
            ]
            logs = part.fit(
                feeds.enter_context(plan.training(train, balanced=balanced, first=first, last=last)),
                steps_per_epoch=plan.steps(train),
                initial_epoch=first,
                epochs=last,
                validation_data=held_out,
                callbacks=[watcher for watcher in watchers if watcher],
                shuffle=False,  # the batches are shuffled already
                verbose=0,
            )
            if not state:
                history = {name: [float(value) for value in values] for name, values in logs.history.items()}
        elif best is not None:
            before = start is not None and (not losses or start[0] <= min(losses))
            part.set_weights(start[1] if start and before else kept[first_as_good(history)])
        done.histories[stage.name] = history
        after = history.get("val_loss", [])
        done.best_epochs[stage.name] = _best([start[0], *after]) if start else last


def grid_of(model: keras.Model) -> LogMelSpec | WindowSpec:
    """The front-end of a classifier that takes waveforms."""
    grid = classifier_parts(model, waveforms=True).grid
    assert grid is not None
    return grid


def sample_rate_of(model: keras.Model) -> int:
    """Of the waveforms that a classifier takes, Hz."""
    return grid_of(model).sample_rate


def _cuts(model: keras.Model, options: FineTuneOptions) -> tuple[list[Any], list[int], list[int]]:
    """The tensors to keep; the numbers of those for the head alone, and of those for the blocks."""
    flags = [(layer, layer.trainable) for layer in model.layers]
    set_blocks(model, options.trainable, batch_norm=options.batch_norm)
    parts(model).norm.trainable = True  # it is above the cut, whatever else
    low = cut(model)
    set_blocks(model, 0)
    head = cut(model)
    for layer, flag in flags:
        layer.trainable = flag
    tensors = list({id(tensor): tensor for tensor in [*head, *low]}.values())
    numbers = {id(tensor): number for number, tensor in enumerate(tensors)}
    return tensors, [numbers[id(tensor)] for tensor in head], [numbers[id(tensor)] for tensor in low]


def _count(model: keras.Model, trainable: int | str) -> int:
    """How many of the last blocks train; all those there are with "all"."""
    names = list(parts(model).blocks)
    if isinstance(trainable, int):
        return trainable
    return len(names) - (names.index(trainable) if trainable in names else 0)


def _standardise(
    model: keras.Model, cache: ActivationCache, tensors: Sequence[Any], numbers: Sequence[int], rows: np.ndarray
) -> None:
    """Sets a new head's batch norm to mean and variance of the training embeddings; a trained head keeps its own."""
    found = parts(model)
    norm, end = found.norm, found.embedding if found.statistics is None else found.norm.input
    if np.any(norm.moving_mean) or np.any(np.asarray(norm.moving_variance) != 1):
        return
    # Layers that draw, such as a backbone's own dropout, lie above the cut.
    part = None if tensors[numbers[0]] is end else upper_model(model, [tensors[n] for n in numbers], end)
    total = squares = count = 0.0
    for row in rows.tolist():
        read = [cache.read(number, row) for number in numbers]
        if part is not None:
            read = [np.asarray(part([*(v[None] for v in read), np.ones((1, len(read[0])), bool)], training=False))]
        values = read[0].astype(np.float64)
        total, squares, count = total + values.sum(axis=0), squares + (values**2).sum(axis=0), count + len(values)
    mean = total / count
    norm.moving_mean.assign(mean)
    norm.moving_variance.assign(np.maximum(squares / count - mean**2, 0.0))


def _best(losses: Sequence[float]) -> int:
    return int(np.argmin(losses)) if losses else 0


def _tensorboard(folder: str | Path | None, stage: str) -> list[keras.callbacks.Callback]:
    return [keras.callbacks.TensorBoard(str(Path(folder) / stage.replace(" ", "-")))] if folder else []


class _Begin:
    """Gives a model back as it was, if a training that can go on is interrupted: the same call then goes on."""

    def __init__(self, model: keras.Model):
        self._variables = [variable for layer in model.layers for variable in layer.variables]
        self._values = [np.array(variable) for variable in self._variables]

    def __call__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is not None:
            for variable, value in zip(self._variables, self._values, strict=True):
                variable.assign(value)


def _parts(model: keras.Model, windows: Sequence[Clips], options: FineTuneOptions, augment: Any) -> dict[str, Any]:
    """All that a training depends on, by names that a message can give."""
    tables = dict(zip(("train", "val"), windows, strict=False))
    return {
        **asdict(options),
        **{f"{table}: {name}": part for table, clips in tables.items() for name, part in clips_parts(clips).items()},
        **{f"model: {name}": part for name, part in model_parts(model).items()},
        "augment": fingerprint(augment=augment),
        "versions": versions(),
    }


def _claim(folder: Path, parts: dict[str, Any]) -> None:
    """Refuses a folder with the state of another training."""
    claim(
        folder,
        "fine_tune.json",
        parts,
        refuse=lambda changed: ValueError(
            f"workdir={str(folder)!r} holds another training ({', '.join(changed)}); give the same, or another "
            "folder. Weights are the same if the classifier was built with the same seed="
        ),
    )
