"""Unlabelled sound for distillation: seeded, in range, and varied as the options say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.sounds import write_folder
from tfaudiotl.errors import AudioErrors
from tfaudiotl.training.distill import Mixer, MixOptions, load_folders, synthetic

PLAIN = {
    "mix": 0.0,
    "synthetic": 0.0,
    "gain_db": (0.0, 0.0),
    "speed": (1.0, 1.0),
    "short": 0.0,
    "noise": 0.0,
    "narrow": 0.0,
}
SAMPLES = 15_600


def tone(hertz: float, seconds: float = 2.0) -> np.ndarray:
    time = np.arange(int(seconds * 16_000)) / 16_000
    return (16_384 * np.sin(2 * np.pi * hertz * time)).astype(np.int16)


def mixer(sounds: list[list[np.ndarray]], seed: int = 0, **options: Any) -> Mixer:
    return Mixer(sounds, SAMPLES, MixOptions(**{**PLAIN, **options}), seed)


def peak_hertz(wave: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(wave)).argmax() * 16_000 / len(wave))


def test_an_example_depends_on_seed_and_number_alone() -> None:
    sounds = [[tone(500), tone(900)], [tone(2_000)]]
    one, other = Mixer(sounds, SAMPLES, MixOptions(), 3), Mixer(sounds, SAMPLES, MixOptions(), 3)
    first = [one(number) for number in range(20)]
    for number in reversed(range(20)):
        np.testing.assert_array_equal(other(number), first[number])
    assert not np.array_equal(Mixer(sounds, SAMPLES, MixOptions(), 4)(0), first[0])


def test_examples_are_waveforms() -> None:
    draw = Mixer([[tone(500), np.zeros(100, np.int16)]], SAMPLES, MixOptions(), 0)
    for number in range(200):
        wave = draw(number)
        assert wave.shape == (SAMPLES,)
        assert wave.dtype == np.float32
        assert np.abs(wave).max() <= 1


def test_plain_examples_are_the_recording() -> None:
    wave = mixer([[tone(500)]])(0)
    assert peak_hertz(wave) == pytest.approx(500, abs=2)
    assert np.abs(wave).max() == pytest.approx(0.5, abs=0.01)


def test_gain_speed_and_mixing() -> None:
    assert np.abs(mixer([[tone(500)]], gain_db=(-6.02, -6.02))(0)).max() == pytest.approx(0.25, abs=0.01)
    assert peak_hertz(mixer([[tone(500)]], speed=(1.2, 1.2))(0)) == pytest.approx(600, abs=2)
    draw = mixer([[tone(500), tone(2_000)]], mix=1.0)
    both = 0
    for number in range(60):  # half of the pairs are of two sounds
        spectrum = np.abs(np.fft.rfft(draw(number)))
        both += all(spectrum[hertz * SAMPLES // 16_000 - 3 :][:7].max() > 100 for hertz in (500, 2_000))
    assert both == pytest.approx(30, abs=14)


def test_narrow_examples_lack_the_highs(rng: np.random.Generator) -> None:
    noise = (8_000 * rng.standard_normal(40_000)).clip(-32_000, 32_000).astype(np.int16)
    power = np.abs(np.fft.rfft(mixer([[noise]], narrow=1.0)(1))) ** 2
    assert power[-1_500:].sum() < 1e-3 * power[:1_500].sum()


def test_short_sounds_lie_in_silence() -> None:
    for draw in (mixer([[tone(500)]], short=1.0), mixer([[tone(500, seconds=0.5)]])):
        assert 0.02 < (draw(4) == 0).mean() < 0.85


def test_big_folders_do_not_drown_small_ones() -> None:
    draw = mixer([[tone(500)] * 100, [tone(2_000)] * 4])
    share = np.mean([peak_hertz(draw(number)) > 1_000 for number in range(300)])
    assert share == pytest.approx(2 / 12, abs=0.07)


def test_synthetic_sounds_are_finite_and_heard(rng: np.random.Generator) -> None:
    for _ in range(100):
        wave = synthetic(SAMPLES, rng)
        assert wave.shape == (SAMPLES,)
        assert np.isfinite(wave).all()
        assert np.abs(wave).max() > 0.001


def test_folders(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", per_class=4)
    sounds, skipped = load_folders([tmp_path / "a" / "low", tmp_path / "a"], exclude="/2-")
    assert [len(folder) for folder in sounds] == [3, 9]
    assert sounds[0][0].dtype == np.int16
    assert not skipped
    (tmp_path / "a" / "low" / "bad.wav").write_bytes(b"no sound")
    with pytest.raises(AudioErrors, match=r"bad\.wav"):
        load_folders([tmp_path / "a"])
    sounds, skipped = load_folders([tmp_path / "a"], on_error="skip")
    assert ([len(folder) for folder in sounds], len(skipped)) == ([12], 1)
    with pytest.raises(ValueError, match="leaves no sound"):
        load_folders([tmp_path / "a" / "high"], exclude="wav$")
    with pytest.raises(ValueError, match="at least one folder"):
        load_folders([])


@pytest.mark.parametrize(("option", "value"), [("mix", 1.5), ("short", -0.1), ("gain_db", (6, -6)), ("speed", (0, 1))])
def test_wrong_options_are_named(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{option}="):
        MixOptions(**{option: value})
