"""Is an exported file still the model? Both run on the same real sound, and every difference is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tfaudiotl.errors import ExportError
from tfaudiotl.evaluation.metrics import evaluate_scores
from tfaudiotl.evaluation.writing import markdown_table
from tfaudiotl.export.check import Pieces, bytes_of, compare
from tfaudiotl.export.load import Artifact


@dataclass(frozen=True)
class Check:
    """How one exported file compares with the Keras model on the same windows of sound.

    Attributes:
        file: its name; kind: "saved_model", "tflite" or "keras".
        bytes: its size on disk.
        windows: number of windows compared.
        max_difference, mean_difference: of the scores.
        agreement: share of windows with the same best class (multi-label: the same set above 0.5).
        accuracy, keras_accuracy: of the clips, by their scores as ``export.check`` defines them.
        milliseconds: median time per window, one window at a time; keras_milliseconds likewise.
    """

    file: str
    kind: str
    bytes: int
    windows: int
    max_difference: float
    mean_difference: float
    agreement: float
    accuracy: float
    keras_accuracy: float
    milliseconds: float
    keras_milliseconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


class Reference:
    """The Keras model's scores of some clips, computed once per window length.

    Args:
        artifact: the Keras model.
        waveforms: the clips' samples at the model's rate.
        targets: ``(clips, classes)``.
        multi_label: whether the classes are independent.
    """

    def __init__(
        self, artifact: Artifact, waveforms: Sequence[np.ndarray], targets: np.ndarray, *, multi_label: bool = False
    ):
        if not len(waveforms):
            raise ValueError("waveforms is empty: at least one clip is needed to compare on")
        self.artifact, self.targets, self.multi_label = artifact, targets, multi_label
        self.waveforms = list(waveforms)
        self._scores: dict[int | None, tuple[Pieces, list[np.ndarray], float]] = {}

    def scores(self, exported: Artifact) -> tuple[Pieces, list[np.ndarray], float]:
        """The clips cut as ``exported`` takes them, for each its pieces' scores, and the median milliseconds of one."""
        if exported.samples not in self._scores:
            pieces = Pieces(exported, self.waveforms)
            self._scores[exported.samples] = (pieces, *_timed(self.artifact, pieces))
        return self._scores[exported.samples]

    def accuracy(self, scores: np.ndarray) -> float:
        """Accuracy of the clips by their scores ``(clips, classes)``."""
        names = self.artifact.class_names
        return evaluate_scores(scores, self.targets, class_names=names, multi_label=self.multi_label).accuracy


def verify_export(reference: Reference, exported: Artifact, *, min_agreement: float = 0.97) -> Check:
    """Runs an exported file on the reference's clips and compares.

    The clips are cut as the file takes them (a file of any length gets whole clips of up to 10 s), and both score the
    same pieces.

    Args:
        reference: the Keras model and the clips.
        exported: the file, opened again.
        min_agreement: ExportError below this share of agreeing windows.

    Raises:
        ExportError: class names differ, scores are not finite, or agreement is too low.
    """
    if exported.class_names != reference.artifact.class_names:
        raise ExportError(f"{exported.path}: its class names differ from the model's")
    pieces, ours, keras_milliseconds = reference.scores(exported)
    theirs, milliseconds = _timed(exported, pieces)
    found = compare(exported.path, theirs, ours, classifier=True, multi_label=reference.multi_label)
    assert found.agreement is not None  # of classifiers
    check = Check(
        file=Path(exported.path).name,
        kind=exported.kind,
        bytes=bytes_of(exported.path),
        windows=found.windows,
        max_difference=found.max_difference,
        mean_difference=found.mean_difference,
        agreement=found.agreement,
        accuracy=reference.accuracy(pieces.clip_scores(theirs)),
        keras_accuracy=reference.accuracy(pieces.clip_scores(ours)),
        milliseconds=milliseconds,
        keras_milliseconds=keras_milliseconds,
    )
    if check.agreement < min_agreement:
        raise ExportError(
            f"{exported.path}: agrees with the Keras model on {check.agreement:.1%} of {check.windows} windows, "
            f"less than min_agreement={min_agreement:.1%}"
        )
    return check


def _timed(artifact: Artifact, pieces: Pieces) -> tuple[list[np.ndarray], float]:
    """For each clip its pieces' scores, and the median milliseconds of one."""
    milliseconds: list[float] = []
    scores = []
    for windows in pieces.windows:
        rows = []
        for window in windows:
            start = perf_counter()
            rows.append(artifact.scores(window[None])[0])
            milliseconds.append(1e3 * (perf_counter() - start))
        scores.append(np.stack(rows))
    return scores, float(np.median(milliseconds))


def checks_table(checks: Sequence[Check]) -> str:
    """The checks as a Markdown table."""
    header = [
        "File",
        "MB",
        "Windows",
        "Largest difference",
        "Agreement",
        "Accuracy",
        "Keras",
        "ms",
        "Keras ms",
    ]
    rows = [
        (
            check.file,
            f"{check.bytes / 1e6:.2f}",
            str(check.windows),
            f"{check.max_difference:.2g}",
            f"{check.agreement:.4f}",
            f"{check.accuracy:.4f}",
            f"{check.keras_accuracy:.4f}",
            f"{check.milliseconds:.2f}",
            f"{check.keras_milliseconds:.2f}",
        )
        for check in checks
    ]
    return markdown_table(header, rows)
