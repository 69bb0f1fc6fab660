"""``tfaudiotl evaluate``, ``predict``, ``events`` and ``listen``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tfaudiotl._files import EVENT_SUFFIXES, check_picture, text_format
from tfaudiotl._threads import Progress
from tfaudiotl.cli.console import Excludes, Needs, command, list_left_out, load_tensorflow, progress_shown, say, warn_of
from tfaudiotl.cli.options import (
    Background,
    ClassFolder,
    LabelPattern,
    LabelSeparator,
    MinDuration,
    MinGap,
    ModelPath,
    OnError,
    OnErrorOption,
    OutputFolder,
    OverwriteOutput,
    Release,
    ReportBackground,
    Smoothing,
    Threshold,
    check_model,
    check_output,
    load_clips,
    positive,
    sound_files,
)


@command
def evaluate(
    model: ModelPath,
    folder: ClassFolder,
    output: OutputFolder = None,
    label_pattern: LabelPattern = None,
    label_separator: LabelSeparator = None,
    on_error: OnErrorOption = OnError.RAISE,
    overwrite: OverwriteOutput = False,
) -> None:
    """Measure a classifier on labelled recordings."""
    check_model(model)
    check_output(output, overwrite=overwrite, data=[folder])
    load_tensorflow()
    from tfaudiotl.errors import AudioError
    from tfaudiotl.runtime.evaluate import evaluate as run
    from tfaudiotl.runtime.predictor import Predictor

    predictor = Predictor(model)
    clips = load_clips(
        folder,
        label_pattern=label_pattern,
        label_separator=label_separator,
        on_error=on_error,
        class_names=predictor.class_names,
        classes_of=str(model),
    )
    skipped: list[AudioError] = list(clips.skipped)
    with progress_shown() as progress:
        evaluation = run(predictor, clips, on_error=on_error.value, skipped=skipped, progress=progress)
    typer.echo(evaluation.to_markdown())
    list_left_out(skipped)
    if output:
        typer.echo(f"Report: {evaluation.save(output, title=f'Evaluation of {model}')}")


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


# What sound files begin with.
MARKS = {
    b"OggS": "Ogg",
    b"RIFF": "WAV",
    b"RF64": "WAV",
    b"fLaC": "FLAC",
    b"ID3": "MP3",
    b"FORM": "AIFF",
    b"caff": "CAF",
    b".snd": "AU",
    b"\x1aE\xdf\xa3": "Matroska",
}
LONGEST_MARK = 8  # bytes, MP4's place included


@command
def events(
    model: ModelPath,
    sound: Annotated[Path, typer.Argument(help="A sound file.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the events into this file.")] = None,
    format: Annotated[
        Literal["table", "csv", "json", "audacity", "raven"] | None,
        typer.Option(
            help="Table, CSV, JSON, Audacity labels or Raven selections; by default as --output ends, else a table."
        ),
    ] = None,
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
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is there."), Needs("--output", "--plot")
    ] = False,
) -> None:
    """List the events in a recording: what is in it, from when to when.

    Digital silence is never an event, nor is less than a window of sound.
    """
    check_output(output, overwrite=overwrite, file=True)
    check_output(plot, overwrite=overwrite, file=True, option="--plot")
    style = format or "table"
    if output:
        style = text_format(output, format, EVENT_SUFFIXES, plain="table", argument="output")
    if plot:
        check_picture("plot", plot)
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
    for written in filter(None, (output, plot)):
        written.parent.mkdir(parents=True, exist_ok=True)
    if output:
        say(f"Wrote {write_events(output, found.events, style)}")
    else:
        typer.echo(format_events(found.events, style), nl=False)
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

    rest, heard = b"", False
    try:
        while data := os.read(sys.stdin.fileno(), 65_536):
            rest += data
            if not heard and len(rest) < LONGEST_MARK:
                continue  # a pipe gives what there is
            if not heard:
                _check_samples(rest, sample_rate)
            heard = True
            whole = len(rest) // 2 * 2
            show(live.push(np.frombuffer(rest[:whole], "<i2")))
            rest = rest[whole:]
        if not heard and len(rest) < 2:
            raise ValueError("standard input ended without a sample; does the program before the pipe record?")
        show(live.push(np.frombuffer(rest[: len(rest) // 2 * 2], "<i2")))
    except KeyboardInterrupt:
        show(live.finish())
        raise
    show(live.finish())


def _check_samples(beginning: bytes, sample_rate: int) -> None:
    """ValueError for the beginning of a sound file, whose header and coded sound are no samples."""
    kinds = [kind for mark, kind in MARKS.items() if beginning.startswith(mark)]
    if beginning[4:8] == b"ftyp":
        kinds = ["MP4"]
    if kinds:
        raise ValueError(
            f"standard input is a sound file ({kinds[0]}), not bare samples; give the file to 'tfaudiotl events', or "
            f"decode it: ffmpeg -i FILE -f s16le -ac 1 -ar {sample_rate} - | tfaudiotl listen MODEL"
        )
