"""Distillation: a small network learns what a big one makes of unlabelled sound.

The teacher scores a fixed number of seeded examples once, endless variations of folders of recordings; its scores and
embeddings of them are kept, and the student then learns these for several epochs. A teacher says what any sound is, so
a sound may be mixed, sped up, cut and muffled: unlike augmentation of labelled clips, nothing has to keep a label true.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import keras
import numpy as np
import scipy.fft
import tensorflow as tf
from scipy import special

from tfaudiotl._seeds import derived_seed, stream
from tfaudiotl._threads import OnProgress, Progress, cores, ignore
from tfaudiotl.audio.files import load_audio
from tfaudiotl.audio.waveform import SAMPLE_RATE, coloured_noise
from tfaudiotl.backbones.assembly import Input, fast_frontend
from tfaudiotl.backbones.embedding import cut_backbone, pooled_layers, resolve_embedding
from tfaudiotl.backbones.frontend import FastLogMel, FastWindows, LogMelSpec, WindowSpec
from tfaudiotl.backbones.registry import get_backbone, list_backbones
from tfaudiotl.backbones.scores import class_names_of
from tfaudiotl.classifiers.anatomy import parts
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.classifiers.heads import freed_with_its_model
from tfaudiotl.data.folders import sound_files
from tfaudiotl.embeddings.engine import PatchNetwork
from tfaudiotl.errors import AudioError, AudioErrors, OnError, check_choice, check_number
from tfaudiotl.training.batches import Batch, generated
from tfaudiotl.training.optimizers import statistics_momentum

HELD_OUT = 0.02  # share of the examples that tells how well the student follows the teacher
LEAST = 1e-6  # score; float16, which they are kept in, has nothing much below
CLIP = 5.0  # standard deviations; ReLU activations have rare values far beyond


@dataclass(frozen=True)
class MixOptions:
    """How sounds are varied. Shares are of the examples, in [0, 1]; ranges are drawn from evenly.

    Attributes:
        mix: share of examples of two sounds, the second up to 15 dB louder or quieter.
        synthetic: share of sounds that are made up: noise of any colour, tones, sweeps, clicks.
        gain_db: loudness against the recording's.
        speed: playback rate, changing pitch and tempo; drawn from evenly in its logarithm.
        short: share of sounds of which only 0.2 to 0.9 s are kept, in silence.
        noise: share of examples with coloured noise added, 0 to 30 dB below.
        narrow: share of examples without the frequencies above 2 to 6 kHz.
    """

    mix: float = 0.5
    synthetic: float = 0.08
    gain_db: tuple[float, float] = (-18.0, 6.0)
    speed: tuple[float, float] = (0.8, 1.25)
    short: float = 0.25
    noise: float = 0.2
    narrow: float = 0.25

    def __post_init__(self) -> None:
        for name in ("mix", "synthetic", "short", "noise", "narrow"):
            check_number(name, getattr(self, name), least=0, most=1)
        for name in ("gain_db", "speed"):
            low, high = getattr(self, name)
            if not low <= high or (name == "speed" and low <= 0):
                raise ValueError(f"{name}={(low, high)!r}: the lower end first; speeds are positive")


@dataclass(frozen=True)
class DistillOptions:
    """How a student is trained.

    Attributes:
        patches: examples of one patch (0.975 s) that the teacher hears.
        epochs: passes of the student over them.
        batch_size: examples per step. Small ones are faster on a CPU: their activations stay in its cache.
        learning_rate: AdamW's highest; it rises over the first 5 % of the steps and falls to 0 as a cosine.
        weight_decay: AdamW's.
        scores_weight: of the scores' cross-entropy, summed over independent classes (twice that of exclusive
            ones); each embedding's squared error, in standard deviations, weighs 1.
        temperature: divides the logits of teacher and student; above 1 the student also learns which wrong classes
            the teacher finds likely (Hinton et al., arXiv 1503.02531); the loss is multiplied by its square.
        mixing: how sounds are varied.
        seed: of the sounds, the student's first weights and the order of the examples.
    """

    patches: int = 60_000
    epochs: int = 4
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    scores_weight: float = 0.1
    temperature: float = 1.0
    mixing: MixOptions = field(default_factory=MixOptions)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("patches", 100), ("epochs", 1), ("batch_size", 2), ("seed", 0)):
            check_number(name, getattr(self, name), least=least, whole=True)
        for name in ("learning_rate", "scores_weight", "temperature"):
            check_number(name, getattr(self, name), above=0)
        if self.patches - self.held_out < self.batch_size:
            raise ValueError(
                f"batch_size={self.batch_size}: at most {self.patches - self.held_out}, the examples that "
                f"patches={self.patches} leaves to learn from"
            )

    @property
    def held_out(self) -> int:
        """Examples that are not learned."""
        return math.ceil(self.patches * HELD_OUT)


@dataclass(frozen=True)
class Teacher:
    """A network cut into what its student shall learn.

    Attributes:
        network: from patches to the scores (if it has any) and the embeddings.
        class_names: of the scores; empty: there are none.
        multi_label: whether the classes are independent of each other.
        embeddings: names of the embeddings.
        classifier: the user's own classifier that it is, or None for a backbone.
    """

    network: PatchNetwork
    class_names: tuple[str, ...]
    multi_label: bool
    embeddings: tuple[str, ...]
    classifier: keras.Model | None


@dataclass
class Distilled:
    """What ``distill`` gives.

    Attributes:
        model: the student, from waveforms to what the teacher gives: a backbone, or a classifier.
        history: losses per epoch, on the examples and ("val_...") on held-out ones.
        seconds: where the time went.
        settings: what makes the same student from the same sounds.
    """

    model: keras.Model
    history: dict[str, list[float]]
    seconds: dict[str, float]
    settings: dict[str, Any]


def distill(
    teacher: str | keras.Model,
    sounds: Sequence[str | os.PathLike[str]] | Sequence[Sequence[np.ndarray]],
    *,
    student: str = "yamnet_mini",
    weights: str | None = "audioset",
    student_weights: str | None = None,
    embedding: str | Sequence[str] = (),
    options: DistillOptions | None = None,
    progress: OnProgress = ignore,
) -> Distilled:
    """Trains a student to match a teacher's scores and embeddings on unlabelled sound.

    Args:
        teacher: a backbone's name, or a classifier of waveforms, such as a fine-tuned one of your own.
        sounds: folders of recordings; or what ``load_folders`` made of them: for each folder its sounds, int16
            at 16 kHz.
        student: name of the backbone that the student is, or is built on; its embedding is trained to
            give the teacher's through a linear projection, which is thrown away afterwards. Both get the same sounds,
            each through its own front-end.
        weights: the teacher's, if it is a backbone.
        student_weights: what the student starts from; None: random weights.
        embedding: layer or layers of the teacher to match beside its own embedding, such as "layer8"; of a backbone
            also the name of a recipe.
        options: how.
        progress: called after each of the teacher's examples and each of the student's steps.

    Returns:
        The student and how well it follows.

    Raises:
        ValueError: a teacher that cannot be cut into log-mel patches, a student that takes others, or an argument
            outside what is allowed; before any sound is read.
    """
    options = options or DistillOptions()
    begun = perf_counter()
    if not len(sounds):
        raise ValueError("sounds: at least one folder of recordings")
    cut = open_teacher(teacher, [embedding] if isinstance(embedding, str) else embedding, weights)
    _check_student(student, cut.network.frontend.spec)
    build = partial(_build_student, cut, student, student_weights)
    model, core = build(input="waveform"), build(input="patches")
    if student_weights is None:
        initialise(core, options.seed)
    decoded = _decoded(sounds)
    mixer = Mixer(decoded, cut.network.frontend.spec.min_samples, options.mixing, options.seed)
    pictures, targets = listen(cut, mixer, fast_frontend(model), options.patches, progress)
    listened = perf_counter()
    history = _fit(core, cut, pictures, targets, options, progress)
    model.set_weights(core.get_weights())
    settings = {
        "teacher": teacher if isinstance(teacher, str) else teacher.name,
        "student": student,
        "student_weights": student_weights,
        "embeddings": list(cut.embeddings),
        "sounds": [len(folder) for folder in decoded],
        **asdict(options),
    }
    return Distilled(model, history, {"teacher": listened - begun, "student": perf_counter() - listened}, settings)


def _decoded(sounds: Sequence[Any]) -> Sequence[Sequence[np.ndarray]]:
    """The sounds of each folder, decoded if they are not yet."""
    return load_folders(sounds)[0] if isinstance(sounds[0], (str, os.PathLike)) else sounds


def _check_student(student: str, teacher: LogMelSpec | WindowSpec) -> None:
    """ValueError unless the student's patches are log-mel pictures of the same stretch of sound as the teacher's."""
    spec = get_backbone(student).frontend
    if isinstance(spec, WindowSpec):
        raise ValueError(f"student={student!r}: takes sound itself; a student learns from log-mel patches")
    if (spec.sample_rate, spec.min_samples) != (teacher.sample_rate, teacher.min_samples):
        raise ValueError(
            f"student={student!r}: its patches are {spec.min_samples} samples at {spec.sample_rate} Hz, the teacher's "
            f"{teacher.min_samples} at {teacher.sample_rate} Hz; they must be of the same sound"
        )


def open_teacher(teacher: str | keras.Model, embedding: Sequence[str], weights: str | None) -> Teacher:
    """Cuts a backbone or a classifier into what a student shall learn; see ``distill``."""
    if isinstance(teacher, str):
        spec = get_backbone(teacher)
        _check_grid(teacher, spec.frontend)
        asked = resolve_embedding(spec, list(embedding) or spec.default_embedding)
        names = list(dict.fromkeys([*asked.layers, spec.default_embedding]))
        top = "scores" in spec.top
        base = cut_backbone(spec, [*names, *(["scores"] if top else [])], weights=weights)
        outputs = pooled_layers(base, spec, replace(asked, layers=tuple(names)))
        last = parts(base).scores
        scores, class_names = ([last.output], last.class_names) if last else ([], ())
        multi_label, classifier = True, None
    else:
        found = parts(teacher)
        if not found.is_classifier:
            raise ValueError(f"teacher={teacher.name!r}: no classifier of waveforms from build_classifier or train")
        _check_grid(teacher.name, found.grid)
        if found.sequence_head:
            raise ValueError(
                f"teacher={teacher.name!r}: its head scores the sequence of a clip's patches, and a student learns "
                "patch by patch; build the teacher with head='dense' or 'average'"
            )
        names = [*embedding, "patch_embedding"]
        outputs = [_pooled(teacher, name) for name in names]
        head = found.head  # applied patch by patch, also where the model pools embeddings first
        scores, class_names = [head(outputs[-1])], class_names_of(teacher)
        multi_label, classifier, base = found.multi_label, teacher, teacher
    network = PatchNetwork(base, [*scores, *outputs])
    return Teacher(network, class_names, multi_label, tuple(names), classifier)


def _check_grid(name: str, grid: LogMelSpec | WindowSpec | None) -> None:
    """ValueError for a teacher without log-mel patches, or at another sample rate than the sounds'."""
    if grid is None:
        raise ValueError(f"teacher={name!r}: takes patches; it must be a classifier of waveforms (input='waveform')")
    if isinstance(grid, WindowSpec):
        raise ValueError(f"teacher={name!r}: takes windows of sound itself; a student learns from log-mel patches")
    if grid.sample_rate != SAMPLE_RATE:
        raise ValueError(f"teacher={name!r}: takes {grid.sample_rate} Hz; sounds for a student are {SAMPLE_RATE} Hz")


