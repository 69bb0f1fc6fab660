from __future__ import annotations

import tracemalloc
from typing import Any

import keras
import numpy as np
import pytest

from tests.helpers.sounds import sound
from tfaudiotl.backbones.scores import ClassScores
from tfaudiotl.errors import AudioError
from tfaudiotl.runtime.predictor import Predictor, classify_sound
from tfaudiotl.runtime.stream import StreamingClassifier

NAMES = ("loud", "rising")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """A stand-in that hears loudness: quick, deterministic, of any window length."""
    x = keras.Input((None,), name="waveform")
    power = keras.ops.mean(keras.ops.square(x), axis=1, keepdims=True)
    slope = keras.ops.mean(x, axis=1, keepdims=True)
    scores = ClassScores("sigmoid", class_names=NAMES)(
        keras.layers.Concatenate()([40.0 * power - 4.0, 20.0 * slope - 1.0])
    )
    return keras.Model(x, scores)


@pytest.fixture
def waveform(rng: np.random.Generator) -> np.ndarray:
    parts = [np.zeros(9_000), sound("noise", rng, seconds=2.3), np.zeros(31_000), sound("low", rng, seconds=1.7)]
    return np.concatenate([*parts, np.full(5_003, 0.2)]).astype(np.float32)


def in_chunks(stream: StreamingClassifier, waveform: np.ndarray, chunk: int) -> list:
    events = [e for start in range(0, len(waveform), chunk) for e in stream.push(waveform[start : start + chunk])]
    return sorted([*events, *stream.finish()], key=lambda e: (e.start, -e.score, e.label))


@pytest.mark.parametrize("chunk", [1, 160, 1_000, 16_000, 10**6])
def test_a_stream_gives_the_events_of_the_whole_file_whatever_the_chunks(
    model: keras.Model, waveform: np.ndarray, chunk: int
) -> None:
    settings = {"release": 0.3, "smoothing": 3, "min_duration": 0.6, "min_gap": 0.4}
    predictor = Predictor(model, **settings)  # type: ignore[arg-type]
    wanted = predictor.predict(waveform, sample_rate=16_000)
    assert len(wanted) >= 2
    found = in_chunks(StreamingClassifier(predictor), waveform, chunk)
    assert [(e.start, e.end, e.label) for e in found] == [(e.start, e.end, e.label) for e in wanted]
    np.testing.assert_allclose([e.score for e in found], [e.score for e in wanted], atol=1e-5)


@pytest.mark.parametrize(("window", "hop"), [(0.5, 0.5), (0.5, 0.125), (0.5, 1.25), (20.0, 10.0)])
def test_windows_and_hops_of_any_length_agree_with_the_file(
    model: keras.Model, rng: np.random.Generator, window: float, hop: float
) -> None:
    predictor = Predictor(model, window_seconds=window, hop_seconds=hop, threshold=0.2)
    for samples in (1, 7_999, 8_000, 8_001, 24_000, 28_001):
        wave = rng.uniform(-0.6, 0.6, samples).astype(np.float32)
        wanted = predictor.predict(wave, sample_rate=16_000)
        found = in_chunks(StreamingClassifier(predictor), wave, 777)
        assert [(e.start, e.end, e.label) for e in found] == [(e.start, e.end, e.label) for e in wanted]


def test_other_rates_are_resampled_as_they_come(model: keras.Model, waveform: np.ndarray) -> None:
    slow = np.repeat(waveform, 3)  # 48 kHz
    predictor = Predictor(model)
    wanted = predictor.predict(slow, sample_rate=48_000)
    found = in_chunks(StreamingClassifier(predictor, sample_rate=48_000), slow, 4_800)
    assert [e.label for e in found] == [e.label for e in wanted]
    np.testing.assert_allclose([(e.start, e.end) for e in found], [(e.start, e.end) for e in wanted], atol=0.01)


def test_a_finished_stream_starts_again_at_zero(model: keras.Model, waveform: np.ndarray) -> None:
    stream = StreamingClassifier(model)
    first = in_chunks(stream, waveform, 4_000)
    assert stream.seconds == 0
    assert in_chunks(stream, waveform, 999) == first


