"""``tfaudiotl demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfaudiotl.cli.console import errors
from tfaudiotl.cli.main import app
from tfaudiotl.cli.options import Overwrite


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write.")] = Path("tfaudiotl_demo"),
    seed: Annotated[int, typer.Option(help="Seed of the noise, the split and the head.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """See all of it work in about a minute, without a network: noise colours from five clips of each."""
    with errors(demo):
        from tfaudiotl.demo import run_demo

        run_demo(output, seed=seed, overwrite=overwrite, echo=typer.echo)