def _pooled(model: keras.Model, name: str) -> Any:
    """The output of a classifier's layer, averaged over its picture; short names as ``embedding_layers`` has."""
    present = {layer.name for layer in model.layers}
    specs = [get_backbone(backbone).layers for backbone in list_backbones()]
    # Names such as "layer3" are in several networks: those of the one that the model has most of.
    own = max(specs, key=lambda layers: sum(layer.layer in present for layer in layers))
    short = {layer.name: layer.layer for layer in own if layer.layer in present}
    if short.get(name, name) not in present:
        raise ValueError(f"embedding={name!r}: the teacher {model.name!r} has {', '.join(short)}")
    output = model.get_layer(short.get(name, name)).output
    return keras.layers.GlobalAveragePooling2D(name=f"{name}_mean")(output) if len(output.shape) == 4 else output


def _build_student(teacher: Teacher, student: str, weights: str | None, *, input: Input) -> keras.Model:
    if teacher.classifier is not None:
        return build_classifier(
            student,
            class_names=teacher.class_names,
            hidden=(),
            dropout=0.0,
            multi_label=teacher.multi_label,
            trainable="all",
            weights=weights,
            input=input,
        )
    spec = get_backbone(student)
    top: dict[str, Any] = {"include_top": bool(teacher.class_names) and "scores" in spec.top}
    if weights is None and top["include_top"]:
        top["classes"] = len(teacher.class_names)
    model = spec.build(weights=weights, input=input, **top)
    if last := parts(model).scores:
        last.class_names = teacher.class_names
    return model


