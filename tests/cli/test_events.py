"""``tfaudiotl events`` and ``tfaudiotl listen``."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from tests.helpers.commands import call
from tfaudiotl.cli import app


@pytest.mark.parametrize(("style", "beginning"), [("csv", "0.0,1.2,high,"), ("audacity", "0.000000\t1.200000\thigh")])
def test_events(style: str, beginning: str, trained: tuple[Path, Path]) -> None:
    sounds, out = trained
    result = call("events", out / "model.tflite", sounds / "high" / "1-high00.wav", "--format", style)
    assert any(line.startswith(beginning) for line in result.stdout.splitlines())


def test_listen_hears_what_comes_in(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sounds, out = trained
    samples, _ = soundfile.read(sounds / "high" / "1-high00.wav", dtype="int16")

    def heard(content: bytes) -> str:
        (tmp_path / "in.raw").write_bytes(content)
        with (tmp_path / "in.raw").open() as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", stream)
            app(["listen", str(out / "model.tflite")], standalone_mode=False)
        return capsys.readouterr().out

    found = heard(samples.tobytes())
    assert "high" in found
    assert found == call("events", out / "model.tflite", sounds / "high" / "1-high00.wav").stdout
    assert heard(samples[:2].tobytes()) == ""


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
