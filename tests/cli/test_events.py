"""``tfaudiotl events`` and ``tfaudiotl listen``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.calling import call


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
    whole = call("events", out / "model.tflite", sounds / "high" / "1-high00.wav")
    assert done.stdout.decode() == whole.stdout
    done = subprocess.run(command, input=samples[:2].tobytes(), capture_output=True, check=True)
    assert done.stdout == b""
