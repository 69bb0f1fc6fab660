"""Is an exported file still the model? Both run on the same real sound, and every difference is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tfaudiotl.backbones.frontend import LogMelSpec
from tfaudiotl.embeddings.engine import trim_padding
from tfaudiotl.errors import ExportError
from tfaudiotl.evaluation.metrics import evaluate_scores
from tfaudiotl.evaluation.writing import markdown_table
from tfaudiotl.export.artifact import Artifact


@dataclass(frozen=True)
class Check:
    """How one exported file compares with the Keras model on the same windows of sound.

    Attributes:
        file: its name; kind: "saved_model", "tflite" or "keras".
        bytes: its size on disk.
        windows: number of windows compared.
        max_difference, mean_difference: of the scores.
        agreement: share of windows with the same best class (multi-label: the same set above 0.5).
        accuracy, keras_accuracy: of the clips, by the mean of their windows' scores.
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
        self.waveforms = [trim_padding(waveform) for waveform in waveforms]
        self._scores: dict[int | None, tuple[list[np.ndarray], float]] = {}

    def scores(self, samples: int | None) -> tuple[list[np.ndarray], float]:
        """For each clip the scores of its windows, and the median milliseconds per window."""
        if samples not in self._scores:
            self._scores[samples] = self.run(self.artifact, samples)
        return self._scores[samples]

    def run(self, artifact: Artifact, samples: int | None) -> tuple[list[np.ndarray], float]:
        """Runs ``artifact`` window by window over the clips."""
        milliseconds: list[float] = []
        scores = [_timed(artifact, clip_windows(clip, samples), milliseconds) for clip in self.waveforms]
        return scores, float(np.median(milliseconds))

    def accuracy(self, scores: Sequence[np.ndarray]) -> float:
        """Accuracy of the clips by the mean of their windows' scores."""
        by_clip = np.stack([rows.mean(axis=0) for rows in scores])
        names = self.artifact.class_names
        return evaluate_scores(by_clip, self.targets, class_names=names, multi_label=self.multi_label).accuracy


def verify_export(reference: Reference, exported: Artifact, *, min_agreement: float = 0.97) -> Check:
    """Runs an exported file on the reference's clips and compares.

    A file that takes any length gets whole clips; one with a fixed window gets the clips cut into such
    windows, and so does the Keras model.

    Args:
        reference: the Keras model and the clips.
        exported: the file, opened again.
        min_agreement: ExportError below this share of agreeing windows.

    Raises:
        ExportError: class names differ, scores are not finite, or agreement is too low.
    """
    if exported.class_names != reference.artifact.class_names:
        raise ExportError(f"{exported.path}: its class names differ from the model's")
    theirs, milliseconds = reference.run(exported, exported.samples)
    ours, keras_milliseconds = reference.scores(exported.samples)
    a, b = np.concatenate(theirs), np.concatenate(ours)
    if not np.isfinite(a).all():
        raise ExportError(f"{exported.path}: gives scores that are not finite")
    decided = (lambda scores: scores >= 0.5) if reference.multi_label else (lambda scores: scores.argmax(1)[:, None])
    same = (decided(a) == decided(b)).all(axis=1)
    path = Path(exported.path)
    check = Check(
        file=path.name,
        kind=exported.kind,
        bytes=sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if path.is_dir() else path.stat().st_size,
        windows=len(a),
        max_difference=float(np.abs(a - b).max()),
        mean_difference=float(np.abs(a - b).mean()),
        agreement=float(same.mean()),
        accuracy=reference.accuracy(theirs),
        keras_accuracy=reference.accuracy(ours),
        milliseconds=milliseconds,
        keras_milliseconds=keras_milliseconds,
    )
    if check.agreement < min_agreement:
        raise ExportError(
            f"{exported.path}: agrees with the Keras model on {check.agreement:.1%} of {check.windows} windows, "
            f"less than min_agreement={min_agreement:.1%}"
        )
    return check


def cut_windows(waveform: np.ndarray, samples: int | None, hop: int | None = None) -> np.ndarray:
    """``(windows, samples)`` of a clip: one after the other, the last padded with zeros; whole for None."""
    if samples is None:
        return waveform[None]
    hop = hop or samples
    count = 1 + max(0, -(-(len(waveform) - samples) // hop))
    padded = np.pad(waveform, (0, max(0, (count - 1) * hop + samples - len(waveform))))
    return np.stack([padded[i * hop : i * hop + samples] for i in range(count)])


def clip_windows(waveform: np.ndarray, samples: int | None) -> np.ndarray:
    """``(windows, samples)`` of a clip whose mean scores are the clip's; whole for None.

    The windows overlap as YAMNet's patches do, so that windows of one patch are the patches that the Keras
    model averages. Without an overlap a clip of 0.98 s would have a second window of nothing but padding.
    """
    spec = LogMelSpec()
    overlap = spec.min_samples - spec.patch_hop_samples
    return cut_windows(waveform, samples, samples - overlap if samples and samples > overlap else None)


def _timed(artifact: Artifact, windows: np.ndarray, milliseconds: list[float]) -> np.ndarray:
    rows = []
    for window in windows:
        start = perf_counter()
        rows.append(artifact.scores(window[None])[0])
        milliseconds.append(1e3 * (perf_counter() - start))
    return np.stack(rows)


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