def initialise(model: keras.Model, seed: int) -> None:
    """Gives every kernel He's normal initialisation, for ReLUs, from a seed of its own."""
    rng = stream("distillation student", seed)
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            shape = layer.kernel.shape
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            fan_in = np.prod(shape[:2]) if depthwise else np.prod(shape[:-1])
            layer.kernel.assign(rng.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32))


def listen(
    teacher: Teacher, mixer: Mixer, student: FastLogMel | FastWindows, patches: int, progress: OnProgress
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Runs the teacher over examples 0 to ``patches - 1``.

    Args:
        teacher: the network.
        mixer: gives the examples.
        student: the student's front-end.
        patches: how many.
        progress: called with the number done, and in all.

    Returns:
        The log-mel patches that the student gets, float16 ``(patches, 96, 64)``, and what the teacher gives for the
        same sounds: the scores if it has any, then the embeddings in standard deviations; float16 ``(patches, dim)``
        each.
    """
    pictures = np.empty((patches, *student.spec.patch_shape), np.float16)

    def example(number: int) -> np.ndarray:
        waveform = mixer(number)
        pictures[number] = student.patches(waveform)[0]
        return waveform

    targets: list[np.ndarray] = []
    jobs = (partial(example, number) for number in range(patches))
    for row, result in enumerate(teacher.network.run_jobs(jobs, trim=False)):
        assert not isinstance(result, AudioError)
        if not targets:
            targets = [np.empty((patches, output.shape[1]), np.float16) for output in result]
        for column, output in zip(targets, result, strict=True):
            column[row] = np.clip(output[0], -6e4, 6e4)
        progress(Progress("Running the teacher", row + 1, patches))
    first = 1 if teacher.class_names else 0
    for number in range(first, len(targets)):
        column = targets[number]
        mean, deviation = column.mean(axis=0, dtype=np.float32), column.std(axis=0, dtype=np.float32)
        for start in range(0, patches, 4096):  # in pieces: the whole in float32 would double the memory
            rows = (column[start : start + 4096] - mean) / np.maximum(deviation, 1e-4)
            column[start : start + 4096] = np.clip(rows, -CLIP, CLIP)
    return pictures, targets


def _softened(scores: np.ndarray, temperature: float, multi_label: bool) -> np.ndarray:
    """Scores ``(rows, classes)`` as if their logits had been divided by the temperature."""
    if temperature == 1:
        return scores
    likely = np.clip(scores.astype(np.float32), LEAST, 1 - LEAST)
    if multi_label:
        return special.expit(special.logit(likely) / temperature).astype(np.float16)
    return special.softmax(np.log(likely) / temperature, axis=1).astype(np.float16)


def _batches(
    pictures: np.ndarray, targets: list[np.ndarray], rows: np.ndarray, options: DistillOptions, epochs: int
) -> AbstractContextManager[tf.data.Dataset]:
    """Batches in an order that depends on the seed and the epoch alone; what does not fill one is left out.

    Rows are picked from the arrays as they lie: tensors would hold all of them once more.
    """
    size = min(options.batch_size, len(rows))

    def draw() -> Iterator[Batch]:
        for epoch in range(epochs):
            order = stream("distillation batches", options.seed, epoch).permutation(rows)
            for start in range(0, len(rows) // size * size, size):
                picture, *learned = (array[order[start : start + size]] for array in (pictures, *targets))
                yield picture.astype(np.float32), tuple(values.astype(np.float32) for values in learned)

    picture, *learned = (tf.TensorSpec((size, *array.shape[1:]), tf.float32) for array in (pictures, *targets))
    return generated(draw, (picture, tuple(learned)), len(rows) // size * epochs)


def _fit(
    core: keras.Model,
    teacher: Teacher,
    pictures: np.ndarray,
    targets: list[np.ndarray],
    options: DistillOptions,
    progress: OnProgress,
) -> dict[str, list[float]]:
    """Trains the student's network of patches on what the teacher said; returns the losses by epoch."""
    found = parts(core)
    embedding = found.embedding if found.embedding is not None else core.get_layer("embedding").output
    outputs, losses, weights = [], [], []
    if teacher.class_names:
        if found.logits is not None:
            scores = found.logits.output
        else:
            scores = keras.layers.Dense(len(teacher.class_names), name="to_scores")(embedding)
        softer = keras.layers.Rescaling(1 / options.temperature, name="scores_loss", dtype="float32")
        outputs.append(softer(scores))
        targets = [_softened(targets[0], options.temperature, teacher.multi_label), *targets[1:]]
        multi: Any = keras.losses.BinaryCrossentropy(from_logits=True)  # a mean over the classes
        losses.append(multi if teacher.multi_label else keras.losses.CategoricalCrossentropy(from_logits=True))
        many = len(teacher.class_names) if teacher.multi_label else 2.0
        weights.append(options.scores_weight * many * options.temperature**2)
    for name, target in zip(teacher.embeddings, targets[len(outputs) :], strict=True):
        seed = keras.initializers.GlorotUniform(seed=derived_seed("distillation classifier", options.seed, name))
        outputs.append(keras.layers.Dense(target.shape[1], kernel_initializer=seed, name=f"to_{name}")(embedding))
        losses.append(keras.losses.MeanSquaredError())
        weights.append(1.0)
    held = options.held_out
    rows = np.arange(held, len(pictures))
    steps_per_epoch = len(rows) // options.batch_size
    steps = steps_per_epoch * options.epochs
    warm = max(1, steps // 20)
    rate = keras.optimizers.schedules.CosineDecay(
        options.learning_rate / 100, steps - warm, warmup_target=options.learning_rate, warmup_steps=warm
    )
    for layer in core.layers:
        if isinstance(layer, keras.layers.BatchNormalization):  # a short training must reach its own statistics too
            layer.momentum = statistics_momentum(steps)
    model = keras.Model(core.inputs[0], outputs)
    optimizer = freed_with_its_model(
        keras.optimizers.AdamW(rate, weight_decay=options.weight_decay, global_clipnorm=5.0)
    )
    model.compile(optimizer, losses, loss_weights=weights, jit_compile=False)
    done = 0

    def count(batch: int, logs: Any = None) -> None:
        nonlocal done
        done += 1
        progress(Progress("Training the student", done, steps))

    with (
        _batches(pictures, targets, rows, options, options.epochs) as training,
        _batches(pictures, targets, np.arange(held), options, 1) as validation,
    ):
        fitted = model.fit(
            training,
            validation_data=validation,
            steps_per_epoch=steps_per_epoch,
            epochs=options.epochs,
            shuffle=False,  # the batches are shuffled already
            callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=count)],
            verbose=0,
        )
    return {_called(name): [float(value) for value in values] for name, values in fitted.history.items()}


