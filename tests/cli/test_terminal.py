"""What a person sees: progress at any width, errors as one message, nothing from TensorFlow."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from functools import partial
from pathlib import Path

import pytest
import tensorflow as tf
import typer
from rich.console import Console

from tests.helpers.commands import call
from tfaudiotl._threads import Progress
from tfaudiotl.cli import console
from tfaudiotl.embeddings.engine import ParityError
from tfaudiotl.errors import AudioError, ExportError

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.mark.parametrize("width", [40, 80])
def test_progress_fits_the_terminal(width: int) -> None:
    out = io.StringIO()
    screen = Console(file=out, force_terminal=True, width=width, height=24, legacy_windows=False)
    with console._bars(screen) as bars:
        shown = console._Bars(bars)
        for done in (1, 2_000):
            shown(Progress("Computing embeddings", done, 2_000))
            bars.refresh()
        measures = {"loss": 0.5, "accuracy": 0.8, "val_loss": 0.4, "val_loss_error": 0.0, "val_accuracy": 0.75}
        shown(Progress("Training: fold 1, refit", 100, 100, measures))
        bars.refresh()
        shown.finish()
    lines = re.split(r"[\r\n]", ESCAPE.sub("", out.getvalue()))
    assert max(map(len, lines)) <= width
    assert any("Computing embeddings" in line and "1/2000" in line for line in lines)
    assert any("Training" in line and "100/100" in line for line in lines)
    # what has ended leaves one line
    assert sum(line.startswith("Computing embeddings: 2000 of 2000, ") for line in lines) == 1
    assert any("val_accuracy 0.750" in line for line in lines) == (width == 80)


def test_results_on_a_terminal_are_their_own_progress(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plain terminal, which has no bars, shows rows of results without lines of progress between them."""
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("rich.console.Console", partial(Console, force_terminal=True))
    for bars in (False, True):
        with console.progress_shown(bars=bars) as shown:
            shown(Progress("Classifying", 1, 2))
        assert capsys.readouterr().err == ("Classifying: 1 of 2\n" if bars else "")


def encrypted(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "x")
    content = bytearray(path.read_bytes())
    for header in (b"PK\x03\x04", b"PK\x01\x02"):  # the flag of an encrypted entry, in both places
        place = content.index(header) + (6 if header[2] == 3 else 8)
        content[place] |= 1
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        archive.read("x")


def too_wide(path: Path) -> None:
    path.write_text("x" * 200_000)
    with path.open(newline="") as file:
        next(csv.reader(file))


