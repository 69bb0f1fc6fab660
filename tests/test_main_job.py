"""The main job from the command line: a folder of recordings, an output folder, and no other option."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from tests.helpers.sounds import KINDS, sound
from tfaudiotl.cli import app
from tfaudiotl.data.clips import Clips
from tfaudiotl.training.options import FitOptions
from tfaudiotl.training.train import KEPT_WAVEFORMS, check_windows
from tfaudiotl.workflow import train_folder


def write_many(folder: Path, clips: int) -> Path:
    """``clips`` recordings of 0.3 s at 16 kHz, in one sub-folder per kind."""
    rng = np.random.default_rng(5)
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
    for number in range(clips):
        kind = KINDS[number % len(KINDS)]
        soundfile.write(folder / kind / f"{number:05d}.wav", sound(kind, rng, seconds=0.3), 16_000)
    return folder


def command(folder: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "tfaudiotl.cli", "train", str(folder), "-o", str(out), *options]


def check_output(out: Path, clips: int) -> None:
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["clips"] == clips
    assert metrics["accuracy"] > 0.9
    assert [check["file"] for check in metrics["exports"]] == [
        "model.keras",
        "saved_model",
        "model.tflite",
        "model_float16.tflite",
    ]
    assert (out / "report" / "report.html").is_file()
    assert (out / "MODEL_CARD.md").is_file()
    assert not (out / ".work").exists()


@pytest.mark.slow
@pytest.mark.parametrize("clips", [400, 2_000])
def test_the_main_job(clips: int, tmp_path: Path) -> None:
    folder, out = write_many(tmp_path / "sounds", clips), tmp_path / "out"
    done = subprocess.run(command(folder, out), capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    check_output(out, clips)


@pytest.mark.slow
def test_the_main_job_killed_and_resumed_and_with_fine_tuning(tmp_path: Path) -> None:
    folder, out = write_many(tmp_path / "sounds", 400), tmp_path / "out"
    process = subprocess.Popen(command(folder, out, "--fine-tune", "1"), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not list(out.glob(".work/**/blocks*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "metrics.json").exists()
    done = subprocess.run(
        command(folder, out, "--fine-tune", "1", "--resume"), capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    check_output(out, 400)


@pytest.mark.slow
def test_several_labels_per_clip_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    for number, path in enumerate(sorted(write_many(tmp_path / "made", 400).rglob("*.wav"))):
        labels = "noise" if path.parent.name == "noise" else f"tone+{path.parent.name}"
        path.rename(tmp_path / "sounds" / f"{labels}_{number}.wav")
    sounds, out = str(tmp_path / "sounds"), tmp_path / "out"
    names = ["--label-pattern", "^([^_]+)_", "--label-separator", "+"]
    done = CliRunner().invoke(app, ["train", sounds, "-o", str(out), *names])
    assert done.exit_code == 0, done.output
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["mean_average_precision"] > 0.9
    assert metrics["clips"] == 400
    done = CliRunner().invoke(app, ["evaluate", str(out / "model.tflite"), sounds, *names])
    assert done.exit_code == 0, done.output
    assert "ean average precision" in done.output


@pytest.mark.slow
def test_several_labels_per_clip(tmp_path: Path) -> None:
    paths = sorted(write_many(tmp_path / "sounds", 400).rglob("*.wav"))
    labels = [["noise"] if path.parent.name == "noise" else ["tone", path.parent.name] for path in paths]
    train_folder(Clips.from_files(paths, labels), tmp_path / "out", fit=FitOptions(epochs=20), backbone="yamnet_mini")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["mean_average_precision"] > 0.9
    assert metrics["clips"] == 400


@pytest.mark.parametrize("clips", [20, 100, 160, 200, 400, 2_000])
@pytest.mark.parametrize("seed", [0, 3])
def test_exports_are_checked_on_held_out_clips_whatever_their_number(clips: int, seed: int) -> None:
    table = Clips.from_arrays(
        [np.full(16, (n + 1) / clips, np.float32) for n in range(clips)], ["a", "b"] * (clips // 2), sample_rate=16_000
    )
    _, held_out = table.split(test=0.2, seed=seed)
    windows = check_windows(held_out.source, np.repeat(np.arange(clips), 2), seed)
    assert len(windows) == min(KEPT_WAVEFORMS, len(held_out))
    assert (windows % 2 == 0).all()  # the first of a clip's two windows
    assert set(windows // 2) <= set(held_out.source.tolist())


def test_the_first_usable_window_is_checked() -> None:
    """Clip 0 lost its first window (a silent one, say), clip 1 was left out."""
    parents = np.array([0, 2, 2, 3])
    assert check_windows(np.array([0, 2, 3]), parents, 0).tolist() == [0, 1, 3]
