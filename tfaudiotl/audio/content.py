"""Which sounds are copies of each other."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_HEAD = 1 << 16  # bytes compared before whole files are


def content_keys(paths: Sequence[str], held: Mapping[str, NDArray[np.float32]] | None = None) -> list[Hashable]:
    """One key per sound, equal where the files have the same bytes (or arrays the same samples).

    Files are compared by size first, then by their beginnings, and only what is still equal is read whole. What
    cannot be read is equal to nothing else.

    Args:
        paths: (rows,) files, or names in ``held``.
        held: Sounds in memory by name.
    """
    unique = list(dict.fromkeys(paths))
    keys: dict[str, Hashable] = {}
    if held is not None:
        keys = {path: hashlib.blake2b(held[path].tobytes()).digest() for path in unique}
        return [keys[path] for path in paths]
    tests: tuple[Callable[[str], Any], ...] = (os.path.getsize, lambda path: _digest(path, _HEAD), _digest)
    undecided = unique
    for test in tests:
        for path in undecided:
            keys[path] = (*_tuple(keys.get(path)), _try(test, path))
        shared = Counter(keys[path] for path in undecided)
        undecided = [path for path in undecided if shared[keys[path]] > 1]
    return [keys[path] for path in paths]


def _tuple(key: Hashable) -> tuple[Hashable, ...]:
    return key if isinstance(key, tuple) else ()


def _try(test: Callable[[str], Hashable], path: str) -> Hashable:
    try:
        return test(path)
    except (OSError, ValueError):
        return os.path.abspath(path)


def _digest(path: str, length: int = -1) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        if length >= 0:
            digest.update(file.read(length))
        else:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.digest()
