"""Requests for embeddings that a store has answered, so that it answers them again without a network.

What a store holds was made by weights whose digest stands in ``store.json``, and knowing that digest takes building the
network: seconds, for each fit of a search. A request says the same from outside: names, options, versions, and state
of the files that weights come from. Each request that a store was filled for is written down in it, with its layers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfaudiotl._files import file_digest, fingerprint, write_atomic
from tfaudiotl._fingerprint import versions
from tfaudiotl.embeddings.store import EmbeddingStore, StoreError


@dataclass(frozen=True)
class Request:
    """What embeddings are asked for, apart from the sounds.

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
            return [list(_rows(opened, path, keys)) for path in paths]
        except (OSError, ValueError, KeyError, TypeError):  # damaged, or not there: the network finds out
            return None


def _rows(store: EmbeddingStore, path: str | os.PathLike[str], keys: Sequence[str]) -> Iterator[np.ndarray]:
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
