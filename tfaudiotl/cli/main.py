"""The program and its own options; each module of commands adds to ``app``."""

from __future__ import annotations

from typing import Annotated

import typer

from tfaudiotl._version import __version__
from tfaudiotl.cli.console import open_streams

app = typer.Typer(
    name="tfaudiotl",
    help="Turn a folder of recordings into your own sound classifier.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Turn a folder of recordings into your own sound classifier."""
    open_streams()
    if version:
        typer.echo(__version__)
        raise typer.Exit
