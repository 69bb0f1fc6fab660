"""The demo: its noise is what it says, and five clips of each colour are enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tfaudiotl.demo import BROWN_POLE, COLOURS, SAMPLES, noise, run_demo


def octave_slope(colour: str, rng: np.random.Generator) -> float:
    power = np.mean([np.abs(np.fft.rfft(noise(colour, rng))) ** 2 for _ in range(50)], axis=0)
    octaves = 10 * np.log10([power[low : 2 * low].mean() for low in (50, 100, 200, 400, 800, 1_600)])
    return float(np.diff(octaves).mean())


def test_white_is_even_in_its_range(rng: np.random.Generator) -> None:
    wave = np.concatenate([noise("white", rng) for _ in range(10)])
    assert np.abs(wave).max() <= 1
    np.testing.assert_allclose(np.histogram(wave, 4, (-1, 1))[0] / len(wave), 0.25, atol=0.01)
    assert octave_slope("white", rng) == pytest.approx(0, abs=0.3)


def test_brown_is_a_leaky_sum_of_white(rng: np.random.Generator) -> None:
    wave = noise("brown", rng).astype(np.float64)
    steps = wave[1:] - BROWN_POLE * wave[:-1]  # what went in, scaled
    assert np.abs(wave).max() == pytest.approx(1)
    assert abs(np.corrcoef(steps[1:], steps[:-1])[0, 1]) < 0.03
    np.testing.assert_allclose(np.histogram(steps / np.abs(steps).max(), 4, (-1, 1))[0] / len(steps), 0.25, atol=0.02)


def test_pink_falls_by_three_decibels_an_octave(rng: np.random.Generator) -> None:
    assert np.abs(noise("pink", rng)).max() == pytest.approx(1)
    assert octave_slope("pink", rng) == pytest.approx(-3, abs=0.3)


def test_other_colours_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="colour='blue': allowed are brown, pink, white"):
        noise("blue", rng)


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    said: list[str] = []
    result = run_demo(tmp_path / "demo", seed=1, echo=said.append)
    assert (result.accuracy, result.clips, result.agreement) == (1.0, 285, 1.0)
    text = "\n".join(said)
    assert "Validation accuracy 1.0000 on 285 clips" in text
    assert "agree on 300 of 300 clips" in text
    for colour in COLOURS:
        assert f"hears {colour} in a clip of {colour} noise" in text
        assert len(list((tmp_path / "demo" / "sounds" / colour).iterdir())) == 100
    for name in ("spectrograms.png", "classifier/model.tflite", "classifier/report/report.md"):
        assert (tmp_path / "demo" / name).stat().st_size
    assert SAMPLES == 15_680
    with pytest.raises(FileExistsError, match="overwrite=True"):
        run_demo(tmp_path / "demo")
