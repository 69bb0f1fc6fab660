"""The predictor: events in time, whole-file scores, and evaluation, for a classifier that listens to loudness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.helpers.sounds import write_folder
from tfaudiotl.audio import files
from tfaudiotl.audio.files import write_audio
from tfaudiotl.backbones.scores import ClassScores
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.data import table
from tfaudiotl.data.clips import Clips
from tfaudiotl.errors import AudioError, AudioErrors
from tfaudiotl.runtime.evaluate import evaluate
from tfaudiotl.runtime.predictor import Predictor


@pytest.fixture(scope="module")
def listener() -> keras.Model:
    """ "loud" or "quiet" by the mean square of what it hears, through a made-up but real Keras model."""
    inputs = keras.Input((None,), name="waveform")
    power = keras.ops.mean(keras.ops.square(inputs), axis=1, keepdims=True)
    logits = keras.layers.Dense(2, name="dense")
    scores = ClassScores("softmax", class_names=["loud", "quiet"])(logits(power))
    logits.set_weights([np.array([[1_000.0, 0.0]]), np.array([-10.0, 0.0])])  # even at a power of 0.01
    return keras.Model(inputs, scores)


def bursts() -> np.ndarray:
    """Six seconds of faint noise, loud from 2.0 to 3.0 s and from 4.5 to 5.0 s."""
    wave = np.random.default_rng(0).normal(0, 0.001, 96_000).astype(np.float32)
    wave[32_000:48_000] *= 500
    wave[72_000:80_000] *= 500
    return wave


def test_events_are_where_the_sound_is(listener: keras.Model) -> None:
    events = Predictor(listener, window_seconds=0.1, hop_seconds=0.05).predict(bursts(), sample_rate=16_000)
    loud = [(event.start, event.end) for event in events if event.label == "loud"]
    assert np.allclose(loud, [(2.0, 3.0), (4.5, 5.0)], atol=0.11)
    assert all(0.5 <= event.score <= 1 for event in events)
    assert [event.start for event in events] == sorted(event.start for event in events)


def test_a_higher_threshold_hears_less(listener: keras.Model) -> None:
    found = [
        Predictor(listener, window_seconds=0.5, threshold=threshold).predict(bursts(), sample_rate=16_000)
        for threshold in (0.0, 0.5, 0.999)
    ]
    assert [len([event for event in events if event.label == "loud"]) for events in found] == [1, 2, 2]
    seconds = [sum(event.end - event.start for event in events) for events in found]
    assert seconds == sorted(seconds, reverse=True)


def test_files_of_any_rate_give_the_same_events(listener: keras.Model, tmp_path: Path) -> None:
    from tfaudiotl.audio.waveform import resample

    write_audio(tmp_path / "a.wav", resample(bursts(), 16_000, 44_100), sample_rate=44_100)
    predictor = Predictor(listener, window_seconds=0.1)
    events = [event for event in predictor.predict_file(tmp_path / "a.wav") if event.label == "loud"]
    assert np.allclose([(event.start, event.end) for event in events], [(2.0, 3.0), (4.5, 5.0)], atol=0.11)
    assert "loud" in str(events[0])


def test_whole_file_scores(listener: keras.Model, tmp_path: Path) -> None:
    predictor = Predictor(listener)
    np.testing.assert_allclose(predictor.scores(bursts(), sample_rate=16_000), listener(bursts()[None])[0], rtol=1e-5)
    # Longer than ten seconds: the mean of ten-second pieces.
    long = np.concatenate([bursts()[:80_000]] * 4)
    pieces = [np.asarray(listener(long[None, i : i + 160_000]))[0] for i in (0, 160_000)]
    np.testing.assert_allclose(predictor.scores(long, sample_rate=16_000), np.mean(pieces, axis=0), rtol=1e-4)
    # Padding says nothing.
    padded = np.pad(bursts(), (0, 40_000))
    np.testing.assert_allclose(
        predictor.scores(padded, sample_rate=16_000), predictor.scores(bursts(), sample_rate=16_000)
    )


def test_integers_are_scaled_and_nonsense_is_refused(listener: keras.Model) -> None:
    predictor = Predictor(listener)
    integers = (bursts() * 32_768).clip(-32_768, 32_767).astype(np.int16)
    expected = predictor.scores(integers / np.float32(32_768), sample_rate=16_000)
    np.testing.assert_allclose(predictor.scores(integers, sample_rate=16_000), expected, rtol=1e-5)
    for wrong in (np.array([0.1, np.nan]), np.zeros(0, np.float32), np.array(["a"])):
        with pytest.raises((ValueError, AudioError)):
            predictor.predict(wrong, sample_rate=16_000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, "threshold=1.5"),
        ({"window_seconds": -1.0}, "window_seconds=-1.0"),
        ({"hop_seconds": 0.0}, "hop_seconds=0.0"),
    ],
)
def test_wrong_arguments_are_named(listener: keras.Model, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Predictor(listener, **options)  # type: ignore[arg-type]


def test_a_fixed_window_cannot_be_changed(stand_in: Path) -> None:
    fixed = build_classifier("yamnet", class_names=["a", "b"], weights=str(stand_in), samples=15_600)
    assert Predictor(fixed).window == 15_600
    with pytest.raises(ValueError, match=r"takes 0\.975 s at a time"):
        Predictor(fixed, window_seconds=2.0)


def test_evaluate_matches_labels_by_name(listener: keras.Model, tmp_path: Path) -> None:
    for name, scale in (("quiet", 0.001), ("loud", 0.5)):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for number in range(3):
            noise = np.random.default_rng(number).normal(0, scale, 16_000)
            write_audio(tmp_path / "sounds" / name / f"{number}.wav", noise.clip(-1, 1))
    write_audio(tmp_path / "sounds" / "loud" / "mislabelled.wav", np.full(16_000, 0.001))
    clips = Clips.from_directory(tmp_path / "sounds", class_names=["quiet", "loud"])
    evaluation = evaluate(listener, clips)
    assert evaluation.class_names == ("loud", "quiet")  # the model's order, not the clips'
    assert evaluation.accuracy == pytest.approx(6 / 7)
    assert [mistake.name for mistake in evaluation.errors()] == [str(tmp_path / "sounds/loud/mislabelled.wav")]


def test_evaluate_names_classes_that_the_model_lacks(listener: keras.Model, tmp_path: Path) -> None:
    clips = Clips.from_directory(write_folder(tmp_path / "sounds", per_class=1))
    with pytest.raises(ValueError, match=r"clips have the classes \['high', 'low', 'noise'\]"):
        evaluate(listener, clips)


def test_evaluate_skips_and_lists(listener: keras.Model, tmp_path: Path) -> None:
    for name in ("loud", "quiet"):
        (tmp_path / name).mkdir()
        write_audio(tmp_path / name / "a.wav", np.full(1_000, 0.5))
    clips = Clips.from_directory(tmp_path)
    (tmp_path / "loud" / "a.wav").write_bytes(b"")
    with pytest.raises(AudioError, match=r"loud/a.wav"):
        evaluate(listener, clips)
    skipped: list[AudioError] = []
    assert len(evaluate(listener, clips, on_error="skip", skipped=skipped).scores) == 1
    assert [Path(error.path).name for error in skipped] == ["a.wav"]


def test_evaluate_lists_every_clip_that_cannot_be_read(listener: keras.Model, tmp_path: Path) -> None:
    for name in ("loud", "quiet"):
        for number in range(3):
            (tmp_path / name).mkdir(exist_ok=True)
            write_audio(tmp_path / name / f"{number}.wav", np.full(1_000, 0.5))
    clips = Clips.from_directory(tmp_path)
    for lost in ("loud/0.wav", "loud/2.wav", "quiet/1.wav"):
        (tmp_path / lost).write_bytes(b"")
    with pytest.raises(AudioErrors, match="3 of 6 sounds cannot be used") as raised:
        evaluate(listener, clips)
    assert [Path(error.path).name for error in raised.value.errors] == ["0.wav", "2.wav", "1.wav"]
    for path in tmp_path.glob("*/*.wav"):
        path.write_bytes(b"")
    with pytest.raises(AudioErrors, match="6 of 6 sounds cannot be used"):
        evaluate(listener, clips, on_error="skip")


def test_evaluate_reads_long_recordings_in_parts(
    listener: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole ones and a span of one; and names one whose middle turns out to be unusable."""
    (tmp_path / "loud").mkdir()
    write_audio(tmp_path / "loud" / "a.flac", np.repeat(np.concatenate([bursts()] * 5), 2), sample_rate=32_000)
    clips = Clips.from_files(
        [str(tmp_path / "loud" / "a.flac")] * 2, ["loud", "loud"], starts=[0.0, 3.5], ends=[30.0, 24.25]
    )
    predictor = Predictor(listener)
    wanted = [predictor.scores(clips.load(row), sample_rate=16_000) for row in range(2)]
    read, load_audio = [], files.load_audio

    def load(path: Path, **part: Any) -> np.ndarray:
        read.append((part["start"], part["end"]))
        if part["start"] == lost:
            raise AudioError(str(path), "is damaged here")
        return load_audio(path, **part)

    lost = -1.0
    monkeypatch.setattr(files, "BLOCK_SECONDS", 3)
    monkeypatch.setattr(table, "BLOCK_SECONDS", 3)
    monkeypatch.setattr(files, "load_audio", load)
    np.testing.assert_allclose(evaluate(predictor, clips).scores, wanted, atol=1e-5)
    assert max(end - start for start, end in read) < 6
    lost = 9.0
    with pytest.raises(AudioErrors, match="1 of 2 sounds cannot be used"):
        evaluate(predictor, clips)


