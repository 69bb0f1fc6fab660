"""Writing folders so that they are there completely or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfaudiotl.errors import ExportError


@contextmanager
def new_path(path: str | Path, *, overwrite: bool) -> Iterator[Path]:
    """A temporary path beside ``path``; it takes ``path``'s place when the block ends without an error.

    Raises:
        FileExistsError: ``path`` exists and ``overwrite`` is false.
        ExportError: the place cannot be written; what was there stays whole.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"path={str(path)!r} exists already; pass overwrite=True to replace it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise ExportError(f"path={str(path)!r} cannot be written: {error}") from error
    try:
        yield work / path.name
        if path.is_dir():  # a folder cannot be replaced in one step: move the old one away first
            path.rename(work / "old")
        (work / path.name).replace(path)
    except OSError as error:
        raise ExportError(f"path={str(path)!r} could not be written: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
