from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.sounds import tone, write
from tfaudiotl.audio import decoders
from tfaudiotl.audio.files import audio_info, load_audio
from tfaudiotl.data.clips import Clips
from tfaudiotl.errors import AudioError

installed = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
RATE = 44_100


def encode(path: Path, *options: str, seconds: float = 3.0) -> Path:
    stereo = np.stack([tone(seconds, RATE), tone(seconds, RATE, frequency=1_000)], axis=1)
    wave = write(path.with_suffix(".source.wav"), stereo, RATE)
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", wave, *options, path], check=True)
    return path


@installed
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.m4a", ["-b:a", "192k"]),
        ("-dash: %s.m4a", ["-b:a", "192k"]),
        ("a.aac", ["-b:a", "192k"]),
        ("a.wma", ["-b:a", "192k"]),
        ("a.mka", ["-c:a", "flac"]),
        ("video.mp4", ["-f", "lavfi", "-i", "color=s=64x64:d=3", "-shortest", "-b:a", "192k"]),
    ],
)
def test_formats_that_libsndfile_does_not_read(tmp_path: Path, name: str, options: list[str]) -> None:
    path = encode(tmp_path / name, *options)
    info = audio_info(path)
    assert (info.sample_rate, info.channels) == (RATE, 2)
    assert info.duration == pytest.approx(3.0, abs=0.15)
    every = load_audio(path, channels="all")
    assert every.shape[1] == 2
    # ADTS and WMA carry no note of their encoder's delay, so the tones are compared by their spectrum.
    for number, frequency in enumerate((440, 1_000)):
        spectrum = np.abs(np.fft.rfft(every[8_000:24_000, number]))
        assert spectrum.argmax() == frequency
        assert np.abs(every[8_000:24_000, number]).max() == pytest.approx(0.5, abs=0.05)
    assert np.abs(load_audio(path) - every.mean(axis=1)).max() < 1e-6


@installed
@pytest.mark.parametrize(("suffix", "options"), [(".m4a", ["-b:a", "192k"]), (".mka", ["-c:a", "flac"])])
def test_a_span_is_that_part_of_the_whole(tmp_path: Path, suffix: str, options: list[str]) -> None:
    path = encode(tmp_path / f"a{suffix}", *options)
    whole = load_audio(path)
    for start, end in [(0.0, 1.0), (0.5, 1.25), (1.7, 2.9)]:
        span = load_audio(path, start=start, end=end)
        assert np.abs(span - whole[round(start * 16_000) : round(end * 16_000)]).max() < 2e-3


@installed
def test_files_that_ffmpeg_cannot_use(tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.m4a").read_bytes()
    (tmp_path / "truncated.m4a").write_bytes(whole[: len(whole) // 2])
    silent = tmp_path / "silent.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=s=64x64:d=1", silent], check=True)
    for path, reason in [(tmp_path / "truncated.m4a", "ffprobe cannot read it"), (silent, "no sound track")]:
        with pytest.raises(AudioError, match=reason) as caught:
            load_audio(path)
        assert caught.value.path == str(path)
    clips = Clips.from_files([tmp_path / "whole.m4a", silent], ["a", "b"], on_error="skip")
    assert [error.path for error in clips.skipped] == [str(silent)]


def test_without_ffmpeg_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders.shutil, "which", lambda name: None)
    path = tmp_path / "a.m4a"
    path.write_bytes(b"\0\0\0\x18ftypM4A " + bytes(100))
    with pytest.raises(AudioError, match="needs ffmpeg, which is not installed"):
        audio_info(path)
