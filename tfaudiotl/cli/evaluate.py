"""``tfaudiotl evaluate``."""

from __future__ import annotations

import typer

from tfaudiotl.cli.console import command, list_left_out, load_tensorflow, progress_shown
from tfaudiotl.cli.options import (
    ClassFolder,
    LabelPattern,
    ModelPath,
    OnError,
    OnErrorOption,
    OutputFolder,
    OverwriteOutput,
    check_model,
    check_output,
    load_clips,
)


@command
def evaluate(
    model: ModelPath,
    folder: ClassFolder,
    output: OutputFolder = None,
    label_pattern: LabelPattern = None,
    on_error: OnErrorOption = OnError.RAISE,
    overwrite: OverwriteOutput = False,
) -> None:
    """Measure a classifier on labelled recordings."""
    check_model(model)
    check_output(output, overwrite=overwrite, data=[folder])
    load_tensorflow()
    from tfaudiotl.errors import AudioError
    from tfaudiotl.runtime.evaluate import evaluate as run
    from tfaudiotl.runtime.predictor import Predictor

    predictor = Predictor(model)
    clips = load_clips(
        folder, label_pattern=label_pattern, on_error=on_error, class_names=predictor.class_names, classes_of=str(model)
    )
    skipped: list[AudioError] = list(clips.skipped)
    with progress_shown() as progress:
        evaluation = run(predictor, clips, on_error=on_error.value, skipped=skipped, progress=progress)
    typer.echo(evaluation.to_markdown())
    list_left_out(skipped)
    if output:
        typer.echo(f"Report: {evaluation.save(output, title=f'Evaluation of {model}')}")
