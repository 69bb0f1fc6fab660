"""Options and arguments that several commands have, and how their text becomes values."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tfaudiotl.audio.clips import Clips


class OnError(str, Enum):
    """What to do with sounds that cannot be used."""

    RAISE = "raise"
    SKIP = "skip"


Weights = Annotated[
    str | None, typer.Option(help="Preset, TF Hub handle, SavedModel folder or archive, .weights.h5 or .npz file.")
]
Backbone = Annotated[
    str | None,
    typer.Option(
        help="Pretrained network: yamnet_mini, which is in the package; or yamnet, the default with --weights."
    ),
]
Pooling = Annotated[str, typer.Option(help="avg, max or avgmax.")]
ModelPath = Annotated[Path, typer.Argument(help="A .keras file, a SavedModel folder or a .tflite file.")]
ClassFolder = Annotated[Path, typer.Argument(help="One sub-folder of recordings per class.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Where to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
OnErrorOption = Annotated[OnError, typer.Option(help="Sounds that cannot be used: stop, or leave out and list.")]
Threshold = Annotated[float | None, typer.Option(help="Score from which a class is heard; the model's own, or 0.5.")]
Release = Annotated[float | None, typer.Option(help="Score below which it ceases; the threshold by default.")]
Smoothing = Annotated[int, typer.Option(help="Windows to average scores over, an odd number.")]
MinDuration = Annotated[float, typer.Option(help="Seconds; shorter events are left out.")]
MinGap = Annotated[float, typer.Option(help="Seconds; events of a class with less between them are one.")]


def pretrained(backbone: str | None, weights: str | None) -> tuple[str, str]:
    """Backbone and weights: without either the embedded ones, so that every command works without a network."""
    return backbone or ("yamnet" if weights else "yamnet_mini"), weights or "audioset"


def load_clips(
    folder: Path,
    fold_pattern: str | None,
    group_pattern: str | None,
    on_error: OnError,
    class_names: Sequence[str] | None = None,
) -> Clips:
    """Reads a folder of classes, and says what was found."""
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


def split_names(text: str | None) -> list[str] | None:
    """Names with commas between them as a list; None where there are none."""
    return [name.strip() for name in text.split(",") if name.strip()] if text else None
