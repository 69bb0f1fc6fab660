"""``tfaudiotl inspect`` and ``tfaudiotl weights``: what there is, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfaudiotl.cli.console import Library, command, load_tensorflow, progress_shown, say
from tfaudiotl.cli.options import (
    SEPARATOR_HELP,
    FoldPattern,
    GroupPattern,
    LabelPattern,
    OnError,
    OutputFolder,
    OverwriteOutput,
    check_output,
    load_clips,
    sound_files,
)

if TYPE_CHECKING:
    from tfaudiotl.data.clips import Clips

SUFFIX = ".weights.h5"


@command
def inspect(
    sounds: Annotated[
        Path,
        typer.Argument(help="One sub-folder of recordings per class, or a table (.csv, .tsv, .parquet, .json)."),
        Library(("directory", "table")),
    ],
    output: OutputFolder = None,
    path: Annotated[str, typer.Option(help="Table: column of the files, or a pattern of columns in braces.")] = "path",
    label: Annotated[str, typer.Option(help="Table: column of the classes.")] = "label",
    fold: Annotated[str | None, typer.Option(help="Table: column of the folds.")] = None,
    group: Annotated[str | None, typer.Option(help="Table: column of the groups.")] = None,
    label_separator: Annotated[str | None, typer.Option(help=SEPARATOR_HELP)] = None,
    root: Annotated[Path | None, typer.Option(help="Table: folder of relative paths; the table's by default.")] = None,
    label_pattern: LabelPattern = None,
    fold_pattern: FoldPattern = None,
    group_pattern: GroupPattern = None,
    overwrite: OverwriteOutput = False,
) -> None:
    """Look at every recording: counts, hours, formats, silence, clipping, copies, leaks, broken files."""
    _check_kind(
        sounds,
        table={
            "--path": path != "path",
            "--label": label != "label",
            "--fold": fold,
            "--group": group,
            "--label-separator": None if label_pattern else label_separator,
            "--root": root,
        },
        folder={
            "--label-pattern": label_pattern,
            "--fold-pattern": fold_pattern,
            "--group-pattern": group_pattern,
        },
    )
    check_output(output, overwrite=overwrite, data=[sounds])
    from tfaudiotl._files import write_atomic
    from tfaudiotl.data.clips import Clips

    if sounds.is_dir() and label_pattern is None and len(classes := _sub_folders(sounds)) < 2:
        clips = _without_classes(sounds, classes)
    elif sounds.is_dir():
        clips = load_clips(
            sounds,
            label_pattern=label_pattern,
            label_separator=label_separator,
            fold_pattern=fold_pattern,
            group_pattern=group_pattern,
            on_error=OnError.SKIP,
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
    with progress_shown() as progress:
        description = clips.describe(progress=progress)
    text = description.to_markdown()
    typer.echo(text)
    if output:
        say("Drawing spectrograms")
        from tfaudiotl.data.inspection import spectrogram_page
        from tfaudiotl.evaluation.plots import save_figure

        output.mkdir(parents=True, exist_ok=True)
        write_atomic(output / "description.md", text)
        save_figure(spectrogram_page(clips), output / "spectrograms.png")
        typer.echo(f"Wrote {output / 'description.md'}, {output / 'spectrograms.png'}")


def _sub_folders(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))


def _without_classes(folder: Path, classes: Sequence[str]) -> Clips:
    """The recordings of a folder that is none of two classes or more: there is nothing to train, but much to see."""
    from tfaudiotl.data.clips import Clips

    files = sound_files([folder])
    labels = [[name] if (name := file.relative_to(folder).parts[0]) in classes else [] for file in files]
    single = all(labels)
    say(f"Reading {len(files):,} recordings in {folder}")
    return Clips.from_files(files, [each[0] for each in labels] if single else labels, on_error="skip")


def _check_kind(sounds: Path, *, table: Mapping[str, object], folder: Mapping[str, object]) -> None:
    """Refuses options that say how another kind of input is read."""
    if sounds.is_dir():
        wrong, kind, meant = table, "a folder", "a table"
    elif sounds.suffix.lower() == ".json":
        wrong, kind, meant = {**table, **folder}, "a saved table, which says all that itself", "others"
    else:
        wrong, kind, meant = folder, "a table", "a folder"
    if given := [option for option, value in wrong.items() if value]:
        raise typer.BadParameter(f"{', '.join(given)}: for {meant}, and {sounds} is {kind}")


@command
def weights(
    backbone: Annotated[str, typer.Argument(help="yamnet, vggish, yamnet_mini or a network of keras.applications.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .weights.h5 file to write, which --weights takes without a network."),
        Library(("path",)),
    ] = None,
    overwrite: OverwriteOutput = False,
) -> None:
    """Fetch a network's published weights, check them and say what they are."""
    if output and not output.name.endswith(SUFFIX):
        raise ValueError(f"output={str(output)!r}: a name that ends in {SUFFIX}")
    check_output(output, overwrite=overwrite, file=True)
    load_tensorflow()
    from tfaudiotl._files import new_path
    from tfaudiotl.backbones.registry import fetch_weights

    fetched = fetch_weights(backbone)
    for name, value in fetched.describe():
        typer.echo(f"{name:<12}{value}")
    if output:
        with new_path(output, overwrite=overwrite) as path:
            fetched.model.save_weights(path)
        typer.echo(f"Written: {output}; use it as --backbone {backbone} --weights {output}")
