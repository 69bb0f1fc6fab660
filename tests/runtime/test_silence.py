"""Digital silence is never an event, and less than a window begins none: in files, arrays and streams."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from tfaudiotl.audio.files import write_audio
from tfaudiotl.backbones.scores import ClassScores
from tfaudiotl.runtime.events import Event, EventOptions, EventTracker, Kind, kind_of
from tfaudiotl.runtime.predictor import Predictor
from tfaudiotl.runtime.stream import StreamingClassifier

RATE = 16_000


@pytest.fixture(scope="module")
def certain() -> keras.Model:
    """A closed set of classes that takes everything, silence too, for its first class."""
    x = keras.Input((None,), name="waveform")
    logits = keras.ops.stack([keras.ops.sum(x * 0, axis=1) + 9.0, keras.ops.sum(x * 0, axis=1)], axis=1)
    return keras.Model(x, ClassScores("softmax", class_names=("rooster", "rain"))(logits))


def events(model: keras.Model, wave: np.ndarray, path: Path, **options: float) -> list[tuple[float, float]]:
    """The events of a waveform, asserted to be the same as of a file and of a stream."""
    predictor = Predictor(model, **options)  # type: ignore[arg-type]
    found = predictor.predict(wave, sample_rate=RATE)
    write_audio(path, wave, sample_rate=RATE)
    assert predictor.predict_file(path) == found
    stream = StreamingClassifier(predictor)
    assert [*stream.push(wave), *stream.finish()] == found
    return [(event.start, event.end) for event in found]


NOISE = np.random.default_rng(0).normal(0, 0.1, 10 * RATE).clip(-1, 1).astype(np.float32)


@pytest.mark.parametrize("samples", [1, 2, 8_000, 15_599])
def test_less_than_a_window_is_no_event(samples: int, certain: keras.Model, tmp_path: Path) -> None:
    assert events(certain, NOISE[:samples], tmp_path / "a.wav") == []
    assert len(events(certain, NOISE[:15_600], tmp_path / "a.wav")) == 1


@pytest.mark.parametrize("threshold", [0.5, 0.0])
def test_silence_is_no_event_and_ends_one(threshold: float, certain: keras.Model, tmp_path: Path) -> None:
    options = {"threshold": threshold, "window_seconds": 1.0, "hop_seconds": 0.5}
    assert events(certain, np.zeros(10 * RATE, np.float32), tmp_path / "a.wav", **options) == []
    wave = NOISE.copy()
    wave[3 * RATE : 7 * RATE] = 0
    found = sorted(set(events(certain, wave, tmp_path / "a.wav", **options)))
    assert found == [(0.0, 3.5), (6.5, 10.0)]  # the windows with sound in them
    clicks = np.zeros(5 * RATE, np.float32)
    clicks[[100, 40_000]] = 0.9
    assert events(certain, clicks, tmp_path / "a.wav", **options) == []


def test_smoothing_does_not_carry_scores_of_silence(certain: keras.Model, tmp_path: Path) -> None:
    wave = np.zeros(6 * RATE, np.float32)
    wave[2 * RATE : 3 * RATE] = NOISE[:RATE]
    options = {"window_seconds": 1.0, "hop_seconds": 1.0, "smoothing": 3}
    assert events(certain, wave, tmp_path / "a.wav", **options) == []  # one window of three


def test_the_rest_of_a_sound_goes_on_with_an_event(certain: keras.Model, tmp_path: Path) -> None:
    assert events(certain, NOISE[: 2 * RATE + 100], tmp_path / "a.wav", window_seconds=1.0, hop_seconds=1.0) == [
        (0.0, 2 + 100 / RATE)
    ]
    wave = np.pad(NOISE[:4_000], (2 * RATE, 0))  # sound only in the window that is not filled
    assert events(certain, wave, tmp_path / "a.wav", window_seconds=1.0, hop_seconds=1.0) == []


@pytest.mark.parametrize(
    ("audible", "filled", "kind"), [(400, 1_000, "sound"), (399, 1_000, "silence"), (400, 999, "part")]
)
def test_what_a_window_holds(audible: int, filled: int, kind: Kind) -> None:
    window = np.full(1_000, 1e-6, np.float32)  # what a filter leaves of silence
    window[:audible] = 2 / 32_768
    assert kind_of(window, filled, least=1_000, sample_rate=RATE) == kind


def test_a_part_of_a_window_does_not_reopen_an_event_that_is_over() -> None:
    tracker = EventTracker(["x"], EventOptions(), hop=1.0, window=1.0)
    for score, kind in ((0.9, "sound"), (0.1, "sound"), (0.1, "sound"), (0.9, "part")):
        tracker.push(np.array([score]), kind)  # type: ignore[arg-type]
    assert tracker.finish(4.0) == []
    tracker = EventTracker(["x"], EventOptions(), hop=1.0, window=1.0)
    tracker.push(np.array([0.9]))
    assert tracker.push(np.array([0.9]), "part") == []
    assert tracker.finish(1.5) == [Event(0.0, 1.5, "x", 0.9)]
