"""``tfaudiotl evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfaudiotl.cli.console import bar, errors, list_left_out
from tfaudiotl.cli.main import app
from tfaudiotl.cli.options import ClassFolder, ModelPath, OnError, OnErrorOption, load_clips


@app.command()
def evaluate(
    model: ModelPath,
    folder: ClassFolder,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the report into this folder.")] = None,
    on_error: OnErrorOption = OnError.RAISE,
) -> None:
    """Measure a classifier on labelled recordings."""
    with errors(evaluate):
        clips = load_clips(folder, None, None, on_error)
        from tfaudiotl.errors import AudioError
        from tfaudiotl.runtime.evaluate import evaluate as run

        skipped: list[AudioError] = list(clips.skipped)
        with bar("Classifying") as step:
            evaluation = run(model, clips, on_error=on_error.value, skipped=skipped, progress=step)
        typer.echo(evaluation.to_markdown())
        list_left_out(skipped)
        if output:
            typer.echo(f"Report: {evaluation.save(output, title=f'Evaluation of {model.name}')}")
