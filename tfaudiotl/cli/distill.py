"""``tfaudiotl distill``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from tfaudiotl.cli.console import Library, command, list_left_out, load_tensorflow, progress_shown, say
from tfaudiotl.cli.options import (
    OnError,
    OnErrorOption,
    Output,
    Overwrite,
    Seed,
    check_backbone,
    check_output,
    positive,
    regex,
    sound_files,
    split_names,
)


def _teacher(name: str) -> str:
    if not name.endswith(".keras"):
        return check_backbone(name) or name
    if not os.path.isfile(name):
        raise typer.BadParameter(f"{name}: no such file")
    return name


@command
def distill(
    folders: Annotated[list[Path], typer.Argument(help="Folders of recordings; labels are not needed.")],
    output: Output,
    teacher: Annotated[
        str,
        typer.Option(callback=_teacher, help="A backbone's name, or a .keras classifier of yours."),
        Library(("model", "backbone")),
    ] = "yamnet",
    weights: Annotated[str, typer.Option(help="Weights of a teacher that is a backbone.")] = "audioset",
    student: Annotated[str, typer.Option(callback=check_backbone, help="The student's backbone.")] = "yamnet_mini",
    student_weights: Annotated[
        str | None,
        typer.Option(help="What the student starts from: a preset, a file or 'random', the default for a backbone."),
    ] = None,
    embedding: Annotated[
        str | None, typer.Option(help="Layers of the teacher to match besides its own embedding, with commas.")
    ] = None,
    exclude: Annotated[
        str | None, typer.Option(callback=regex, help="Skip files whose path matches this regex.")
    ] = None,
    patches: Annotated[int, typer.Option(min=1, help="Number of examples of 0.975 s to train on.")] = 60_000,
    epochs: Annotated[int, typer.Option(min=1, help="Number of passes over the examples.")] = 4,
    batch_size: Annotated[int, typer.Option(min=1, help="Number of examples per step.")] = 16,
    learning_rate: Annotated[float, typer.Option(callback=positive, help="AdamW's highest learning rate.")] = 2e-3,
    scores_weight: Annotated[
        float, typer.Option(help="Weight of the scores' loss; that of each embedding is 1.")
    ] = 0.1,
    temperature: Annotated[
        float,
        typer.Option(
            help="Softens the teacher's scores: above 1 the student also learns which wrong classes are likely."
        ),
    ] = 1.0,
    seed: Seed = 0,
    on_error: OnErrorOption = OnError.RAISE,
    overwrite: Overwrite = False,
) -> None:
    """Shrink a network: a small student learns to match a large teacher on unlabelled sound."""
    if teacher.endswith(".keras") and weights != "audioset":
        raise typer.BadParameter(f"--weights are a backbone's: --teacher {teacher} has its own")
    check_output(output, overwrite=overwrite, data=folders)
    say(f"Reading {len(sound_files(folders)):,} recordings")
    load_tensorflow()
    from tfaudiotl.backbones.weights import open_keras
    from tfaudiotl.training.distill import DistillOptions, distill as run, load_folders
    from tfaudiotl.workflow import save_student

    options = DistillOptions(
        patches=patches,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        scores_weight=scores_weight,
        temperature=temperature,
        seed=seed,
    )
    chosen: Any = open_keras(teacher, argument="teacher") if teacher.endswith(".keras") else teacher
    start = student_weights or ("random" if isinstance(chosen, str) else "audioset")
    sounds, skipped = load_folders(folders, exclude=exclude, on_error=on_error.value)
    list_left_out(skipped)
    with progress_shown() as progress:
        result = run(
            chosen,
            sounds,
            student=student,
            weights=weights,
            student_weights=None if start == "random" else start,
            embedding=split_names(embedding) or (),
            options=options,
            progress=progress,
        )
    for path in save_student(result, output):
        typer.echo(f"Wrote {path}")
    last = "  ".join(f"{name} {values[-1]:.3f}" for name, values in result.history.items() if name[:4] == "val_")
    typer.echo(f"On held-out examples: {last}")
    typer.echo("Seconds: " + ", ".join(f"{stage} {taken:.1f}" for stage, taken in result.seconds.items()))
