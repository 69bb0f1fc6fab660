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


class StoreError(ValueError):
    """A store that cannot be read, is being written, or was made in another way."""


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


@dataclass
class Shard:
    """One folder of the store, as its index tells."""

    folder: Path
    units: list[Unit]
    sums: dict[str, str]  # layer -> SHA-256 of its file
    checked: set[str] = field(default_factory=set)

    def array(self, layer: str) -> np.ndarray:
        """The rows of a layer, memory-mapped, after one check of their sum; StoreError if it fails."""
        path = self.folder / f"{layer}.npy"
        if layer not in self.checked:
            if not path.is_file() or file_digest(path) != self.sums[layer]:
                raise StoreError(f"{path}: damaged; the next run of embed with this store computes it again")
            self.checked.add(layer)
        return np.load(path, mmap_mode="r", allow_pickle=False)


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
        self.folder = Path(folder)
        self.config = self._agree(config)
        self.damaged: list[str] = []
        self._found: dict[tuple[str, int, str], tuple[Shard, int, Unit]] = {}
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
            shard = Shard(folder, [Unit(**unit) for unit in index["units"]], index["arrays"])
        except (OSError, ValueError, KeyError, TypeError):
            self.damaged.append(folder.name)
            return
        row = 0
        for unit in shard.units:
            for layer in shard.sums:
                self._found[unit.digest, unit.first, layer] = (shard, row, unit)
            row += unit.count

    @property
    def layers(self) -> list[str]:
        """Names of the layers that something is stored of."""
        return sorted({layer for _, _, layer in self._found})

    @property
    def files(self) -> dict[str, str]:
        """Digest of every recording -> its path when it was read."""
        return {digest: unit.path for (digest, _, _), (_, _, unit) in self._found.items()}

    def has(self, digest: str, first: int, layers: Sequence[str]) -> bool:
        """Whether all these layers of a piece are stored, and undamaged."""
        for layer in layers:
            found = self._found.get((digest, first, layer))
            if found is None:
                return False
            try:
                found[0].array(layer)
            except (StoreError, OSError, ValueError):
                self._drop(found[0])
                return False
        return True

    def _drop(self, shard: Shard) -> None:
        """Forgets a damaged shard and puts it out of the way."""
        self.damaged.append(shard.folder.name)
        self._found = {key: value for key, value in self._found.items() if value[0] is not shard}
        shutil.rmtree(shard.folder, ignore_errors=True)

    def read(self, path: str | os.PathLike[str], layer: str) -> tuple[np.ndarray, np.ndarray]:
        """The embeddings of a recording.

        Args:
            path: the file; its content is looked up, not its name.
            layer: one of ``layers``.

        Returns:
            float32 ``(patches, dim)``, memory-mapped where it is in one piece, and float64 ``(patches, 2)``:
            start and end second of each row.

        Raises:
            StoreError: not stored, or damaged.
        """
        return self.read_digest(file_digest(path), layer, name=os.fspath(path))

    def read_digest(self, digest: str, layer: str, *, name: str = "") -> tuple[np.ndarray, np.ndarray]:
        """As ``read``, by the SHA-256 of the file's bytes."""
        pieces = sorted(
            ((unit.first, shard, row, unit) for (d, _, n), (shard, row, unit) in self._matches(digest, layer)),
            key=lambda piece: piece[0],
        )
        patch, hop = self.config["patch_seconds"], self.config["patch_hop_seconds"]
        rows, firsts, expected = [], [], 0
        for first, shard, row, unit in pieces:
            if first != expected:
                break
            rows.append(shard.array(layer)[row : row + unit.count])
            firsts.append(np.arange(first, first + unit.count))
            expected += unit.count
        if not pieces or expected < pieces[-1][0] + pieces[-1][3].count:
            raise StoreError(f"{name or digest}: layer={layer!r} is not in the store, which has {self.layers}")
        starts = np.concatenate(firsts) * hop
        ends = np.maximum(np.minimum(starts + patch, pieces[0][3].seconds), starts)
        return rows[0] if len(rows) == 1 else np.concatenate(rows), np.stack([starts, ends], axis=1)

    def _matches(self, digest: str, layer: str) -> Iterator[tuple[tuple[str, int, str], tuple[Shard, int, Unit]]]:
        return (item for item in self._found.items() if item[0][0] == digest and item[0][2] == layer)

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
            shards = self.folder / "shards"
            shards.mkdir(exist_ok=True)
            for entry in shards.iterdir():
                if entry.name.startswith(".") or entry.name in self.damaged:
                    shutil.rmtree(entry, ignore_errors=True)
            yield

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
