"""From recordings to a folder of results: what ``tfaudiotl train`` does, and what ``distill`` writes."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfaudiotl._files import changed_parts, new_files, sha256, write_atomic
from tfaudiotl._fingerprint import versions
from tfaudiotl._threads import OnProgress, Progress, ignore
from tfaudiotl._version import __version__
from tfaudiotl.audio.waveform import SAMPLE_RATE
from tfaudiotl.backbones.scores import class_names_of
from tfaudiotl.backbones.weight_files import npz_bytes
from tfaudiotl.card import model_card
from tfaudiotl.classifiers.anatomy import parts
from tfaudiotl.data.clips import Clips
from tfaudiotl.data.table import clips_parts
from tfaudiotl.errors import DivergedError
from tfaudiotl.evaluation.report import write_report
from tfaudiotl.export.check import Check, Reference, checks_table, verify_export
from tfaudiotl.export.savedmodel import export_saved_model
from tfaudiotl.export.tflite import export_tflite
from tfaudiotl.markdown import Section, escape_markdown, json_text, markdown_table
from tfaudiotl.runtime.load import open_artifact
from tfaudiotl.training.distill import Distilled
from tfaudiotl.training.options import FineTuneOptions, FitOptions
from tfaudiotl.training.train import TrainingResult, train_classifier

WORK = ".work"  # sub-folder that keeps finished work until the training is complete
RESULTS = (
    "model.keras",
    "saved_model",
    "model.tflite",
    "model_float16.tflite",
    "labels.txt",
    "MODEL_CARD.md",
    "report",
    "metrics.json",
)


def train_folder(
    clips: Clips,
    output: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    fit: FitOptions | None = None,
    fine_tune: FineTuneOptions | None = None,
    progress: OnProgress = ignore,
    **options: Any,
) -> dict[str, Any]:
    """Trains on ``clips`` and fills ``output`` with the classifier, its exports and its report.

    Writes ``model.keras``, ``saved_model/``, ``model.tflite``, ``model_float16.tflite``, ``labels.txt``,
    ``metrics.json``, ``MODEL_CARD.md`` and ``report/``. Every exported file is opened again and compared with the Keras
    model on held-out clips. Work that is finished when the process is killed is kept in
    ``output/.work`` until the end; results that were there before stay until all new ones are whole.

    Args:
        clips: the labelled clips.
        output: the folder to write.
        overwrite: replace what is in a non-empty ``output``.
        resume: go on from the state of an interrupted run in ``output``.
        fit: how the head is trained.
        fine_tune: train the backbone's last blocks too, in this way; not with ``fit``.
        progress: called after each clip, epoch and file.
        **options: further arguments of ``train_classifier``.

    Returns:
        The contents of ``metrics.json``.

    Raises:
        FileExistsError: ``output`` is not empty, and neither ``overwrite`` nor ``resume`` was given.
        ValueError: ``resume`` with other settings than the interrupted run's.
    """
    start = perf_counter()
    how = (fine_tune or fit or FitOptions()).applied(multi_label=clips.multi_label)
    settings = {
        "fine_tune" if fine_tune else "fit": asdict(how),
        **options,
        "classes": list(clips.class_names),
        "clips": len(clips),
    }
    settings["precision"] = keras.config.dtype_policy().name
    output = Path(output)
    fresh = not output.exists()
    made_from = {**settings, **{f"clips: {name}": part for name, part in clips_parts(clips).items()}}
    made_from["versions"] = versions()
    work = _prepare(output, json.loads(json.dumps(made_from, default=str)), overwrite=overwrite, resume=resume)
    try:
        result = train_classifier(clips, fit=fit, fine_tune=fine_tune, workdir=work, progress=progress, **options)
    except DivergedError:  # other settings are needed, with which it cannot be continued
        shutil.rmtree(output if fresh else work)
        raise
    except Exception:
        if fresh and len(list(work.iterdir())) == 1:  # the settings: there is nothing to go on with
            shutil.rmtree(output)
        raise
    began = perf_counter()
    new = work / "new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    result.model.save(new / "model.keras")
    write_atomic(new / "labels.txt", "".join(f"{name}\n" for name in clips.class_names))
    checks = export_all(result, new, progress=progress)
    result.seconds["export_and_check"] = perf_counter() - began
    began = perf_counter()
    progress(Progress("Writing the report", 0, 1))
    title = f"Sound classifier: {', '.join(clips.class_names[:5])}{' ...' if len(clips.class_names) > 5 else ''}"
    card = model_card(result, checks, title=title, options=options, version=__version__)
    write_atomic(new / "MODEL_CARD.md", card)
    write_report(
        new / "report",
        title=title,
        evaluation=result.evaluation,
        histories=result.histories,
        sections=[
            Section("How it was measured", result.how_measured()),
            *_fold_section(result),
            _export_section(checks, result),
            *_skipped_section(result),
        ],
        sound=lambda row: (result.held_out.load(row), SAMPLE_RATE),
    )
    progress(Progress("Writing the report", 1, 1))
    result.seconds["report"] = perf_counter() - began
    result.seconds["total"] = perf_counter() - start
    metrics = _metrics(result, checks, settings)
    write_atomic(new / "metrics.json", json_text(metrics))
    _put_in_place(new, output, aside=work / "old")
    shutil.rmtree(work)
    return metrics


def _put_in_place(new: Path, output: Path, *, aside: Path) -> None:
    """Puts all results in the places of the old ones; whatever goes wrong, never some of these and some of those."""
    moved: list[tuple[Path, Path]] = []
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        for source, target in ((output, aside), (new, output)):
            for name in RESULTS:
                if os.path.lexists(source / name):
                    os.rename(source / name, target / name)
                    moved.append((source / name, target / name))
    except BaseException:
        for before, after in reversed(moved):
            os.rename(after, before)
        raise


def _prepare(output: Path, settings: dict[str, Any], *, overwrite: bool, resume: bool) -> Path:
    """Checks the output folder, and returns the one for unfinished work."""
    work = output / WORK
    if output.exists() and not output.is_dir():
        raise FileExistsError(f"output={str(output)!r} is a file; give a folder, new or empty")
    if resume:
        if not (work / "settings.json").is_file():
            raise ValueError(f"resume=True: {output} holds no unfinished training; run without it")
        before = json.loads((work / "settings.json").read_text(encoding="utf-8"))
        for known in (before, settings):
            known.pop("on_error", None)  # it decides what is left out, not how to train
        if ("fine_tune" in before) != ("fine_tune" in settings):  # one difference rather than two
            before, settings = ({"fine_tune": "fine_tune" in known} for known in (before, settings))
        if changed := [part.removeprefix("fit.") for part in changed_parts(before, settings)]:
            raise ValueError(
                f"resume=True: the interrupted run had other settings or clips ({'; '.join(changed)}); give the same, "
                "or overwrite=True"
            )
    elif output.is_dir() and any(output.iterdir()):
        if not overwrite:
            hint = "resume=True goes on with it, " if (work / "settings.json").is_file() else ""
            raise FileExistsError(f"output={str(output)!r} is not empty; {hint}overwrite=True replaces it")
        if work.is_dir() and any(work.iterdir()) and not (work / "settings.json").is_file():
            raise FileExistsError(f"{work} holds something else than an unfinished training; move it away")
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    write_atomic(work / "settings.json", json.dumps(settings, indent=2))
    return work


def export_all(result: TrainingResult, output: Path, *, progress: OnProgress = ignore) -> list[Check]:
    """Writes the exports into ``output`` and compares each, opened again, with the Keras model."""
    model = result.model
    exports: list[Callable[[], Path]] = [
        partial(export_saved_model, model, output / "saved_model", overwrite=True),
        partial(export_tflite, model, output / "model.tflite", overwrite=True),
        partial(export_tflite, model, output / "model_float16.tflite", quantize="float16", overwrite=True),
    ]
    files = [output / "model.keras"]
    for export in exports:
        progress(Progress("Exporting", len(files) - 1, len(exports)))
        files.append(export())
    progress(Progress("Exporting", len(exports), len(exports)))
    reference = Reference(open_artifact(model), result.kept, waveforms=result.kept_waveforms)
    checks: list[Check] = []
    for path in files:
        progress(Progress("Checking the exported files", len(checks), len(files)))
        checks.append(verify_export(reference, open_artifact(path, num_threads=1)))
    progress(Progress("Checking the exported files", len(files), len(files)))
    return checks


def _export_section(checks: list[Check], result: TrainingResult) -> Section:
    trained_on = " (the final model was trained on them: this compares files, not models)" if result.folds else ""
    note = (
        f"Each file was opened again and run beside the Keras model on {len(result.kept)} clips that were held out"
        f"{trained_on}, one window at a time: SavedModel and .keras files in windows of up to 10 s, a .tflite file in "
        "its own. A clip's class is that of its windows' scores, weighed by their patches. Times are medians of one "
        "window on one thread for .tflite, all threads for the others."
    )
    return Section("Exported files", f"{note}\n\n{checks_table(checks)}")


def _fold_section(result: TrainingResult) -> list[Section]:
    if not result.folds:
        return []
    rows = [(f.name, str(f.clips), f"{f.accuracy:.4f}", f"{f.macro_f1:.4f}", str(f.epochs)) for f in result.folds]
    accuracies = [fold.accuracy for fold in result.folds]
    note = (
        f"Mean accuracy {np.mean(accuracies):.4f}, standard deviation {np.std(accuracies):.4f}. The clips of a fold "
        "are predicted by a head trained on the other folds; the saved model is trained on all clips."
    )
    return [Section("Folds", f"{note}\n\n{markdown_table(['Fold', 'Clips', 'Accuracy', 'Macro F1', 'Epochs'], rows)}")]


def _skipped_section(result: TrainingResult) -> list[Section]:
    if not result.skipped:
        return []
    rows = [(escape_markdown(error.path), escape_markdown(error.reason)) for error in result.skipped]
    return [Section(f"Left out ({len(rows)})", markdown_table(["File", "Reason"], rows))]


def _metrics(result: TrainingResult, checks: list[Check], settings: dict[str, Any]) -> dict[str, Any]:
    metrics = result.evaluation.to_dict()
    if result.folds:
        accuracies = [fold.accuracy for fold in result.folds]
        metrics |= {
            "accuracy_mean": float(np.mean(accuracies)),
            "accuracy_std": float(np.std(accuracies)),
            "folds": [asdict(fold) for fold in result.folds],
        }
    metrics |= {
        "how_measured": result.how_measured(),
        "stopped_by_held_out": result.stopped_by_held_out,
        "epochs": result.epochs,
        "clips": len(result.clips),
        "patches": result.patches,
        "exports": [check.to_dict() for check in checks],
        "skipped": [{"path": error.path, "reason": error.reason} for error in result.skipped],
        "seconds": {stage: round(seconds, 3) for stage, seconds in result.seconds.items()},
        "settings": json.loads(json.dumps(settings, default=str)),
        "versions": {
            "tfaudiotl": __version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "python": platform.python_version(),
        },
    }
    return metrics


def save_student(result: Distilled, folder: str | Path) -> list[Path]:
    """Writes a student: a classifier as ``model.keras``, a backbone as ``student.npz`` (float16).

    Args:
        result: from ``distill``.
        folder: made if it is not there. ``distill.json`` in it tells the settings, the losses by epoch and the
            SHA-256 of the weights.

    Returns:
        The files.
    """
    folder = Path(folder)
    report: dict[str, Any] = {"settings": result.settings, "history": result.history, "seconds": result.seconds}
    with new_files(folder) as work:
        found = parts(result.model)
        if found.is_classifier:
            result.model.save(work / "model.keras")
            labels = "".join(f"{name}\n" for name in class_names_of(result.model))
            files = [work / "model.keras", write_atomic(work / "labels.txt", labels)]
        else:
            names = found.scores.class_names if found.scores else ()
            content = npz_bytes(result.model, class_names=names)
            report["sha256"] = sha256(content)
            files = [write_atomic(work / "student.npz", content)]
        files.append(write_atomic(work / "distill.json", json_text(report)))
    return [folder / file.name for file in files]
