"""A clip's scores, and how far two forms of a model agree on them: one definition for every form and every use.

A clip is cut on the model's own grid of patches (``audio.waveform.cut``), each piece is scored, and the clip's score is
the mean of the pieces' weighed by their patches. For a head on patches that is the mean over the clip's patches
whatever the pieces are; a head on a clip's patches together takes pieces of the model's own window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from tfaudiotl.audio.waveform import Piece, Sound, cut, pieces_of, read_piece, sounding
from tfaudiotl.errors import ExportError
from tfaudiotl.export.load import Artifact

PATCHES_AT_ONCE = 20  # in a run of pieces of one length: as many as YAMNet has in a piece of 10 s, so no more memory


def score_clip(artifact: Artifact, sound: Sound) -> np.ndarray:
    """Scores ``(classes,)`` of a whole clip at the model's rate, the zeros at its end left off."""
    rows, weights = score_pieces(artifact, sound)
    return weighted_mean(rows, weights)


def score_pieces(artifact: Artifact, sound: Sound) -> tuple[np.ndarray, np.ndarray]:
    """Scores ``(pieces, classes)`` and weights ``(pieces,)`` of a clip's pieces, in the model's own window."""
    pieces = cut(sounding(sound), artifact.grid, artifact.samples)
    rows = [artifact.scores(batch) for batch in _batches(sound, pieces, artifact)]
    return np.concatenate(rows), np.array([piece.patches for piece in pieces])


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


@dataclass(frozen=True)
class Agreement:
    """How one form of a model compares with another on the same pieces of the same clips.

    Attributes:
        windows: number of pieces.
        agreement: share of them with the same best class (multi-label: the same set above 0.5); None for embeddings.
        max_difference, mean_difference: of the numbers.
        cosine: least cosine between embeddings; None for classifiers.
        worst: for each clip the largest difference.
    """

    windows: int
    agreement: float | None
    max_difference: float
    mean_difference: float
    cosine: float | None
    worst: tuple[float, ...]


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

    def run(self, artifact: Artifact) -> list[np.ndarray]:
        """For each clip its pieces' scores ``(pieces, classes)``, one piece at a time."""
        return [np.concatenate([artifact.scores(window[None]) for window in clip]) for clip in self.windows]


def compare(
    path: str, given: Sequence[np.ndarray], wanted: Sequence[np.ndarray], *, classifier: bool, multi_label: bool
) -> Agreement:
    """Compares the pieces' numbers of two forms, clip by clip.

    Args:
        path: of the form that is checked, for messages.
        given: its numbers, for each clip ``(pieces, n)``.
        wanted: those of the Keras model.
        classifier: the numbers are scores of classes, else embeddings.
        multi_label: the classes are independent of each other.

    Raises:
        ExportError: numbers that are not finite.
    """
    a, b = np.concatenate(given), np.concatenate(wanted)
    if not np.isfinite(a).all():
        raise ExportError(f"{path}: gives {'scores' if classifier else 'numbers'} that are not finite")
    share, cosine = None, None
    if classifier:
        same = ((a >= 0.5) == (b >= 0.5)).all(axis=1) if multi_label else a.argmax(axis=1) == b.argmax(axis=1)
        share = float(same.mean())
    else:
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosine = float(((a * b).sum(axis=1) / np.maximum(norms, 1e-12)).min())
    difference = np.abs(a - b)
    worst = tuple(float(np.abs(x - y).max()) for x, y in zip(given, wanted, strict=True))
    return Agreement(len(a), share, float(difference.max()), float(difference.mean()), cosine, worst)


def bytes_of(path: str) -> int:
    """Size of a file or folder; 0 for a model in memory."""
    place = Path(path)
    if place.is_dir():
        return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    return place.stat().st_size if place.is_file() else 0
