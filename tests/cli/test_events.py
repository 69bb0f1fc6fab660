"""``tfaudiotl events`` and ``tfaudiotl listen``."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
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
