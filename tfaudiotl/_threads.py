"""Threads that share the machine with the linear algebra below numpy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

_lock = threading.Lock()
_blocks: list[threadpool_limits] = []  # one entry for each block that is open


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within the block, products of matrices start no threads of their own.

    The limit holds for the whole process, so blocks that overlap in time count: the first one sets it, the last one
    lifts it. (``threadpool_limits`` alone restores what it found, so that the block that ends last would set the limit
    for good.)
    """
    with _lock:
        _blocks.append(_blocks[0] if _blocks else threadpool_limits(1, user_api="blas"))
    try:
        yield
    finally:
        with _lock:
            limits = _blocks.pop()
            if not _blocks:
                limits.restore_original_limits()
