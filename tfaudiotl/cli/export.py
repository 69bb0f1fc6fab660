"""``tfaudiotl export`` and ``bench``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tfaudiotl._files import write_atomic
from tfaudiotl._threads import Progress
from tfaudiotl.cli.console import Excludes, command, load_tensorflow, progress_shown, say
from tfaudiotl.cli.options import OnError, Output, Overwrite, Threshold, check_output, load_clips, sound_files


@command
def export(
    model: Annotated[Path, typer.Argument(help="A .keras file.")],
    output: Output,
    quantize: Annotated[
        Literal["float16", "dynamic", "int8", "int8_io"] | None, typer.Option(help="For .tflite: smaller weights.")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="For .tflite: number of samples per window."),
        Excludes(("--patches",)),
    ] = None,
    verify: Annotated[
        Path | None, typer.Option(help="Folder of labelled recordings to compare the file with the model on.")
    ] = None,
    overwrite: Overwrite = False,
    calibrate: Annotated[Path | None, typer.Option(help="For int8: folder of recordings to take ranges from.")] = None,
    patches: Annotated[
        bool, typer.Option("--patches", help="For .tflite: the input is log-mel patches instead of samples.")
    ] = False,
    matmul: Annotated[
        bool, typer.Option("--matmul", help="For .tflite: a front-end without RFFT2D."), Excludes(("--patches",))
    ] = False,
    c_array: Annotated[bool, typer.Option("--c-array", help="For .tflite: also as C source.")] = False,
    threshold: Threshold = None,
) -> None:
    """Export a .keras classifier: to a .tflite file, or to a SavedModel folder."""
    tflite = output.suffix.lower() == ".tflite"
    if output.suffix and not tflite:
        raise ValueError(f"--output {output}: a name that ends in .tflite, or a folder's without an ending")
    if not tflite and (quantize or samples or calibrate or patches or matmul or c_array):
        raise ValueError(
            f"--output {output}: --quantize, --samples, --calibrate, --patches, --matmul and --c-array are for names "
            "that end in .tflite"
        )
    if quantize == "int8_io" and not patches:
        raise ValueError("--quantize int8_io needs --patches: a front-end in 8 bits tells nothing apart")
    if quantize in ("int8", "int8_io") and calibrate is None:
        raise ValueError(f"--quantize {quantize}: give --calibrate, a folder of recordings like those to classify")
    if calibrate is not None and quantize not in ("int8", "int8_io"):
        raise ValueError("--calibrate needs --quantize int8 or int8_io: it has no effect without")
    if model.suffix.lower() not in (".keras", ".h5") or not model.is_file():
        raise ValueError(f"{model}: {'a .keras file is needed' if model.exists() else 'no such file'}")
    check_output(output, overwrite=overwrite, data=() if tflite else [verify], file=tflite)
    report = output.parent / f"{output.stem if tflite else output.name}.report.md"
    for beside, written in ((output.with_suffix(".txt"), tflite), (report, verify is not None)):
        check_output(beside if written else None, overwrite=overwrite, file=True)
    load_tensorflow()
    from tfaudiotl.backbones.scores import class_names_of, set_thresholds
    from tfaudiotl.export.check import Reference, checks_table, verify_export
    from tfaudiotl.export.savedmodel import export_saved_model
    from tfaudiotl.export.tflite import export_tflite
    from tfaudiotl.runtime.load import load_model, open_artifact

    loaded = load_model(model)
    names = class_names_of(loaded)
    if threshold is not None:
        set_thresholds(loaded, threshold)
    held = load_clips(verify, class_names=names, classes_of=str(model)) if verify else None
    with progress_shown() as progress:
        progress(Progress("Exporting", 0, 1))
        if tflite:
            export_tflite(
                loaded,
                output,
                quantize=quantize,
                samples=samples,
                overwrite=overwrite,
                calibrate=_calibration(calibrate, names, open_artifact(loaded).sample_rate) if calibrate else None,
                verify=held,
                input="patches" if patches else "waveform",
                frontend="matmul" if matmul else "fft",
                c_array=c_array,
            )
            write_atomic(output.with_suffix(".txt"), "".join(f"{name}\n" for name in names))
        else:
            export_saved_model(loaded, output, overwrite=overwrite)
        progress(Progress("Exporting", 1, 1))
    typer.echo(f"Wrote {output}")
    if held is not None:
        if not tflite:  # export_tflite has compared already
            say("Comparing the files with the model")
            check = verify_export(Reference(open_artifact(loaded), held), open_artifact(output))
            write_atomic(report, f"{checks_table([check])}\n")
        typer.echo(report.read_text(encoding="utf-8"))
        typer.echo(f"Report: {report}")


def _calibration(folder: Path, names: Sequence[str], sample_rate: int) -> Any:
    """The clips of a folder with one of the model's classes, or some of the waveforms of any other."""
    if not folder.is_dir() or any((folder / name).is_dir() for name in names):
        return load_clips(folder, on_error=OnError.SKIP, class_names=names)
    from tfaudiotl.data.clips import Clips
    from tfaudiotl.export.check import waveforms_of
    from tfaudiotl.export.tflite import CALIBRATION_CLIPS

    files = sound_files([folder])
    clips = Clips.from_files(files, [[]] * len(files), on_error="skip")
    return waveforms_of(clips, sample_rate=sample_rate, limit=CALIBRATION_CLIPS)


