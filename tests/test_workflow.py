"""What ``train_folder`` leaves behind: whole results or the old ones, and figures that say what they rest on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.sounds import KINDS, sound, write_folder
from tfaudiotl import workflow
from tfaudiotl.data.clips import Clips
from tfaudiotl.errors import ExportError
from tfaudiotl.training import train as recipe
from tfaudiotl.training.options import FineTuneOptions, FitOptions
from tfaudiotl.training.train import TESTABLE, train_classifier
from tfaudiotl.workflow import RESULTS, WORK, _put_in_place, train_folder

OPTIONS: dict[str, Any] = {
    "backbone": "yamnet_mini",
    "embedding": "layer2",
    "hidden": (),
    "fit": FitOptions(epochs=3, learning_rate=0.02),
}


def clips(per_class: int, **columns: Any) -> Clips:
    rng = np.random.default_rng(4)
    labels = [kind for kind in KINDS for _ in range(per_class)]
    return Clips.from_arrays([sound(kind, rng, seconds=0.3) for kind in labels], labels, sample_rate=16_000, **columns)


# Results are replaced together


def fill(folder: Path, text: str) -> None:
    for name in RESULTS:
        if "." in name:
            (folder / name).write_text(text)
        else:
            (folder / name).mkdir()
            (folder / name / "content").write_text(text)


def contents(folder: Path) -> set[str]:
    return {path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """New results, old results, and a folder for what is moved away."""
    new, output = tmp_path / "new", tmp_path / "output"
    for folder, text in ((new, "new"), (output, "old")):
        folder.mkdir()
        fill(folder, text)
    return new, output, tmp_path / "aside"


def test_new_results_take_the_place_of_old_ones(folders: tuple[Path, Path, Path]) -> None:
    new, output, aside = folders
    (output / "notes.txt").write_text("old")
    (output / "model.tflite").unlink()
    _put_in_place(new, output, aside=aside)
    assert sorted(path.name for path in output.iterdir()) == sorted([*RESULTS, "notes.txt"])
    (output / "notes.txt").unlink()
    assert contents(output) == {"new"}


@pytest.mark.parametrize("fails", range(1, 2 * len(RESULTS) + 1))
def test_when_a_step_fails_the_old_results_are_there_whole(
    fails: int, folders: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    new, output, aside = folders
    rename, calls = os.rename, 0

    def failing(before: Path, after: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == fails:
            raise OSError(28, "No space left on device")
        rename(before, after)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="No space"):
        _put_in_place(new, output, aside=aside)
    assert contents(output) == {"old"}
    assert sorted(path.name for path in output.iterdir()) == sorted(RESULTS)


def test_a_failed_export_leaves_the_old_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    fill(out, "old")

    def fail(*arguments: Any, **options: Any) -> None:
        raise ExportError("the disk is full")

    monkeypatch.setattr(workflow, "export_all", fail)
    with pytest.raises(ExportError):
        train_folder(clips(4), out, overwrite=True, **OPTIONS)
    assert contents(out / "report") == {"old"}
    assert {name: (out / name).read_text() for name in RESULTS if "." in name} == {
        name: "old" for name in RESULTS if "." in name
    }


def test_a_folder_called_like_the_state_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / WORK).mkdir()
    (tmp_path / WORK / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="something else"):
        train_folder(clips(4), tmp_path, overwrite=True, **OPTIONS)
    assert (tmp_path / WORK / "thesis.txt").is_file()


# What the figures rest on


def test_clips_that_are_enough_to_test_on() -> None:
    assert recipe.testable(clips(TESTABLE))
    assert not recipe.testable(clips(TESTABLE - 1))
    grouped = clips(2 * TESTABLE, groups=[str(number // 4) for number in range(6 * TESTABLE)])
    assert not recipe.testable(grouped)


def test_held_out_clips_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of the held-out clips turned around change no weight and no number of epochs."""
    table = clips(12)
    _, held_out = table.split(test=0.2, seed=0)
    held = set(held_out.source.tolist())
    turned = [
        KINDS[(KINDS.index(label[0]) + 1) % 3] if row in held else label[0] for row, label in enumerate(table.labels)
    ]
    wrong = Clips.from_arrays([table.load(row) for row in range(len(table))], turned, sample_rate=16_000)
    monkeypatch.setattr(Clips, "split", _same_rows(held, Clips.split))
    results = [train_classifier(each, **OPTIONS) for each in (table, wrong)]
    assert results[0].epochs == results[1].epochs
    for ours, theirs in zip(results[0].model.get_weights(), results[1].model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not results[0].stopped_by_held_out
    assert "decided nothing" in results[0].how_measured()
    assert results[0].evaluation.accuracy > 0.8
    assert results[1].evaluation.accuracy < 0.2


def _same_rows(held: set[int], original: Any) -> Any:
    """A split of 36 rows that holds out these, whatever the labels; smaller tables as ever."""

    def split(self: Clips, **options: Any) -> tuple[Clips, Clips]:
        if len(self) != 36:
            return original(self, **options)
        mask = np.array([row in held for row in range(36)])
        return self[~mask], self[mask]

    return split


def test_few_clips_stop_the_training_and_the_results_say_so(tmp_path: Path) -> None:
    sounds = write_folder(tmp_path / "sounds", per_class=6)
    options = {**OPTIONS, "embedding": "layer3", "fit": FitOptions(epochs=25, learning_rate=0.02)}
    metrics = train_folder(Clips.from_directory(sounds), tmp_path / "out", **options)
    assert metrics["stopped_by_held_out"]
    told = "which also told when to stop it"
    assert told in metrics["how_measured"]
    assert told in json.loads((tmp_path / "out" / "metrics.json").read_text())["how_measured"]
    for name in ("MODEL_CARD.md", "report/report.md", "report/report.html"):
        assert told in (tmp_path / "out" / name).read_text()


@pytest.mark.slow
def test_fine_tuning_is_measured_on_clips_that_decided_nothing(tmp_path: Path) -> None:
    tuning = FineTuneOptions(trainable=1, head_epochs=2, epochs=2)
    options = {name: value for name, value in OPTIONS.items() if name != "fit"}
    metrics = train_folder(clips(12), tmp_path / "out", fine_tune=tuning, **options)
    assert not metrics["stopped_by_held_out"]
