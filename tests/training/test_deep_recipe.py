"""The main recipe with fine-tuning: measured on what it never saw, folds apart, a kill loses nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.sounds import write_folder
from tfaudiotl._threads import Progress
from tfaudiotl.audio.clips import Clips
from tfaudiotl.audio.files import write_audio
from tfaudiotl.errors import AudioErrors
from tfaudiotl.training.deep_recipe import train_fine_tuned
from tfaudiotl.training.options import FineTuneOptions
from tfaudiotl.training.recipe import TrainingResult

FAST = FineTuneOptions(blocks=1, head_epochs=6, epochs=2, batch_size=8, head_learning_rate=0.02)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "sounds")


def train(clips: Clips, stand_in: Path, workdir: Path, **options: Any) -> TrainingResult:
    options = {"fine_tune": FAST, "embedding": "layer3", "hidden": (), **options}
    return train_fine_tuned(clips, workdir=workdir, weights=str(stand_in), **options)


def test_holds_out_and_scores_as_the_model_does(folder: Path, stand_in: Path, tmp_path: Path) -> None:
    write_audio(folder / "low" / "9-silent.wav", np.zeros(16_000))
    clips = Clips.from_directory(folder)
    with pytest.raises(AudioErrors, match="silent: every sample is zero"):
        train(clips, stand_in, tmp_path / "work")
    result = train(clips, stand_in, tmp_path / "work", on_error="skip")
    assert [Path(error.path).name for error in result.skipped] == ["9-silent.wav"]
    assert list(result.histories) == ["train"]  # the stages are one curve
    assert list(result.best_epochs) == ["head", "blocks"]
    assert result.evaluation.accuracy > 0.6
    scores = result.model(result.held_out.load(0)[None])
    np.testing.assert_allclose(scores[0], result.evaluation.scores[0], rtol=1e-3, atol=1e-4)
    assert {v.path.split("_")[0] for v in result.model.trainable_variables} == {"layer3", "head"}
    assert result.patches == 24 * 2
    assert len(result.kept_waveforms) == len(result.held_out)


def test_folds_never_see_what_they_are_scored_on(folder: Path, stand_in: Path, tmp_path: Path) -> None:
    clips = Clips.from_directory(folder, fold_pattern=r"^(\d)-")
    runs: set[str] = set()
    result = train(
        clips, stand_in, tmp_path / "right", folds="given", progress=lambda progress: runs.add(progress.stage)
    )
    expected = {f"Training: {run}" for run in ("fold 1, head", "fold 1, head, refit", "final, head, refit")}
    assert expected <= runs  # on all clips in the end
    assert np.mean([fold.accuracy for fold in result.folds]) > 0.8
    assert len(result.held_out) == 24
    # In fold 2 the labels are turned round: a classifier trained on the others cannot know.
    turn = {"high": "low", "low": "noise", "noise": "high"}
    labels = [
        turn[label[0]] if fold == "2" else label[0]
        for label, fold in zip(clips.labels, clips.fold, strict=True)  # type: ignore[arg-type]
    ]
    turned = Clips.from_files(clips.paths, labels, folds=list(clips.fold))  # type: ignore[arg-type]
    result = train(turned, stand_in, tmp_path / "turned", folds="given")
    assert {fold.name: fold.accuracy for fold in result.folds}["2"] <= 0.34


class Killed(Exception):
    pass


def test_a_killed_run_goes_on_and_ends_the_same(folder: Path, stand_in: Path, tmp_path: Path) -> None:
    clips = Clips.from_directory(folder)
    expected = train(clips, stand_in, tmp_path / "whole")

    def kill(progress: Progress) -> None:
        if (progress.stage, progress.done) == ("Training: train, blocks", 1):
            raise Killed

    with pytest.raises(Killed):
        train(clips, stand_in, tmp_path / "work", progress=kill)
    seen: list[str] = []
    result = train(clips, stand_in, tmp_path / "work", progress=lambda progress: seen.append(progress.stage))
    assert "Computing frozen layers" not in seen  # nothing was decoded again
    np.testing.assert_allclose(result.evaluation.scores, expected.evaluation.scores, atol=1e-6)
