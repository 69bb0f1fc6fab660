"""Is an exported file still the model? Both run on the same real sound, and every difference is counted.

Clips are cut as the file takes them, on the model's own grid of patches, and a clip's scores are those of
``load.score_clip``: so a file's report, ``train``'s metrics and ``export --verify`` say the same of it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import keras
import numpy as np

from tfaudiotl._files import write_atomic
from tfaudiotl._threads import map_ahead
from tfaudiotl.audio.waveform import pieces_of
from tfaudiotl.classifiers.anatomy import parts
from tfaudiotl.data.clips import Clips
from tfaudiotl.errors import ExportError
from tfaudiotl.evaluation.metrics import evaluate_scores
from tfaudiotl.export.savedmodel import export_saved_model
from tfaudiotl.markdown import escape_markdown, json_text, markdown_table
from tfaudiotl.runtime.load import Artifact, open_artifact, weighted_mean
from tfaudiotl.tflite.audit import Audit
from tfaudiotl.tflite.litert import Latency, measure_latency, peak_memory

Sound = Clips | Sequence[np.ndarray]  # labelled clips, or waveforms at the model's rate

MIN_AGREEMENT = 0.97
WORST = 5  # clips named


def waveforms_of(sound: Sound, *, sample_rate: int, limit: int | None = None) -> list[np.ndarray]:
    """The clips' samples at ``sample_rate``; of more than ``limit``, evenly chosen ones."""
    rows = np.arange(len(sound))
    if limit is not None and len(rows) > limit:
        rows = rows[np.linspace(0, len(rows) - 1, limit).astype(int)]
    if isinstance(sound, Clips):
        return list(map_ahead(lambda row: sound.load(int(row), sample_rate=sample_rate), rows))
    return [np.asarray(sound[int(row)], np.float32) for row in rows]


