"""Opening a classifier again, whichever way it was saved (.keras, SavedModel or .tflite), and scoring clips with it."""

from __future__ import annotations

import csv
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfaudiotl.audio.waveform import (
    SAMPLE_RATE,
    Piece,
    Sound,
    cut,
    own_window,
    read_piece,
    sounding,
    trim_padding,
)
from tfaudiotl.backbones.frontend import LogMel, LogMelSpec, Patches, PatchGrid, WindowSpec, spec_from
from tfaudiotl.backbones.scores import (
    check_background,
    class_names_of,
    class_thresholds,
    decisions_of,
)
from tfaudiotl.backbones.weight_files import errors_name, open_keras, open_saved_model
from tfaudiotl.classifiers.anatomy import parts
from tfaudiotl.errors import ExportError, WeightsError
from tfaudiotl.tflite.litert import Interpreters, decode, encode
from tfaudiotl.tflite.metadata import Metadata, label_lines, read_metadata

FRONTEND_ASSET = "frontend.json"  # of a SavedModel: its front-end's numbers, its window, thresholds and background
YAMNET_CLASS_MAP = "yamnet_class_map.csv"  # of a SavedModel: the classes of TF Hub's YAMNet
RATE_ASSET = "sample_rate.txt"  # Hz, of the waveforms that a SavedModel's signatures take
WINDOW_SECONDS = 0.975  # of a timeline, where the model leaves the choice and nothing says how much it takes


@dataclass(frozen=True)
class Artifact:
    """A classifier ready to run.

    Attributes:
        path: where it came from.
        kind: "keras", "saved_model" or "tflite".
        class_names: in output order; empty for an embedding model.
        samples: the fixed window length, or None if any length will do.
        sample_rate: Hz.
        scores: function from ``(batch, samples)`` float32 to ``(batch, classes)`` float32. A model of patches
            has its front-end in here.
        score_threshold: below which scores are not worth reporting, where the file says so: one, or one for each class.
        grid: where the patches lie that clips are cut on; see ``clip_grid``.
        window: samples of a timeline's window, where nobody says otherwise.
        background: the class that is never an event, where the file says so.
    """

    path: str
    kind: str
    class_names: tuple[str, ...]
    samples: int | None
    sample_rate: int
    scores: Callable[[np.ndarray], np.ndarray]
    score_threshold: float | tuple[float, ...] | None = None
    grid: PatchGrid = field(default_factory=lambda: WindowSpec(window=1, hop=1))
    window: int = 0
    background: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", clip_grid(self.grid, self.samples, self.sample_rate))
        if self.samples or not self.window:
            object.__setattr__(self, "window", self.samples or round(WINDOW_SECONDS * self.sample_rate))


def clip_grid(spec: PatchGrid | None, samples: int | None, sample_rate: int) -> PatchGrid:
    """The grid that clips are cut on: the model's own, or of single samples where there is none that fits a window.

    On single samples the pieces of a clip lie end to end and weigh by their length.
    """
    if spec is not None and (samples is None or samples >= spec.min_samples):
        return spec
    return WindowSpec(sample_rate=sample_rate, window=1, hop=1)


PATCHES_AT_ONCE = 20  # in a run of pieces of one length: as many as YAMNet has in a piece of 10 s, so no more memory


def score_clip(artifact: Artifact, sound: Sound) -> np.ndarray:
    """Scores ``(classes,)`` of a whole clip at the model's rate, the zeros at its end left off.

    The one definition, for every form of a model. The clip is cut on the model's own grid of patches
    (``audio.waveform.cut``), each piece is scored, and the clip's score is the mean of the pieces' weighed by their
    patches. For a head on patches that is the mean over the clip's patches whatever the pieces are; a head on a clip's
    patches together takes pieces of the model's own window.
    """
    pieces = cut(sounding(sound), artifact.grid, artifact.samples)
    rows = [artifact.scores(batch) for batch in _batches(sound, pieces, artifact)]
    return weighted_mean(np.concatenate(rows), np.array([piece.patches for piece in pieces]))


