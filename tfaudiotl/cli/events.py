"""``tfaudiotl events`` and ``tfaudiotl listen``."""

from __future__ import annotations

import os
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from tfaudiotl.cli.console import errors
from tfaudiotl.cli.main import app
from tfaudiotl.cli.options import MinDuration, MinGap, ModelPath, Release, Smoothing, Threshold


class Events(str, Enum):
    """How events are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    AUDACITY = "audacity"
    RAVEN = "raven"


@app.command()
def events(
    model: ModelPath,
    sound: Annotated[Path, typer.Argument(help="A sound file.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the events into this file.")] = None,
    format: Annotated[
        Events, typer.Option(help="Table, CSV, JSON, Audacity labels or Raven selections.")
    ] = Events.TABLE,
    threshold: Threshold = None,
    release: Release = None,
    smoothing: Smoothing = 1,
    min_duration: MinDuration = 0.0,
    min_gap: MinGap = 0.0,
    plot: Annotated[Path | None, typer.Option(help="Draw waveform, spectrogram and timeline here.")] = None,
) -> None:
    """List what is heard when in a recording."""
    with errors(events):
        from tfaudiotl.runtime.predictor import Predictor
        from tfaudiotl.runtime.writers import format_events, write_events

        predictor = Predictor(
            model,
            threshold=threshold,
            release=release,
            smoothing=smoothing,
            min_duration=min_duration,
            min_gap=min_gap,
        )
        found = predictor.analyze_file(sound)
        if output:
            typer.echo(f"Wrote {write_events(output, found.events, format.value)}", err=True)
        else:
            typer.echo(format_events(found.events, format.value), nl=False)
        if plot:
            typer.echo(f"Wrote {found.plot(plot)}", err=True)


@app.command()
def listen(
    model: ModelPath,
    sample_rate: Annotated[int, typer.Option(help="Of the samples on standard input, Hz.")] = 16_000,
    hop_seconds: Annotated[
        float | None, typer.Option(help="From one window's start to the next's; as for events if not given.")
    ] = None,
    threshold: Threshold = None,
    release: Release = None,
    smoothing: Smoothing = 1,
    min_duration: MinDuration = 0.0,
    min_gap: MinGap = 0.0,
) -> None:
    """Classify 16-bit mono samples from standard input: arecord -t raw -f S16_LE -r 16000 | tfaudiotl listen M."""
    with errors(listen):
        import numpy as np

        from tfaudiotl.runtime.stream import StreamingClassifier

        live = StreamingClassifier(
            model,
            sample_rate=sample_rate,
            hop_seconds=hop_seconds,
            threshold=threshold,
            release=release,
            smoothing=smoothing,
            min_duration=min_duration,
            min_gap=min_gap,
        )
        rest = b""
        while data := os.read(sys.stdin.fileno(), 65_536):
            data = rest + data
            whole = len(data) // 2 * 2
            rest = data[whole:]
            for event in live.push(np.frombuffer(data[:whole], "<i2")):
                typer.echo(str(event))
        for event in live.finish():
            typer.echo(str(event))