class Pieces:
    """Some clips, cut once as one form of a model takes them; every form that is compared runs on these.

    Args:
        artifact: the form whose window decides.
        waveforms: the clips' samples at the model's rate.
    """

    def __init__(self, artifact: Artifact, waveforms: Sequence[np.ndarray]):
        cuts = [pieces_of(waveform, artifact.grid, artifact.samples) for waveform in waveforms]
        self.windows = [[window for window, _ in clip] for clip in cuts]
        self.weights = [np.array([patches for _, patches in clip]) for clip in cuts]

    def clip_scores(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Scores of the clips ``(clips, classes)`` from their pieces'."""
        return np.stack([weighted_mean(*pair) for pair in zip(rows, self.weights, strict=True)])

    def run(self, scores: Callable[[np.ndarray], np.ndarray]) -> tuple[list[np.ndarray], float]:
        """For each clip its pieces' scores ``(pieces, classes)``, one piece at a time, and the median milliseconds."""
        milliseconds: list[float] = []
        found = []
        for windows in self.windows:
            rows = []
            for window in windows:
                start = perf_counter()
                rows.append(scores(window[None])[0])
                milliseconds.append(1e3 * (perf_counter() - start))
            found.append(np.stack(rows))
        return found, float(np.median(milliseconds))


@dataclass(frozen=True)
class Check:
    """How one form of a model compares with the Keras model on the same pieces of the same clips.

    Attributes:
        file: its name; kind: "saved_model", "tflite" or "keras".
        bytes: its size on disk; 0 for a model in memory.
        windows: number of pieces compared.
        max_difference, mean_difference: of the scores (embeddings: of the numbers).
        agreement: share of pieces with the same best class (multi-label: the same set above 0.5); None for embeddings.
        cosine: least cosine between embeddings; None for classifiers.
        accuracy, macro_f1, keras_accuracy: of the clips; None without labels.
        milliseconds: median time per piece, one piece at a time; keras_milliseconds likewise.
        differences: for each clip the largest difference of a number.
    """

    file: str
    kind: str
    bytes: int
    windows: int
    max_difference: float
    mean_difference: float
    agreement: float | None
    cosine: float | None
    accuracy: float | None
    macro_f1: float | None
    keras_accuracy: float | None
    milliseconds: float
    keras_milliseconds: float
    differences: tuple[float, ...] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the clips' differences."""
        return {name: value for name, value in asdict(self).items() if name != "differences"}


class Reference:
    """The Keras model's scores of some clips, computed once per window length.

    Args:
        artifact: the Keras model.
        sound: labelled clips, or waveforms at the model's rate.
        waveforms: the clips' samples at that rate, where they were read already.

    Raises:
        ValueError: there are no clips.
    """

    def __init__(self, artifact: Artifact, sound: Sound, *, waveforms: Sequence[np.ndarray] | None = None):
        if not len(sound):
            raise ValueError("verify is empty: at least one clip is needed to compare on")
        self.artifact, names = artifact, artifact.class_names
        self.waveforms = list(waveforms or waveforms_of(sound, sample_rate=artifact.sample_rate))
        self.names = list(sound.paths) if isinstance(sound, Clips) else [f"waveform {i}" for i in range(len(sound))]
        self.multi_label = isinstance(sound, Clips) and sound.multi_label
        labelled = isinstance(sound, Clips) and names and tuple(sound.class_names) == names
        self.targets = sound.targets if isinstance(sound, Clips) and labelled else None
        self._runs: dict[int | None, tuple[Pieces, list[np.ndarray], float]] = {}

    def run(self, exported: Artifact) -> tuple[Pieces, list[np.ndarray], float]:
        """The clips cut as ``exported`` takes them, for each its pieces' scores, and the median milliseconds of one."""
        if exported.samples not in self._runs:
            pieces = Pieces(exported, self.waveforms)
            self._runs[exported.samples] = (pieces, *pieces.run(self.artifact.scores))
        return self._runs[exported.samples]

    def measures(self, scores: np.ndarray) -> tuple[float | None, float | None]:
        """Accuracy and macro F1 of the clips by their scores ``(clips, classes)``; None without labels."""
        if self.targets is None:
            return None, None
        names = self.artifact.class_names
        found = evaluate_scores(scores, self.targets, class_names=names, multi_label=self.multi_label)
        return found.accuracy, found.macro_f1

    def worst(self, check: Check) -> list[tuple[str, float]]:
        """The clips that differ most: name, and largest difference of a number."""
        return sorted(zip(self.names, check.differences, strict=True), key=lambda pair: -pair[1])[:WORST]


def verify_export(reference: Reference, exported: Artifact, *, min_agreement: float = MIN_AGREEMENT) -> Check:
    """Runs an exported file on the reference's clips and compares.

    The clips are cut as the file takes them (a file of any length gets pieces of up to 10 s), and both score the same
    pieces.

    Args:
        reference: the Keras model and the clips.
        exported: the file, opened again; or the Keras model itself.
        min_agreement: least share of agreeing windows; for embeddings least cosine.

    Raises:
        ExportError: class names differ, numbers are not finite, or agreement is too low; the worst clips are named.
    """
    if exported.class_names != reference.artifact.class_names:
        raise ExportError(f"{exported.path}: its class names differ from the model's")
    pieces, ours, keras_milliseconds = reference.run(exported)
    same = exported is reference.artifact
    theirs, milliseconds = (ours, keras_milliseconds) if same else pieces.run(exported.scores)
    a, b = np.concatenate(theirs), np.concatenate(ours)
    if not np.isfinite(a).all():
        raise ExportError(
            f"{exported.path}: gives {'scores' if exported.class_names else 'numbers'} that are not finite"
        )
    accuracy, macro_f1 = reference.measures(pieces.clip_scores(theirs))
    check = Check(
        file=Path(exported.path).name,
        kind=exported.kind,
        bytes=_bytes_of(exported.path),
        windows=len(a),
        max_difference=float(np.abs(a - b).max()),
        mean_difference=float(np.abs(a - b).mean()),
        agreement=_agreement(a, b, multi_label=reference.multi_label) if exported.class_names else None,
        cosine=None if exported.class_names else _least_cosine(a, b),
        accuracy=accuracy,
        macro_f1=macro_f1,
        keras_accuracy=reference.measures(pieces.clip_scores(ours))[0],
        milliseconds=milliseconds,
        keras_milliseconds=keras_milliseconds,
        differences=tuple(float(np.abs(x - y).max()) for x, y in zip(theirs, ours, strict=True)),
    )
    _judge(reference, check, min_agreement)
    return check


def _agreement(a: np.ndarray, b: np.ndarray, *, multi_label: bool) -> float:
    same = ((a >= 0.5) == (b >= 0.5)).all(axis=1) if multi_label else a.argmax(axis=1) == b.argmax(axis=1)
    return float(same.mean())


def _least_cosine(a: np.ndarray, b: np.ndarray) -> float:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(norms, 1e-12)).min())