def weighted_mean(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean ``(classes,)`` of the pieces' scores."""
    return np.average(rows, axis=0, weights=weights)


def _batches(sound: Sound, pieces: Sequence[Piece], artifact: Artifact) -> Iterator[np.ndarray]:
    """Pieces of one length, one below the other, as many as are run at once."""
    for length, group in groupby(pieces, key=lambda piece: artifact.samples or piece.stop - piece.start):
        alike = list(group)
        size = max(1, PATCHES_AT_ONCE // int(artifact.grid.patches(length)))
        for first in range(0, len(alike), size):
            yield np.stack([read_piece(sound, piece, artifact.samples) for piece in alike[first : first + size]])


def load_model(path: str | Path) -> keras.Model:
    """A model in a .keras file, in Keras's safe mode, with this package's layers known; WeightsError if it fails."""
    return open_keras(path, argument="model")


def open_artifact(
    model: str | Path | keras.Model,
    *,
    class_names: Sequence[str] | None = None,
    num_threads: int | None = None,
) -> Artifact:
    """Opens a Keras model, a .keras file, a SavedModel folder or a .tflite file for prediction.

    Args:
        model: the model, or the path of one.
        class_names: the names in output order; None reads them: from inside the model or the .tflite file's
            metadata, from the SavedModel's assets (of TF Hub's YAMNet its class map), or from a NAME.txt or
            ``labels.txt`` beside the .tflite file.
        num_threads: for .tflite: threads of the interpreter; None: one per core.

    Raises:
        WeightsError: nothing there, not a model, or no class names to be found.
    """
    if isinstance(model, keras.Model):
        return _from_keras(model, model.name, class_names)
    path = Path(model)
    if path.is_dir():
        return _from_saved_model(path, class_names)
    if path.suffix.lower() == ".tflite":
        return _from_tflite(path, class_names, num_threads)
    return _from_keras(load_model(path), str(path), class_names)


def _with_decisions(artifact: Artifact, told: Mapping[str, Any], own: Sequence[str]) -> Artifact:
    """With the thresholds and the background class that a file of the classes ``own`` carries.

    The caller may have other names for its outputs; the order is the same.
    """
    names = artifact.class_names
    changes: dict[str, Any] = {}
    try:
        if told.get("thresholds"):
            changes["score_threshold"] = class_thresholds(told["thresholds"], names)
        if told.get("background") is not None:
            check_background(told["background"], own)
            changes["background"] = names[list(own).index(told["background"])]
    except (TypeError, ValueError, IndexError) as error:
        raise WeightsError(f"model={artifact.path!r}: its thresholds or background cannot be used: {error}") from error
    return replace(artifact, **changes)


def _from_keras(model: keras.Model, path: str, class_names: Sequence[str] | None) -> Artifact:
    layer = parts(model).scores
    names = tuple(class_names) if class_names is not None else class_names_of(model) if layer else ()
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise WeightsError(
            f"model={path!r} has {len(model.inputs)} inputs and {len(model.outputs)} outputs; expected is one of each: "
            "waveforms (batch, samples), and scores"
        )
    if names:
        _check_labels(path, names, model.output_shape[-1])
    return _with_decisions(_keras_form(model, path, names), decisions_of(model), layer.class_names if layer else ())


def _keras_form(model: keras.Model, path: str, names: tuple[str, ...]) -> Artifact:
    run = _traced(model)
    own = parts(model)
    if own.takes_patches:
        spec = _patch_frontend(path, parts(model).frontend)
        scores = _with_frontend(run, spec)
        return Artifact(path, "keras", names, spec.min_samples, spec.sample_rate, scores, grid=spec)
    grid = own.grid
    if grid is None:
        return Artifact(path, "keras", names, model.input_shape[1], SAMPLE_RATE, run)
    return Artifact(
        path,
        "keras",
        names,
        model.input_shape[1],
        grid.sample_rate,
        _over_patches(run, grid),
        grid=grid,
        window=timeline_window(model),
    )


def _patch_frontend(path: str, spec: LogMelSpec | WindowSpec | None) -> LogMelSpec:
    """The front-end of a model of patches; networks differ in it, so it is never guessed."""
    if not isinstance(spec, LogMelSpec):
        raise WeightsError(
            f"model={path!r} takes patches and does not say which front-end makes them, so it cannot be given sound; "
            "build it again with input='patches' (which keeps the front-end's numbers), load its weights, and save or "
            "export that"
        )
    return spec


def _traced(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """The model as one graph; ``model.predict`` would set up a data pipeline for every window."""
    import tensorflow as tf

    spec = tf.TensorSpec(model.inputs[0].shape, tf.float32)
    graph = tf.function(lambda x: model(x, training=False), input_signature=[spec], autograph=False)
    return lambda waveforms: graph(waveforms).numpy()


def _over_patches(run: Callable[[np.ndarray], np.ndarray], grid: PatchGrid) -> Callable[[np.ndarray], np.ndarray]:
    """Of a backbone that keeps its patches the mean over those that hold sound; others as they are."""

    def means(waveforms: np.ndarray) -> np.ndarray:
        rows = run(waveforms)
        if rows.ndim == 2:
            return rows
        valid = [grid.patches(len(trim_padding(waveform))) for waveform in waveforms]
        return np.stack([row[:count].mean(axis=0) for row, count in zip(rows, valid, strict=True)])

    return means


def _with_frontend(run: Callable[[np.ndarray], np.ndarray], spec: LogMelSpec) -> Callable[[np.ndarray], np.ndarray]:
    """Waveforms of one patch each, for what takes patches."""
    make = patch_maker(spec)
    return lambda waveforms: run(make(waveforms)[:, 0])


def patch_maker(spec: LogMelSpec) -> Callable[[np.ndarray], np.ndarray]:
    """A function from waveforms ``(batch, samples)`` to patches ``(batch, patches, frames, bands)``."""
    inputs = keras.Input((None,))
    frames = LogMel(spec)(inputs)
    return _traced(keras.Model(inputs, Patches(patch_frames=spec.patch_frames, patch_hop=spec.patch_hop)(frames)))


def timeline_window(model: keras.Model) -> int:
    """Samples that a model of waveforms takes at a time by itself: a patch, or a clip where its head scores clips."""
    own = parts(model)
    assert own.grid is not None  # of a model of waveforms
    return own_window(own.grid) if own.scores_clips else own.grid.min_samples


def _from_saved_model(path: Path, class_names: Sequence[str] | None) -> Artifact:
    import tensorflow as tf

    if not (path / "saved_model.pb").is_file():
        within = [name for name in ("model.keras", "saved_model", "model.tflite") if (path / name).exists()]
        hint = f"; give {path / within[0]}" if within else ": it has no saved_model.pb"
        raise WeightsError(f"model={str(path)!r} is a folder, but no SavedModel{hint}")
    where, assets = str(path), path / "assets"
    with errors_name(where, argument="model"):
        loaded = open_saved_model(path)
        if "serving_default" not in loaded.signatures:
            raise WeightsError(f"has no signature serving_default, only {sorted(loaded.signatures)}")
        own, rate, told = _saved_assets(assets)
    signature = loaded.signatures["serving_default"]
    names = own if class_names is None else tuple(class_names)
    if not names:
        raise WeightsError(f"model={where!r}: no class names in {assets}; pass class_names=")
    taken, output = _saved_ends(where, signature, names)

    def call(waveforms: np.ndarray, *, _keep: Any = loaded) -> np.ndarray:  # signatures do not keep variables alive
        return signature(**{taken.name: tf.constant(waveforms, tf.float32)})[output].numpy()

    known = _spec_of(where, told)
    if taken.shape.rank == 3:
        known = _patch_frontend(where, known)
        run = _with_frontend(call, known)
        form = Artifact(where, "saved_model", names, known.min_samples, known.sample_rate, run, grid=known)
        return _with_decisions(form, told, own)
    if known is None and (assets / YAMNET_CLASS_MAP).is_file():
        known = LogMelSpec()
    scores: Callable[[np.ndarray], np.ndarray] = call
    if taken.shape.rank == 1:
        scores = _each(call)
    elif taken.shape[0] is not None:
        scores = _each(lambda waveform: call(waveform[None])[0])
    samples = taken.shape[-1]
    grid = known or clip_grid(None, samples, rate)
    window = told.get("window", known.min_samples if isinstance(known, LogMelSpec) else 0)
    form = Artifact(where, "saved_model", names, samples, rate, _over_patches(scores, grid), grid=grid, window=window)
    return _with_decisions(form, told, own)


def _each(run: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """A batch by a model that takes one waveform."""
    return lambda waveforms: np.stack([run(waveform) for waveform in waveforms])


def _saved_assets(assets: Path) -> tuple[tuple[str, ...], int, dict[str, Any]]:
    """Class names, sample rate and settings; the latter two are not in files of earlier versions."""
    rate, frontend = assets / RATE_ASSET, assets / FRONTEND_ASSET
    try:
        names = _saved_names(assets)
        sample_rate = int(rate.read_text(encoding="utf-8")) if rate.is_file() else SAMPLE_RATE
        return names, sample_rate, json.loads(frontend.read_text(encoding="utf-8")) if frontend.is_file() else {}
    except (ValueError, KeyError) as error:
        raise WeightsError(f"a file in its assets is damaged: {error}") from error


def _saved_names(assets: Path) -> tuple[str, ...]:
    """Class names in a SavedModel's assets: one on each line, or AudioSet's class map as TF Hub's YAMNet has it."""
    labels, table = assets / "labels.txt", assets / YAMNET_CLASS_MAP
    if labels.is_file():
        return label_lines(labels.read_bytes())
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as lines:
            return tuple(row["display_name"] for row in csv.DictReader(lines))
    return ()


def _saved_ends(path: str, signature: Any, names: Sequence[str]) -> tuple[Any, str]:
    """A signature's input, and the name of the output that has the scores of these classes."""
    inputs = list(signature.structured_input_signature[1].values())
    shapes = {spec.name: f"{spec.dtype.name} {spec.shape}" for spec in inputs}
    if len(inputs) != 1 or inputs[0].dtype.name != "float32" or inputs[0].shape.rank not in (1, 2, 3):
        raise WeightsError(
            f"model={path!r}: its signature takes {shapes}; expected is one float32 waveform, (samples,) or (batch, "
            "samples)"
        )
    outputs = signature.structured_outputs
    fitting = [name for name, spec in outputs.items() if spec.shape.rank and spec.shape[-1] in (len(names), None)]
    if "scores" in fitting:
        fitting = ["scores"]
    if len(fitting) != 1:
        found = {name: str(outputs[name].shape) for name in sorted(outputs)}
        how_many = "several" if fitting else "none"
        raise WeightsError(f"model={path!r}: {len(names)} class names for {how_many} of its outputs {found}")
    return inputs[0], fitting[0]


def _from_tflite(path: Path, class_names: Sequence[str] | None, num_threads: int | None) -> Artifact:
    if not path.is_file():
        raise WeightsError(f"model={str(path)!r}: no such file")
    content = path.read_bytes()
    try:
        interpreters = _Runner(str(path), content, num_threads or os.cpu_count() or 1)
    except ExportError as error:
        raise WeightsError(f"model={str(path)!r}: cannot be loaded as a .tflite file: {error}") from error
    taken, given = interpreters.taken, interpreters.given
    try:
        metadata = read_metadata(content) or Metadata()
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise WeightsError(f"model={str(path)!r}: its metadata is damaged: {error}") from error
    beside = [path.with_suffix(".txt"), path.parent / "labels.txt"]
    settings = metadata.settings
    decided = {"thresholds": metadata.thresholds, "background": metadata.background}
    if class_names is not None:
        names = tuple(class_names)
    elif metadata.labels:
        names = metadata.labels
    else:
        names = () if settings.get("output") == "embedding" else _read_labels(*beside)
    if names:
        _check_labels(str(path), names, int(given["shape"][-1]))

    where, rate, threshold = str(path), metadata.sample_rate, metadata.score_threshold
    samples = None if interpreters.any_length else int(taken["shape"][-1])
    known = _spec_of(where, settings)
    if len(taken["shape"]) > 2:
        known = _patch_frontend(where, known)
        run = _with_frontend(interpreters.scores, known)
        form = Artifact(where, "tflite", names, known.min_samples, known.sample_rate, run, threshold, known)
        return _with_decisions(form, decided, metadata.labels or names)
    grid = known or clip_grid(None, samples, rate)
    window = settings.get("window", 0)
    form = Artifact(where, "tflite", names, samples, rate, interpreters.scores, threshold, grid, window)
    return _with_decisions(form, decided, metadata.labels or names)


class _Runner:
    """A .tflite file, run by as many threads at the same time as call it.

    Attributes:
        taken, given: what the interpreter says of the input and of the first output.
        any_length: whether the file leaves the number of samples open.
    """

    def __init__(self, path: str, content: bytes, num_threads: int):
        self._path = path
        self._interpreters = Interpreters(content, num_threads=num_threads, grow=True)
        with self._interpreters.free_one() as interpreter:
            inputs = interpreter.get_input_details()
            self.taken, self.given = inputs[0], interpreter.get_output_details()[0]
        coded = np.issubdtype(self.taken["dtype"], np.integer) and self.taken["quantization"][0] > 0
        if len(inputs) != 1 or not (self.taken["dtype"] == np.float32 or coded):
            found = {each["name"]: f"{each['dtype'].__name__} {each['shape'].tolist()}" for each in inputs}
            raise WeightsError(
                f"model={path!r}: takes {found}; expected is one waveform, or patches, in float32 or int8"
            )
        self.any_length = bool(self.taken["shape_signature"][-1] == -1) and len(self.taken["shape"]) <= 2

    def scores(self, windows: np.ndarray) -> np.ndarray:
        """Scores ``(batch, classes)`` of windows ``(batch, ...)``; the mean where the file gives rows of them."""
        windows = np.asarray(windows, np.float32)
        rows = []
        with self._interpreters.free_one() as interpreter:
            shape = self._fit(interpreter, windows.shape[1])
            for window in windows:
                interpreter.set_tensor(self.taken["index"], encode(window.reshape(shape), self.taken))
                interpreter.invoke()
                found = decode(interpreter.get_tensor(self.given["index"]), self.given)
                rows.append(found.reshape(-1, found.shape[-1]).mean(axis=0))
        return np.stack(rows)

    def _fit(self, interpreter: Any, samples: int) -> tuple[int, ...]:
        """Makes the input as long as a window, where the file leaves it open; gives its shape."""
        if not self.any_length:
            return tuple(self.taken["shape"])
        shape = (1,) * (len(self.taken["shape"]) - 1) + (samples,)
        if tuple(interpreter.get_input_details()[0]["shape"]) != shape:
            try:
                interpreter.resize_tensor_input(self.taken["index"], shape)
                interpreter.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                raise WeightsError(
                    f"model={self._path!r}: does not take {samples} samples at once ({error}); give window_seconds="
                ) from error
        return shape


def _spec_of(path: str, settings: Any) -> LogMelSpec | WindowSpec | None:
    """The front-end's numbers that a file carries, if it does."""
    numbers = settings.get("frontend") if isinstance(settings, dict) else None
    if not numbers:
        return None
    try:
        return spec_from(dict(numbers))
    except (TypeError, ValueError) as error:
        raise WeightsError(f"model={path!r}: its front-end's numbers cannot be used: {error}") from error


def _read_labels(*candidates: Path) -> tuple[str, ...]:
    for path in candidates:
        if path.is_file():
            return label_lines(path.read_bytes())
    looked = ", ".join(str(path) for path in candidates)
    raise WeightsError(f"no class names: looked for {looked}; pass class_names=, or put the labels there")


def _check_labels(path: str, names: Sequence[str], outputs: int) -> None:
    if len(names) != outputs:
        raise WeightsError(f"model={path!r}: {len(names)} class names for {outputs} outputs")
