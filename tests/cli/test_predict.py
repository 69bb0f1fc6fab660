"""``tfaudiotl predict``."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.helpers.commands import call


@pytest.mark.parametrize("name", ["model.keras", "saved_model", "model.tflite", "model_float16.tflite"])
def test_predict_with_every_file(name: str, trained: tuple[Path, Path]) -> None:
    sounds, out = trained
    result = call("predict", out / name, sounds, "--top", 1, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert len(rows) == 24
    right = sum(Path(row["file"]).parent.name == row["label"] for row in rows)
    assert right >= 22


def test_predict_timeline_and_json(trained: tuple[Path, Path]) -> None:
    sounds, out = trained
    file = sounds / "high" / "1-high00.wav"
    rows = json.loads(call("predict", out / "model.tflite", file, "--timeline", "--format", "json").stdout)
    assert rows[0]["label"] == "high"
    assert rows[0]["start"] == 0
    assert "high" in call("predict", out / "model.keras", file).stdout


def test_a_timeline_and_events_keep_to_the_threshold_of_the_file(trained: tuple[Path, Path], tmp_path: Path) -> None:
    sounds, out = trained
    file, strict = sounds / "high" / "1-high00.wav", tmp_path / "strict.tflite"
    call("export", out / "model.keras", "-o", strict, "--threshold", "high=1")
    for command in (("predict", "--timeline"), ("events",)):
        found = [
            json.loads(call(*command, model, file, "--format", "json", *more).stdout)
            for model, more in ((strict, ()), (out / "model.tflite", ()), (strict, ("--threshold", "0.5")))
        ]
        assert ["high" in {event["label"] for event in events} for events in found] == [False, True, True], command
