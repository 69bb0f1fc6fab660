"""``tfaudiotl inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfaudiotl.cli.console import bar, errors
from tfaudiotl.cli.main import app


@app.command()
def inspect(
    sounds: Annotated[
        Path, typer.Argument(help="One sub-folder of recordings per class, or a table (.csv, .tsv, .parquet, .json).")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for description.md and spectrograms.png.")
    ] = None,
    path: Annotated[str, typer.Option(help="Table: column of the files, or a pattern of columns in braces.")] = "path",
    label: Annotated[str, typer.Option(help="Table: column of the classes.")] = "label",
    fold: Annotated[str | None, typer.Option(help="Table: column of the folds.")] = None,
    group: Annotated[str | None, typer.Option(help="Table: column of the groups.")] = None,
    label_separator: Annotated[str | None, typer.Option(help="Table: what is between several labels.")] = None,
    root: Annotated[Path | None, typer.Option(help="Table: folder of relative paths; the table's by default.")] = None,
    fold_pattern: Annotated[str | None, typer.Option(help="Folder: regex with the fold in the file names.")] = None,
    group_pattern: Annotated[str | None, typer.Option(help="Folder: regex with the group in the file names.")] = None,
) -> None:
    """Listen to every recording: counts, hours, formats, silence, clipping, copies, leaks, broken files."""
    with errors(inspect):
        from tfaudiotl._files import write_atomic
        from tfaudiotl.audio.clips import Clips
        from tfaudiotl.evaluation.description import spectrogram_page
        from tfaudiotl.evaluation.plots import save_figure

        if sounds.is_dir():
            clips = Clips.from_directory(
                sounds, fold_pattern=fold_pattern, group_pattern=group_pattern, on_error="skip"
            )
        elif sounds.suffix.lower() == ".json":
            clips = Clips.from_saved(sounds)
        else:
            clips = Clips.from_table(
                sounds,
                path=path,
                label=label,
                fold=fold,
                group=group,
                label_separator=label_separator,
                root=root,
                on_error="skip",
            )
        done, files = 0, len(set(clips.paths))
        with bar("Listening") as step:

            def count(more: int) -> None:
                nonlocal done
                done += more
                step(done, files)

            description = clips.describe(progress=count)
        text = description.to_markdown()
        typer.echo(text)
        if output:
            output.mkdir(parents=True, exist_ok=True)
            write_atomic(output / "description.md", text)
            save_figure(spectrogram_page(clips), output / "spectrograms.png")
            typer.echo(f"Written: {output / 'description.md'}, {output / 'spectrograms.png'}")