def raised(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (too_wide, "field larger than field limit"),
        (encrypted, "is encrypted, password required"),
        (lambda path: raised(KeyError("label")), "KeyError: 'label'"),
        (lambda path: "caf\udce9.wav".encode(), r"'caf\udce9.wav' cannot be written as utf-8"),
        (lambda path: raised(ParityError("layer3: cosine 0.5")), "layer3: cosine 0.5"),
        (lambda path: raised(tf.errors.ResourceExhaustedError(None, None, "OOM\n  in a node")), "OOM"),
        (lambda path: raised(MemoryError()), "out of memory"),
        (lambda path: raised(MemoryError("Unable to allocate 3 GiB")), "out of memory: Unable to allocate 3 GiB"),
        (
            lambda path: raised(OSError(errno.ENOSPC, "No space left on device", str(path))),
            "x: No space left on device",
        ),
        (lambda path: raised(PermissionError(errno.EACCES, "Permission denied", str(path))), "x: Permission denied"),
        (lambda path: raised(ImportError("No module named 'pyarrow'")), "No module named 'pyarrow'"),
        (lambda path: raised(AudioError("a.wav", "silent")), "a.wav: silent"),
        (lambda path: raised(ExportError("m.tflite: agrees on 12 %")), "m.tflite: agrees on 12 %"),
    ],
)
def test_every_error_is_one_message(work, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    def command() -> None: ...

    with pytest.raises(typer.Exit) as ended, console.errors(command):
        work(tmp_path / "x")
    assert ended.value.exit_code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: ")
    assert message in line


def test_verbose_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None: ...

    with pytest.raises(typer.Exit), console.errors(command, verbose=True):
        raised(KeyError("label"))
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert "in raised\n" in text


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None: ...

    with pytest.raises(typer.Exit) as ended, console.errors(command):
        raise KeyboardInterrupt
    assert ended.value.exit_code == 130
    assert capsys.readouterr().err.strip() == "Interrupted."


def run(arguments: list[object], *, shell: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own; ``shell`` follows it in a shell, redirections say."""
    environment = {name: value for name, value in os.environ.items() if name != console.LOG_LEVEL}
    command = [sys.executable, "-m", "tfaudiotl.cli", *map(str, arguments)]
    script = ["bash", "-c", f'set -o pipefail; "$@" {shell}', "-", *command]
    done = subprocess.run(script, capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == code, done.stderr
    return done


def test_predict_keeps_to_itself_and_skips(trained: tuple[Path, Path], tmp_path: Path) -> None:
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    for number, path in enumerate(sorted(trained[0].rglob("*.wav"))[:3]):
        (sounds / f"{number}.wav").write_bytes(path.read_bytes())
    (sounds / "1.wav").write_text("not a sound")
    arguments: list[object] = ["predict", trained[1] / "model.tflite", sounds, "--format", "csv", "--top", 1]
    done = run([*arguments, "--on-error", "skip"])
    assert [row["file"] for row in csv.DictReader(io.StringIO(done.stdout))] == [str(sounds / f"{n}.wav") for n in "02"]
    lines = done.stderr.splitlines()
    assert lines[0] == "Loading TensorFlow"
    assert lines[1:-2] == ["Classifying: 1 of 3", "Classifying: 3 of 3"]
    assert lines[-2].startswith(f"Skipped: {sounds / '1.wav'}: ")
    assert lines[-1] == "1 of 3 files were skipped"
    stopped = call(*arguments, code=1)
    assert [row["file"] for row in csv.DictReader(io.StringIO(stopped.stdout))] == [str(sounds / "0.wav")]
    assert "1 of 3 files are done; --on-error skip" in stopped.stderr
    for name in "02":
        (sounds / f"{name}.wav").unlink()
    assert json.loads(call(*arguments, "--on-error", "skip", "--format", "json", code=1).stdout) == []


@pytest.mark.slow
def test_ctrl_c_keeps_what_predict_has_done(trained: tuple[Path, Path], tmp_path: Path) -> None:
    sound = next(trained[0].rglob("*.wav"))
    for number in range(3_000):
        (tmp_path / f"{number:04}.wav").symlink_to(sound)
    command = [sys.executable, "-m", "tfaudiotl.cli", "predict", trained[1] / "model.tflite", tmp_path]
    results = tmp_path / "results.json"
    with results.open("w") as out:
        process = subprocess.Popen(
            [*map(str, command), "--format", "json"],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    while results.stat().st_size < 1_000:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    rows = json.loads(results.read_text())
    assert 1 <= len(rows) < 9_000
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "Interrupted."


@pytest.mark.parametrize(
    ("shell", "code", "errors"),
    [
        ("| head -1", 1, []),
        ("2>&-", 0, []),
        (">&-", 0, ["Reading 24 recordings"]),
        ("> /dev/full", 1, ["Error: No space left on device"]),
    ],
)
def test_streams_that_are_closed_or_full(
    shell: str, code: int, errors: list[str], trained: tuple[Path, Path], tmp_path: Path
) -> None:
    done = run(["inspect", trained[0], "-o", tmp_path / "out"], shell=shell, code=code)
    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr
    assert all(error in done.stderr for error in errors)


@pytest.mark.slow
def test_the_cards_python_opens_the_file_in_a_fresh_process(trained: tuple[Path, Path], tmp_path: Path) -> None:
    card = (trained[1] / "MODEL_CARD.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    opening = next(snippet for snippet in snippets if "load_model" in snippet)
    (tmp_path / "model.keras").write_bytes((trained[1] / "model.keras").read_bytes())
    done = subprocess.run([sys.executable, "-c", opening], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "patch_embedding" in done.stdout


def test_importing_the_package_prints_and_changes_nothing() -> None:
    script = """
import logging, os, sys, warnings
before = dict(os.environ), logging.root.level, list(logging.root.handlers), list(warnings.filters)
import tfaudiotl
assert before == (dict(os.environ), logging.root.level, list(logging.root.handlers), list(warnings.filters))
assert "tensorflow" not in sys.modules
"""
    environment = {name: value for name, value in os.environ.items() if name != console.LOG_LEVEL}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_the_quantiser_keeps_to_itself(trained: tuple[Path, Path], tmp_path: Path) -> None:
    small = tmp_path / "small.tflite"
    arguments: list[object] = ["export", trained[1] / "model.keras", "-o", small, "--quantize", "int8"]
    done = run([*arguments, "--calibrate", trained[0]])
    expected = ("Loading TensorFlow", "Reading ", "Clips(", "Exporting: ")
    assert [line for line in done.stderr.splitlines() if not line.startswith(expected)] == []
    assert small.is_file()