def _bytes_of(path: str) -> int:
    """Size of a file or folder; 0 for a model in memory."""
    place = Path(path)
    if place.is_dir():
        return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    return place.stat().st_size if place.is_file() else 0


def _judge(reference: Reference, check: Check, least: float) -> None:
    value = check.cosine if check.agreement is None else check.agreement
    if value is not None and value < least:
        measure = "least cosine" if check.agreement is None else "agreement"
        named = ", ".join(f"{Path(name).name} ({difference:.2f})" for name, difference in reference.worst(check))
        raise ExportError(
            f"{check.file}: {measure} with the Keras model is {value:.4f} on {check.windows} windows, less than "
            f"min_agreement={least}; clips that differ most: {named}"
        )


def checks_table(checks: Sequence[Check]) -> str:
    """The checks as a Markdown table; figures that no form has are left out."""
    columns: dict[str, Callable[[Check], str | None]] = {
        "File": lambda check: check.file,
        "MB": lambda check: f"{check.bytes / 1e6:.2f}" if check.bytes else None,
        "Windows": lambda check: str(check.windows),
        "Largest difference": lambda check: f"{check.max_difference:.2g}",
        "Mean difference": lambda check: f"{check.mean_difference:.2g}",
        "Agreement": lambda check: _digits(check.agreement),
        "Cosine": lambda check: _digits(check.cosine),
        "Accuracy": lambda check: _digits(check.accuracy),
        "Macro F1": lambda check: _digits(check.macro_f1),
        "Keras": lambda check: _digits(check.keras_accuracy),
        "ms": lambda check: f"{check.milliseconds:.2f}",
        "Keras ms": lambda check: f"{check.keras_milliseconds:.2f}",
    }
    cells = {name: [text(check) for check in checks] for name, text in columns.items()}
    cells = {name: found for name, found in cells.items() if any(found)}
    return markdown_table(list(cells), list(zip(*cells.values(), strict=True)))


