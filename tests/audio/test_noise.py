"""Coloured noise: its slope, loudness and reproducibility."""

from __future__ import annotations

import numpy as np
import pytest

from tfaudiotl.audio.noise import COLOURS, Colour, coloured_noise


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
