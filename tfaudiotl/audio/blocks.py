"""Long recordings read in blocks: as if they were arrays, in little memory."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import numpy as np

from tfaudiotl.audio.files import SAMPLE_RATE, audio_info, load_audio

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tfaudiotl.audio.waveform import Sound

BLOCK_SECONDS = 240  # whole seconds, so that a block begins on a sample at every rate; 15 MB at 16 kHz
_KEPT = 2  # blocks in memory: a window may lie in both


def open_samples(path: str | os.PathLike[str], *, sample_rate: int = SAMPLE_RATE) -> Sound:
    """The samples of a file, as ``load_audio`` gives them: an array, or of a long file a ``LongSound``.

    Raises:
        AudioError: the file cannot be used; what is wrong in the middle of a long one is told when that is read.
    """
    duration = audio_info(path).duration
    if duration < 2 * BLOCK_SECONDS:
        return load_audio(path, sample_rate=sample_rate)
    return LongSound(path, sample_rate=sample_rate, duration=duration)


class LongSound:
    """The samples of a long file, to be sliced like an array; only the blocks last used are in memory.

    Args:
        path: the file.
        sample_rate: of the samples, Hz.
        duration: of the file in seconds, at least ``BLOCK_SECONDS``.
    """

    def __init__(self, path: str | os.PathLike[str], *, sample_rate: int, duration: float):
        self._path, self._rate, self._size = path, sample_rate, BLOCK_SECONDS * sample_rate
        self._blocks = math.floor(duration / BLOCK_SECONDS)  # the last one has the rest too
        self._held: dict[int, NDArray[np.float32]] = {}
        self._length = (self._blocks - 1) * self._size + len(self._block(self._blocks - 1))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> NDArray[np.float32]:
        start, stop, step = part.indices(self._length)
        if step != 1:
            raise ValueError(f"step={step}: samples of a long file are read one after the other")
        pieces = []
        while start < stop:
            number = min(start // self._size, self._blocks - 1)
            block, first = self._block(number), start - number * self._size
            pieces.append(block[first : first + stop - start])
            start += len(pieces[-1])
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)

    def _block(self, number: int) -> NDArray[np.float32]:
        if number not in self._held:
            end = None if number == self._blocks - 1 else float((number + 1) * BLOCK_SECONDS)
            start = float(number * BLOCK_SECONDS)
            block = load_audio(self._path, sample_rate=self._rate, start=start, end=end)
            while len(self._held) >= _KEPT:
                del self._held[next(iter(self._held))]
            self._held[number] = block
        return self._held[number]
