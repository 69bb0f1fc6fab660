"""Files and folders that are there whole or not at all, folders that are recognised as our own, and digests.

The one place that replaces or removes anything on disk. It needs nothing but Python.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

from tfaudiotl.errors import ExportError

_BLOCK = 1 << 20  # bytes read at a time
_PARTIAL = re.compile(r"\.tfaudiotl-[0-9a-f]{16}\.partial")
SAVED_MODEL = ("saved_model.pb", "fingerprint.pb", "keras_metadata.pb", "variables", "assets", "assets.extra")


def show_name(name: str | os.PathLike[str]) -> str:
    """A file's name, or any text with one in it, so that it can be written and printed as UTF-8.

    Names of files are bytes; Python keeps those that are no UTF-8 as surrogates, which no file of text can hold.

    Args:
        name: any text.

    Returns:
        The text with U+FFFD in place of every such byte. For showing only: it no longer opens the file.
    """
    return re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", os.fspath(name))


PICTURES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".eps", ".ps")


def check_picture(argument: str, path: str | os.PathLike[str]) -> None:
    """ValueError, which names ``argument``, for a file whose suffix is of no kind of picture; none is PNG's."""
    suffix = Path(path).suffix.lower()
    if suffix and suffix not in PICTURES:
        raise ValueError(f"{argument}={os.fspath(path)!r}: the name of a picture ends in {', '.join(PICTURES)}")


EVENT_SUFFIXES: dict[str, Literal["table", "csv", "json", "audacity", "raven"]] = {".csv": "csv", ".json": "json"}
TextFormat = TypeVar("TextFormat", bound=str)


def text_format(
    path: str | os.PathLike[str],
    given: TextFormat | None,
    suffixes: Mapping[str, TextFormat],
    *,
    plain: TextFormat,
    argument: str = "path",
) -> TextFormat:
    """The format of a file of text: what was asked for, else what its name says.

    Args:
        path: the file.
        given: a format, or None.
        suffixes: the format that each suffix stands for.
        plain: the format of names in .txt, and of those without a suffix.
        argument: what the caller's user gave ``path`` as.

    Raises:
        ValueError: the suffix stands for another format than ``given``, or for none and nothing is given.
    """
    suffix = Path(path).suffix.lower()
    own = suffixes.get(suffix)
    if given is None and own is None and suffix not in ("", ".txt"):
        raise ValueError(
            f"{argument}={str(path)!r}: give format=, or a name that ends in {' or '.join(suffixes)} or .txt"
        )
    if given is not None and own not in (None, given):
        raise ValueError(f"{argument}={str(path)!r}: {suffix} is not the suffix of format={given!r}; give another name")
    return given or own or plain


@contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside ``path``, not there yet; what is written to it takes ``path``'s place when the block ends.

    Args:
        path: the file to write or replace; its folder must exist.

    Raises:
        OSError: the file cannot be written; what stood there before is untouched, as after any error of the block.
    """
    path = Path(path)
    # Not tempfile: its files are readable by their owner only, and a report is for showing. Not after the file's
    # own name, which may already have the greatest length.
    partial = path.with_name(f".tfaudiotl-{secrets.token_hex(8)}.partial")  # see _PARTIAL
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def write_atomic(path: str | os.PathLike[str], content: str | bytes | Callable[[IO[bytes]], object]) -> Path:
    """Writes a file so that readers see the old content or the new, never a part.

    Args:
        path: the file to write or replace; its folder must exist.
        content: text, written as UTF-8 with its line ends as they are (names in it as ``show_name`` gives them), or
            bytes, or a function that writes to the open file.

    Returns:
        The path.

    Raises:
        OSError: the file cannot be written; what stood there before is untouched.
    """
    with new_file(path) as partial, open(partial, "xb") as file:
        if isinstance(content, str):
            file.write(show_name(content).encode())
        elif isinstance(content, bytes):
            file.write(content)
        else:
            content(file)
        file.flush()
        os.fsync(file.fileno())
    return Path(path)


@contextmanager
def new_path(path: str | os.PathLike[str], *, overwrite: bool, folder: Collection[str] = ()) -> Iterator[Path]:
    """A path of the same name in a folder of its own beside ``path``; it takes ``path``'s place when the block ends.

    Args:
        path: the file or folder to write; folders above it are made.
        overwrite: whether what is there may be replaced.
        folder: for a folder, the names of what it may hold, such as ``SAVED_MODEL``: a folder that holds anything
            else is somebody's own and is not replaced. Empty for a file.

    Raises:
        FileExistsError: ``path`` exists and ``overwrite`` is false; or it is not what may be replaced.
        ExportError: the place cannot be written, or the block wrote nothing; what was there stays whole.
    """
    path = Path(path)
    check_replaceable(path, overwrite=overwrite, folder=folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".tfaudiotl-", dir=path.parent))
    except OSError as error:
        raise ExportError(f"path={str(path)!r} cannot be written: {error}") from error
    try:
        yield work / path.name
        replace(work / path.name, path, aside=work / f"old-{secrets.token_hex(4)}")
    except OSError as error:
        raise ExportError(f"path={str(path)!r} could not be written: {error}") from error
    finally:
        if os.path.lexists(path) or not any(work.glob("old-*")):  # else the old one could not be put back
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def new_files(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder for files that belong together; when the block ends they take their places in ``folder``, all or none.

    Args:
        folder: made if it is not there. What else it holds stays.

    Raises:
        FileExistsError: one of them has the name of something that it must not replace; see ``new_path``.
        OSError: they cannot be written. What was there is as it was, as after any error of the block.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".tfaudiotl-", dir=folder))
    new, old = work / "new", work / "old"
    moved: list[str] = []
    try:
        new.mkdir()
        old.mkdir()
        yield new
        entries = sorted(new.iterdir())
        for entry in entries:
            check_replaceable(folder / entry.name, overwrite=True, folder=SAVED_MODEL if entry.is_dir() else ())
        for entry in entries:
            moved.append(entry.name)
            _exchange(entry, folder / entry.name, old / entry.name)
    except BaseException:
        for name in moved:
            if os.path.lexists(old / name):
                if os.path.isdir(folder / name):
                    os.rename(folder / name, new / name)
                os.replace(old / name, folder / name)
            elif not os.path.lexists(new / name):  # it had taken a place that was free
                os.rename(folder / name, new / name)
        raise
    finally:
        if all(os.path.lexists(folder / entry.name) for entry in old.glob("*")):
            shutil.rmtree(work, ignore_errors=True)


def _exchange(new: Path, path: Path, old: Path) -> None:
    """Puts ``new`` in the place of ``path``, of which ``old`` then holds what was there; a file's is never empty."""
    if os.path.lexists(path):
        try:
            os.link(path, old, follow_symlinks=False)
        except (OSError, NotImplementedError):  # a folder, or a file system without links
            os.rename(path, old)
    os.replace(new, path)


def check_replaceable(path: str | os.PathLike[str], *, overwrite: bool, folder: Collection[str] = ()) -> None:
    """Raises what ``new_path`` raises about what is there already; to be called before anything long begins.

    Args:
        path: as in ``new_path``.
        overwrite: as in ``new_path``.
        folder: as in ``new_path``.

    Raises:
        FileExistsError: ``path`` exists and ``overwrite`` is false; or it is not what may be replaced.
    """
    path = Path(path)
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise FileExistsError(f"path={str(path)!r} exists already; pass overwrite=True to replace it")
    if path.is_dir():
        if not folder:
            raise FileExistsError(f"path={str(path)!r} is a folder; a file is to be written, give another name")
        if foreign := [entry.name for entry in path.iterdir() if entry.name not in folder]:
            raise FileExistsError(
                f"path={str(path)!r} is not replaced, since it holds {_some(foreign)}, which is none of what is "
                "written there; give another name"
            )