THREADS = (1, 2)
DIGITS = 3  # of the milliseconds printed: small networks take hundredths


@command
def bench(
    models: Annotated[list[Path], typer.Argument(help=".tflite files; the others are compared with the first.")],
    runs: Annotated[int, typer.Option(min=5, help="Number of timed runs of each.")] = 100,
) -> None:
    """Time .tflite files in turns, and list what is in them."""
    for path in models:
        if not path.exists():
            raise ValueError(f"{path}: no such file")
        if not path.is_file() or path.suffix.lower() != ".tflite":
            raise ValueError(f"{path} is not a .tflite file")
    load_tensorflow()
    from tfaudiotl.markdown import markdown_table
    from tfaudiotl.tflite.audit import audit_tflite
    from tfaudiotl.tflite.litert import peak_memory, time_in_turns

    audits = [audit_tflite(path) for path in models]  # first: what is no model is refused before any timing
    times: list[list[tuple[float, float]]] = []
    with progress_shown() as progress:
        for done, threads in enumerate(THREADS):
            progress(Progress("Timing", done, len(THREADS)))
            times.append(time_in_turns(models, threads=threads, runs=runs))
        progress(Progress("Timing", len(THREADS), len(THREADS)))
    rows = []
    for place, (path, audit) in enumerate(zip(models, audits, strict=True)):
        memory = peak_memory(path)
        cells = [cell for timed in times for cell in _cells(timed, place)]
        shown = (f"{audit.bytes / 1e6:.2f}", f"{audit.int8_share:.2f}", *cells)
        rows.append((str(path), *shown, None if memory is None else f"{memory / 1e6:.1f}"))
    columns = ["File", "MB", "Int8", "ms", "p95", "Ratio", "ms, 2 threads", "p95", "Ratio", "Memory MB"]
    typer.echo(markdown_table(columns, rows))
    typer.echo("ms: median of the runs of one window. Ratio: of a file's median to the first file's.")


def _cells(timed: list[tuple[float, float]], place: int) -> tuple[str, str, str]:
    """A file's median, 95th percentile, and the quotient of the medians as they are printed."""
    median, p95 = timed[place]
    ratio = round(median, DIGITS) / max(round(timed[0][0], DIGITS), 10**-DIGITS)
    return f"{median:.{DIGITS}f}", f"{p95:.{DIGITS}f}", f"{ratio:.2f}" if place else "-"
