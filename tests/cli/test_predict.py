"""``tfaudiotl evaluate``, ``predict``, ``events`` and ``listen``."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.helpers.commands import call
from tfaudiotl.cli import app


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


@pytest.mark.parametrize(("style", "beginning"), [("csv", "0.0,1.2,high,"), ("audacity", "0.000000\t1.200000\thigh")])
def test_events(style: str, beginning: str, trained: tuple[Path, Path]) -> None:
    sounds, out = trained
    result = call("events", out / "model.tflite", sounds / "high" / "1-high00.wav", "--format", style)
    assert any(line.startswith(beginning) for line in result.stdout.splitlines())


@pytest.fixture
def listen(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[bytes], tuple[str, str]]:
    """What ``listen`` writes to standard output and error, of bytes on its standard input."""

    def run(content: bytes) -> tuple[str, str]:
        (tmp_path / "in.raw").write_bytes(content)
        with (tmp_path / "in.raw").open() as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", stream)
            code = app(["listen", str(trained[1] / "model.tflite")], standalone_mode=False)
        shown = capsys.readouterr()
        assert code in (None, 0, 1)
        assert bool(code) == ("Error: " in shown.err)
        return shown.out, shown.err

    return run


def test_listen_hears_what_comes_in(trained: tuple[Path, Path], listen: Callable[[bytes], tuple[str, str]]) -> None:
    sounds, out = trained
    samples, _ = soundfile.read(sounds / "high" / "1-high00.wav", dtype="int16")
    found, _ = listen(samples.tobytes())
    assert "high" in found
    assert found == call("events", out / "model.tflite", sounds / "high" / "1-high00.wav").stdout
    assert listen(samples[:2].tobytes())[0] == ""


def test_listen_says_when_no_samples_come(
    listen: Callable[[bytes], tuple[str, str]], tmp_path: Path, trained: tuple[Path, Path]
) -> None:
    for nothing in (b"", b"x"):
        assert "standard input ended without a sample" in listen(nothing)[1]
    samples, rate = soundfile.read(trained[0] / "high" / "1-high00.wav")
    for suffix, kind in {"ogg": "Ogg", "wav": "WAV", "flac": "FLAC", "aiff": "AIFF", "caf": "CAF", "au": "AU"}.items():
        path = tmp_path / f"a.{suffix}"
        soundfile.write(path, samples, rate)
        assert f"standard input is a sound file ({kind}), not bare samples" in listen(path.read_bytes())[1]


def test_events_are_written_as_the_name_says(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """In a folder that is made for them, beside a picture."""
    place = (trained[1] / "model.tflite", trained[0] / "high" / "1-high00.wav")
    new = tmp_path / "new"
    call("events", *place, "-o", new / "e.csv", "--plot", new / "e.PNG")
    assert (new / "e.csv").read_text().startswith("start,end,label,score")
    assert (new / "e.PNG").read_bytes().startswith(b"\x89PNG")
    call("events", *place, "-o", new / "e.json")
    assert json.loads((new / "e.json").read_text())[0]["label"] == "high"
    call("events", *place, "-o", new / "e.txt")
    assert (new / "e.txt").read_text() == call("events", *place).stdout
    call("events", *place, "-o", new / "labels.txt", "--format", "audacity")
    assert (new / "labels.txt").read_text().startswith("0.000000\t")


@pytest.mark.slow
def test_ctrl_c_ends_the_events_that_are_open(trained: tuple[Path, Path]) -> None:
    sounds, out = trained
    samples, _ = soundfile.read(sounds / "high" / "1-high00.wav", dtype="int16")
    command = [sys.executable, "-m", "tfaudiotl.cli", "listen", str(out / "model.tflite")]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdin
    assert process.stderr
    process.stdin.write(samples.tobytes())
    process.stdin.flush()
    while b"Listening" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(2)  # the samples, already in the pipe, are taken
    process.send_signal(signal.SIGINT)
    shown, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"high" in shown


def test_events_have_thresholds_of_their_class_and_none_of_the_background(trained: tuple[Path, Path]) -> None:
    sounds, out = trained
    place = (out / "model.tflite", sounds / "high" / "1-high00.wav")
    assert "high" in call("events", *place, "--threshold", "low=0.9").stdout
    assert "high" not in call("events", *place, "--background", "high").stdout
    assert "high" in call(
        "predict", *place, "--timeline", "--background", "high", "--report-background"
    ).stdout.replace("1-high00", "")
    refused = call("events", *place, "--threshold", "dog=0.9", code=1).output
    assert "no class is called 'dog'" in refused


def test_evaluate(trained: tuple[Path, Path], tmp_path: Path) -> None:
    sounds, out = trained
    result = call("evaluate", out / "model.tflite", sounds, "-o", tmp_path / "report")
    assert "Accuracy" in result.output
    title = (tmp_path / "report" / "report.md").read_text().splitlines()[0]
    assert title == f"# Evaluation of {str(out / 'model.tflite').replace('_', chr(92) + '_')}"  # all are called so


def test_some_of_the_classes_and_others(trained: tuple[Path, Path], tmp_path: Path) -> None:
    sounds, out = trained
    some = tmp_path / "some"
    some.mkdir()
    (some / "low").symlink_to(sounds / "low", target_is_directory=True)
    result = call("evaluate", out / "model.tflite", some)
    assert "No clips of 2 of the 3 classes: high, noise." in result.output
    (some / "dog").symlink_to(sounds / "high", target_is_directory=True)
    result = call("evaluate", out / "model.tflite", some, code=1)
    model = out / "model.tflite"
    assert f"{some}: has the sub-folder 'dog', which is no class of {model} (high, low, noise)" in result.output
    result = call("evaluate", out / "model.tflite", some, "--label-pattern", r"\d-(\w)", code=1)
    assert "files of --label-pattern's 'h', 'l', which are no class of" in result.output