def _called(metric: str) -> str:
    """A loss under the name of what is learned, where Keras calls it after the layer in front."""
    validation, name = ("val_", metric.removeprefix("val_")) if metric.startswith("val_") else ("", metric)
    return validation + name.replace("scores_loss_loss", "scores_loss").removeprefix("to_")


def load_folders(
    folders: Sequence[str | os.PathLike[str]], *, exclude: str | None = None, on_error: OnError = "raise"
) -> tuple[list[list[np.ndarray]], list[AudioError]]:
    """Decodes every sound file in ``folders`` and below, as int16 (a minute takes 2 MB).

    Args:
        folders: at least one.
        exclude: regular expression; files whose path it is found in are left out.
        on_error: "raise" or "skip" files that cannot be used.

    Returns:
        For each folder its sounds, and the files that were left out with the reason.
    """
    if not folders:
        raise ValueError("folders: at least one folder of recordings")
    check_choice("on_error", on_error, OnError)
    sounds: list[list[np.ndarray]] = []
    errors: list[AudioError] = []
    total = 0
    for folder in folders:
        paths = [path for path in sound_files(folder) if not (exclude and re.search(exclude, path.as_posix()))]
        with ThreadPoolExecutor(cores()) as pool:
            found = list(pool.map(_decode, paths))
        total += len(paths)
        errors += [sound for sound in found if isinstance(sound, AudioError)]
        sounds.append([sound for sound in found if not isinstance(sound, AudioError)])
        if not sounds[-1] and not errors:
            raise ValueError(f"folders: exclude={exclude!r} leaves no sound in {os.fspath(folder)}")
    if errors and (on_error == "raise" or not all(sounds)):
        raise AudioErrors(errors, total)
    return sounds, errors


