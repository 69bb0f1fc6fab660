"""What training reports of a classifier is what ``tl.evaluate`` says of it on the same clips, whatever their length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.helpers.sounds import sound
from tfaudiotl.audio.waveform import FAINTEST, cut, own_window
from tfaudiotl.backbones.frontend import LogMelSpec, WindowSpec
from tfaudiotl.data.clips import Clips
from tfaudiotl.runtime.evaluate import evaluate
from tfaudiotl.training.batches import means_by_clip, patch_windows
from tfaudiotl.training.compare import window_scores
from tfaudiotl.training.options import FineTuneOptions, FitOptions
from tfaudiotl.training.train import train_classifier

RATE = 44_100
SECONDS = (10.02, 10.5, 12.0, 0.4, 20.3, 9.99)


def long_clip(kind: str, rng: np.random.Generator, seconds: float, rate: int = RATE) -> np.ndarray:
    """A clip whose end sounds otherwise than its beginning, with digital silence within and behind."""
    wave = np.concatenate(
        [sound(kind, rng, seconds=0.9 * seconds, rate=rate), sound("noise", rng, seconds=0.1 * seconds, rate=rate)]
    )
    if seconds > 10:
        wave[int(9.3 * rate) : int(9.8 * rate)] = 0  # where a piece of 10 s ends
    return np.pad(wave, (0, int(0.3 * rate)))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    folder, rng = tmp_path_factory.mktemp("long"), np.random.default_rng(5)
    for kind in ("high", "low"):
        (folder / kind).mkdir()
        for number, seconds in enumerate(SECONDS):
            soundfile.write(folder / kind / f"{number}.wav", long_clip(kind, rng, seconds), RATE, subtype="FLOAT")
    return Clips.from_directory(folder)


@pytest.mark.parametrize("options", [{}, {"head": "gru", "hidden": (8,)}, {"aggregate": "embeddings"}], ids=str)
def test_training_and_evaluation_score_alike(options: dict[str, Any], clips: Clips) -> None:
    fit = FitOptions(epochs=3, seed=1)
    result = train_classifier(clips, test=0.5, fit=fit, backbone="yamnet_mini", embedding="layer2", **options)
    assert result.held_out.durations.max() > 10.1
    found = evaluate(result.model, result.held_out)
    np.testing.assert_allclose(found.scores, result.evaluation.scores, atol=1e-3)
    assert found.accuracy == result.evaluation.accuracy
    assert np.ptp(found.scores[:, 0]) > 0.02  # they are not all alike


def test_fine_tuning_and_comparisons_score_alike(clips: Clips, tmp_path: Path) -> None:
    result = train_classifier(
        clips,
        fine_tune=FineTuneOptions(trainable=1, epochs=1, head_epochs=2),
        test=0.5,
        workdir=tmp_path,
        backbone="yamnet_mini",
        embedding="layer2",
    )
    found = evaluate(result.model, result.held_out)
    np.testing.assert_allclose(found.scores, result.evaluation.scores, atol=1e-3)
    np.testing.assert_allclose(window_scores(result.model, result.held_out, 10.0), found.scores, atol=1e-3)


@pytest.mark.parametrize("grid", [LogMelSpec(), WindowSpec(window=8_000, hop=4_000)], ids=["log_mel", "windows"])
def test_windows_of_training_are_the_pieces_of_use(grid: LogMelSpec | WindowSpec, clips: Clips) -> None:
    windows = patch_windows(clips, grid, 10.0)
    for clip in range(len(clips)):
        whole = clips.load(clip)
        sounding = int(np.flatnonzero(whole)[-1]) + 1
        rows = np.flatnonzero(windows.source == clip)
        pieces = cut(sounding if len(whole) > own_window(grid) else len(whole), grid)
        assert windows.patches[rows].tolist() == [piece.patches for piece in pieces]
        for row, piece in zip(rows.tolist(), pieces, strict=True):
            held = windows[[row]].load(0)  # rows that were picked know their places
            wanted = whole[piece.start : piece.stop]
            np.testing.assert_allclose(held[: len(wanted)], wanted, atol=1e-5)
            assert not np.any(np.abs(held[len(wanted) :]) > 1e-5)
            assert row == rows[-1] or (len(held) == len(wanted) and held[-1] != 0)
    with pytest.raises(ValueError, match="window_seconds=0"):
        patch_windows(clips, grid, 0)


def test_a_silent_piece_and_silence_behind_a_clip() -> None:
    rng = np.random.default_rng(0)
    wave = rng.uniform(-0.5, 0.5, 40 * 16_000).astype(np.float32)
    wave[9 * 16_000 : 22 * 16_000] = 0
    wave[29 * 16_000 :] = 0
    windows = patch_windows(
        Clips.from_arrays([wave, wave[:16_000]], ["a", "b"], sample_rate=16_000), LogMelSpec(), 10.0
    )
    assert windows.source.tolist() == [0, 0, 0, 1]
    assert windows.patches.tolist() == [20, 20, 20, 2]
    silent = windows.load(1)  # 9.6 to 19.7 s
    assert (np.flatnonzero(silent).tolist(), silent[-1]) == ([161_519], FAINTEST)
    assert windows.load(2)[-1] == 0  # behind the clip's sound


def test_windows_weigh_by_their_patches() -> None:
    scores = np.array([[1.0, 0.0], [0.0, 1.0], [0.4, 0.6]])
    rows, means = means_by_clip(scores, np.array([3, 3, 5]), np.array([20, 1, 7]))
    assert rows.tolist() == [3, 5]
    np.testing.assert_allclose(means, [[20 / 21, 1 / 21], [0.4, 0.6]])
