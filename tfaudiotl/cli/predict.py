"""``tfaudiotl predict``."""

from __future__ import annotations

import csv
import json
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from tfaudiotl.cli.console import errors, list_left_out
from tfaudiotl.cli.main import app
from tfaudiotl.cli.options import ModelPath, OnError, OnErrorOption


class Format(str, Enum):
    """How predictions are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


@app.command()
def predict(
    model: ModelPath,
    sounds: Annotated[list[Path], typer.Argument(help="Sound files, or folders of them.")],
    top: Annotated[int, typer.Option(min=1, help="Classes to show per file.")] = 3,
    timeline: Annotated[bool, typer.Option("--timeline", help="Show what is heard when, instead.")] = False,
    threshold: Annotated[float, typer.Option(help="Score from which a class is heard, in a timeline.")] = 0.5,
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.TABLE,
    on_error: OnErrorOption = OnError.RAISE,
) -> None:
    """Classify sound files: the best classes of each, or what is heard when."""
    with errors(predict):
        files = _sound_files(sounds)
        from tfaudiotl.errors import AudioError
        from tfaudiotl.runtime.predictor import Predictor

        predictor = Predictor(model, threshold=threshold)
        rows: list[dict[str, Any]] = []
        lost = 0
        for path in files:
            try:
                if timeline:
                    rows += [{"file": str(path), **event.to_dict()} for event in predictor.predict_file(path)]
                    continue
                scores = predictor.scores_of_file(path)
                best = sorted(zip(predictor.class_names, scores.tolist(), strict=True), key=lambda pair: -pair[1])
                rows += [{"file": str(path), "label": name, "score": score} for name, score in best[:top]]
            except AudioError as error:
                if on_error is OnError.RAISE:
                    raise
                lost += 1
                list_left_out([error])
        _print_rows(
            rows,
            format,
            ["file", "start", "end", "label", "score"] if timeline else ["file", "label", "score"],
        )
        if lost == len(files):
            raise typer.Exit(1)


def _sound_files(paths: list[Path]) -> list[Path]:
    from tfaudiotl.audio.sources import sound_files

    return [file for path in paths for file in (sound_files(path) if path.is_dir() else [path])]


def _print_rows(rows: list[dict[str, Any]], style: Format, columns: list[str]) -> None:
    if style is Format.JSON:
        typer.echo(json.dumps(rows, indent=2))
    elif style is Format.CSV:
        writer = csv.DictWriter(sys.stdout, columns)
        writer.writeheader()
        writer.writerows(rows)
    else:
        for row in rows:
            values = [f"{row[c]:.3f}" if isinstance(row[c], float) else str(row[c]) for c in columns]
            typer.echo("  ".join(values))
