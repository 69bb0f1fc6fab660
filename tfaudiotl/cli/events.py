"""``tfaudiotl events`` and ``tfaudiotl listen``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from tfaudiotl.cli.console import command, load_tensorflow, say, warn_of
from tfaudiotl.cli.options import (
    Background,
    MinDuration,
    MinGap,
    ModelPath,
    OverwriteOutput,
    Release,
    ReportBackground,
    Smoothing,
    Threshold,
    check_model,
    check_output,
    positive,
)


@command
def events(
    model: ModelPath,
    sound: Annotated[Path, typer.Argument(help="A sound file.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the events into this file.")] = None,
    format: Annotated[
        Literal["table", "csv", "json", "audacity", "raven"],
        typer.Option(help="Table, CSV, JSON, Audacity labels or Raven selections."),
    ] = "table",
    threshold: Threshold = None,
    release: Release = None,
    smoothing: Smoothing = 1,
    min_duration: MinDuration = 0.0,
    min_gap: MinGap = 0.0,
    background: Background = None,
    report_background: ReportBackground = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw waveform, spectrogram and timeline into this picture file.")
    ] = None,
    overwrite: OverwriteOutput = False,
) -> None:
    """List the events in a recording: what is in it, from when to when.

    Digital silence is never an event, nor is less than a window of sound.
    """
    check_output(output, overwrite=overwrite)
    if sound.is_dir():
        raise ValueError(f"{sound} is a folder; events takes one file, and 'predict --timeline' takes folders")
    check_model(model)
    load_tensorflow()
    from tfaudiotl.runtime.events import format_events, write_events
    from tfaudiotl.runtime.predictor import Predictor

    predictor = Predictor(
        model,
        threshold=threshold,
        release=release,
        smoothing=smoothing,
        min_duration=min_duration,
        min_gap=min_gap,
        background=background,
        report_background=report_background,
    )
    say(f"Reading {sound}")
    found = predictor.analyze_file(sound)
    warn_of(sound, predictor.doubt(found.sound, sound))
    if output:
        say(f"Wrote {write_events(output, found.events, format)}")
    else:
        typer.echo(format_events(found.events, format), nl=False)
    if plot:
        say(f"Wrote {found.plot(plot)}")


@command
def listen(
    model: ModelPath,
    sample_rate: Annotated[int, typer.Option(min=1, help="Of the samples on standard input; Hz.")] = 16_000,
    hop_seconds: Annotated[
        float | None,
        typer.Option(
            callback=positive, help="Between the starts of windows; by default half a window, in whole patches."
        ),
    ] = None,
    threshold: Threshold = None,
    release: Release = None,
    smoothing: Smoothing = 1,
    min_duration: MinDuration = 0.0,
    min_gap: MinGap = 0.0,
    background: Background = None,
    report_background: ReportBackground = False,
) -> None:
    """Classify live sound: 16-bit mono samples from standard input.

    arecord -t raw -f S16_LE -r 16000 | tfaudiotl listen MODEL
    """
    check_model(model)
    load_tensorflow()
    import numpy as np

    from tfaudiotl.runtime.predictor import Predictor
    from tfaudiotl.runtime.stream import StreamingClassifier

    predictor = Predictor(
        model,
        hop_seconds=hop_seconds,
        threshold=threshold,
        release=release,
        smoothing=smoothing,
        min_duration=min_duration,
        min_gap=min_gap,
        background=background,
        report_background=report_background,
    )
    live = StreamingClassifier(predictor, sample_rate=sample_rate)
    say("Listening to standard input; Ctrl-C ends it")

    def show(found: Iterable[object]) -> None:
        for event in found:
            typer.echo(str(event))

    rest = b""
    try:
        while data := os.read(sys.stdin.fileno(), 65_536):
            data = rest + data
            whole = len(data) // 2 * 2
            rest = data[whole:]
            show(live.push(np.frombuffer(data[:whole], "<i2")))
    except KeyboardInterrupt:
        show(live.finish())
        raise
    show(live.finish())
