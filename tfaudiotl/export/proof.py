"""The proof that goes with an exported file: what it is, and how it compares on real clips."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import keras
import numpy as np

from tfaudiotl._files import write_atomic
from tfaudiotl.audio.clips import Clips
from tfaudiotl.errors import ExportError
from tfaudiotl.evaluation.metrics import evaluate_scores
from tfaudiotl.evaluation.writing import escape_markdown, json_text, markdown_table
from tfaudiotl.export.audit import Audit
from tfaudiotl.export.check import Agreement, Pieces, bytes_of, compare
from tfaudiotl.export.litert import Latency, measure_latency, peak_memory
from tfaudiotl.export.load import Artifact, open_artifact
from tfaudiotl.export.sound import Sound, waveforms_of

WORST = 5  # clips named


@dataclass(frozen=True)
class Compared:
    """How one form of the model does on the clips.

    Attributes:
        file: its name; kind: "keras", "saved_model" or "tflite".
        bytes: on disk; 0 for the model in memory.
        agreement: share of windows with the Keras model's best class; for embeddings NaN.
        max_difference, mean_difference: of the scores (embeddings: of the numbers).
        accuracy, macro_f1: of the clips; None without labels.
        cosine: least cosine between embeddings; None for classifiers.
    """

    file: str
    kind: str
    bytes: int
    agreement: float | None
    max_difference: float
    mean_difference: float
    accuracy: float | None = None
    macro_f1: float | None = None
    cosine: float | None = None


@dataclass(frozen=True)
class Proof:
    """What ``export_tflite`` writes beside the file.

    Attributes:
        compared: the Keras model, a SavedModel of it, the float file and the file itself.
        latencies: with 1 and 2 threads.
        peak_memory: bytes that loading and running the file adds to a bare process, or None.
        audit: the file's contents.
        windows, clips: how many were compared.
        worst: clips that differ most: name, and largest difference of a score.
        sensitivity: block -> agreement when that block alone is int8.
        calibrated: how many of the clips are of recordings that the file was calibrated on.
    """

    compared: list[Compared]
    latencies: list[Latency]
    peak_memory: int | None
    audit: Audit
    windows: int
    clips: int
    worst: list[tuple[str, float]] = field(default_factory=list)
    sensitivity: dict[str, float] = field(default_factory=dict)
    calibrated: int = 0

    def save(self, path: Path) -> tuple[Path, Path]:
        """Writes NAME.report.md and NAME.report.json beside ``path``."""
        content = json_text(asdict(self) | {"audit": self.audit.to_dict()}, indent=1)
        text, data = report_paths(path)
        return write_atomic(text, self.to_markdown(path.name)), write_atomic(data, content)

    def _warning(self) -> str:
        if not self.calibrated:
            return ""
        return (
            f"{self.calibrated} of the {self.clips} clips are of recordings that the file was calibrated on: on others "
            "it may agree less."
        )

    def to_markdown(self, name: str) -> str:
        """The report."""
        rows = [
            (
                c.file,
                f"{c.bytes / 1e6:.2f}" if c.bytes else None,
                c.agreement if c.agreement is None else f"{c.agreement:.4f}",
                f"{c.max_difference:.2g}",
                f"{c.mean_difference:.2g}",
                *(None if x is None else f"{x:.4f}" for x in (c.accuracy, c.macro_f1, c.cosine)),
            )
            for c in self.compared
        ]
        header = ["Form", "MB", "Agreement", "Largest", "Mean difference", "Accuracy", "Macro F1", "Cosine"]
        times = [
            (t.threads, *(f"{x:.2f}" for x in (t.median, t.p95, t.float_median, t.float_p95, t.ratio)))
            for t in self.latencies
        ]
        parts = [
            f"# {escape_markdown(name)}",
            f"{self.windows} windows of {self.clips} clips; agreement, differences and cosine against the Keras model.",
            self._warning(),
            markdown_table(header, rows),
            "## Milliseconds per window",
            markdown_table(["Threads", "Median", "p95", "Float", "Float p95", "Ratio"], times),
            "" if self.peak_memory is None else f"Memory to load and run it: {self.peak_memory / 1e6:.1f} MB.",
            "## What is in the file",
            self.audit.to_markdown(),
        ]
        if self.worst:
            listed = [(escape_markdown(clip), f"{difference:.3f}") for clip, difference in self.worst]
            parts += ["## Clips that differ most", markdown_table(["Clip", "Largest difference"], listed)]
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
    model: keras.Model, path: Path, plain: bytes, sound: Sound, *, audit: Audit, min_agreement: float = 0.97
) -> Proof:
    """Runs the Keras model, a SavedModel, the float file and the file at ``path`` on the same clips.

    Args:
        model: the Keras model.
        path: the .tflite file.
        plain: the bytes of its float twin.
        sound: clips or waveforms.
        audit: of the file.
        min_agreement: ExportError below it (for embeddings: below this least cosine).

    Raises:
        ExportError: too little agreement, or numbers that are not finite; the worst clips are named.
        ValueError: there are no clips.
    """
    if not len(sound):
        raise ValueError("verify is empty: at least one clip is needed to compare on")
    keras_form = open_artifact(model)
    waveforms = waveforms_of(sound, sample_rate=keras_form.sample_rate)
    names = list(sound.paths) if isinstance(sound, Clips) else [f"waveform {i}" for i in range(len(waveforms))]
    with tempfile.TemporaryDirectory() as folder:
        twin = Path(folder) / "float.tflite"
        twin.write_bytes(plain)
        forms = [keras_form, *_saved_model(model, Path(folder)), *(_tflite(p, keras_form) for p in (twin, path))]
        pieces = Pieces(forms[-1], waveforms)
        wanted = pieces.run(keras_form)
        compared: list[Compared] = []
        found = None
        for form in forms:
            given = wanted if form is keras_form else pieces.run(form)
            found = compare(
                Path(form.path).name,
                given,
                wanted,
                classifier=bool(form.class_names),
                multi_label=isinstance(sound, Clips) and sound.multi_label,
            )
            compared.append(_compared(form, found, pieces.clip_scores(given), sound))
        latencies = [measure_latency(path, twin, threads=threads) for threads in (1, 2)]
    assert found is not None  # there are two forms at least
    worst = sorted(zip(names, found.worst, strict=True), key=lambda pair: -pair[1])[:WORST]
    proof = Proof(compared, latencies, peak_memory(path), audit, found.windows, len(waveforms), worst)
    _judge(path, compared[-1], worst, min_agreement)
    return proof


def _saved_model(model: keras.Model, folder: Path) -> list[Artifact]:
    from tfaudiotl.export.prepare import is_classifier, takes_patches
    from tfaudiotl.export.savedmodel import export_saved_model

    if takes_patches(model) or not is_classifier(model):
        return []
    return [open_artifact(export_saved_model(model, folder / "saved_model"))]


def _tflite(path: Path, keras_form: Artifact) -> Artifact:
    return open_artifact(path, class_names=keras_form.class_names, num_threads=1)


def _compared(form: Artifact, found: Agreement, scores: np.ndarray, sound: Sound) -> Compared:
    """The row of one form, with its measures on the clips if they are labelled with the model's classes."""
    accuracy, f1 = None, None
    if form.class_names and isinstance(sound, Clips) and tuple(sound.class_names) == form.class_names:
        measured = evaluate_scores(scores, sound.targets, class_names=form.class_names, multi_label=sound.multi_label)
        accuracy, f1 = measured.accuracy, measured.macro_f1
    return Compared(
        Path(form.path).name,
        form.kind,
        bytes_of(form.path),
        found.agreement,
        found.max_difference,
        found.mean_difference,
        accuracy,
        f1,
        found.cosine,
    )


def _judge(path: Path, found: Compared, worst: Sequence[tuple[str, float]], least: float) -> None:
    value = found.cosine if found.agreement is None else found.agreement
    if value is not None and value < least:
        measure = "least cosine" if found.agreement is None else "agreement"
        named = ", ".join(f"{Path(name).name} ({difference:.2f})" for name, difference in worst)
        raise ExportError(
            f"{path.name}: {measure} with the Keras model is {value:.4f}, less than min_agreement={least}; "
            f"clips that differ most: {named}"
        )
