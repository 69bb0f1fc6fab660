"""Rows of arrays on disk, in shards that are there whole or not at all: the one store of whatever is computed once.

A shard is a folder of one ``.npy`` file per array, all with the same number of rows, and ``index.json``: which units (a
piece of a recording, a clip) the rows belong to, in order, and the SHA-256 of every file. A shard is written beside its
place and moved there in one step, so a killed run leaves whole shards and one folder that the next writer removes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from time import monotonic, time_ns
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from tfaudiotl._files import file_digest, sha256, write_atomic

SHARD_NAMES = r"\.?\d{20}-[0-9a-f]{8}"  # regular expression, for ``_files.claim``

Unit = dict[str, Any]  # as JSON holds it; "count": its rows, 0 or more


class DamagedError(ValueError):
    """A shard whose content is not what was written."""


@dataclass(eq=False)
class Shard:
    """One shard, as its index describes it.

    Attributes:
        folder: where it lies.
        units: in the order of their rows.
        sums: array -> SHA-256 of its file.
        starts: first row of each unit.
    """

    folder: Path
    units: list[Unit]
    sums: dict[str, str]
    starts: list[int] = field(init=False)
    _places: dict[str, tuple[int, np.dtype[Any], tuple[int, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ends = np.cumsum([0, *(unit["count"] for unit in self.units)])
        self.starts = [int(end) for end in ends[:-1]]

    def check(self, name: str) -> None:
        """Compares an array's file with its checksum, once.

        Raises:
            DamagedError: it is another file, or none.
            OSError: the file cannot be read, which says nothing about what is in it.
        """
        self._place(name)

    def read(self, name: str, unit: int) -> np.ndarray:
        """The rows of one unit, ``(count, ...)``, in memory; no file is held open.

        Args:
            name: of the array.
            unit: number of the unit in the shard.

        Raises:
            DamagedError: the array's file is damaged.
            OSError: it cannot be read.
        """
        offset, dtype, shape = self._place(name)
        count, size = self.units[unit]["count"], int(np.prod(shape))
        start = offset + self.starts[unit] * size * dtype.itemsize
        rows = np.fromfile(self.folder / f"{name}.npy", dtype, count * size, offset=start)
        return rows.reshape(count, *shape)

    def _place(self, name: str) -> tuple[int, np.dtype[Any], tuple[int, ...]]:
        """Where an array begins in its file, its type, and the shape of a row."""
        if name in self._places:
            return self._places[name]
        path = self.folder / f"{name}.npy"
        if not path.is_file() or file_digest(path) != self.sums[name]:
            raise DamagedError(f"{path}: damaged")
        try:
            with open(path, "rb") as file:
                shape, fortran, dtype = _header(file)
                offset = file.tell()
        except ValueError as error:
            raise DamagedError(f"{path}: damaged: {error}") from error
        listed = sum(unit["count"] for unit in self.units)
        if fortran or dtype.hasobject or shape[:1] != (listed,):
            raise DamagedError(f"{path}: damaged: an array of {shape}, its index lists {listed} rows")
        return self._places.setdefault(name, (offset, dtype, shape[1:]))


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(npy.read_magic(file))
    if read is None:
        raise ValueError("an unknown version of .npy")
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype


class Shards:
    """The shards of a folder, oldest first. Whole ones are opened; of others the names are kept in ``damaged``.

    Args:
        folder: of the shards; need not be there before something is written.
        check: called with each unit; raises ValueError, KeyError or TypeError for one that cannot be.

    Attributes:
        shards: those that are whole as far as their indices say.
        damaged: names of those that are not; ``clean`` removes them.

    Raises:
        OSError: an index is there and cannot be read, which says nothing about what is in it.
    """

    def __init__(self, folder: str | os.PathLike[str], *, check: Callable[[Unit], object] = lambda unit: None):
        self.folder, self._check = Path(folder), check
        self.shards: list[Shard] = []
        self.damaged: list[str] = []
        for entry in self._entries():
            if not entry.name.startswith("."):
                self._open(entry)

    def __iter__(self) -> Iterator[Shard]:
        return iter(self.shards)

    def _entries(self) -> list[Path]:
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(entry for entry in found if re.fullmatch(SHARD_NAMES, entry.name))

    def _open(self, folder: Path) -> Shard | None:
        try:
            index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            if index["sum"] != index_sum(index["units"], index["arrays"]):
                raise ValueError("its checksum does not fit")
            if any(Path(name).name != name for name in index["arrays"]):
                raise ValueError("an array's name is a path")
            for unit in index["units"]:
                if type(unit["count"]) is not int or unit["count"] < 0:
                    raise ValueError("a unit without a number of rows")
                self._check(unit)
            shard = Shard(folder, index["units"], index["arrays"])
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            self.damaged.append(folder.name)
            return None
        self.shards.append(shard)
        return shard

    @property
    def bytes(self) -> int:
        """Of all arrays, on disk."""
        return sum((shard.folder / f"{name}.npy").stat().st_size for shard in self.shards for name in shard.sums)

    def clean(self) -> None:
        """Removes damaged shards and what a killed writer left; for the only writer."""
        for entry in self._entries():
            if entry.name.startswith(".") or entry.name in self.damaged:
                shutil.rmtree(entry, ignore_errors=True)

    def drop(self, shard: Shard) -> None:
        """Forgets a damaged shard and removes it; for the only writer."""
        self.damaged.append(shard.folder.name)
        self.shards.remove(shard)
        shutil.rmtree(shard.folder, ignore_errors=True)

    def write(self, units: Sequence[Unit], rows: Mapping[str, Sequence[np.ndarray]]) -> Shard:
        """Adds a shard, in one step.

        Args:
            units: with their "count" of rows.
            rows: for each array its rows, in the order of the units, in one or several parts ``(rows, ...)`` of the
                same type.

        Raises:
            OSError: it cannot be written; nothing is added.
        """
        name = f"{time_ns():020d}-{uuid.uuid4().hex[:8]}"
        work = self.folder / f".{name}"
        work.mkdir(parents=True)
        sums = {array: _write_npy(work / f"{array}.npy", parts) for array, parts in rows.items()}
        index = {"units": list(units), "arrays": sums, "sum": index_sum(units, sums)}
        write_atomic(work / "index.json", json.dumps(index))
        work.rename(self.folder / name)
        shard = self._open(self.folder / name)
        if shard is None:
            raise DamagedError(f"{self.folder / name}: what was written cannot be read again")
        return shard


class ShardWriter:
    """Gathers rows into shards of a bounded size and age. Use it as a context manager, or call ``flush`` at the end.

    Args:
        shards: where they go.
        most_bytes: of a shard, about: what is held in memory.
        most_seconds: of work that a kill can cost; None: no bound.
    """

    def __init__(self, shards: Shards, *, most_bytes: int, most_seconds: float | None = None):
        self._shards, self._most_bytes, self._most_seconds = shards, most_bytes, most_seconds
        self._empty()

    def _empty(self) -> None:
        self._units: list[Unit] = []
        self._rows: dict[str, list[np.ndarray]] = {}
        self._bytes, self._since = 0, monotonic()

    def add(self, unit: Mapping[str, Any], rows: Mapping[str, np.ndarray]) -> Shard | None:
        """Adds a unit; returns the shard that it completed, if it completed one.

        Args:
            unit: what identifies the rows; "count" is set here.
            rows: for each array ``(count, ...)``; the same arrays in every call. Empty for a unit without rows, such as
                a sound that cannot be used.
        """
        self._units.append({**unit, "count": len(next(iter(rows.values()))) if rows else 0})
        for name, part in rows.items():
            self._rows.setdefault(name, []).append(part)
            self._bytes += part.nbytes
        old = self._most_seconds is not None and monotonic() - self._since >= self._most_seconds
        return self.flush() if old or self._bytes >= self._most_bytes else None

    def flush(self) -> Shard | None:
        """Writes what is gathered; returns the shard, if there was anything."""
        shard = self._shards.write(self._units, self._rows) if self._units else None
        self._empty()
        return shard


def _write_npy(path: Path, parts: Sequence[np.ndarray]) -> str:
    """Writes the parts one after another as one array; returns the file's SHA-256."""
    first, digest = parts[0], hashlib.sha256()
    rows = sum(len(part) for part in parts)
    if any(part.shape[1:] != first.shape[1:] or part.dtype != first.dtype for part in parts):
        raise ValueError(f"{path.stem}: parts of different shapes or types")

    header = io.BytesIO()
    shape = (rows, *first.shape[1:])
    npy.write_array_header_1_0(
        header, {"descr": npy.dtype_to_descr(first.dtype), "fortran_order": False, "shape": shape}
    )

    def write(file: IO[bytes]) -> None:
        contents: Iterator[Any] = chain([header.getvalue()], map(_buffer, parts))
        for content in contents:
            digest.update(content)
            file.write(content)

    write_atomic(path, write)
    return digest.hexdigest()


def _buffer(array: np.ndarray) -> np.ndarray:
    """The array's bytes, without a copy where they lie one after another."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def index_sum(units: Sequence[Unit], arrays: Mapping[str, str]) -> str:
    """The checksum of an index."""
    return sha256(json.dumps([list(units), dict(arrays)], sort_keys=True))
