"""The command line: parses, calls the library, prints. TensorFlow loads only when a command runs."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfaudiotl._version import __version__

if TYPE_CHECKING:
    from tfaudiotl.training.recipe import Progress

app = typer.Typer(
    name="tfaudiotl",
    help="Turn a folder of recordings into your own sound classifier.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Weights = Annotated[str, typer.Option(help="Preset, TF Hub handle, SavedModel folder or archive, or .weights.h5 file.")]
ModelPath = Annotated[Path, typer.Argument(help="A .keras file, a SavedModel folder or a .tflite file.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Where to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


class OnError(str, Enum):
    """What to do with sounds that cannot be used."""

    RAISE = "raise"
    SKIP = "skip"


OnErrorOption = Annotated[OnError, typer.Option(help="Sounds that cannot be used: stop, or leave out and list.")]


class Format(str, Enum):
    """How predictions are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Turn a folder of recordings into your own sound classifier."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


@contextmanager
def _errors() -> Iterator[None]:
    """Loads TensorFlow; turns the library's errors into one message and exit code 1, Ctrl-C into 130."""
    from tfaudiotl.errors import ExportError

    _load_tensorflow()
    try:
        yield
    except KeyboardInterrupt:
        typer.secho("\nInterrupted.", err=True, fg="yellow")
        raise typer.Exit(130) from None
    except (ValueError, OSError, ExportError) as error:
        typer.secho(f"Error: {error}", err=True, fg="red")
        raise typer.Exit(1) from error


def _load_tensorflow() -> None:
    """Imports TensorFlow without the notes on CPU features and missing GPUs that it prints on every start."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    terminal = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # its C++ part writes to the descriptor, not to sys.stderr
    try:
        import tensorflow as tf
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
    tf.get_logger().setLevel("ERROR")


def _clips(
    folder: Path,
    fold_pattern: str | None,
    group_pattern: str | None,
    on_error: OnError,
    class_names: Any = None,
) -> Any:
    from tfaudiotl.audio.clips import Clips

    clips = Clips.from_directory(
        folder,
        fold_pattern=fold_pattern,
        group_pattern=group_pattern,
        on_error=on_error.value,
        class_names=class_names,
    )
    typer.echo(f"{clips!r}", err=True)
    return clips


def _names(text: str | None) -> list[str] | None:
    return [name.strip() for name in text.split(",") if name.strip()] if text else None


@app.command()
def train(
    folder: Annotated[Path, typer.Argument(help="One sub-folder of recordings per class.")],
    output: Output,
    weights: Weights = "audioset",
    backbone: Annotated[str, typer.Option(help="Pretrained network.")] = "yamnet",
    embedding: Annotated[
        str | None,
        typer.Option(help="Layer, or layers with commas, to classify on; the backbone's own by default."),
    ] = None,
    hidden: Annotated[str, typer.Option(help="Widths of the head's hidden layers, with commas; '' for none.")] = "128",
    dropout: Annotated[float, typer.Option(help="Dropout in the head.")] = 0.2,
    epochs: Annotated[int, typer.Option(help="Epochs at most.")] = 100,
    batch_size: Annotated[int, typer.Option(help="Clips per step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Adam's learning rate.")] = 2e-3,
    patience: Annotated[int, typer.Option(help="Epochs without a better validation loss before stopping.")] = 5,
    balance: Annotated[bool, typer.Option(help="Weigh classes by the inverse of their share.")] = True,
    val: Annotated[float, typer.Option(help="Share of the clips held out, when there are no folds.")] = 0.2,
    folds: Annotated[int | None, typer.Option(help="Cross-validate with so many folds.")] = None,
    fold_pattern: Annotated[
        str | None,
        typer.Option(help=r"Cross-validate with folds from the file names: a regex such as '^(\d)-'."),
    ] = None,
    group_pattern: Annotated[
        str | None,
        typer.Option(help="Regex: files with the same first group stay on one side of every split."),
    ] = None,
    window_seconds: Annotated[float, typer.Option(help="Longer clips are cut into windows of this length.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Seed of splits, weights and batches.")] = 0,
    on_error: OnErrorOption = OnError.RAISE,
    allow_silence: Annotated[bool, typer.Option("--allow-silence", help="Keep clips that are all zeros.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted training.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train, evaluate and export a classifier from a folder of recordings."""
    if folds is not None and fold_pattern is not None:
        raise typer.BadParameter("give --folds or --fold-pattern, not both")
    widths = _whole_numbers(hidden, "--hidden")
    with _errors():
        clips = _clips(folder, fold_pattern, group_pattern, on_error)
        from tfaudiotl.errors import ExportError
        from tfaudiotl.training.head import FitOptions
        from tfaudiotl.workflow import train_folder

        fit = FitOptions(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            patience=patience,
            class_weight="balanced" if balance else None,
            seed=seed,
        )
        try:
            with _training_bars() as progress:
                metrics = train_folder(
                    clips,
                    output,
                    overwrite=overwrite,
                    resume=resume,
                    fit=fit,
                    progress=progress,
                    folds="given" if fold_pattern else folds,
                    val=val,
                    window_seconds=window_seconds,
                    on_error=on_error.value,
                    allow_silence=allow_silence,
                    backbone=backbone,
                    weights=weights,
                    embedding=_names(embedding),
                    hidden=widths,
                    dropout=dropout,
                )
        except (KeyboardInterrupt, OSError, ExportError):
            if (output / ".work" / "settings.json").is_file():
                typer.secho("Finished epochs are kept: the same command with --resume goes on.", err=True)
            raise
    _print_summary(metrics, output)


