from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.sounds import tone, write
from tfaudiotl.audio.waveform import resample
from tfaudiotl.data.clips import Clips
from tfaudiotl.data.tfio import GraphResampler, in_graph

EDGE = 800


def decibels(found: np.ndarray, expected: np.ndarray) -> float:
    return float(10 * np.log10(np.square(found - expected).mean() / np.square(expected).mean() + 1e-30))


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000])
def test_the_resampler_in_the_graph(rate: int) -> None:
    resampler = GraphResampler(rate, 16_000)
    for samples in (1, 2, 399, 1_000, rate, rate + 1):
        assert resampler(tf.ones(samples)).shape == (-(-samples * 16_000 // rate),)
    for frequency in (300, 1_000, 3_500):
        result = resampler(tf.constant(tone(1.0, rate, frequency=frequency))).numpy()
        assert np.abs(result - tone(1.0, 16_000, frequency=frequency))[EDGE:-EDGE].max() < 1e-5
    for frequency in range(8_100, rate // 2, 1_700):
        result = resampler(tf.constant(tone(1.0, rate, frequency=frequency, amplitude=1.0))).numpy()
        assert np.abs(result)[EDGE:-EDGE].max() < 1e-4, frequency


def test_it_agrees_with_soxr(rng: np.random.Generator) -> None:
    low = np.fft.rfft(rng.standard_normal(44_100))
    low[7_000:] = 0  # Hz: where both filters are flat
    sound = np.fft.irfft(low).astype(np.float32)
    assert decibels(GraphResampler(44_100, 16_000)(tf.constant(sound)).numpy(), resample(sound, 44_100, 16_000)) < -70


def test_rates_without_common_divisors() -> None:
    with pytest.raises(ValueError, match="44101 Hz to 16000 Hz"):
        GraphResampler(44_101, 16_000)


def test_a_choice_that_cannot_be(tmp_path: Path) -> None:
    clips = Clips.from_files([write(tmp_path / "a.wav", tone(0.1, 16_000), subtype="PCM_24")] * 2, ["a", "b"])
    cases: list[tuple[dict[str, Any], str]] = [
        ({"decoder": "fast"}, "decoder='fast'"),
        ({"decoder": "tfio"}, "decoder='tfio': (tensorflow-io is not|it decodes)"),
        ({"decoder": "tfio", "on_error": "skip"}, "cannot say which"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            clips.dataset(**options)
    assert next(iter(clips.dataset(decoder="auto")))[0].shape == (2, 1_600)


@pytest.mark.tfio
@pytest.mark.parametrize(
    ("name", "rate", "graph"), [("a.wav", 16_000, True), ("a.wav", 44_100, False), ("a.flac", 16_000, False)]
)
def test_the_faster_way_is_taken(tmp_path: Path, name: str, rate: int, graph: bool) -> None:
    pytest.importorskip("tensorflow_io", exc_type=ImportError)
    clips = Clips.from_files([write(tmp_path / name, tone(0.1, rate), rate)], ["a"])
    assert in_graph("auto", clips, 16_000) is graph
    assert in_graph("tfio", clips, 16_000)
    assert not in_graph("python", clips, 16_000)
    assert not in_graph("auto", clips.windows(0.05), 16_000)


@pytest.mark.tfio
def test_every_row_gets_its_own_sound(tmp_path: Path) -> None:
    """Rows are decoded at the same time, and tensorflow-io's IOTensor mixes them up now and then."""
    pytest.importorskip("tensorflow_io", exc_type=ImportError)
    paths = [write(tmp_path / f"{n}.wav", tone(0.1, 16_000, frequency=100.0 * n)) for n in range(1, 61)]
    clips = Clips.from_files(paths, ["a", "b"] * 30)
    expected = np.stack([clips.load(row) for row in range(len(clips))])
    for _ in range(20):
        found = np.concatenate([x for x, _ in clips.dataset(decoder="tfio").as_numpy_iterator()])
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.tfio
def test_both_ways_agree(tmp_path: Path, rng: np.random.Generator) -> None:
    pytest.importorskip("tensorflow_io", exc_type=ImportError)
    noise = np.cumsum(rng.standard_normal((3 * 44_100, 2)), axis=0)
    sound = (0.5 * noise / np.abs(noise).max()).astype(np.float32)
    paths = [
        write(tmp_path / "a.ogg", sound, 44_100),
        write(tmp_path / "b.flac", sound, 44_100),
        write(tmp_path / "c.wav", sound[:, 0], 44_100),
        write(tmp_path / "d.mp3", sound, 48_000),
        write(tmp_path / "e.wav", sound, 16_000),
    ]
    clips = Clips.from_files(paths, ["x", "y", "x", "y", "x"], starts=[0, 0, 0.5, 0, 1], ends=[None, None, 2, None, 2])
    for seconds in (None, 1.0):
        ways = [
            np.concatenate([x for x, _ in clips.dataset(decoder=decoder, window_seconds=seconds).as_numpy_iterator()])
            for decoder in ("tfio", "python")
        ]
        assert ways[0].shape == ways[1].shape
        for found, expected in zip(*ways, strict=True):
            assert decibels(found, expected) < -50


@pytest.mark.tfio
def test_real_clips_agree(shared: Path) -> None:
    pytest.importorskip("tensorflow_io", exc_type=ImportError)
    clips = Clips.from_directory(shared / "data" / "esc10")[::20]
    ways = [
        np.concatenate([x for x, _ in clips.dataset(decoder=decoder).as_numpy_iterator()])
        for decoder in ("tfio", "python")
    ]
    assert max(decibels(found, expected) for found, expected in zip(*ways, strict=True)) < -30