def _decode(path: Path) -> np.ndarray | AudioError:
    try:
        waveform = load_audio(path)
    except AudioError as error:
        return error
    if len(waveform) == 0:
        return AudioError(str(path), "empty: no samples")
    return (np.clip(waveform, -1, 1) * 32_767).astype(np.int16)


class Mixer:
    """Example number n, the same for the same seed whatever was drawn before.

    Args:
        sounds: for each folder its sounds, int16 at 16 kHz. A folder is drawn from by the square root of its
            number of sounds, so that a big one does not drown a small one.
        samples: of an example.
        options: how sounds are varied.
        seed: of everything random.
    """

    def __init__(self, sounds: Sequence[Sequence[np.ndarray]], samples: int, options: MixOptions, seed: int):
        self.sounds, self.samples, self.options, self.seed = sounds, samples, options, seed
        roots = np.sqrt([len(folder) for folder in sounds])
        self.shares = roots / roots.sum()

    def __call__(self, number: int) -> np.ndarray:
        """float32 ``(samples,)`` in [-1, 1]."""
        rng, options = stream("distillation sound", self.seed, number), self.options
        wave = self._sound(rng)
        if rng.random() < options.mix:
            other = self._sound(rng)
            level = _rms(wave) / max(_rms(other), 1e-6) * 10 ** (rng.uniform(-15, 15) / 20)
            wave = wave + np.float32(min(level, 100.0)) * other if _rms(wave) > 1e-5 else other
        wave *= np.float32(10 ** (rng.uniform(*options.gain_db) / 20))
        if rng.random() < options.noise:
            hiss = coloured_noise(-rng.uniform(0, 2), self.samples, rng)
            wave += np.float32(max(_rms(wave), 1e-4) * 10 ** (-rng.uniform(0, 30) / 20)) * hiss
        if rng.random() < options.narrow:
            spectrum = scipy.fft.rfft(wave)
            spectrum[int(rng.uniform(2_000, 6_000) / SAMPLE_RATE * self.samples) :] = 0
            wave = scipy.fft.irfft(spectrum, self.samples)
        return np.clip(wave, -1, 1, dtype=np.float32)

    def _sound(self, rng: np.random.Generator) -> np.ndarray:
        """One sound by itself, float32 ``(samples,)``."""
        options, wanted = self.options, self.samples
        if rng.random() < options.synthetic:
            wave = synthetic(wanted, rng)
        else:
            folder = self.sounds[int(rng.choice(len(self.sounds), p=self.shares))]
            sound = folder[int(rng.integers(len(folder)))]
            speed = np.exp(rng.uniform(*np.log(options.speed)))
            source = int(np.ceil(wanted * speed)) + 1
            start = rng.integers(0, max(len(sound) - source, 0) + 1)
            piece = sound[start : start + source].astype(np.float32) / 32_768
            places = np.arange(min(wanted, int((len(piece) - 1) / speed) + 1)) * speed
            wave = np.interp(places, np.arange(len(piece)), piece).astype(np.float32)
            if len(wave) < wanted:  # somewhere in silence; half of them start at once, as most clips do
                before = int(rng.integers(0, wanted - len(wave) + 1)) if rng.random() < 0.5 else 0
                wave = np.pad(wave, (before, wanted - len(wave) - before))
        if rng.random() < options.short:
            length = int(rng.uniform(0.2, 0.9) * SAMPLE_RATE)
            place = int(rng.integers(0, wanted - length + 1)) if wanted > length else 0
            kept = wave[place : place + length]
            shift = place if rng.random() < 0.5 else 0
            wave = np.pad(kept, (shift, wanted - len(kept) - shift))
        return wave


