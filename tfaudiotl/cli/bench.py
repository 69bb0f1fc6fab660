"""``tfaudiotl bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfaudiotl._threads import Progress
from tfaudiotl.cli.console import command, load_tensorflow, progress_shown

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
