"""Windows that long clips are cut into for a network: whole patches of its own grid, none of them twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from tfaudiotl.audio.waveform import SAMPLE_RATE, Grid, Piece, cut, mark_end, own_window, sounding
from tfaudiotl.data.clips import Clips
from tfaudiotl.errors import AudioError

if TYPE_CHECKING:
    from numpy.typing import NDArray


_TAIL_SECONDS = 1.0  # of a long clip, looked at for the end of its sound
_HALF = 0.5  # of a sample: a span's end falls on a frame of the file, and must not reach into a patch more


@dataclass(frozen=True, eq=False, repr=False)
class PatchWindows(Clips):
    """Clips of ``patch_windows``.

    Attributes:
        patches: int64 (rows,): the patches of each row, its weight in the clip's score.
        inner: int64 (rows,): samples of a row after which its clip continues, else 0.
    """

    patches: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    inner: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def load(self, row: int, *, sample_rate: int = SAMPLE_RATE) -> NDArray[np.float32]:
        """As ``Clips.load``; silence at the end of a window is marked as sound where the clip continues."""
        waveform = super().load(row, sample_rate=sample_rate)
        return mark_end(waveform[: self.inner[row]]) if self.inner[row] else waveform


def patch_windows(clips: Clips, grid: Grid, window_seconds: float) -> PatchWindows:
    """Cuts clips on a network's grid, as ``audio.waveform.cut`` does for a model in use.

    A clip that has no more patches than ``window_seconds`` of sound stays one row. Of a longer one there are no rows of
    nothing but the zeros at its end.

    Args:
        clips: what to cut.
        grid: where the network's patches lie.
        window_seconds: sound of this length fits into a row, over 0.

    Returns:
        Rows with the labels, fold, group and weight of the clips they were cut from; ``source`` is the number of the
        clip. They are to be loaded at the grid's sample rate.

    Raises:
        ValueError: ``window_seconds`` is out of range.
    """
    if not 0 < window_seconds < np.inf:
        raise ValueError(f"window_seconds={window_seconds!r}: expected a number of seconds over 0")
    rate, window = grid.sample_rate, own_window(grid, window_seconds)
    lengths = np.maximum(1, np.ceil(clips.durations * rate - 1e-6)).astype(np.int64)
    with ThreadPoolExecutor(2) as pool:
        long = np.flatnonzero(lengths > window).tolist()
        lengths[long] = list(pool.map(lambda row: _sounding(clips, row, int(lengths[row]), rate), long))
    pieces = [cut(int(length), grid, window) for length in lengths]
    counts = [len(parts) for parts in pieces]
    source = np.repeat(np.arange(len(clips)), counts)
    flat: list[Piece] = [piece for parts in pieces for piece in parts]
    last = np.cumsum(counts) - 1
    inner = np.array([piece.stop - piece.start for piece in flat], np.int64)
    inner[last] = 0
    begin = np.array([piece.start / rate for piece in flat])
    stop = np.minimum(begin + (window - _HALF) / rate, clips.durations[source])
    stop = np.where(inner, np.array([piece.stop - _HALF for piece in flat]) / rate, stop)
    ends = np.where(stop < clips.durations[source], clips.starts[source] + stop, clips.ends[source])
    rows = clips[source]
    columns = {name: getattr(rows, name) for name in Clips.__dataclass_fields__}
    columns |= {"starts": rows.starts + begin, "ends": ends, "durations": stop - begin, "source": source}
    patches = np.array([piece.patches for piece in flat], np.int64)
    return PatchWindows(**columns, patches=patches, inner=inner)


def _sounding(clips: Clips, row: int, samples: int, rate: int) -> int:
    """Samples of a long clip without the zeros at its end; all where it cannot be read, which loading raises."""
    duration, tail = float(clips.durations[row]), _TAIL_SECONDS
    try:
        while tail < 2 * duration:
            first = max(0.0, np.floor(duration - tail))
            part = replace(clips[[row]], starts=clips.starts[[row]] + first, durations=np.array([duration - first]))
            end = Clips.load(part, 0, sample_rate=rate)
            if np.any(end):
                return min(samples, round(first * rate) + sounding(end))
            tail *= 4
    except AudioError:
        return samples
    return 1


def means_by_clip(scores: np.ndarray, source: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The clips that windows with ``scores (windows, classes)`` come from, and the clips' scores.

    Args:
        scores: of the windows.
        source: ``(windows,)``: the clip of each.
        weights: ``(windows,)``: its patches.
    """
    rows, place = np.unique(source, return_inverse=True)
    sums = np.zeros((len(rows), scores.shape[1]))
    np.add.at(sums, place, scores * weights[:, None])
    return rows, sums / np.bincount(place, weights)[:, None]