def _rms(wave: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(wave))))


def synthetic(samples: int, rng: np.random.Generator) -> np.ndarray:
    """A made-up sound, float32 ``(samples,)``: coloured noise, a chord, a sweep or clicks."""
    time = np.arange(samples, dtype=np.float32) / SAMPLE_RATE
    kind = rng.integers(4)
    if kind == 0:
        wave = 0.2 * coloured_noise(-rng.uniform(0, 2), samples, rng)
    elif kind == 1:
        pitches = np.exp(rng.uniform(np.log(80), np.log(6_000), rng.integers(1, 5)))
        wave = sum(rng.uniform(0.05, 0.3) * np.sin(2 * np.pi * pitch * time) for pitch in pitches)
        wave = wave * np.exp(-time * rng.uniform(0, 8))
    elif kind == 2:
        low, high = np.exp(rng.uniform(np.log(80), np.log(7_000), 2))
        pitch = low + (high - low) * time / time[-1]
        wave = rng.uniform(0.05, 0.5) * np.sin(2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE)
    else:
        wave = np.zeros(samples, np.float32)
        length = int(rng.uniform(0.001, 0.02) * SAMPLE_RATE)
        click = coloured_noise(-rng.uniform(0, 1), length, rng) * np.hanning(length)
        for start in rng.integers(0, samples - length, rng.integers(1, 12)):
            wave[start : start + length] += rng.uniform(0.05, 0.4) * click
    return np.asarray(wave, np.float32)
