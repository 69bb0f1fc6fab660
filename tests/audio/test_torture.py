from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soxr

from tests.helpers.difficult_files import Good, bad_files, good_files, long_silence
from tests.helpers.sounds import tone, write
from tfaudiotl.audio.files import audio_info, load_audio
from tfaudiotl.data.clips import Clips
from tfaudiotl.errors import AudioError, AudioErrors


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> list[Good]:
    return good_files(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    return bad_files(tmp_path_factory.mktemp("bad"))


def test_good_files_equal_a_reference_decode(good: list[Good]) -> None:
    assert len(good) >= 150
    for file in good:
        info = audio_info(file.path)
        assert (info.sample_rate, info.channels) == (file.rate, file.samples.shape[1]), file.path.name
        assert abs(info.frames - len(file.samples)) <= 1_152, file.path.name
        every = load_audio(file.path, sample_rate=file.rate, channels="all")
        assert every.shape == file.samples.shape, file.path.name
        assert np.abs(every - file.samples).max() <= file.tolerance, file.path.name
        mean, first = (load_audio(file.path, sample_rate=file.rate, channels=kind) for kind in ("mean", "first"))
        assert np.abs(mean - file.samples.mean(axis=1)).max() <= file.tolerance, file.path.name
        assert np.array_equal(first, every[:, 0]), file.path.name
        assert np.array_equal(load_audio(file.path, sample_rate=file.rate, channels=info.channels - 1), every[:, -1])


def test_good_files_at_16_khz_equal_a_reference_resampler(good: list[Good]) -> None:
    for file in good:
        result = load_audio(file.path)
        assert len(result) == -(-len(file.samples) * 16_000 // file.rate), file.path.name
        assert np.isfinite(result).all()
        decoded = load_audio(file.path, sample_rate=file.rate).astype(np.float64)
        expected = soxr.resample(decoded, file.rate, 16_000, quality="VHQ")
        both = min(len(result), len(expected))
        # Where a tone is cut off, two filters ring differently; between, they agree.
        error = np.abs(result[:both] - expected[:both])[both // 5 : -both // 5 or None]
        assert error.max(initial=0) <= 2e-4, file.path.name


def test_bad_files_are_named_with_their_reason(bad: dict[Path, str]) -> None:
    for path, reason in bad.items():
        with pytest.raises(AudioError) as caught:
            load_audio(path)
        assert caught.value.path == str(path)
        assert reason in caught.value.reason, (path.name, caught.value.reason)


def test_both_ways_to_treat_errors(good: list[Good], bad: dict[Path, str]) -> None:
    files = [file.path for file in good[::8]] + list(bad)
    labels = ["good"] * len(good[::8]) + ["bad"] * len(bad)
    with pytest.raises(AudioErrors) as caught:
        Clips.from_files(files, labels)
    headers = {error.path for error in caught.value.errors}
    assert headers <= {str(path) for path in bad}
    log: list[AudioError] = []
    clips = Clips.from_files(files, labels, on_error="skip")
    assert {error.path for error in clips.skipped} == headers
    rows = [waveforms for waveforms, _ in clips.dataset(on_error="skip", log=log)]
    assert sum(map(len, rows)) == len(good[::8])
    assert all(np.isfinite(waveforms).all() for waveforms in rows)
    assert {error.path for error in [*clips.skipped, *log]} == {str(path) for path in bad}
    assert all(error.reason for error in log)
    with pytest.raises(Exception, match=r"truncated|NaN|integers|damaged"):
        list(clips.dataset())


def test_hours_of_silence_are_read_in_parts(tmp_path: Path) -> None:
    path = long_silence(tmp_path / "silence.wav")
    assert audio_info(path).duration == 3 * 3_600
    assert not load_audio(path, start=10_000, end=10_001).any()
    clips = Clips.from_files([path, path], ["a", "b"], starts=[0, 7_200], ends=[None, 7_203])
    assert len(clips.windows(10)) == 1_081
    waveforms, _ = next(iter(clips[1:].dataset()))
    assert waveforms.shape == (1, 48_000)
    assert not np.asarray(waveforms).any()


def test_loops_of_links_end(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name / "tone.wav", tone(0.1, 16_000))
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    (tmp_path / "a" / "self.wav").symlink_to(tmp_path / "a" / "self.wav")
    clips = Clips.from_directory(tmp_path, on_error="skip")
    assert [error.path for error in clips.skipped] == [str(tmp_path / "a" / "self.wav")]
    assert "symbolic links" in clips.skipped[0].reason


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs another user")
def test_files_that_may_not_be_read() -> None:
    # In a process without rights, since root reads everything; and not in pytest's folder, which is root's.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = write(Path(folder) / "a.wav", tone(0.1, 16_000))
        path.chmod(0)
        child = os.fork()
        if child == 0:
            if os.getuid() == 0:
                os.setuid(65_534)
            try:
                audio_info(path)
            except AudioError as error:
                os._exit(7 if error.reason == "permission to read it is denied" else 1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