def replace(new: Path, path: Path, *, aside: Path) -> None:
    """Puts a file or folder in another's place; if that fails the old one is there again.

    Args:
        new: what is to take the place; on the same file system.
        path: the place; a folder there is moved to ``aside`` first, since it cannot be replaced in one step.
        aside: where a folder that was there lies afterwards, for the caller to remove.

    Raises:
        OSError: it could not be done; ``path`` is as it was.
    """
    new.lstat()  # nothing was written: fail before the old one is moved
    if not os.path.isdir(new) or not os.path.lexists(path):
        os.replace(new, path)
        return
    os.rename(path, aside)
    try:
        os.rename(new, path)
    except BaseException:
        os.rename(aside, path)
        raise


def claim(
    folder: str | os.PathLike[str],
    marker: str,
    settings: Mapping[str, Any],
    *,
    ours: str | None = None,
    refuse: Callable[[list[str]], Exception] | None = None,
) -> bool:
    """Takes a folder for work whose results depend on ``settings``; never removes what is not recognised as ours.

    Args:
        folder: made if it is not there.
        marker: name of the file in it that holds ``settings`` and says that the folder is ours.
        settings: what everything in the folder depends on, as JSON can hold it.
        ours: regular expression that the names of all we put there match in full. Where the marker holds other
            settings, what has such a name is removed, and nothing else; a folder that holds something and no marker
            is refused. To be given for what can be computed again.
        refuse: makes the error to raise where the marker holds other settings, from a description of each difference;
            nothing is removed. One of ``ours`` and ``refuse`` is given.

    Returns:
        Whether the folder already had these settings, so that what is in it may be taken up.

    Raises:
        FileExistsError: it is no folder, or, with ``ours``, holds something and no marker.
        OSError: it cannot be read or written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    label, wanted = folder / marker, json.loads(json.dumps(settings))
    if label.is_file():
        changed = changed_parts(_settings(label), wanted)
        if not changed:
            return True
        if refuse is not None:
            raise refuse(changed)
        assert ours is not None
        write_atomic(label, "")  # so that what a kill leaves of the rest is neither taken up nor foreign
        remove_ours(folder, ours)
    elif ours and (foreign := [entry.name for entry in folder.iterdir() if not _PARTIAL.fullmatch(entry.name)]):
        raise FileExistsError(
            f"{folder} holds {_some(foreign)} and no {marker}, so it is no folder of this program; give another one"
        )
    write_atomic(label, json.dumps(wanted, indent=2))
    return False


def _settings(label: Path) -> dict[str, Any]:
    try:
        found = json.loads(label.read_bytes())
    except ValueError:
        return {"content": "damaged"}
    return found if isinstance(found, dict) else {"content": "damaged"}


def changed_parts(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Which settings differ, for a message: with both values where these are short."""
    described = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            described += [f"{name}.{part}" for part in changed_parts(old, new)]
        elif old != new:
            shown = f"{old!r} then, {new!r} now"
            described.append(f"{name}: {shown}" if len(shown) < 100 and not _is_digest(new) else name)
    return described


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64


def _some(names: list[str]) -> str:
    return ", ".join(map(show_name, sorted(names)[:3])) + (f" and {len(names) - 3} more" if names[3:] else "")


def remove_ours(folder: Path, ours: str) -> None:
    """Removes the files and folders in ``folder`` whose names match the regular expression ``ours`` in full."""
    for entry in folder.iterdir():
        if re.fullmatch(ours, entry.name):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def sha256(content: str | bytes) -> str:
    """SHA-256 of bytes, or of text as UTF-8, in hexadecimal digits."""
    return hashlib.sha256(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content).hexdigest()


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(**parts: Any) -> str:
    """SHA-256 of named values that JSON can hold, in hexadecimal digits.

    JSON keeps apart what joined text would not: ``a="x", b="y"`` from ``a="x y", b=""``.

    Raises:
        TypeError: JSON cannot hold a value (an array, say): give its bytes' ``sha256`` instead.
    """
    return sha256(json.dumps(parts, sort_keys=True))
