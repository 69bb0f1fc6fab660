"""Opening a classifier again, whichever way it was saved: .keras, SavedModel or .tflite."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfaudiotl.audio.files import SAMPLE_RATE
from tfaudiotl.backbones.assembly import grid_of_model
from tfaudiotl.backbones.frontend import LogMelSpec
from tfaudiotl.backbones.scores import ClassScores, class_names_of
from tfaudiotl.errors import WeightsError
from tfaudiotl.export.metadata import Metadata, read_metadata
from tfaudiotl.export.quantize import decode, encode
from tfaudiotl.models import layers as _layers  # noqa: F401 - registers them with Keras


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
        score_threshold: below which scores are not worth reporting, where the file says so.
        window_seconds: what the backbone hears at once, where it is known.
    """

    path: str
    kind: str
    class_names: tuple[str, ...]
    samples: int | None
    sample_rate: int
    scores: Callable[[np.ndarray], np.ndarray]
    score_threshold: float | None = None
    window_seconds: float | None = None


def load_model(path: str | Path) -> keras.Model:
    """``keras.saving.load_model`` in safe mode, with this package's layers known; WeightsError if it fails."""
    path = Path(path)
    if not path.exists():
        raise WeightsError(f"model={str(path)!r}: no such file")
    try:
        return keras.saving.load_model(str(path), safe_mode=True)
    except (ValueError, OSError, TypeError, KeyError) as error:
        raise WeightsError(f"model={str(path)!r}: cannot be loaded as a .keras file: {error}") from error


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
            metadata, from the SavedModel's assets, or from a NAME.txt or ``labels.txt`` beside the .tflite file.
        num_threads: for .tflite: threads of the interpreter; None: one per core.

    Raises:
        WeightsError: nothing there, not a model, or no class names to be found.
    """
    if isinstance(model, keras.Model):
        return _from_keras(model, model.name, class_names)
    path = Path(model)
    if path.is_dir():
        return _from_saved_model(path, class_names)
    if path.suffix == ".tflite":
        return _from_tflite(path, class_names, num_threads)
    return _from_keras(load_model(path), str(path), class_names)


def _from_keras(model: keras.Model, path: str, class_names: Sequence[str] | None) -> Artifact:
    classifier = any(isinstance(layer, ClassScores) for layer in model.layers)
    names = tuple(class_names) if class_names is not None else class_names_of(model) if classifier else ()
    if classifier:
        _check_labels(path, names, model.output_shape[-1])
    run = _traced(model)
    if len(model.inputs[0].shape) > 2:  # a model of patches
        spec = LogMelSpec()
        return Artifact(path, "keras", names, spec.min_samples, spec.sample_rate, _with_frontend(run, spec))
    grid = grid_of_model(model)
    rate = grid.sample_rate if grid else SAMPLE_RATE
    return Artifact(
        path, "keras", names, model.input_shape[1], rate, run, window_seconds=grid.min_seconds if grid else None
    )


def _traced(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """The model as one graph; ``model.predict`` would set up a data pipeline for every window."""
    import tensorflow as tf

    spec = tf.TensorSpec(model.inputs[0].shape, tf.float32)
    graph = tf.function(lambda x: model(x, training=False), input_signature=[spec], autograph=False)

    def run(waveforms: np.ndarray) -> np.ndarray:
        rows = graph(waveforms).numpy()
        return rows if rows.ndim == 2 else rows.mean(axis=1)  # a backbone that keeps its patches

    return run


def _with_frontend(run: Callable[[np.ndarray], np.ndarray], spec: LogMelSpec) -> Callable[[np.ndarray], np.ndarray]:
    """Waveforms of one patch each, for what takes patches."""
    from tfaudiotl.export.sound import patch_maker

    make = patch_maker(spec)
    return lambda waveforms: run(make(waveforms)[:, 0])


def _from_saved_model(path: Path, class_names: Sequence[str] | None) -> Artifact:
    import tensorflow as tf

    if not (path / "saved_model.pb").is_file():
        within = [name for name in ("model.keras", "saved_model", "model.tflite") if (path / name).exists()]
        hint = f"; give {path / within[0]}" if within else ": it has no saved_model.pb"
        raise WeightsError(f"model={str(path)!r} is a folder, but no SavedModel{hint}")
    try:
        loaded = tf.saved_model.load(str(path))
        signature = loaded.signatures["serving_default"]
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        raise WeightsError(f"model={str(path)!r}: no SavedModel with a serving_default signature: {error}") from error
    names = class_names if class_names is not None else _read_labels(path / "assets" / "labels.txt")
    rate = path / "assets" / "sample_rate.txt"  # not in files of earlier versions
    sample_rate = int(rate.read_text(encoding="utf-8")) if rate.is_file() else SAMPLE_RATE
    (spec,) = signature.structured_input_signature[1].values()
    (output,) = signature.structured_outputs.values()
    _check_labels(str(path), names, output.shape[-1])

    def scores(waveforms: np.ndarray, *, _keep: Any = loaded) -> np.ndarray:  # signatures do not keep variables alive
        (result,) = signature(**{spec.name: tf.constant(waveforms, tf.float32)}).values()
        return result.numpy()

    return Artifact(str(path), "saved_model", tuple(names), spec.shape[1], sample_rate, scores)


def _from_tflite(path: Path, class_names: Sequence[str] | None, num_threads: int | None) -> Artifact:
    from ai_edge_litert.interpreter import Interpreter

    if not path.is_file():
        raise WeightsError(f"model={str(path)!r}: no such file")
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=num_threads or os.cpu_count() or 1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise WeightsError(f"model={str(path)!r}: cannot be loaded as a .tflite file: {error}") from error
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    metadata = read_metadata(path.read_bytes()) or Metadata()
    beside = [path.with_suffix(".txt"), path.parent / "labels.txt"]
    settings = metadata.settings
    if class_names is not None:
        names = tuple(class_names)
    elif metadata.labels:
        names = metadata.labels
    else:
        names = () if settings.get("output") == "embedding" else _read_labels(*beside)
    if names:
        _check_labels(str(path), names, int(given["shape"][-1]))

    def scores(windows: np.ndarray) -> np.ndarray:
        rows = []
        for window in np.asarray(windows, np.float32):
            interpreter.set_tensor(taken["index"], encode(window.reshape(taken["shape"]), taken))
            interpreter.invoke()
            rows.append(decode(interpreter.get_tensor(given["index"])[0], given))
        return np.stack(rows)

    run: Callable[[np.ndarray], np.ndarray] = scores
    samples, rate = int(taken["shape"][-1]), metadata.sample_rate
    if len(taken["shape"]) > 2:
        spec = LogMelSpec(**settings.get("frontend", {}))
        samples, run = spec.min_samples, _with_frontend(scores, spec)
    return Artifact(str(path), "tflite", names, samples, rate, run, metadata.score_threshold)


def _read_labels(*candidates: Path) -> tuple[str, ...]:
    for path in candidates:
        if path.is_file():
            return tuple(path.read_text(encoding="utf-8").splitlines())
    looked = ", ".join(str(path) for path in candidates)
    raise WeightsError(f"no class names: looked for {looked}; pass class_names=, or put the labels there")


def _check_labels(path: str, names: Sequence[str], outputs: int) -> None:
    if len(names) != outputs:
        raise WeightsError(f"model={path!r}: {len(names)} class names for {outputs} outputs")
