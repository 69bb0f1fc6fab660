"""``tfaudiotl distill``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tfaudiotl.cli.console import errors, list_left_out, stage_bars
from tfaudiotl.cli.main import app
from tfaudiotl.cli.options import OnError, OnErrorOption, Output, Overwrite, split_names


@app.command()
def distill(
    folders: Annotated[list[Path], typer.Argument(help="Folders of recordings; labels are not needed.")],
    output: Output,
    teacher: Annotated[str, typer.Option(help="A backbone's name, or a .keras classifier of yours.")] = "yamnet",
    weights: Annotated[str, typer.Option(help="Of a teacher that is a backbone.")] = "audioset",
    student: Annotated[str, typer.Option(help="Backbone that the student is, or is built on.")] = "yamnet_mini",
    student_weights: Annotated[
        str | None,
        typer.Option(help="What the student starts from; a preset, a file, or 'random'. A classifier's: 'audioset'."),
    ] = None,
    layers: Annotated[str | None, typer.Option(help="Layers of the teacher to match beside its embedding.")] = None,
    exclude: Annotated[str | None, typer.Option(help="Regex: leave out files whose path it is found in.")] = None,
    patches: Annotated[int, typer.Option(help="Examples of 0.975 s that the teacher hears.")] = 60_000,
    epochs: Annotated[int, typer.Option(help="Passes of the student over them.")] = 4,
    batch_size: Annotated[int, typer.Option(help="Examples per step.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="AdamW's highest.")] = 2e-3,
    scores_weight: Annotated[float, typer.Option(help="Of the scores' loss; each embedding's is 1.")] = 0.1,
    temperature: Annotated[float, typer.Option(help="Above 1: learn which wrong classes are likely too.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    on_error: OnErrorOption = OnError.RAISE,
    overwrite: Overwrite = False,
) -> None:
    """Shrink a network: a small one learns what a big one makes of unlabelled sound."""
    with errors(distill):
        from tfaudiotl.export.artifact import load_model
        from tfaudiotl.training.distill import DistillOptions
        from tfaudiotl.training.distill import distill as run
        from tfaudiotl.training.mixing import load_folders
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
        if output.exists() and not overwrite:
            raise FileExistsError(f"--output {str(output)!r} is there already; --overwrite replaces what is in it")
        chosen: Any = load_model(teacher) if teacher.endswith(".keras") else teacher
        start = student_weights or ("random" if isinstance(chosen, str) else "audioset")
        sounds, skipped = load_folders(folders, exclude=exclude, on_error=on_error.value)
        list_left_out(skipped)
        with stage_bars() as step:
            result = run(
                chosen,
                sounds,
                student=student,
                weights=weights,
                student_weights=None if start == "random" else start,
                layers=split_names(layers) or (),
                options=options,
                progress=step,
            )
        for path in save_student(result, output):
            typer.echo(f"Wrote {path}")
        last = "  ".join(f"{name} {values[-1]:.3f}" for name, values in result.history.items() if name[:4] == "val_")
        typer.echo(f"On held-out examples: {last}")
        typer.echo("Seconds: " + ", ".join(f"{stage} {taken:.1f}" for stage, taken in result.seconds.items()))