def _whole_numbers(text: str, option: str) -> list[int]:
    try:
        return [int(width) for width in text.split(",") if width.strip()]
    except ValueError:
        raise typer.BadParameter(f"{option} {text!r}: whole numbers with commas, such as '256,128'") from None


def _print_summary(metrics: dict[str, Any], output: Path) -> None:
    if "folds" in metrics:
        accuracies = ", ".join(f"{fold['accuracy']:.3f}" for fold in metrics["folds"])
        typer.echo(
            f"Accuracy over folds: {metrics['accuracy_mean']:.4f} +- {metrics['accuracy_std']:.4f} ({accuracies})"
        )
    else:
        typer.echo(f"Accuracy on held-out clips: {metrics['accuracy']:.4f}, macro F1 {metrics['macro_f1']:.4f}")
    for check in metrics["exports"]:
        typer.echo(f"  {check['file']}: {check['bytes'] / 1e6:.1f} MB, agreement with Keras {check['agreement']:.4f}")
    if metrics["skipped"]:
        typer.echo(f"  {len(metrics['skipped'])} sounds were left out; metrics.json and the report list them")
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in metrics["seconds"].items())
    typer.echo(f"Seconds: {stages}")
    typer.echo(f"All of it is in {output}; read {output / 'report' / 'report.md'}")


@app.command()
def evaluate(
    model: ModelPath,
    folder: Annotated[Path, typer.Argument(help="One sub-folder of recordings per class.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the report into this folder.")] = None,
    on_error: OnErrorOption = OnError.RAISE,
) -> None:
    """Measure a classifier on labelled recordings."""
    with _errors():
        clips = _clips(folder, None, None, on_error)
        from tfaudiotl.errors import AudioError
        from tfaudiotl.runtime.evaluate import evaluate as run

        skipped: list[AudioError] = list(clips.skipped)
        with _bar("Classifying") as step:
            evaluation = run(model, clips, on_error=on_error.value, skipped=skipped, progress=step)
        typer.echo(evaluation.to_markdown())
        for error in skipped:
            typer.secho(f"left out: {error}", err=True, fg="yellow")
        if output:
            typer.echo(f"Report: {evaluation.save(output, title=f'Evaluation of {model.name}')}")


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
    with _errors():
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
                typer.secho(f"left out: {error}", err=True, fg="yellow")
        _print_rows(
            rows,
            format,
            ["file", "start", "end", "label", "score"] if timeline else ["file", "label", "score"],
        )
        if lost == len(files):
            raise typer.Exit(1)