def test_int16_is_taken_and_bad_samples_are_refused(model: keras.Model, waveform: np.ndarray) -> None:
    stream = StreamingClassifier(model)
    coded = np.round(waveform * 32_767).astype(np.int16)
    assert [e.label for e in in_chunks(stream, coded, 5_000)] == [e.label for e in in_chunks(stream, waveform, 5_000)]
    with pytest.raises(AudioError, match="shape"):
        stream.push(np.zeros((4, 2)))
    with pytest.raises(AudioError, match="NaN or infinite"):
        stream.push(np.array([0.0, np.nan]))


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "int32", ">i2", "<i4", "float64"])
def test_samples_are_scaled_as_predictor_scales_them(kind: str, model: keras.Model) -> None:
    wave = np.random.default_rng(0).uniform(-0.9, 0.9, 48_000)
    dtype = np.dtype(kind)
    full = 1 if dtype.kind == "f" else 2 ** (8 * dtype.itemsize - 1) - 1
    samples = (wave * full + (128 if kind == "uint8" else 0)).astype(dtype)
    predictor = Predictor(model)
    wanted = predictor.predict(samples, sample_rate=16_000)
    assert [event.label for event in wanted] == ["loud"]
    assert in_chunks(StreamingClassifier(predictor), samples, 5_000) == wanted


@pytest.mark.parametrize(
    "samples",
    [[1, 2, 3], np.arange(3), np.array([True, False]), np.array([20_000.0, -20_000.0]), np.array([np.nan]), ["a"]],
    ids=["list", "int64", "bool", "unscaled", "nan", "text"],
)
def test_what_predictor_refuses_a_stream_refuses_with_the_same_words(samples: Any, model: keras.Model) -> None:
    predictor = Predictor(model)
    with pytest.raises(AudioError) as by_predictor:
        predictor.predict(samples, sample_rate=16_000)
    with pytest.raises(AudioError) as by_stream:
        StreamingClassifier(predictor).push(samples)
    assert by_stream.value.reason == by_predictor.value.reason.replace("waveform", "samples")


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_a_stream_of_any_rate_ends_where_the_file_does(rate: int, model: keras.Model) -> None:
    predictor = Predictor(model, window_seconds=0.1, hop_seconds=0.05, threshold=0.2)
    rng = np.random.default_rng(rate)
    for samples in (1, 13_231, *rng.integers(1, rate, 12).tolist()):
        wave = rng.uniform(-0.6, 0.6, samples).astype(np.float32)
        wanted = predictor.predict(wave, sample_rate=rate)
        found = in_chunks(StreamingClassifier(predictor, sample_rate=rate), wave, 1_777)
        assert [(e.start, e.end, e.label) for e in found] == [(e.start, e.end, e.label) for e in wanted]


def test_memory_stays_flat_over_a_day(model: keras.Model) -> None:
    predictor = Predictor(model)
    # A day in windows of 10 s: the model does not matter here, what the stream keeps does.
    predictor = Predictor(model, window_seconds=10, hop_seconds=10)
    object.__setattr__(predictor.artifact, "scores", lambda rows: np.array([[rows[0, 0] % 1, 0.0]]))
    stream = StreamingClassifier(predictor)
    chunk = np.full(160_000, 0.001, np.float32)
    used, events = [], 0
    tracemalloc.start()
    for second in range(0, 86_400, 10):
        chunk[0] = 0.9 if second % 60 < 30 else 0.0
        events += len(stream.push(chunk))
        if second in (7_200, 86_390):
            used.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert stream.seconds == 86_400
    assert events == 1_440
    assert used[1] - used[0] < 50_000


def test_summaries_pictures_and_many_files(model: keras.Model, waveform: np.ndarray, tmp_path) -> None:  # type: ignore[no-untyped-def]
    import soundfile

    soundfile.write(tmp_path / "a.wav", waveform, 16_000, subtype="FLOAT")
    predictor = Predictor(model)
    found = predictor.analyze_file(tmp_path / "a.wav")
    assert found.duration == pytest.approx(len(waveform) / 16_000)
    best = found.summary()[0]
    assert best.label == "loud"
    assert best.events == sum(event.label == "loud" for event in found.events)
    assert 0 < best.seconds < found.duration
    assert found.plot(tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert predictor.scores_of_files([tmp_path / "a.wav"] * 3).shape == (3, 2)


def test_classify_sound_names_what_it_hears(model: keras.Model, waveform: np.ndarray) -> None:
    found = classify_sound(waveform, 16_000, model=model)
    assert len(found.sounds) == len(found.timestamps) == len(found.results) > 0
    assert (np.diff(found.timestamps, axis=1) >= 0.5).all()
    nothing = classify_sound(np.zeros(16_000, np.float32), 16_000, model=model)
    assert nothing.sounds == []
    assert nothing.timestamps.shape == (0, 2)
