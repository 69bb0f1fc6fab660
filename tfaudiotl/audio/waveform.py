"""Cutting sound on a network's own grid of patches, so that the pieces together say what the whole says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from tfaudiotl.backbones.frontend import PatchGrid

CLIP_SECONDS = (
    10.0  # sound of up to this length (in whole patches) is one piece, in training as in use: AudioSet's clips
)
FAINTEST = np.float32(1e-30)  # not zero, and nothing to any network: marks the end of a piece whose sound is silence


_LOOK = 1 << 16  # samples looked at together for the end of the sound


class Sound(Protocol):
    """Samples at the model's rate that can be measured and sliced: an array, or a long file read in parts."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Piece:
    """A part of a clip: samples ``start`` to before ``stop``, and the number of patches in it, which is its weight."""

    start: int
    stop: int
    patches: int


def trim_padding(waveform: np.ndarray) -> np.ndarray:
    """The waveform without the zeros at its end; at least one sample stays."""
    sounding = np.flatnonzero(waveform)
    return waveform[: max(1, sounding[-1] + 1 if len(sounding) else 1)]


def sounding(sound: Sound) -> int:
    """Samples of a sound without the zeros at its end, at least 1."""
    stop = len(sound)
    while stop > 0:
        start = max(0, stop - _LOOK)
        found = np.flatnonzero(sound[start:stop])
        if len(found):
            return start + int(found[-1]) + 1
        stop = start
    return 1


def own_window(grid: PatchGrid, seconds: float = CLIP_SECONDS) -> int:
    """Samples of the longest piece: the patches that sound of ``seconds`` has."""
    return int(grid.padded(round(seconds * grid.sample_rate)))


def cut(samples: int, grid: PatchGrid, window: int | None = None) -> list[Piece]:
    """The pieces of a clip of ``samples`` samples: each of its patches lies in exactly one of them, as a whole.

    Pieces overlap in samples by as much as patches do, never in patches. So the mean of a classifier's scores over the
    patches, weighed by ``Piece.patches``, does not depend on the pieces.

    Args:
        samples: of the clip, at least 1, the padding at its end left off.
        grid: where the network's patches lie.
        window: samples in a piece at most, at least ``grid.min_samples``; None: ``own_window(grid)``.
    """
    window = own_window(grid) if window is None else window
    hop, total = grid.patch_hop_samples, int(grid.patches(samples))
    fitting = 1 + (window - grid.min_samples) // hop
    pieces, first = [], 0
    while first < total:
        start = first * hop
        rest = samples - start <= window
        count = total - first if rest else min(fitting, total - first)
        stop = samples if rest else min(samples, start + grid.min_samples + (count - 1) * hop)
        pieces.append(Piece(start, stop, count))
        first += count
    return pieces


def mark_end(samples: np.ndarray) -> np.ndarray:
    """The samples with an end that is not zero, so that a model takes no silence before it for padding."""
    if samples[-1]:
        return samples
    marked = samples.copy()
    marked[-1] = FAINTEST
    return marked


def read_piece(sound: Sound, piece: Piece, window: int | None = None) -> np.ndarray:
    """The samples of a piece, filled up with zeros to ``window`` of them.

    Silence at the piece's own end is marked as sound, since only what lies behind a clip's end is padding.
    """
    samples = np.asarray(sound[piece.start : piece.stop], np.float32)
    samples = mark_end(samples) if piece.patches > 1 else samples
    return np.pad(samples, (0, max(0, (window or 0) - len(samples))))


def pieces_of(sound: Sound, grid: PatchGrid, window: int | None = None) -> list[tuple[np.ndarray, int]]:
    """The samples and the patches of each piece of a clip; pieces of a given ``window`` all have its length."""
    return [(read_piece(sound, piece, window), piece.patches) for piece in cut(sounding(sound), grid, window)]


def frames(sound: Sound, window: int, hop: int, first: int, count: int) -> np.ndarray:
    """Windows ``(count, window)`` of a timeline from number ``first`` on, the last one filled up with zeros."""
    held = sound[first * hop : (first + count - 1) * hop + window]
    held = np.pad(held, (0, (count - 1) * hop + window - len(held)))
    return np.stack([held[i * hop : i * hop + window] for i in range(count)])