def _sound_files(paths: list[Path]) -> list[Path]:
    from tfaudiotl.audio.files import AUDIO_EXTENSIONS

    files: list[Path] = []
    for path in paths:
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in AUDIO_EXTENSIONS) if path.is_dir() else [path]
        if not found:
            raise ValueError(f"{path}: no sound file in this folder")
        files += found
    return files


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


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A .keras file.")],
    output: Output,
    quantize: Annotated[str | None, typer.Option(help="For .tflite: float16, dynamic, int8 or int8_io.")] = None,
    samples: Annotated[int | None, typer.Option(help="For .tflite: samples per window.")] = None,
    verify: Annotated[
        Path | None, typer.Option(help="Folder of labelled recordings to compare the file with the model on.")
    ] = None,
    overwrite: Overwrite = False,
    calibrate: Annotated[Path | None, typer.Option(help="For int8: folder of recordings to take ranges from.")] = None,
    patches: Annotated[bool, typer.Option("--patches", help="For .tflite: log-mel patches in, not sound.")] = False,
    matmul: Annotated[bool, typer.Option("--matmul", help="For .tflite: a front-end without RFFT2D.")] = False,
    c_array: Annotated[bool, typer.Option("--c-array", help="For .tflite: also as C source.")] = False,
) -> None:
    """Export a .keras classifier: to OUTPUT.tflite, or to a SavedModel folder."""
    with _errors():
        from tfaudiotl.backbones.scores import class_names_of
        from tfaudiotl.export.artifact import load_model, open_artifact
        from tfaudiotl.export.savedmodel import export_saved_model
        from tfaudiotl.export.tflite import export_tflite

        loaded = load_model(model)
        if output.suffix == ".tflite":
            names = class_names_of(loaded)
            export_tflite(
                loaded,
                output,
                quantize=quantize,
                samples=samples,
                overwrite=overwrite,
                calibrate=_clips(calibrate, None, None, OnError.SKIP, class_names=names) if calibrate else None,
                input="patches" if patches else "waveform",
                frontend="matmul" if matmul else "fft",
                c_array=c_array,
            )
            from tfaudiotl.evaluation.writing import write_atomic

            write_atomic(output.with_suffix(".txt"), "".join(f"{name}\n" for name in class_names_of(loaded)))
        elif quantize or samples:
            raise ValueError(f"output={str(output)!r}: quantize and samples are for names that end in .tflite")
        else:
            export_saved_model(loaded, output, overwrite=overwrite)
        typer.echo(f"Wrote {output}")
        if verify:
            from tfaudiotl.export.verify import Reference, checks_table, verify_export

            clips = _clips(verify, None, None, OnError.RAISE, class_names=class_names_of(loaded))
            waveforms = [clips.load(row) for row in range(len(clips))]
            reference = Reference(open_artifact(loaded), waveforms, clips.targets)
            check = verify_export(reference, open_artifact(output))
            typer.echo(checks_table([check]))


@app.command()
def embed(
    folder: Annotated[Path, typer.Argument(help="Folder of recordings, at any depth.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The store; made, or gone on with.")],
    backbone: Annotated[str, typer.Option(help="Pretrained network.")] = "yamnet",
    weights: Weights = "audioset",
    layer: Annotated[str | None, typer.Option(help="Layer, or layers with commas.")] = None,
    pooling: Annotated[str, typer.Option(help="avg, max or avgmax.")] = "avg",
    quantize: Annotated[str | None, typer.Option(help="int8: pointwise convolutions in 8 bits.")] = None,
    runtime: Annotated[str, typer.Option(help="auto, litert or keras.")] = "auto",
    trim: Annotated[bool, typer.Option("--trim", help="Zeros at a recording's end make no rows.")] = False,
    on_error: OnErrorOption = OnError.RAISE,
) -> None:
    """Compute embeddings of recordings into a store; what is there is not computed again."""
    with _errors():
        from tfaudiotl.embeddings.extract import EngineOptions, Extractor, embed_to_store, sound_files

        files = sound_files(folder)
        engine = EngineOptions(runtime=runtime, quantize=quantize)
        extractor = Extractor(backbone, _names(layer), pooling=pooling, weights=weights, engine=engine)
        with _bar("Embedding") as step:
            report = embed_to_store(extractor, files, output, trim=trim, on_error=on_error.value, progress=step)
        for error in report.skipped:
            typer.secho(f"left out: {error}", err=True, fg="yellow")
        typer.echo(
            f"{output}: {report.computed} recordings or pieces computed ({report.patches} rows), "
            f"{report.reused} found there, {len(report.damaged)} damaged shards replaced, "
            f"{len(report.skipped)} left out, {report.seconds:.1f} s"
        )


@app.command()
def probe(
    folder: Annotated[Path, typer.Argument(help="One sub-folder of recordings per class; see --label-pattern.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write table and plot here.")] = None,
    backbone: Annotated[str, typer.Option(help="Pretrained network.")] = "yamnet",
    weights: Weights = "audioset",
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
    pooling: Annotated[str, typer.Option(help="avg, max or avgmax.")] = "avg",
    seed: Annotated[int, typer.Option(help="Seed of folds and draws.")] = 0,
    on_error: OnErrorOption = OnError.RAISE,
) -> None:
    """Which layer for my task? A linear probe on every layer of the network."""
    if test_pattern and fold_pattern:
        raise typer.BadParameter("give --test-pattern or --fold-pattern, not both")
    with _errors():
        from tfaudiotl.embeddings.probe import probe_layers

        if label_pattern:
            clips = _clips_by_name(folder, label_pattern, fold_pattern, group_pattern, on_error)
        else:
            clips = _clips(folder, fold_pattern, group_pattern, on_error)
        with _stage_bars() as step:
            table = probe_layers(
                backbone,
                clips,
                cv=_test_split(clips.paths, test_pattern) if test_pattern else "given" if fold_pattern else cv,
                layers=_names(layers),
                pairs=[_pair(text) for text in _names(pairs) or []],
                few_shot=few_shot,
                repeats=repeats,
                pooling=pooling,
                on_error=on_error.value,
                seed=seed,
                weights=weights,
                progress=step,
            )
        typer.echo(table.to_markdown())
        for error in [*clips.skipped, *table.skipped]:
            typer.secho(f"left out: {error}", err=True, fg="yellow")
        if output:
            output.mkdir(parents=True, exist_ok=True)
            (output / "probe.md").write_text(table.to_markdown() + "\n", encoding="utf-8")
            table.plot(output / "probe.png")
        typer.echo("Seconds: " + ", ".join(f"{stage} {taken:.1f}" for stage, taken in table.seconds.items()))


