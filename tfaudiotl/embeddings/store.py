"""Embeddings on disk: shards that are there completely or not at all, and know what they hold.

``store.json`` says how the embeddings were made. Each folder under ``shards/`` holds one array per layer
and ``index.json``: which pieces of which recordings (by the SHA-256 of the file's bytes) its rows are, and
the checksum of every array. A shard is written beside its place and moved there in one step, so a killed
run leaves whole shards and one folder that the next run removes. No pickle anywhere.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from time import time_ns
from typing import Any

import numpy as np

from tfaudiotl._files import file_digest, sha256, write_atomic

FORMAT = 1
ONE_PIECE_SECONDS = 240  # recordings up to here are one piece


class StoreError(ValueError):
    """A store that cannot be read, is being written, or was made in another way."""


class DamagedError(StoreError):
    """A shard whose content is not what was written."""


@dataclass(frozen=True)
class Unit:
    """A piece of a recording: what is computed, stored and found again as one.

    Attributes:
        digest: SHA-256 of the file's bytes.
        first: number of its first patch in the recording.
        count: its patches (rows).
        seconds: length of the whole recording.
        path: the file's name when it was read.
    """

    digest: str
    first: int
    count: int
    seconds: float
    path: str

    def __post_init__(self) -> None:
        numbers = self.first, self.count
        if not all(isinstance(number, int) and number >= 0 for number in numbers) or not isinstance(self.digest, str):
            raise ValueError(f"first={self.first!r}, count={self.count!r}: expected whole numbers of at least 0")


@dataclass(eq=False)
class Shard:
    """One folder of the store, as its index tells."""

    folder: Path
    units: list[Unit]
    sums: dict[str, str]  # layer -> SHA-256 of its file
    checked: set[str] = field(default_factory=set)

    def check(self, layer: str) -> None:
        """Compares a layer's file with its sum, once.

        Raises:
            DamagedError: it is another one, or the file is not there.
            OSError: the file cannot be read, which says nothing about what is in it.
        """
        path = self.folder / f"{layer}.npy"
        if layer in self.checked:
            return
        if not path.is_file() or file_digest(path) != self.sums[layer]:
            raise DamagedError(f"{path}: damaged; the next run of embed with this store computes it again")
        try:
            held = len(self._map(layer))
        except ValueError as error:
            raise DamagedError(f"{path}: damaged: {error}") from error
        if held != (listed := sum(unit.count for unit in self.units)):
            raise DamagedError(f"{path}: damaged: it has {held} rows, its index lists {listed}")
        self.checked.add(layer)

    def rows(self, layer: str, first: int, count: int) -> np.ndarray:
        """Some rows of a layer, in memory: a mapping for each recording would hold a file open for each."""
        self.check(layer)
        return np.array(self._map(layer)[first : first + count])

    def _map(self, layer: str) -> np.ndarray:
        return np.load(self.folder / f"{layer}.npy", mmap_mode="r", allow_pickle=False)


class EmbeddingStore:
    """A folder of embeddings, made in one way, for any number of recordings and layers.

    Args:
        folder: the store; made if ``config`` is given and it is not there.
        config: how embeddings are made (backbone, digest of the weights, front-end, pooling, ...); a
            store of another making is refused. None: take the store as it is, to read.

    Raises:
        StoreError: no store there, or one made in another way (the message says in what).
    """

    def __init__(self, folder: str | os.PathLike[str], *, config: Mapping[str, Any] | None = None):
        self.folder, self._wanted = Path(folder), config
        self.config = self._agree(config)
        self.damaged: list[str] = []
        # (digest, layer) -> first patch of a piece -> where it is
        self._found: dict[tuple[str, str], dict[int, tuple[Shard, int, Unit]]] = {}
        self._writing = False
        shards = self.folder / "shards"
        for entry in sorted(shards.iterdir()) if shards.is_dir() else []:
            if not entry.name.startswith("."):
                self._add(entry)

    def _agree(self, config: Mapping[str, Any] | None) -> dict[str, Any]:
        path = self.folder / "store.json"
        if not path.is_file():
            if config is None:
                raise StoreError(f"store={str(self.folder)!r}: no store there (it has no store.json)")
            if self.folder.is_dir() and any(not entry.name.startswith(".") for entry in self.folder.iterdir()):
                raise StoreError(f"store={str(self.folder)!r}: a folder of other things; name a new or empty one")
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps({"format": FORMAT, **config}, indent=2).encode())
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error
        wanted = {"format": FORMAT, **(config or {})}
        other = [f"{key} is {found.get(key)!r}, not {wanted[key]!r}" for key in wanted if found.get(key) != wanted[key]]
        if other:
            raise StoreError(
                f"store={str(self.folder)!r} was made in another way: {'; '.join(other)}. Use another folder"
            )
        return dict(found)

    def _add(self, folder: Path) -> None:
        try:
            index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            if index["sum"] != _index_sum(index["units"], index["arrays"]):
                raise ValueError("its checksum does not fit")
            if any(Path(layer).name != layer for layer in index["arrays"]):
                raise ValueError("a layer's name is a path")
            shard = Shard(folder, [Unit(**unit) for unit in index["units"]], index["arrays"])
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            self.damaged.append(folder.name)
            return
        except OSError as error:  # says nothing about what is in it
            raise StoreError(f"{folder / 'index.json'}: cannot be read: {error}") from error
        row = 0
        for unit in shard.units:
            for layer in shard.sums:
                self._found.setdefault((unit.digest, layer), {})[unit.first] = (shard, row, unit)
            row += unit.count

    @property
    def layers(self) -> list[str]:
        """Names of the layers that something is stored of."""
        return sorted({layer for _, layer in self._found})

    @property
    def files(self) -> dict[str, str]:
        """Digest of every recording -> its path when it was read."""
        return {digest: unit.path for (digest, _), pieces in self._found.items() for _, _, unit in pieces.values()}

    def has(self, digest: str, first: int, layers: Sequence[str]) -> bool:
        """Whether all these layers of a piece are stored, undamaged, and can be read now.

        Nothing is removed but by the store's writer, which puts a damaged shard out of the way.
        """
        for layer in layers:
            found = self._found.get((digest, layer), {}).get(first)
            if found is None:
                return False
            try:
                found[0].check(layer)
            except DamagedError:
                if self._writing:
                    self._drop(found[0])
                return False
            except OSError:
                return False
        return True

    def _drop(self, shard: Shard) -> None:
        """Forgets a damaged shard and puts it out of the way."""
        self.damaged.append(shard.folder.name)
        for pieces in self._found.values():
            for first in [first for first, piece in pieces.items() if piece[0] is shard]:
                del pieces[first]
        self._found = {key: pieces for key, pieces in self._found.items() if pieces}
        shutil.rmtree(shard.folder, ignore_errors=True)

    def is_whole(self, digest: str, layer: str) -> bool:
        """Whether the pieces of a recording that are stored reach to its end.

        A killed run leaves the first pieces of a long recording. Rows of one that is a single piece may be fewer than
        its length says, since zeros at its end may make none.
        """
        pieces = self._found.get((digest, layer), {})
        if not pieces:
            return False
        last = max(pieces)
        unit, (patch, hop) = pieces[last][2], (self.config["patch_seconds"], self.config["patch_hop_seconds"])
        reached = (last + unit.count - 1) * hop + patch
        return unit.seconds <= ONE_PIECE_SECONDS or reached > unit.seconds - hop

    def read(self, path: str | os.PathLike[str], layer: str) -> tuple[np.ndarray, np.ndarray]:
        """The embeddings of a recording.

        Args:
            path: the file; its content is looked up, not its name.
            layer: one of ``layers``.

        Returns:
            float32 ``(patches, dim)``, and float64 ``(patches, 2)``: start and end second of each row.

        Raises:
            StoreError: not stored, or damaged.
        """
        return self.read_digest(file_digest(path), layer, name=os.fspath(path))

    def read_digest(self, digest: str, layer: str, *, name: str = "") -> tuple[np.ndarray, np.ndarray]:
        """As ``read``, by the SHA-256 of the file's bytes."""
        pieces = sorted(self._found.get((digest, layer), {}).items(), key=lambda piece: piece[0])
        patch, hop = self.config["patch_seconds"], self.config["patch_hop_seconds"]
        rows, firsts, expected = [], [], 0
        for first, (shard, row, unit) in pieces:
            if first != expected:
                break
            rows.append(shard.rows(layer, row, unit.count))
            firsts.append(np.arange(first, first + unit.count))
            expected += unit.count
        if not pieces or expected < pieces[-1][0] + pieces[-1][1][2].count:
            raise StoreError(f"{name or digest}: layer={layer!r} is not in the store, which has {self.layers}")
        starts = np.concatenate(firsts) * hop
        ends = np.maximum(np.minimum(starts + patch, pieces[0][1][2].seconds), starts)
        return rows[0] if len(rows) == 1 else np.concatenate(rows), np.stack([starts, ends], axis=1)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Makes this process the store's only writer, and clears away what a killed one left."""
        with (self.folder / ".lock").open("w") as lock:
            try:
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however it ends
            except ImportError:
                pass  # Windows: two writers at once are the user's to avoid
            except OSError:
                raise StoreError(f"store={str(self.folder)!r}: another process is writing to it") from None
            self._agree(self._wanted)  # again: another one may have made the store at the same moment
            shards = self.folder / "shards"
            shards.mkdir(exist_ok=True)
            for entry in shards.iterdir():
                if entry.name.startswith(".") or entry.name in self.damaged:
                    shutil.rmtree(entry, ignore_errors=True)
            self._writing = True
            try:
                yield
            finally:
                self._writing = False

    def write(self, units: Sequence[Unit], arrays: Mapping[str, np.ndarray]) -> None:
        """Adds a shard, in one step.

        Args:
            units: the pieces, in the order of the rows.
            arrays: layer -> ``(rows, dim)``.
        """
        name = f"{time_ns():020d}-{uuid.uuid4().hex[:8]}"
        work, target = self.folder / "shards" / f".{name}", self.folder / "shards" / name
        work.mkdir()
        sums = {}
        for layer, array in arrays.items():
            write_atomic(work / f"{layer}.npy", partial(np.save, arr=array, allow_pickle=False))
            sums[layer] = file_digest(work / f"{layer}.npy")
        listed = [asdict(unit) for unit in units]
        index = {"units": listed, "arrays": sums, "sum": _index_sum(listed, sums)}
        write_atomic(work / "index.json", json.dumps(index).encode())
        work.rename(target)
        self._add(target)


def _index_sum(units: Sequence[Mapping[str, Any]], arrays: Mapping[str, str]) -> str:
    return sha256(json.dumps([list(units), dict(arrays)], sort_keys=True))
