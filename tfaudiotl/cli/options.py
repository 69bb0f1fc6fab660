"""Options and arguments that several commands have, and how their text becomes values."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tfaudiotl.cli.console import Library, Needs, say
from tfaudiotl.errors import AudioErrors

if TYPE_CHECKING:
    from tfaudiotl.data.clips import Clips


class OnError(str, Enum):
    """What to do with sounds that cannot be used."""

    RAISE = "raise"
    SKIP = "skip"


# Written out, so that a wrong name is refused before TensorFlow loads.
BACKBONES = (
    "convnet",
    "efficientnetv2b0",
    "inceptionv3",
    "mobilenet",
    "mobilenetv2",
    "rawnet2",
    "vggish",
    "yamnet",
    "yamnet_mini",
)

MODELS = (".keras", ".h5", ".tflite")


def positive(value: float | None) -> float | None:
    """A callback of options: refuses what is not a finite number above 0."""
    if value is not None and not 0 < value < math.inf:
        raise typer.BadParameter(f"{value} is not a number above 0")
    return value


def class_scores(text: str | None) -> float | dict[str, float] | None:
    """A callback of options: one score, or one for each class, from 0 to 1."""
    if text is None:
        return None
    try:
        if text.lower().endswith(".json"):
            found = json.loads(Path(text).read_text(encoding="utf-8"))
            given = {str(name): float(value) for name, value in found.items()}
        elif "=" in text:
            pairs = [part.rpartition("=") for part in text.split(",")]
            given = {name.strip(): float(value) for name, _, value in pairs}
        else:
            given = {"": float(text)}
    except (AttributeError, OSError, TypeError, ValueError) as error:
        raise typer.BadParameter(f"{text!r}: a number, 'dog=0.4,rain=0.7', or a .json file of such: {error}") from error
    for value in given.values():
        if not 0 <= value <= 1:
            raise typer.BadParameter(f"{value} is not in the range from 0 to 1")
    return given.get("", given) if set(given) == {""} else given


def check_backbone(name: str | None) -> str | None:
    """A callback of ``Backbone``: refuses names of none."""
    if name is not None and name not in BACKBONES and not name.startswith("hub:"):
        raise typer.BadParameter(f"{name!r}: allowed are {', '.join(BACKBONES)}, and 'hub:' with a TF Hub handle")
    return name


def regex(value: str | None) -> str | None:
    """A callback of options: refuses what is no regular expression."""
    try:
        re.compile(value or "")
    except re.error as error:
        raise typer.BadParameter(f"{value!r} is not a regular expression: {error}") from None
    return value


Weights = Annotated[
    str | None,
    typer.Option(help="Preset, TF Hub handle, SavedModel folder or archive, .weights.h5, .h5, .npz or .ckpt file."),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        callback=check_backbone,
        help="Pretrained network: yamnet_mini, which is in the package; or yamnet, the default with --weights.",
    ),
]
Embedding = Annotated[
    str | None,
    typer.Option("--embedding", help="Layer, layers with commas, or recipe; the backbone's own by default."),
]
Pooling = Annotated[
    Literal["avg", "max", "avgmax", "freq"] | None,
    typer.Option(help="How a convolution's feature map is pooled to numbers; the recipe's, or avg, by default."),
]
ModelPath = Annotated[Path, typer.Argument(help="A .keras file, a SavedModel folder or a .tflite file.")]
ClassFolder = Annotated[
    Path,
    typer.Argument(help="Folder with one sub-folder of recordings per class; see --label-pattern."),
    Library(("directory",)),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Where to write."), Library(("path", "folder"))]
OutputFolder = Annotated[Path | None, typer.Option("--output", "-o", help="Folder to write the results into.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
OverwriteOutput = Annotated[bool, typer.Option("--overwrite", help="Replace what is there."), Needs("--output")]
OnErrorOption = Annotated[OnError, typer.Option(help="Sounds that cannot be used: stop, or skip and list them.")]
AllowSilence = Annotated[bool, typer.Option("--allow-silence", help="Keep clips that are all zeros.")]
LabelPattern = Annotated[
    str | None,
    typer.Option(
        callback=regex, help=r"Classes from the file names instead of folders: a regex with a group, such as '^(\d)_'."
    ),
]
SEPARATOR_HELP = "Between several classes of one recording, in a table's cell or where --label-pattern finds them: '+'."
LabelSeparator = Annotated[str | None, typer.Option(help=SEPARATOR_HELP), Needs("--label-pattern")]
FoldPattern = Annotated[
    str | None,
    typer.Option(callback=regex, help=r"Folds from the file names: a regex with a group, such as '^(\d)-'."),
]
GroupPattern = Annotated[
    str | None,
    typer.Option(
        callback=regex,
        help="Groups from the file names: a regex with a group. A group stays on one side of a split.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
Threshold = Annotated[
    str | None,
    typer.Option(
        callback=class_scores,
        metavar="SCORES",
        help="Score at which an event begins: a number, 'dog=0.4,rain=0.7', or a .json file of names and numbers; the "
        "model's own by default, else 0.5.",
    ),
]
Release = Annotated[
    str | None,
    typer.Option(
        callback=class_scores,
        metavar="SCORES",
        help="Score below which an event ends, in the same form; the threshold by default.",
    ),
]
Background = Annotated[
    str | None, typer.Option(help="Class that is no sound of interest, never an event; the model's own by default.")
]
ReportBackground = Annotated[bool, typer.Option("--report-background", help="Show events of the background class too.")]
Smoothing = Annotated[int, typer.Option(min=1, help="Number of windows to average scores over; odd.")]
MinDuration = Annotated[float, typer.Option(min=0, help="Shorter events are dropped; seconds.")]
MinGap = Annotated[float, typer.Option(min=0, help="Events of a class closer than this are joined; seconds.")]


def pretrained(backbone: str | None, weights: str | None) -> tuple[str, str]:
    """Backbone and weights: without either the embedded ones, so that every command works without a network."""
    return backbone or ("yamnet" if weights else "yamnet_mini"), weights or "audioset"


def load_clips(
    folder: Path,
    *,
    label_pattern: str | None = None,
    label_separator: str | None = None,
    fold_pattern: str | None = None,
    group_pattern: str | None = None,
    on_error: OnError = OnError.RAISE,
    class_names: Sequence[str] | None = None,
    classes_of: str = "the model",
) -> Clips:
    """Reads a folder of classes, and says what was found; ``classes_of`` says whose the ``class_names`` are."""
    from tfaudiotl.data.clips import Clips
    from tfaudiotl.data.folders import from_names
    from tfaudiotl.data.table import UnknownClassError

    with suppress(ValueError):  # which says less of a wrong folder than what follows
        say(f"Reading {len(sound_files([folder])):,} recordings in {folder}")
    try:
        if label_pattern is None:
            clips = Clips.from_directory(
                folder,
                fold_pattern=fold_pattern,
                group_pattern=group_pattern,
                on_error=on_error.value,
                class_names=class_names,
            )
        else:
            paths = [str(path) for path in sound_files([folder])]
            labels: list[Any] = list(from_names(paths, "label_pattern", label_pattern))
            if label_separator:
                labels = [[name for name in label.split(label_separator) if name] for label in labels]
            clips = Clips.from_files(
                paths,
                labels,
                folds=from_names(paths, "fold_pattern", fold_pattern) if fold_pattern else None,
                groups=from_names(paths, "group_pattern", group_pattern) if group_pattern else None,
                on_error=on_error.value,
                class_names=class_names,
            )
    except AudioErrors as error:
        more = f"So far only headers were read; 'tfaudiotl inspect {folder}' names all recordings that cannot be used."
        raise AudioErrors(error.errors, error.total, f"{error.advice}\n{more}") from None
    except UnknownClassError as error:
        named = ", ".join(map(repr, error.names))
        where = f"the sub-folders {named}, which are" if error.names[1:] else f"the sub-folder {named}, which is"
        if label_pattern is not None:
            where = f"files of --label-pattern's {named}," + (" which are" if error.names[1:] else " which is")
        raise ValueError(
            f"{folder}: has {where} no class of {classes_of} ({', '.join(class_names or ())}); rename or remove "
            f"{'them' if error.names[1:] or label_pattern is not None else 'it'}"
        ) from None
    say(f"{clips!r}")
    return clips


def sound_files(paths: Sequence[Path]) -> list[Path]:
    """The files given, and those in the folders given, at any depth."""
    from tfaudiotl.data.folders import sound_files as files_of

    missing = [path for path in paths if not path.exists()]
    if missing:
        raise ValueError(f"{missing[0]}: no such file or folder")
    return [file for path in paths for file in (files_of(path) if path.is_dir() else [path])]


def check_output(
    output: Path | None,
    *,
    overwrite: bool,
    data: Iterable[Path | None] = (),
    file: bool = False,
    option: str = "--output",
) -> None:
    """Refuses a place that holds something already, or that nothing can be written to, before any waiting.

    Args:
        output: where to write; None: nowhere.
        overwrite: whether what is there may be replaced.
        data: for a folder of results, the folders of recordings: among these the results would be taken for a class.
        file: whether a file is written, not a folder.
        option: what the user gave it as.
    """
    if output is None:
        return
    for folder in data:
        if folder is not None and folder.is_dir():
            place, recordings = output.resolve(), folder.resolve()
            for relation, found in (
                ("is", place == recordings),
                ("holds", place in recordings.parents),
                ("lies in", recordings in place.parents),
            ):
                if found:
                    raise ValueError(f"{option} {output} {relation} the folder of recordings, {folder}; give another")
    if output.exists() and output.is_dir() == file:
        raise FileExistsError(
            f"{option} {output} is a {'folder; give the name of a file' if file else 'file; give a folder'}"
        )
    if output.exists() and not overwrite:
        if not output.is_dir():
            raise FileExistsError(f"{option} {output} is there already; --overwrite replaces it")
        if any(output.iterdir()):
            raise FileExistsError(f"{option} {output} is not empty; --overwrite replaces what is in it")
    above = next(each for each in (output, *output.absolute().parents) if each.exists())
    if above != output and not above.is_dir():
        raise ValueError(f"{option} {output}: {above} is a file, not a folder")
    if not os.access(above, os.W_OK):
        raise PermissionError(f"{option} {output}: {above} cannot be written to")


def check_model(model: Path) -> None:
    """Refuses what is no model by its name, before any waiting."""
    if not model.exists():
        raise ValueError(f"{model}: no such file or folder")
    if not model.is_dir() and model.suffix.lower() not in MODELS:
        raise ValueError(f"{model}: a model is a {' or '.join(MODELS)} file, or a SavedModel folder")


def split_names(text: str | None) -> list[str] | None:
    """Names with commas between them as a list; None where there are none."""
    return [name.strip() for name in text.split(",") if name.strip()] if text else None
