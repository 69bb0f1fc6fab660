"""``tfaudiotl export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfaudiotl.cli.console import errors
from tfaudiotl.cli.main import app
from tfaudiotl.cli.options import OnError, Output, Overwrite, load_clips


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
    with errors(export):
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
                calibrate=load_clips(calibrate, None, None, OnError.SKIP, class_names=names) if calibrate else None,
                input="patches" if patches else "waveform",
                frontend="matmul" if matmul else "fft",
                c_array=c_array,
            )
            from tfaudiotl._files import write_atomic

            write_atomic(output.with_suffix(".txt"), "".join(f"{name}\n" for name in class_names_of(loaded)))
        elif quantize or samples:
            raise ValueError(f"output={str(output)!r}: quantize and samples are for names that end in .tflite")
        else:
            export_saved_model(loaded, output, overwrite=overwrite)
        typer.echo(f"Wrote {output}")
        if verify:
            from tfaudiotl.export.verify import Reference, checks_table, verify_export

            clips = load_clips(verify, None, None, OnError.RAISE, class_names=class_names_of(loaded))
            artifact = open_artifact(loaded)
            waveforms = [clips.load(row, sample_rate=artifact.sample_rate) for row in range(len(clips))]
            reference = Reference(artifact, waveforms, clips.targets)
            check = verify_export(reference, open_artifact(output))
            typer.echo(checks_table([check]))