def _clips_by_name(
    folder: Path, label_pattern: str, fold_pattern: str | None, group_pattern: str | None, on_error: OnError
) -> Any:
    from tfaudiotl.audio.clips import Clips
    from tfaudiotl.audio.sources import from_names
    from tfaudiotl.embeddings.extract import sound_files

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


@contextmanager
def _stage_bars() -> Iterator[Callable[[str, int, int], None]]:
    """One progress bar per stage; yields a function of stage, number done and in all."""
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def step(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield step


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar; yields a function of the number done and in all."""
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def _training_bars() -> Iterator[Progress]:
    """One bar for the clips, then one per training run."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from tfaudiotl.training.recipe import Progress

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def clips(done: int, total: int) -> None:
            if "clips" not in tasks:
                tasks["clips"] = bars.add_task("Listening to clips", total=total)
            bars.update(tasks["clips"], completed=done)

        def epoch(run: str, number: int, epochs: int, metrics: dict[str, float]) -> None:
            if run not in tasks:
                tasks[run] = bars.add_task(f"Training: {run}", total=epochs)
            shown = "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())
            bars.update(tasks[run], completed=number, description=f"Training: {run}  {shown}")

        yield Progress(clips=clips, epoch=epoch)


# Added for edge devices: the runtime's and the exports' further commands.


class Events(str, Enum):
    """How events are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    AUDACITY = "audacity"
    RAVEN = "raven"


Smoothing = Annotated[int, typer.Option(help="Windows to average scores over, an odd number.")]
MinDuration = Annotated[float, typer.Option(help="Seconds; shorter events are left out.")]
MinGap = Annotated[float, typer.Option(help="Seconds; events of a class with less between them are one.")]
Threshold = Annotated[float | None, typer.Option(help="Score from which a class is heard; the model's own, or 0.5.")]
Release = Annotated[float | None, typer.Option(help="Score below which it ceases; the threshold by default.")]


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
    with _errors():
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
    hop_seconds: Annotated[float, typer.Option(help="From one window's start to the next's.")] = 0.48,
    threshold: Threshold = None,
    release: Release = None,
    smoothing: Smoothing = 1,
    min_duration: MinDuration = 0.0,
    min_gap: MinGap = 0.0,
) -> None:
    """Classify 16-bit mono samples from standard input: arecord -t raw -f S16_LE -r 16000 | tfaudiotl listen M."""
    with _errors():
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


@app.command()
def bench(
    models: Annotated[list[Path], typer.Argument(help="Files of .tflite; the first is what others are compared with.")],
    runs: Annotated[int, typer.Option(min=5, help="Timed runs of each.")] = 100,
) -> None:
    """Time .tflite files in turns, and list what is in them."""
    with _errors():
        from tfaudiotl.evaluation.writing import markdown_table
        from tfaudiotl.export.audit import audit_tflite
        from tfaudiotl.export.proof import measure_latency, peak_memory

        rows = []
        for path in models:
            if not path.is_file() or path.suffix != ".tflite":
                raise ValueError(f"models: {path} is no .tflite file")
            audit, memory = audit_tflite(path), peak_memory(path)
            times = [measure_latency(path, models[0], threads=threads, runs=runs) for threads in (1, 2)]
            rows.append(
                (
                    path.name,
                    f"{audit.bytes / 1e6:.2f}",
                    f"{audit.int8_share:.2f}",
                    *(f"{value:.2f}" for time in times for value in (time.median, time.p95, time.ratio)),
                    None if memory is None else f"{memory / 1e6:.1f}",
                )
            )
        columns = ["File", "MB", "Int8", "ms", "p95", "Ratio", "ms, 2 threads", "p95", "Ratio", "Memory MB"]
        typer.echo(markdown_table(columns, rows))


if __name__ == "__main__":
    app()
