"""``tfaudiotl bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfaudiotl._threads import Progress
from tfaudiotl.cli.console import command, load_tensorflow, progress_shown


@command
def bench(
    models: Annotated[list[Path], typer.Argument(help=".tflite files; the others are compared with the first.")],
    runs: Annotated[int, typer.Option(min=5, help="Number of timed runs of each.")] = 100,
) -> None:
    """Time .tflite files in turns, and list what is in them."""
    for path in models:
        if not path.is_file() or path.suffix != ".tflite":
            raise ValueError(f"{path} is not a .tflite file")
    load_tensorflow()
    from tfaudiotl.markdown import markdown_table
    from tfaudiotl.tflite.audit import audit_tflite
    from tfaudiotl.tflite.litert import measure_latency, peak_memory

    rows = []
    with progress_shown() as progress:
        for done, path in enumerate(models, start=1):
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
            progress(Progress("Timing", done, len(models)))
    columns = ["File", "MB", "Int8", "ms", "p95", "Ratio", "ms, 2 threads", "p95", "Ratio", "Memory MB"]
    typer.echo(markdown_table(columns, rows))
