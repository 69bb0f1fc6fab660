"""Folders of sound files: which files of a folder are sounds, and folders with one sub-folder per class."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from tfaudiotl._files import show_name
from tfaudiotl.audio.files import AUDIO_EXTENSIONS
from tfaudiotl.data.table import PARTS, Columns, listed, part_of

logger = logging.getLogger(__name__)

_EXAMPLE = """expected one sub-folder per class, with sound files in it:
    sounds/
      dog/    bark1.wav  bark2.ogg
      rain/   shower.flac"""


def read_directory(directory: str | os.PathLike[str], extensions: Collection[str], *, parts: bool = False) -> Columns:
    """Finds the sound files of a folder with one sub-folder per class.

    Args:
        directory: The folder; what begins with a dot is passed over.
        extensions: Suffixes of sound files, in any case.
        parts: Whether classes may all be called as parts of a data set are, "train" and "test".

    Returns:
        Paths sorted within sorted classes, and the number of other files ("ignored").

    Raises:
        ValueError: It is missing or not a folder, holds no sub-folders, or one has no sound file.
    """
    root, suffixes = Path(directory), {suffix.lower() for suffix in extensions}
    if not root.is_dir():
        found = "is not a directory" if root.exists() else "does not exist"
        raise ValueError(f"directory={str(directory)!r} {found}; {_EXAMPLE}")
    visible = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    folders = [entry for entry in visible if entry.is_dir()]
    loose = [entry.name for entry in visible if not entry.is_dir()]
    if not folders:
        found = f"holds {len(loose)} files ({listed(loose)}) but no sub-folders" if loose else "is empty"
        raise ValueError(f"directory={str(directory)!r} {found}; {_EXAMPLE}")
    if not parts:
        _check_no_parts(root, folders)
    unlabelled = [name for name in loose if Path(name).suffix.lower() in suffixes]
    if unlabelled:
        logger.warning(
            "%s: %d sound files lie outside the class folders: %s", root, len(unlabelled), listed(unlabelled)
        )
    rows = Columns(ignored=len(loose))
    for folder in folders:
        files = files_below(folder, inside=root)
        sounds = [file for file in files if Path(file).suffix.lower() in suffixes]
        if not sounds:
            raise ValueError(
                f"directory={str(directory)!r}: class folder {folder.name!r} has no sound file "
                f"({len(files)} other files); fill or remove it. Sound files end in "
                f"{' '.join(sorted(suffixes))}"
            )
        rows.paths += sounds
        rows.labels += [folder.name] * len(sounds)
        rows.ignored += len(files) - len(sounds)
    return rows


def _check_no_parts(root: Path, folders: Sequence[Path]) -> None:
    """ValueError where the sub-folders are called as parts of a data set are, and nothing else."""
    usual = {name for names in PARTS.values() for name in names}
    if len(folders) < 2 or not all(folder.name.lower() in usual for folder in folders):
        return
    inside = sorted({e.name for f in folders for e in f.iterdir() if e.is_dir() and not e.name.startswith(".")})
    found = f"with the sub-folders {listed(map(repr, inside))}" if inside else "without sub-folders of their own"
    ordered = sorted(folders, key=lambda folder: list(PARTS).index(part_of(folder.name)))
    train, test = ordered[0], ordered[-1]
    raise ValueError(
        f"directory={str(root)!r} has the sub-folders {listed(repr(folder.name) for folder in folders)}, {found}. They "
        "look like parts of a data set rather than classes: read each by itself and put them together with "
        f"Clips.from_parts(train=..., test=...), on the command line {train} --test {test}; if they are classes, "
        "give class_names="
    )


def files_below(folder: Path, *, inside: Path | None = None) -> list[str]:
    """Files at any depth, links followed once (none back to ``inside``), hidden ones passed over; sorted by path."""
    found, visited = [], set()
    if inside is not None:
        status = os.stat(inside)
        visited.add((status.st_dev, status.st_ino))
    for parent, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in visited:  # a link back into the tree
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [os.path.join(parent, name) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda path: Path(path).parts)


def sound_files(folder: str | os.PathLike[str], extensions: Collection[str] = AUDIO_EXTENSIONS) -> list[Path]:
    """All sound files in a folder and below: the one rule for every command and function that takes a folder.

    Links are followed, each folder once; what begins with a dot is passed over, such as the "._a.wav" that macOS leaves
    beside "a.wav" on other file systems; so are folders that are called like sounds.

    Args:
        folder: The folder.
        extensions: Suffixes of sound files, in any case.

    Returns:
        The files, sorted by path.

    Raises:
        ValueError: It is no folder, or has no sound file.
    """
    root, suffixes = Path(folder), {suffix.lower() for suffix in extensions}
    if not root.is_dir():
        raise ValueError(f"{show_name(root)} {'is not a folder' if root.exists() else 'does not exist'}")
    found = [path for path in map(Path, files_below(root)) if path.suffix.lower() in suffixes]
    if not found:
        raise ValueError(
            f"{show_name(root)}: no sound file in this folder; sound files end in {' '.join(sorted(suffixes))}"
        )
    return found


def from_names(paths: Sequence[str], argument: str, pattern: str) -> list[str]:
    """The first capture group of ``pattern``, searched in each file's name.

    Raises:
        ValueError: The pattern is no regular expression, has no group, or some names do not match.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{argument}={pattern!r} is not a regular expression: {error}") from None
    if not expression.groups:
        raise ValueError(f"{argument}={pattern!r} has no capture group: put what is meant in (), such as '^(\\d)-'")
    matches = [expression.search(os.path.basename(path)) for path in paths]
    # A group that took no part in the match says as little as no match.
    missed = [path for path, match in zip(paths, matches, strict=True) if match is None or match[1] is None]
    if missed:
        raise ValueError(
            f"{argument}={pattern!r} does not match the names of {len(missed)} of {len(paths)} files: {listed(missed)}"
        )
    return [match[1] for match in matches if match is not None]
