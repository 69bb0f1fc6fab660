"""``tfaudiotl embed`` and ``tfaudiotl probe``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from tfaudiotl.cli.console import bar, errors, list_left_out, stage_bars
from tfaudiotl.cli.main import app
from tfaudiotl.cli.options import (
    Backbone,
    OnError,
    OnErrorOption,
    Pooling,
    Weights,
    load_clips,
    pretrained,
    split_names,
)


@app.command()
def embed(
    folder: Annotated[Path, typer.Argument(help="Folder of recordings, at any depth.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The store; made, or gone on with.")],
    backbone: Backbone = None,
    weights: Weights = None,
    layer: Annotated[str | None, typer.Option(help="Layer, or layers with commas.")] = None,
    pooling: Pooling = "avg",
    quantize: Annotated[str | None, typer.Option(help="int8: pointwise convolutions in 8 bits.")] = None,
    runtime: Annotated[str, typer.Option(help="auto, litert or keras.")] = "auto",
    trim: Annotated[bool, typer.Option("--trim", help="Zeros at a recording's end make no rows.")] = False,
    on_error: OnErrorOption = OnError.RAISE,
) -> None:
    """Compute embeddings of recordings into a store; what is there is not computed again."""
    backbone, weights = pretrained(backbone, weights)
    with errors(embed):
        from tfaudiotl.audio.sources import sound_files
        from tfaudiotl.embeddings.extract import EngineOptions, Extractor, embed_to_store

        files = sound_files(folder)
        engine = EngineOptions(runtime=runtime, quantize=quantize)
        extractor = Extractor(backbone, split_names(layer), pooling=pooling, weights=weights, engine=engine)
        with bar("Embedding") as step:
            report = embed_to_store(extractor, files, output, trim=trim, on_error=on_error.value, progress=step)
        list_left_out(report.skipped)
        typer.echo(
            f"{output}: {report.computed} recordings or pieces computed ({report.patches} rows), "
            f"{report.reused} found there, {len(report.damaged)} damaged shards replaced, "
            f"{len(report.skipped)} left out, {report.seconds:.1f} s"
        )


@app.command()
def probe(
    folder: Annotated[Path, typer.Argument(help="One sub-folder of recordings per class; see --label-pattern.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write table and plot here.")] = None,
    backbone: Backbone = None,
    weights: Weights = None,
    layers: Annotated[str | None, typer.Option(help="Layers with commas; all by default.")] = None,
    pairs: Annotated[str, typer.Option(help="Pairs to probe side by side: 'layer7+embedding,layer5+layer9'.")] = "",
    cv: Annotated[int, typer.Option(help="Folds to draw.")] = 5,
    label_pattern: Annotated[
        str | None, typer.Option(help=r"Classes from the file names instead of folders: a regex such as '^(\d)_'.")
    ] = None,
    fold_pattern: Annotated[str | None, typer.Option(help="Folds from the file names: a regex with a group.")] = None,
    group_pattern: Annotated[str | None, typer.Option(help="Groups that stay together, likewise.")] = None,
    test_pattern: Annotated[
        str | None, typer.Option(help=r"One split: test on files whose names match, such as '_[0-4]\.wav$'.")
    ] = None,
    few_shot: Annotated[int | None, typer.Option(min=1, help="Also with so many clips per class.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Few-shot draws.")] = 10,
    pooling: Pooling = "avg",
    seed: Annotated[int, typer.Option(help="Seed of folds and draws.")] = 0,
    on_error: OnErrorOption = OnError.RAISE,
) -> None:
    """Which layer for my task? A linear probe on every layer of the network."""
    if test_pattern and fold_pattern:
        raise typer.BadParameter("give --test-pattern or --fold-pattern, not both")
    backbone, weights = pretrained(backbone, weights)
    with errors(probe):
        from tfaudiotl._files import write_atomic
        from tfaudiotl.embeddings.probe import probe_layers

        if label_pattern:
            clips = _clips_by_name(folder, label_pattern, fold_pattern, group_pattern, on_error)
        else:
            clips = load_clips(folder, fold_pattern, group_pattern, on_error)
        with stage_bars() as step:
            table = probe_layers(
                backbone,
                clips,
                cv=_test_split(clips.paths, test_pattern) if test_pattern else "given" if fold_pattern else cv,
                layers=split_names(layers),
                pairs=[_pair(text) for text in split_names(pairs) or []],
                few_shot=few_shot,
                repeats=repeats,
                pooling=pooling,
                on_error=on_error.value,
                seed=seed,
                weights=weights,
                progress=step,
            )
        typer.echo(table.to_markdown())
        list_left_out([*clips.skipped, *table.skipped])
        if output:
            output.mkdir(parents=True, exist_ok=True)
            write_atomic(output / "probe.md", table.to_markdown() + "\n")
            table.plot(output / "probe.png")
        typer.echo("Seconds: " + ", ".join(f"{stage} {taken:.1f}" for stage, taken in table.seconds.items()))


def _clips_by_name(
    folder: Path, label_pattern: str, fold_pattern: str | None, group_pattern: str | None, on_error: OnError
) -> Any:
    from tfaudiotl.audio.clips import Clips
    from tfaudiotl.audio.sources import from_names, sound_files

    paths = [str(path) for path in sound_files(folder)]
    return Clips.from_files(
        paths,
        from_names(paths, "label_pattern", label_pattern),
        folds=from_names(paths, "fold_pattern", fold_pattern) if fold_pattern else None,
        groups=from_names(paths, "group_pattern", group_pattern) if group_pattern else None,
        on_error=on_error.value,
    )


def _test_split(paths: tuple[str, ...], pattern: str) -> Any:
    import re

    test = [row for row, path in enumerate(paths) if re.search(pattern, os.path.basename(path))]
    if not 0 < len(test) < len(paths):
        raise ValueError(f"--test-pattern {pattern!r} matches {len(test)} of {len(paths)} files; some, not all, must")
    held = set(test)
    return [([row for row in range(len(paths)) if row not in held], test)]


def _pair(text: str) -> tuple[str, str]:
    parts = text.split("+")
    if len(parts) != 2:
        raise ValueError(f"--pairs {text!r}: two layers joined by +")
    return parts[0].strip(), parts[1].strip()
