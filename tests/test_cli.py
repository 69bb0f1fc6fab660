"""The command line, from a folder of recordings to predictions, and what it says when something is wrong."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.sounds import write_folder
from tfaudiotl.cli import app

FAST = ["--embedding", "layer3", "--hidden", "", "--epochs", "10", "--learning-rate", "0.02"]


def call(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def trained(stand_in: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of sounds and the folder that ``train`` made of it."""
    base = tmp_path_factory.mktemp("cli")
    sounds, out = write_folder(base / "sounds"), base / "out"
    result = call("train", sounds, "-o", out, "--weights", stand_in, "--fold-pattern", r"^(\d)-", *FAST)
    assert "Accuracy over folds" in result.output
    return sounds, out


def test_train_writes_everything(trained: tuple[Path, Path]) -> None:
    out = trained[1]
    assert sorted(path.name for path in out.iterdir()) == [
        "labels.txt",
        "metrics.json",
        "model.keras",
        "model.tflite",
        "model_float16.tflite",
        "report",
        "saved_model",
    ]
    assert (out / "labels.txt").read_text() == "high\nlow\nnoise\n"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["accuracy_mean"] > 0.9
    assert [fold["name"] for fold in metrics["folds"]] == ["1", "2", "3", "4"]
    assert {check["file"] for check in metrics["exports"]} == {
        "model.keras",
        "saved_model",
        "model.tflite",
        "model_float16.tflite",
    }
    assert all(check["agreement"] >= 0.97 for check in metrics["exports"])
    assert metrics["skipped"] == []
    report = (out / "report" / "report.md").read_text()
    for part in ("Folds", "Exported files", "confusion_matrix.png", "training_curves.png", "per_class.png"):
        assert part in report
    assert (out / "report" / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")


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


def test_evaluate(trained: tuple[Path, Path], tmp_path: Path) -> None:
    sounds, out = trained
    result = call("evaluate", out / "model.tflite", sounds, "-o", tmp_path / "report")
    assert "Accuracy" in result.output
    assert (tmp_path / "report" / "report.md").is_file()


def test_export(trained: tuple[Path, Path], tmp_path: Path) -> None:
    sounds, out = trained
    small = tmp_path / "small.tflite"
    result = call("export", out / "model.keras", "-o", small, "--quantize", "float16", "--verify", sounds)
    assert "1.0000" in result.output
    assert small.with_suffix(".txt").read_text() == "high\nlow\nnoise\n"
    call("export", out / "model.keras", "-o", tmp_path / "saved")
    assert (tmp_path / "saved" / "saved_model.pb").is_file()
    assert "exists already" in call("export", out / "model.keras", "-o", small, code=1).output
    call("export", out / "model.keras", "-o", small, "--overwrite")
    assert "for names that end in .tflite" in call(
        "export", out / "model.keras", "-o", tmp_path / "x", "--quantize", "float16", code=1
    ).output.replace("\n", " ")


def test_an_output_folder_that_is_not_empty_is_kept(trained: tuple[Path, Path], stand_in: Path) -> None:
    sounds, out = trained
    before = (out / "metrics.json").read_text()
    result = call("train", sounds, "-o", out, "--weights", stand_in, *FAST, code=1)
    assert "is not empty" in result.output
    assert (out / "metrics.json").read_text() == before


def test_bad_folders_are_explained(tmp_path: Path, stand_in: Path) -> None:
    def error(folder: Path) -> str:
        result = call("train", folder, "-o", tmp_path / "out", "--weights", stand_in, code=1)
        assert result.output.startswith("Error: ")
        assert "Traceback" not in result.output
        return result.output

    assert "missing" in error(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    assert "empty" in error(tmp_path / "empty")
    write_folder(tmp_path / "one", kinds=("noise",))
    assert "noise" in error(tmp_path / "one")
    assert not (tmp_path / "out").exists()


def test_a_broken_file_is_named_and_can_be_skipped(tmp_path: Path, stand_in: Path) -> None:
    sounds = write_folder(tmp_path / "sounds", per_class=6)
    (sounds / "low" / "broken.wav").write_text("not a sound")
    result = call("train", sounds, "-o", tmp_path / "out", "--weights", stand_in, *FAST, code=1)
    assert "broken.wav" in result.output
    call("train", sounds, "-o", tmp_path / "out", "--weights", stand_in, *FAST, "--on-error", "skip")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [Path(entry["path"]).name for entry in metrics["skipped"]] == ["broken.wav"]
    assert "broken.wav" in (tmp_path / "out" / "report" / "report.md").read_text()


def test_unreachable_hub_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    sounds = write_folder(tmp_path / "sounds", per_class=2)
    handle = "http://127.0.0.1:9/google/yamnet/1"
    result = call("train", sounds, "-o", tmp_path / "out", "--weights", handle, code=1)
    for word in (handle, "TFHUB_CACHE_DIR", "--weights"):
        assert word in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folds", "3", "--fold-pattern", "x"], "not both"),
        (["--hidden", "many"], "whole numbers"),
        (["--epochs", "0"], "epochs=0"),
        (["--embedding", "layer99"], "layer99"),
        (["--val", "1.5"], "val=1.5"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], message: str, tmp_path: Path, stand_in: Path) -> None:
    sounds = write_folder(tmp_path / "sounds", per_class=4)
    result = CliRunner().invoke(
        app, ["train", str(sounds), "-o", str(tmp_path / "out"), "--weights", str(stand_in), *arguments]
    )
    assert result.exit_code in (1, 2)
    assert message in result.output.replace("\n", " ")


@pytest.mark.parametrize(("style", "beginning"), [("csv", "0.0,1.2,high,"), ("audacity", "0.000000\t1.200000\thigh")])
def test_events(style: str, beginning: str, trained: tuple[Path, Path]) -> None:
    sounds, out = trained
    result = call("events", out / "model.tflite", sounds / "high" / "1-high00.wav", "--format", style)
    assert any(line.startswith(beginning) for line in result.stdout.splitlines())


def test_listen_hears_what_comes_in(trained: tuple[Path, Path]) -> None:
    import soundfile

    sounds, out = trained
    samples, _ = soundfile.read(sounds / "high" / "1-high00.wav", dtype="int16")
    command = [sys.executable, "-m", "tfaudiotl.cli", "listen", str(out / "model.tflite")]
    done = subprocess.run(command, input=samples.tobytes(), capture_output=True, check=True)
    assert b"high" in done.stdout


def test_bench_compares_files(trained: tuple[Path, Path]) -> None:
    out = trained[1]
    result = call("bench", out / "model.tflite", out / "model_float16.tflite")
    assert "model_float16.tflite" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_training_resumes(how: signal.Signals, tmp_path: Path, stand_in: Path) -> None:
    sounds, out = write_folder(tmp_path / "sounds", per_class=12), tmp_path / "out"
    # So many epochs that the interruption falls among them.
    slow = [*FAST[:4], "--epochs", "3000", "--patience", "3000", "--learning-rate", "0.001"]
    command = [sys.executable, "-m", "tfaudiotl.cli", "train", sounds, "-o", out, "--weights", stand_in, *slow]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)
    state = out / ".work" / "train.npz"
    deadline = time.monotonic() + 120
    while not state.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    os.kill(process.pid, how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if how is signal.SIGINT else -signal.SIGKILL)
    if how is signal.SIGINT:
        assert "--resume goes on" in errors
    assert state.is_file()
    assert "--resume" in call("train", sounds, "-o", out, "--weights", stand_in, *slow, code=1).output
    other = ["--dropout", "0.4", *slow]
    assert "dropout: 0.2 then, 0.4 now" in call(
        "train", sounds, "-o", out, "--weights", stand_in, "--resume", *other, code=1
    ).output.replace("\n", " ")
    listened = state.stat().st_mtime_ns
    resumed = subprocess.Popen([*(str(part) for part in command), "--resume"], stderr=subprocess.PIPE, text=True)
    while state.stat().st_mtime_ns == listened and time.monotonic() < deadline:
        time.sleep(0.05)
    resumed.kill()
    resumed.communicate()
    assert state.stat().st_mtime_ns > listened  # it went on
