"""``tfaudiotl predict``."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

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


def test_what_cannot_be_classified_is_said(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """Silence, a click, a fragment, and channels whose mean is silence; a short sound is none of these."""
    model, noise = trained[1] / "model.tflite", np.random.default_rng(0).uniform(-0.5, 0.5, 32_000)
    click = np.zeros(32_000)
    click[1_000] = 0.5
    opposite = np.stack([noise, -noise], axis=1)
    sounds = {
        "silence": (np.zeros(32_000), "is silent"),
        "click": (click, "is silent but for 1 samples"),
        "one": (noise[:1], "lasts 6.3e-05 s, and the model takes 0.975 s at a time"),
        "opposite": (opposite, "its channels cancel each other out"),
        "nearly": (opposite + np.array([1e-4, 0]), "its channels cancel each other out"),
        "short": (noise[:6_400], None),
        "stereo": (np.stack([noise, noise], axis=1), None),
        "quiet": (np.stack([1e-4 * noise, 1e-4 * noise], axis=1), None),
    }
    for name, (samples, _) in sounds.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 16_000, subtype="FLOAT")
    result = call("predict", model, *(tmp_path / f"{name}.wav" for name in sounds), "--format", "csv", "--top", 1)
    assert len(result.stdout.splitlines()) == 1 + len(sounds)
    for name, (_, warning) in sounds.items():
        path = tmp_path / f"{name}.wav"
        said = [line for line in result.stderr.splitlines() if line.startswith(f"Warning: {path}")]
        assert len(said) == (warning is not None), name
        if warning is not None:
            assert said[0].startswith(f"Warning: {path}: {warning}")
    for command in (("events",), ("predict", "--timeline")):
        assert "is silent" in call(*command, model, tmp_path / "silence.wav").stderr


def test_rows_of_json_end_their_lines(trained: tuple[Path, Path]) -> None:
    """So that what goes to standard error stands on lines of its own on a terminal that shows both."""
    sounds, out = trained
    files = [sounds / "high" / "1-high00.wav", sounds / "low" / "1-low00.wav"]
    result = call("predict", out / "model.tflite", *files, "--format", "json")
    lines = result.stdout.splitlines()
    assert len(json.loads(result.stdout)) == 6
    assert len(lines) == 7
    assert [line[:3] for line in lines] == ["[ {", *[", {"] * 5, "]"]
