"""``tfaudiotl weights``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfaudiotl.cli.console import Library, command, load_tensorflow
from tfaudiotl.cli.main import app
from tfaudiotl.cli.options import Overwrite, check_output

SUFFIX = ".weights.h5"


@command(app)
def weights(
    backbone: Annotated[str, typer.Argument(help="yamnet, vggish, yamnet_mini or a network of keras.applications.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .weights.h5 file to write, which --weights takes without a network."),
        Library(("path",)),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Fetch a network's published weights, check them and say what they are."""
    if output and not output.name.endswith(SUFFIX):
        raise ValueError(f"output={str(output)!r}: a name that ends in {SUFFIX}")
    check_output(output, overwrite=overwrite)
    load_tensorflow()
    from tfaudiotl._files import new_path
    from tfaudiotl.backbones.weights import fetch_weights

    fetched = fetch_weights(backbone)
    for name, value in fetched.describe():
        typer.echo(f"{name:<12}{value}")
    if output:
        with new_path(output, overwrite=overwrite) as path:
            fetched.model.save_weights(path)
        typer.echo(f"Written: {output}; use it as --backbone {backbone} --weights {output}")
