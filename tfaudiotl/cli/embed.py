"""``tfaudiotl embed`` and ``tfaudiotl probe``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tfaudiotl.cli.console import Excludes, Library, Needs, command, list_left_out, load_tensorflow, progress_shown, say
from tfaudiotl.cli.options import (
    Backbone,
    ClassFolder,
    Embedding,
    FoldPattern,
    GroupPattern,
    LabelPattern,
    OnError,
    OnErrorOption,
    OutputFolder,
    OverwriteOutput,
    Pooling,
    Seed,
    Weights,
    check_output,
    load_clips,
    pretrained,
    regex,
    sound_files,
    split_names,
)


@command
def embed(
    folder: Annotated[Path, typer.Argument(help="Folder of recordings, at any depth.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The store's folder; an existing one is completed."),
        Library(("store",)),
    ],
    backbone: Backbone = None,
    weights: Weights = None,
    embedding: Embedding = None,
    pooling: Pooling = None,
    quantize: Annotated[
        Literal["int8"] | None, typer.Option(help="Run pointwise convolutions in 8 bits: faster, less exact.")
    ] = None,
    runtime: Annotated[Literal["auto", "litert", "keras"], typer.Option(help="What runs the network.")] = "auto",
    trim: Annotated[bool, typer.Option("--trim", help="Ignore zeros at the end of a recording.")] = False,
    on_error: OnErrorOption = OnError.RAISE,
) -> None:
    """Compute embeddings of recordings into a store; what it holds already is not computed again."""
    backbone, weights = pretrained(backbone, weights)
    files = sound_files([folder])
    check_output(output, overwrite=True, data=[folder])
    say(f"{len(files):,} recordings in {folder}")
    load_tensorflow()
    from tfaudiotl.embeddings.extract import EngineOptions, Extractor, embed_to_store

    engine = EngineOptions(runtime=runtime, quantize=quantize)
    extractor = Extractor(backbone, split_names(embedding), pooling=pooling, weights=weights, engine=engine)
    with progress_shown() as progress:
        report = embed_to_store(extractor, files, output, trim=trim, on_error=on_error.value, progress=progress)
    list_left_out(report.skipped)
    typer.echo(
        f"{output}: {report.computed} recordings or pieces computed ({report.patches} rows), "
        f"{report.reused} found there, {len(report.damaged)} damaged shards replaced, "
        f"{len(report.skipped)} skipped, {report.seconds:.1f} s"
    )


@command
def probe(
    folder: ClassFolder,
    output: OutputFolder = None,
    backbone: Backbone = None,
    weights: Weights = None,
    embedding: Annotated[str | None, typer.Option(help="Layers with commas; all by default.")] = None,
    pairs: Annotated[str, typer.Option(help="Pairs to probe side by side: 'layer7+embedding,layer5+layer9'.")] = "",
    folds: Annotated[
        int,
        typer.Option(min=2, help="Number of folds to cross-validate with."),
        Excludes(("--fold-pattern", "--test-pattern")),
    ] = 5,
    label_pattern: LabelPattern = None,
    fold_pattern: FoldPattern = None,
    group_pattern: GroupPattern = None,
    test_pattern: Annotated[
        str | None,
        typer.Option(
            callback=regex, help=r"One split instead of folds: test on files whose names match, such as '_[0-4]\.wav$'."
        ),
        Excludes(("--fold-pattern", "--group-pattern")),
    ] = None,
    few_shot: Annotated[int | None, typer.Option(min=1, help="Also train on this number of clips per class.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Number of few-shot draws."), Needs("--few-shot")] = 10,
    pooling: Pooling = None,
    seed: Seed = 0,
    on_error: OnErrorOption = OnError.RAISE,
    overwrite: OverwriteOutput = False,
) -> None:
    """Find the layer for a task: train a linear probe on every layer of the network."""
    backbone, weights = pretrained(backbone, weights)
    check_output(output, overwrite=overwrite, data=[folder])
    clips = load_clips(
        folder,
        label_pattern=label_pattern,
        fold_pattern=fold_pattern,
        group_pattern=group_pattern,
        on_error=on_error,
    )
    if not test_pattern:
        clips.folds("given" if fold_pattern else folds, seed=seed)  # refused before anything is computed
    load_tensorflow()
    from tfaudiotl.embeddings.probe import probe_layers

    with progress_shown() as progress:
        table = probe_layers(
            backbone,
            clips,
            folds=_test_split(clips.paths, test_pattern) if test_pattern else "given" if fold_pattern else folds,
            embedding=split_names(embedding),
            pairs=[_pair(text) for text in split_names(pairs) or []],
            few_shot=few_shot,
            repeats=repeats,
            pooling=pooling,
            on_error=on_error.value,
            seed=seed,
            weights=weights,
            progress=progress,
        )
    typer.echo(table.to_markdown())
    list_left_out([*clips.skipped, *table.skipped])
    if output:
        from tfaudiotl._files import write_atomic

        output.mkdir(parents=True, exist_ok=True)
        write_atomic(output / "probe.md", table.to_markdown() + "\n")
        table.plot(output / "probe.png")
        typer.echo(f"Wrote {output / 'probe.md'}, {output / 'probe.png'}")
    typer.echo("Seconds: " + ", ".join(f"{stage} {taken:.1f}" for stage, taken in table.seconds.items()))


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
