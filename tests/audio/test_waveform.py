"""Cutting sound on a grid of patches: each in exactly one piece, whatever the length and the window. Coloured noise."""

from __future__ import annotations

import numpy as np
import pytest

from tfaudiotl.audio.waveform import (
    COLOURS,
    FAINTEST,
    Colour,
    coloured_noise,
    cut,
    frames,
    own_window,
    pieces_of,
    sounding,
    trim_padding,
)
from tfaudiotl.backbones.frontend import LogMelSpec, PatchGrid, WindowSpec

GRIDS = [
    WindowSpec(sample_rate=100, window=20, hop=10),
    WindowSpec(sample_rate=100, window=20, hop=20),
    WindowSpec(sample_rate=100, window=20, hop=7),
    WindowSpec(sample_rate=100, window=20, hop=10, pad_tail=False),
    WindowSpec(sample_rate=100, window=1, hop=1),
]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("window", [20, 23, 40, 95])
def test_every_patch_lies_in_one_piece_as_a_whole(grid: PatchGrid, window: int) -> None:
    for samples in range(1, 260):
        pieces = cut(samples, grid, window)
        assert sum(piece.patches for piece in pieces) == grid.patches(samples)
        first = 0
        for piece in pieces:
            assert piece.start == first * grid.patch_hop_samples
            assert 0 < piece.stop - piece.start <= window
            # What the network makes of the piece alone: so many patches, no more and no fewer.
            assert grid.patches(piece.stop - piece.start) == piece.patches
            first += piece.patches
        if grid.pad_tail:
            assert pieces[-1].stop == samples


def test_a_clip_of_ten_seconds_is_one_piece_and_a_little_more_adds_one_patch() -> None:
    grid = LogMelSpec()
    assert own_window(grid) == 161_520  # 20 patches
    assert [piece.patches for piece in cut(160_000, grid)] == [20]
    assert [piece.patches for piece in cut(161_521, grid)] == [20, 1]
    assert [piece.patches for piece in cut(23_281, grid, 15_600)] == [1, 1, 1]


def test_silence_at_the_end_of_a_piece_is_sound_and_at_the_end_of_a_clip_padding() -> None:
    grid = WindowSpec(sample_rate=100, window=20, hop=10)
    wave = np.zeros(95, np.float32)
    wave[[3, 61]] = 1
    (first, weight), (last, rest) = pieces_of(wave, grid, 40)
    assert (weight, rest) == (3, 3)
    assert first[-1] == FAINTEST
    assert np.count_nonzero(first) == 2
    assert last.tolist() == [*wave[30:62].tolist(), *[0.0] * 8]
    assert wave[39] == 0  # the clip itself is as it was
    ((silent, one),) = pieces_of(np.zeros(95, np.float32), grid, 40)
    assert one == 1
    assert not silent.any()


def test_where_the_sound_ends() -> None:
    assert sounding(np.zeros(5)) == 1
    assert sounding(np.r_[np.zeros(70_000), 1.0, np.zeros(140_000)]) == 70_001
    assert len(trim_padding(np.r_[0.0, 1.0, 0.0])) == 2


@pytest.mark.parametrize(
    ("length", "samples", "hop", "shape", "last"),
    [(25, 10, 10, (3, 10), 24), (20, 10, 10, (2, 10), 19), (3, 10, 10, (1, 10), 2), (25, 10, 5, (4, 10), 24)],
)
def test_frames_of_a_timeline_lose_nothing(
    length: int, samples: int, hop: int, shape: tuple[int, int], last: int
) -> None:
    windows = frames(np.arange(length), samples, hop, 0, shape[0])
    assert windows.shape == shape
    assert windows.max() == last


@pytest.mark.parametrize(
    ("colour", "decibels"),
    [("white", 0), ("pink", -3.01), ("brown", -6.02), ("blue", 3.01), ("violet", 6.02), (-0.5, -1.5)],
)
def test_power_falls_or_rises_by_octaves(colour: Colour | float, decibels: float, rng: np.random.Generator) -> None:
    power = np.mean([np.abs(np.fft.rfft(coloured_noise(colour, 16_000, rng))) ** 2 for _ in range(20)], axis=0)
    octaves = 10 * np.log10([power[low : 2 * low].mean() for low in (100, 200, 400, 800, 1_600, 3_200)])
    assert np.diff(octaves).mean() == pytest.approx(decibels, abs=0.3)


@pytest.mark.parametrize("samples", [2, 16, 15_681])
def test_loudness_and_seed(samples: int) -> None:
    for colour in COLOURS:
        first, second = (coloured_noise(colour, samples, np.random.default_rng(5)) for _ in range(2))
        assert first.shape == (samples,)
        assert np.array_equal(first, second)
        assert np.sqrt(np.mean(np.square(first, dtype=np.float64))) == pytest.approx(1, abs=1e-4)
        assert abs(first.mean()) < 1e-3
