"""TFLite (LiteRT) files for phones, boards, browsers and microcontrollers: small, fast, and proven right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np

from tfaudiotl._files import check_replaceable, new_files
from tfaudiotl._seeds import stream
from tfaudiotl.audio.waveform import SAMPLE_RATE, is_silent, pieces_of
from tfaudiotl.backbones.frontend import LogMelSpec, PatchGrid
from tfaudiotl.backbones.scores import class_names_of, decisions_of
from tfaudiotl.classifiers.anatomy import parts
from tfaudiotl.data.clips import Clips
from tfaudiotl.errors import ExportError, check_choice, check_number
from tfaudiotl.export.check import MIN_AGREEMENT, Sound, prove, report_paths, waveforms_of
from tfaudiotl.export.micro import c_paths, write_c_array
from tfaudiotl.export.prepare import (
    Frontend,
    Input,
    float_graph,
    frontend_spec,
    has_patches,
    window_shape,
)
from tfaudiotl.runtime.load import clip_grid, patch_maker
from tfaudiotl.tflite.audit import audit_graph, check_audit
from tfaudiotl.tflite.graph import Graph
from tfaudiotl.tflite.metadata import Metadata, write_metadata
from tfaudiotl.tflite.quantize import (
    Quantized,
    drop_fill,
    halve_constants,
    quantize_dynamic,
    quantize_static,
    quantize_throughout,
    without_integers,
)

Quantize = Literal["float16", "dynamic", "int8", "int8_io"]
QUANTIZE: tuple[Quantize | None, ...] = (None, *get_args(Quantize))
CALIBRATED = ("int8", "int8_io")

CALIBRATION_CLIPS = 200  # clips to calibrate on, at most
CALIBRATION_WINDOWS = 200  # windows of them, at most
LEAST_WINDOWS = 10  # that say anything about a network's ranges


def export_tflite(
    model: keras.Model,
    path: str | Path,
    *,
    quantize: Quantize | None = None,
    input: Input = "waveform",
    calibrate: Sound | None = None,
    verify: Sound | None = None,
    min_agreement: float = MIN_AGREEMENT,
    frontend: Frontend = "fft",
    samples: int | None = None,
    metadata: Metadata | None = None,
    thresholds: Mapping[str, Any] | Sequence[Any] | None = None,
    c_array: bool = False,
    overwrite: bool = False,
) -> Path:
    """Writes ``model`` as a .tflite file of built-in operators, with metadata, and proves it on real clips.

    The signature ``serving_default`` takes ``waveform (1, samples)``, float32 in [-1, 1] at 16 kHz, and
    gives ``scores (1, classes)`` (``embedding (1, dim)`` for an embedding model). Longer sound is run window
    by window, as ``Predictor`` does.

    Args:
        model: a classifier from ``build_classifier``, a backbone, or an embedding model.
        path: the file to write.
        quantize: None for float32. "float16": weights in half precision, half the size. "dynamic": int8
            weights where they weigh, no calibration. "int8": static int8 in every block that bears it,
            by measurement. "int8_io": integers throughout, int8 in and out, for microcontrollers and NPUs;
            where int8 activations cost accuracy, a few operators have 16-bit ones (same weights). Only
            with ``input="patches"``.
        input: "waveform", or "patches": log-mel patches ``(1, 96, 64)`` that the device computes itself.
        calibrate: clips of the model's classes (or waveforms at the model's rate) for "int8" and "int8_io": a few
            hundred windows from the training set.
        verify: clips (or waveforms) to compare the file with the Keras model on; none of ``calibrate``, else the
            report says so and a warning is given. It is written beside the file: NAME.report.md and NAME.report.json.
        min_agreement: least share of windows with the same best class, in [0, 1].
        frontend: "fft", or "matmul" for runtimes without RFFT2D: no complex numbers, the same result.
        samples: samples per window; None: the model's own fixed length, else the least that the
            backbone hears at once (YAMNet: 15,600, 0.975 s), or where the head hears a clip's patches together those of
            10 s (YAMNet: 161,520).
        metadata: what the file says of itself; None fills in the model's name, labels and sample rate.
        thresholds: the score from which each class is heard, by name or in output order, for the file in place of the
            model's own (``set_thresholds``); ``Metadata.thresholds``.
        c_array: also write NAME.h and NAME.cc, the file as an array for firmware.
        overwrite: replace existing files, report and C source too; they stay whole until the new ones are complete.

    Returns:
        ``path``.

    Raises:
        FileExistsError: ``path``, its report or its C source exists and ``overwrite`` is false, or is a folder.
        ValueError: a name that does not end in .tflite; an argument outside what is allowed; calibration missing,
            silent or of other classes.
        ExportError: the network has no file of the kind that ``quantize`` asks for (the message says which it has); it
            needs more than built-in operators, the file is not what it should be or
            agrees less than ``min_agreement``, or ``path`` cannot be written.
    """
    input = "patches" if parts(model).takes_patches else input
    _check(model, quantize, input, calibrate, frontend, min_agreement)
    _check_sound(model, calibrate if quantize in CALIBRATED else None, verify)
    check_replaceable(path, overwrite=overwrite)
    for companion in _companions(Path(path), report=verify is not None, c_array=c_array):
        check_replaceable(companion, overwrite=overwrite)
    facts = _filled(metadata, model, input)
    if thresholds is not None:
        facts = replace(facts, thresholds=thresholds)
    plain = float_graph(model, input=input, samples=samples, frontend=frontend)
    _check_operators(model, plain, quantize)
    done = _quantized(model, plain, quantize, input, calibrate, samples)
    if quantize is not None:
        drop_fill(done.graph)
    content = write_metadata(done.graph, facts)
    audit = audit_graph(Graph(content), Path(path).name)  # read back, as it will lie on the disk
    check_audit(audit, quantize=quantize, patches=input == "patches")
    path = Path(path)
    try:
        with new_files(path.parent) as work:
            target = work / path.name
            target.write_bytes(content)
            if verify is not None:
                float_file = content if quantize is None else write_metadata(plain, facts)
                prove(
                    model,
                    target,
                    float_file,
                    verify,
                    audit=audit,
                    min_agreement=min_agreement,
                    sensitivity=done.sensitivity,
                    calibrate=calibrate if quantize in CALIBRATED else None,
                ).save(target)
            if c_array:
                write_c_array(target)
    except OSError as error:
        raise ExportError(f"path={str(path)!r} cannot be written: {error}") from error
    return path


def _companions(path: Path, *, report: bool, c_array: bool) -> list[Path]:
    """The files that an export writes beside ``path``."""
    if path.suffix.lower() != ".tflite":
        raise ValueError(f"path={str(path)!r}: the name of a .tflite file ends in .tflite")
    return [*(report_paths(path) if report else ()), *(c_paths(path) if c_array else ())]


def _check(
    model: keras.Model,
    quantize: str | None,
    input: str,
    calibrate: Sound | None,
    frontend: str,
    min_agreement: float,
) -> None:
    check_choice("quantize", quantize, QUANTIZE)
    check_choice("input", input, Input)
    check_choice("frontend", frontend, Frontend)
    check_number("min_agreement", min_agreement, least=0, most=1)
    if quantize == "int8_io" and not has_patches(model):
        raise _refused(model, "it has no front-end of patches that the device could compute")
    if quantize == "int8_io" and input != "patches":
        raise ValueError("quantize='int8_io': a front-end in 8 bits hears nothing; pass input='patches' too")
    if quantize in CALIBRATED and calibrate is None:
        raise ValueError(
            f"quantize={quantize!r}: give calibrate=, clips like those that the model will hear; without them "
            "use quantize='dynamic'"
        )
    if parts(model).scores is None and quantize in CALIBRATED:
        raise ValueError(f"quantize={quantize!r}: an embedding model has no classes to judge by; use 'dynamic'")


def _check_sound(model: keras.Model, calibrate: Sound | None, verify: Sound | None) -> None:
    """Before anything is converted: is there sound, and are its labels the model's?"""
    if verify is not None and not len(verify):
        raise ValueError("verify is empty: at least one clip is needed to compare on")
    if calibrate is not None:
        _check_calibration(calibrate, class_names_of(model))