def test_a_long_file_gives_what_its_samples_give(
    listener: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tfaudiotl.audio.files import LongSound, load_audio

    monkeypatch.setattr(files, "BLOCK_SECONDS", 3)
    wave = np.concatenate([bursts()] * 5)
    write_audio(tmp_path / "a.flac", np.repeat(wave, 2), sample_rate=32_000)
    whole = load_audio(tmp_path / "a.flac")
    predictor = Predictor(listener, window_seconds=0.5, hop_seconds=0.25)
    found, wanted = predictor.analyze_file(tmp_path / "a.flac"), predictor.analyze(whole, sample_rate=16_000)
    assert isinstance(found.sound, LongSound)
    assert [event.label for event in found.events] == [event.label for event in wanted.events]
    assert found.duration == wanted.duration
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)
    np.testing.assert_allclose(found.waveform, whole, atol=1e-6)
    np.testing.assert_allclose(
        predictor.scores_of_files([tmp_path / "a.flac"])[0], predictor.scores(whole, sample_rate=16_000), atol=1e-5
    )


def test_an_hour_is_not_held_in_memory(listener: keras.Model, tmp_path: Path) -> None:
    import soundfile

    resource = pytest.importorskip("resource")

    with soundfile.SoundFile(tmp_path / "hour.wav", "w", 16_000, 1, "PCM_16") as file:
        for minute in range(60):
            file.write(np.random.default_rng(minute).normal(0, 0.01, 60 * 16_000).clip(-1, 1))
    predictor = Predictor(listener, window_seconds=10.0, hop_seconds=10.0)
    predictor.scores(bursts(), sample_rate=16_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = predictor.analyze_file(tmp_path / "hour.wav")
    predictor.scores_of_file(tmp_path / "hour.wav")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024  # MB
    assert found.duration == 3_600
    assert len(found.scores) == 360
    assert grown < 180  # the samples alone are 230


def test_a_tflite_file_scores_in_threads(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from tfaudiotl.export.tflite import export_tflite

    model = build_classifier("yamnet_mini", class_names=["a", "b"], weights=None, embedding="layer2", seed=1)
    predictor = Predictor(export_tflite(model, tmp_path / "m.tflite"), num_threads=1)
    waves = [bursts()[start : start + 20_000] for start in range(0, 60_000, 2_000)]
    wanted = [predictor.scores(wave, sample_rate=16_000) for wave in waves]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda wave: predictor.scores(wave, sample_rate=16_000), waves * 3))
    np.testing.assert_array_equal(found, wanted * 3)