def _digits(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


@dataclass(frozen=True)
class Proof:
    """What ``export_tflite`` writes beside the file.

    Attributes:
        compared: the Keras model, a SavedModel of it, the float file and the file itself.
        latencies: with 1 and 2 threads.
        peak_memory: bytes that loading and running the file adds to a bare process, or None.
        audit: the file's contents.
        clips: how many were compared.
        worst: clips that differ most: name, and largest difference of a score.
        sensitivity: block -> agreement when that block alone is int8.
        calibrated: how many of the clips are of recordings that the file was calibrated on.
    """

    compared: list[Check]
    latencies: list[Latency]
    peak_memory: int | None
    audit: Audit
    clips: int
    worst: list[tuple[str, float]]
    sensitivity: dict[str, float]
    calibrated: int

    def save(self, path: Path) -> tuple[Path, Path]:
        """Writes NAME.report.md and NAME.report.json beside ``path``."""
        compared = [check.to_dict() for check in self.compared]
        content = json_text(asdict(self) | {"compared": compared, "audit": self.audit.to_dict()}, indent=1)
        text, data = report_paths(path)
        return write_atomic(text, self.to_markdown(path.name)), write_atomic(data, content)

    def to_markdown(self, name: str) -> str:
        """The report."""
        times = [
            (t.threads, *(f"{x:.2f}" for x in (t.median, t.p95, t.float_median, t.float_p95, t.ratio)))
            for t in self.latencies
        ]
        warning = (
            f"{self.calibrated} of the {self.clips} clips are of recordings that the file was calibrated on: on others "
            "it may agree less."
        )
        parts = [
            f"# {escape_markdown(name)}",
            f"{self.clips} clips, cut as each form takes them; agreement, differences and cosine against the Keras "
            "model on the same windows.",
            warning if self.calibrated else "",
            checks_table(self.compared),
            "## Milliseconds per window",
            markdown_table(["Threads", "Median", "p95", "Float", "Float p95", "Ratio"], times),
            "" if self.peak_memory is None else f"Memory to load and run it: {self.peak_memory / 1e6:.1f} MB.",
            "## What is in the file",
            self.audit.to_markdown(),
            "## Clips that differ most",
            markdown_table(
                ["Clip", "Largest difference"], [(escape_markdown(clip), f"{most:.3f}") for clip, most in self.worst]
            ),
        ]
        if self.sensitivity:
            listed = [(block, f"{agreement:.3f}") for block, agreement in self.sensitivity.items()]
            parts += [
                "## Sensitivity",
                "Agreement with the float file on calibration windows when one block alone is static int8:",
                markdown_table(["Block", "Agreement"], listed),
            ]
        return "\n\n".join(part for part in parts if part) + "\n"


def report_paths(path: Path) -> tuple[Path, Path]:
    """Where a file's report is written: NAME.report.md and NAME.report.json."""
    return path.with_suffix(".report.md"), path.with_suffix(".report.json")


def prove(
    model: keras.Model,
    path: Path,
    plain: bytes,
    sound: Sound,
    *,
    audit: Audit,
    min_agreement: float,
    sensitivity: dict[str, float],
    calibrate: Sound | None,
) -> Proof:
    """Runs the Keras model, a SavedModel, the float file and the file at ``path`` on the same clips.

    Args:
        model: the Keras model.
        path: the .tflite file.
        plain: the bytes of its float twin.
        sound: clips or waveforms.
        audit: of the file.
        min_agreement: of the file; ExportError below it (for embeddings: below this least cosine).
        sensitivity: for the report.
        calibrate: what the file was calibrated on.

    Raises:
        ExportError: too little agreement, or numbers that are not finite; the worst clips are named.
        ValueError: there are no clips.
    """
    keras_form = open_artifact(model)
    reference, own = Reference(keras_form, sound), parts(model)

    def tflite(file: Path) -> Artifact:
        return open_artifact(file, class_names=keras_form.class_names, num_threads=1)

    with tempfile.TemporaryDirectory() as folder:
        twin = Path(folder) / "float.tflite"
        twin.write_bytes(plain)
        others = [keras_form]
        if own.scores is not None and not own.takes_patches:
            others.append(open_artifact(export_saved_model(model, Path(folder) / "saved_model")))
        compared = [verify_export(reference, form, min_agreement=-1) for form in (*others, tflite(twin))]
        compared.append(verify_export(reference, tflite(path), min_agreement=min_agreement))
        latencies = [measure_latency(path, twin, threads=threads) for threads in (1, 2)]
    return Proof(
        compared=compared,
        latencies=latencies,
        peak_memory=peak_memory(path),
        audit=audit,
        clips=len(sound),
        worst=reference.worst(compared[-1]),
        sensitivity=sensitivity,
        calibrated=0 if calibrate is None else same_sounds(calibrate, sound),
    )


def same_sounds(calibrate: Sound, verify: Sound) -> int:
    """How many sounds of ``verify`` are of recordings in ``calibrate`` as well; a warning if there are any."""
    known = set(_identities(calibrate))
    shared = sum(identity in known for identity in _identities(verify))
    if shared:
        warnings.warn(
            f"verify: {shared} of {len(verify)} clips are of recordings in calibrate; others may agree less",
            stacklevel=4,
        )
    return shared


def _identities(sound: Sound) -> list[str | bytes]:
    """Of each sound: its file, or a digest of its samples where it is in memory."""
    paths = sound.paths if isinstance(sound, Clips) else [""] * len(sound)
    found: list[str | bytes] = []
    for row, path in enumerate(paths):
        if os.path.isfile(path):
            found.append(os.path.realpath(path))
        else:
            samples = sound.load(row) if isinstance(sound, Clips) else np.asarray(sound[row], np.float32)
            found.append(hashlib.sha256(samples.tobytes()).digest())
    return found