def _check_operators(model: keras.Model, plain: Graph, quantize: str | None) -> None:
    """Before any calibration: has every operator an integer form, where all must have one?"""
    if quantize == "int8_io" and (missing := without_integers(plain)):
        raise _refused(model, f"there is no integer form of {', '.join(missing)}")


def _refused(model: keras.Model, reason: str) -> ExportError:
    taken = ", ".join(repr(scheme) for scheme in QUANTIZE if scheme != "int8_io")
    return ExportError(f"quantize='int8_io': model {model.name!r} takes {taken}: {reason}")


def _quantized(
    model: keras.Model,
    plain: Graph,
    quantize: str | None,
    input: str,
    calibrate: Sound | None,
    samples: int | None,
) -> Quantized:
    if quantize is None:
        return Quantized(plain, {})
    if quantize == "float16":
        halved = Graph(plain.content)
        halve_constants(halved)
        return Quantized(halved, {})
    if quantize == "dynamic":
        return quantize_dynamic(plain)
    assert calibrate is not None  # _check
    if input == "waveform":
        window = window_shape(model, samples)[0]
        grid = clip_grid(parts(model).grid, window, SAMPLE_RATE)
        return quantize_static(plain, calibration_windows(calibrate, window, grid=grid))
    spec = frontend_spec(model)
    assert isinstance(spec, LogMelSpec)  # others have no patches to export
    windows, make = calibration_windows(calibrate, spec.min_samples, grid=spec), patch_maker(spec)
    calibration = np.concatenate([make(windows[i : i + 64])[:, 0] for i in range(0, len(windows), 64)])
    if quantize == "int8":
        return quantize_static(plain, calibration)
    return quantize_throughout(plain, calibration)


