"""Embeddings on disk, found by the content of a recording.

``store.json`` says how the embeddings were made; ``shards/`` holds them, see ``tfaudiotl._shards``: one array per
layer, whose units are pieces of recordings, known by the SHA-256 of the file's bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from tfaudiotl._files import file_digest, fingerprint, write_atomic
from tfaudiotl._fingerprint import versions
from tfaudiotl._shards import DamagedError, Shard, Shards, ShardWriter

FORMAT = 1
ONE_PIECE_SECONDS = 240  # recordings up to here are one piece


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

    def __post_init__(self) -> None:
        numbers = self.first, self.count
        if not all(isinstance(number, int) and number >= 0 for number in numbers) or not isinstance(self.digest, str):
            raise ValueError(f"first={self.first!r}, count={self.count!r}: expected whole numbers of at least 0")


class _Place(NamedTuple):
    """Where a piece is: in which shard, as which of its units."""

    shard: Shard
    number: int
    unit: Unit


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
        # (digest, layer) -> first patch of a piece -> where it is
        self._found: dict[tuple[str, str], dict[int, _Place]] = {}
        self._writing = False
        try:
            self.shards = Shards(self.folder / "shards", check=lambda unit: Unit(**unit))
        except OSError as error:  # says nothing about what is in it
            raise StoreError(f"store={str(folder)!r}: an index cannot be read: {error}") from error
        for shard in self.shards:
            self._add(shard)

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

    def _add(self, shard: Shard) -> None:
        for number, content in enumerate(shard.units):
            unit = Unit(**content)
            for layer in shard.sums:
                self._found.setdefault((unit.digest, layer), {})[unit.first] = _Place(shard, number, unit)

    @property
    def damaged(self) -> list[str]:
        """Names of the shards that were found damaged."""
        return self.shards.damaged

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
                found.shard.check(layer)
            except DamagedError:
                if self._writing:
                    self._drop(found.shard)
                return False
            except OSError:
                return False
        return True

    def _drop(self, shard: Shard) -> None:
        """Forgets a damaged shard and puts it out of the way."""
        self.shards.drop(shard)
        for pieces in self._found.values():
            for first in [first for first, place in pieces.items() if place.shard is shard]:
                del pieces[first]
        self._found = {key: pieces for key, pieces in self._found.items() if pieces}

    def is_whole(self, digest: str, layer: str) -> bool:
        """Whether the pieces of a recording that are stored reach to its end.

        A killed run leaves the first pieces of a long recording. Rows of one that is a single piece may be fewer than
        its length says, since zeros at its end may make none.
        """
        pieces = self._found.get((digest, layer), {})
        if not pieces:
            return False
        last = max(pieces)
        unit, (patch, hop) = pieces[last].unit, (self.config["patch_seconds"], self.config["patch_hop_seconds"])
        reached = (last + unit.count - 1) * hop + patch
        return unit.seconds <= ONE_PIECE_SECONDS or reached > unit.seconds - hop

    def read(self, path: str | os.PathLike[str], embedding: str) -> tuple[np.ndarray, np.ndarray]:
        """The embeddings of a recording.

        Args:
            path: the file; its content is looked up, not its name.
            embedding: one of ``layers``.

        Returns:
            float32 ``(patches, dim)``, and float64 ``(patches, 2)``: start and end second of each row.

        Raises:
            StoreError: not stored, or damaged.
        """
        return self.read_digest(file_digest(path), embedding, name=os.fspath(path))

    def read_digest(self, digest: str, embedding: str, *, name: str = "") -> tuple[np.ndarray, np.ndarray]:
        """As ``read``, by the SHA-256 of the file's bytes."""
        pieces = sorted(self._found.get((digest, embedding), {}).items(), key=lambda piece: piece[0])
        patch, hop = self.config["patch_seconds"], self.config["patch_hop_seconds"]
        rows, expected = [], 0
        for first, place in pieces:
            if first != expected:
                break
            rows.append(self._rows(place, embedding))
            expected += place.unit.count
        if not pieces or expected < pieces[-1][0] + pieces[-1][1].unit.count:
            raise StoreError(f"{name or digest}: embedding={embedding!r} is not in the store, which has {self.layers}")
        starts = np.arange(expected) * hop
        ends = np.maximum(np.minimum(starts + patch, pieces[0][1].unit.seconds), starts)
        return rows[0] if len(rows) == 1 else np.concatenate(rows), np.stack([starts, ends], axis=1)

    @staticmethod
    def _rows(place: _Place, layer: str) -> np.ndarray:
        try:
            return place.shard.read(layer, place.number)
        except DamagedError as error:
            raise StoreError(f"{error}; the next run of embed with this store computes it again") from error

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
            self.shards.clean()
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
        rows = {layer: [array] for layer, array in arrays.items()}
        self._add(self.shards.write([asdict(unit) for unit in units], rows))

    def writer(self, *, most_bytes: int, most_seconds: float) -> ShardWriter:
        """Gathers the fields of ``Unit`` and ``layer -> (rows, dim)`` into shards; to be used within ``writing``.

        What it adds is found once the store is opened again.
        """
        return ShardWriter(self.shards, most_bytes=most_bytes, most_seconds=most_seconds)


