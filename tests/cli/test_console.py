"""How commands talk: options instead of arguments in errors, lines where no bar can be drawn."""

from __future__ import annotations

import logging
from typing import Annotated

import pytest
import typer

from tfaudiotl._threads import Progress
from tfaudiotl.cli import console


def command(
    few_shot: Annotated[int, typer.Option()] = 1,
    embedding: Annotated[str, typer.Option("--embedding"), console.Library(("layers",))] = "",
    output: Annotated[str, typer.Option("-o", "--output")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite")] = False,
    balance: Annotated[bool, typer.Option()] = True,
    folder: Annotated[str, typer.Argument()] = "",
) -> None: ...


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("few_shot=9: class 'a' has 4 clips", "--few-shot 9: class 'a' has 4 clips"),
        ("embedding='layer99': there are layer1", "--embedding layer99: there are layer1"),
        ("layers=['layer99']: there are layer1", "--embedding ['layer99']: there are layer1"),
        ("output='x y' exists", "--output 'x y' exists"),
        (
            "output='out/x.tflite' exists (overwrite=True replaces it)",
            "--output out/x.tflite exists (--overwrite replaces it)",
        ),
        ("'out' is not empty; overwrite=True (--overwrite) replaces it", "'out' is not empty; --overwrite replaces it"),
        ('pass layers="x" (--embedding x)', "pass --embedding x"),
        ("balance=False is needed", "--no-balance is needed"),
        (
            "folder='x': empty; see options.output=1 and other_output=2",
            "x: empty; see options.output=1 and other_output=2",
        ),
        ("build_classifier(embedding='x') is the way in Python", None),
        ("model 'm' carries no class names; pass class_names=", "model 'm' carries no class names"),
        ("Fix them, or pass on_error='skip' to leave them out.", "Fix them."),
        ("parts of a set; if they are classes, give class_names=", "parts of a set"),
        ("overwrite=True: others (few_shot: 1 then, 2 now)", "--overwrite: others (--few-shot 1 then, 2 now)"),
        ("wrong; give few_shot=3, or less", "wrong; give --few-shot 3, or less"),
        (
            "other settings (few_shot: 1 then, 2 now); give the same",
            "other settings (--few-shot 1 then, 2 now); give the same",
        ),
    ],
)
def test_errors_name_options(message: str, shown: str | None) -> None:
    assert console.in_options(message, command) == (shown or message)


def test_a_log_gets_lines_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 2.0, 12.5, 13.0, 14.0, 15.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(now))
    with console.progress_shown() as progress:
        for done in range(5):
            progress(Progress("Classifying", done, 4))
        for epoch in (1, 2):
            progress(Progress("Training: fold 1", epoch, 9, {"val_loss": 0.25}))
    assert capsys.readouterr().err.splitlines() == [
        "Classifying: 0 of 4",
        "Classifying: 3 of 4",
        "Classifying: 4 of 4",
        "Training: fold 1: 1 of 9  val_loss 0.250",
    ]


def test_notes_name_options(capsys: pytest.CaptureFixture[str]) -> None:
    with console.notes_shown(command):
        logging.getLogger("tfaudiotl.data").warning("few_shot=%d: few", 3)
    assert capsys.readouterr().err == "--few-shot 3: few\n"