def _check_calibration(sound: Sound, class_names: Sequence[str]) -> None:
    """ValueError where there is no sound, or labels have nothing to do with the model's classes."""
    if not len(sound):
        raise ValueError("calibrate is empty: give clips like those that the model will hear")
    if isinstance(sound, Clips) and class_names:
        known = {label for labels in sound.labels for label in labels}
        if not known & set(class_names):
            raise ValueError(
                f"calibrate has clips of {sorted(known)[:5]}, and the model's classes are {list(class_names)[:5]}: "
                "give clips of the model's own classes, or waveforms without labels"
            )


def calibration_windows(sound: Sound, samples: int, *, grid: PatchGrid) -> np.ndarray:
    """Windows ``(windows, samples)`` to calibrate on; refuses sound that says nothing about ranges.

    Args:
        sound: clips, or waveforms.
        samples: per window.
        grid: where the model's patches lie, for the cutting; waveforms have its rate already.

    Raises:
        ValueError: nothing but silence.
    """
    waveforms = waveforms_of(sound, sample_rate=grid.sample_rate, limit=CALIBRATION_CLIPS)
    windows = np.array([piece for waveform in waveforms for piece, _ in pieces_of(waveform, grid, samples)])
    windows = windows[[not is_silent(window) for window in windows]]
    if len(windows) < min(LEAST_WINDOWS, len(waveforms)) or not len(windows):
        raise ValueError(f"calibrate has {len(windows)} windows that are not silent: nothing to take ranges from")
    chosen = stream("calibration", 0).permutation(len(windows))[:CALIBRATION_WINDOWS]
    return np.ascontiguousarray(windows[np.sort(chosen)])


def _filled(metadata: Metadata | None, model: keras.Model, input: str) -> Metadata:
    """What is given, and the model's own facts where nothing is."""
    given = metadata or Metadata()
    own = parts(model)
    spec = frontend_spec(model) if own.takes_patches else own.grid
    labels = given.labels
    if not labels and own.scores is not None:
        labels = own.class_names
    if labels and own.scores is not None and len(labels) != model.output_shape[-1]:
        raise ExportError(f"metadata.labels: {len(labels)} labels for {model.output_shape[-1]} outputs")
    settings = {
        "input": input,
        "output": "scores" if labels else "embedding",
        **({"frontend": asdict(spec)} if spec else {}),
        **given.settings,
    }
    decisions = decisions_of(model)
    thresholds, background = given.thresholds, given.background
    if thresholds is None and given.score_threshold is None:
        thresholds = decisions.get("thresholds")
    if background is None and "background" in decisions:
        background = labels[class_names_of(model).index(decisions["background"])]  # labels may be other names
    heard = f"Hears {len(labels)} classes of sound." if labels else "Turns sound into an embedding."
    return replace(
        given,
        name=given.name or model.name,
        description=given.description or f"{heard} Made with tfaudiotl.",
        labels=tuple(labels),
        thresholds=thresholds,
        background=background,
        sample_rate=spec.sample_rate if spec else given.sample_rate,
        settings=settings,
    )