@dataclass(frozen=True)
class Request:
    """What embeddings are asked for, apart from the sounds; what a store has answered once needs no network again.

    What a store holds was made by weights whose digest stands in ``store.json``, and knowing that digest takes building
    the network: seconds, for each fit of a search. A request says the same from outside: names, options, versions, and
    the state of the files that weights come from. Each request that a store was filled for is noted in it.

    Attributes:
        digest: of all that they depend on, or "" where that cannot be said from outside: weights drawn at random.
    """

    digest: str

    @classmethod
    def of(
        cls, backbone: str, layers: Sequence[str], weights: str | os.PathLike[str] | None, options: Mapping[str, Any]
    ) -> Request:
        """The request for some layers of a network.

        Args:
            backbone: the network's name.
            layers: their names.
            weights: as for the backbone's builder.
            options: all other settings.
        """
        places = [backbone.removeprefix("hub:")] if backbone.startswith("hub:") else []
        places += [os.fspath(weights)] if weights is not None else []
        if not places:
            return cls("")
        return cls(
            fingerprint(
                backbone=backbone,
                layers=list(layers),
                weights=None if weights is None else os.fspath(weights),
                files=[_states(place) for place in places],
                options=json.dumps(dict(options), sort_keys=True, default=repr),
                precision=keras.config.dtype_policy().name,
                versions=versions(),
            )
        )

    def note(self, store: EmbeddingStore, keys: Sequence[str]) -> None:
        """Writes down that a store was filled for this request, and the names of its layers there."""
        if self.digest:
            folder = store.folder / "requests"
            folder.mkdir(exist_ok=True)
            write_atomic(folder / f"{self.digest}.json", json.dumps({"layers": list(keys)}).encode())

    def answer(self, store: str | os.PathLike[str], paths: Sequence[str | os.PathLike[str]]) -> list[Any] | None:
        """The rows of every recording, a list of one array per layer each, or None if the store lacks anything."""
        note = Path(store) / "requests" / f"{self.digest}.json"
        if not self.digest or not note.is_file():
            return None
        try:
            keys = json.loads(note.read_text(encoding="utf-8"))["layers"]
            opened = EmbeddingStore(store)
            return [list(_stored_rows(opened, path, keys)) for path in paths]
        except (OSError, ValueError, KeyError, TypeError):  # damaged, or not there: the network finds out
            return None


def _stored_rows(store: EmbeddingStore, path: str | os.PathLike[str], keys: Sequence[str]) -> Iterator[np.ndarray]:
    digest = file_digest(path)
    for key in keys:
        if not store.is_whole(digest, key):
            raise StoreError(f"{os.fspath(path)}: embedding={key!r} is not in the store")
        yield store.read_digest(digest, key, name=os.fspath(path))[0]


def _states(place: str) -> list[tuple[str, int, int]]:
    """Size and time of the files at a place; nothing of a name, whose weights do not change."""
    path = Path(place).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
    else:  # a TF-Slim checkpoint is several files with one beginning
        files = sorted(path.parent.glob(f"{path.name}*")) if path.parent.is_dir() and path.name else []
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
