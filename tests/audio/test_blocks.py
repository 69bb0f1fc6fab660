"""Long files in blocks: the samples of ``load_audio``, and only some of them in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tfaudiotl.audio import files
from tfaudiotl.audio.files import LongSound, load_audio, open_samples
from tfaudiotl.audio.waveform import sounding


@pytest.mark.parametrize(
    ("rate", "suffix"), [(16_000, "wav"), (44_100, "wav"), (22_050, "flac"), (11_025, "ogg"), (44_100, "mp3")]
)
def test_a_long_file_is_sliced_as_an_array(
    rate: int, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK_SECONDS", 2)
    wave = np.random.default_rng(0).normal(0, 0.1, round(7.3 * rate)).clip(-1, 1)
    wave[round(6.9 * rate) :] = 0
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, wave, rate)
    whole = load_audio(path)
    sound = open_samples(path)
    assert isinstance(sound, LongSound)
    assert len(sound) == len(whole)
    for part in (slice(0, 10), slice(31_000, 70_001), slice(None), slice(-5, None), slice(90_000, 90_000)):
        np.testing.assert_allclose(sound[part], whole[part], atol=1e-5)
    assert len(sound._held) <= 2
    if suffix in ("wav", "flac"):
        assert sounding(sound) == pytest.approx(sounding(whole), abs=160)  # 10 ms
    with pytest.raises(ValueError, match="step=2"):
        sound[::2]


def test_a_short_file_is_an_array(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(16_000, 0.1), 16_000)
    assert isinstance(open_samples(tmp_path / "a.wav"), np.ndarray)
