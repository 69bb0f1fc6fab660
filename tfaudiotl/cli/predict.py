"""``tfaudiotl predict``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tfaudiotl._threads import Progress
from tfaudiotl.cli.console import Excludes, Needs, command, list_left_out, load_tensorflow, progress_shown, say, warn_of
from tfaudiotl.cli.options import (
    Background,
    ModelPath,
    OnError,
    OnErrorOption,
    ReportBackground,
    Threshold,
    check_model,
    sound_files,
)

Row = dict[str, Any]


Format = Literal["table", "csv", "json"]


@command
def predict(
    model: ModelPath,
    sounds: Annotated[list[Path], typer.Argument(help="Sound files, or folders of them.")],
    top: Annotated[int, typer.Option(min=1, help="Number of classes to show per file."), Excludes(("--timeline",))] = 3,
    timeline: Annotated[bool, typer.Option("--timeline", help="Show events with start and end instead.")] = False,
    threshold: Annotated[Threshold, Needs("--timeline")] = None,
    background: Annotated[Background, Needs("--timeline")] = None,
    report_background: Annotated[ReportBackground, Needs("--timeline")] = False,
    format: Annotated[Format, typer.Option(help="How results are printed.")] = "table",
    on_error: OnErrorOption = OnError.RAISE,
) -> None:
    """Classify sound files: the best classes of each, or its events.

    A file that is silent or far shorter than what the model takes is classified with a warning: its scores say nothing.

    Each file's result is printed as soon as it is there, so that Ctrl-C keeps what was done. With --on-error skip the
    exit code is 0 unless no file could be used.
    """
    files = sound_files(sounds)
    check_model(model)
    load_tensorflow()
    from tfaudiotl.errors import AudioError
    from tfaudiotl.runtime.load import score_clip
    from tfaudiotl.runtime.predictor import Predictor

    predictor = Predictor(model, threshold=threshold, background=background, report_background=report_background)
    columns = ["file", "start", "end", "label", "score"] if timeline else ["file", "label", "score"]

    def rows_of(path: Path) -> list[Row]:
        if timeline:
            found = predictor.analyze_file(path)
            warn_of(path, predictor.doubt(found.sound, path))
            events = [event.to_dict() for event in found.events]
            return [{name: {"file": str(path), **event}[name] for name in columns} for event in events]
        sound = predictor.open(path)
        scores = score_clip(predictor.artifact, sound)
        warn_of(path, predictor.doubt(sound, path))
        best = sorted(zip(predictor.class_names, scores.tolist(), strict=True), key=lambda pair: -pair[1])
        return [{"file": str(path), "label": name, "score": score} for name, score in best[:top]]

    skipped: list[AudioError] = []
    # On a terminal the results themselves show the progress.
    with progress_shown(bars=not sys.stdout.isatty()) as progress, _printed(format, columns) as write:
        for done, path in enumerate(files):
            try:
                write(rows_of(path))
            except AudioError as error:
                if on_error is OnError.RAISE:
                    if len(files) > 1:
                        say(f"{done} of {len(files)} files are done; --on-error skip goes on without such files")
                    raise
                skipped.append(error)
            progress(Progress("Classifying", done + 1, len(files)))
    list_left_out(skipped)
    if skipped:
        say(f"{len(skipped)} of {len(files)} files were skipped")
    if len(skipped) == len(files):
        raise typer.Exit(1)


@contextmanager
def _printed(style: Format, columns: Sequence[str]) -> Iterator[Callable[[list[Row]], None]]:
    """Prints rows as they come; what was printed is whole after an interruption too."""
    from tfaudiotl._files import show_name
    from tfaudiotl.markdown import csv_line, rounded

    out, before = sys.stdout, ""
    if style == "csv":
        out.write(csv_line(columns))
    elif style == "json":
        out.write("[")  # each row ends its line, so that nothing is written behind it on a terminal

    def write(rows: list[Row]) -> None:
        nonlocal before
        for row in rows:
            if style == "csv":
                out.write(csv_line(row.values()))
            elif style == "json":
                out.write(f"{before} {json.dumps(rounded(row))}\n")
                before = ","
            else:
                shown = (
                    f"{value:.3f}" if isinstance(value, float) else show_name(str(value)) for value in row.values()
                )
                out.write("  ".join(shown) + "\n")
        out.flush()

    try:
        yield write
    finally:
        if style == "json":
            out.write("]\n")
        out.flush()
