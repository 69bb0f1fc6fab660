"""``tfaudiotl demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfaudiotl.cli.console import command, load_tensorflow
from tfaudiotl.cli.options import Overwrite, Seed, check_output


@command
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write.")] = Path("tfaudiotl_demo"),
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Try all of it in about a minute, without a network: noise colours from five clips of each."""
    check_output(output, overwrite=overwrite)
    load_tensorflow()
    from tfaudiotl.demo import run_demo

    run_demo(output, seed=seed, overwrite=overwrite, echo=typer.echo)
