"""Work in threads: how many, a map that runs ahead, the linear algebra below NumPy, and how progress is reported."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")
R = TypeVar("R")

_lock = threading.Lock()
_blocks: list[threadpool_limits] = []  # one entry for each block that is open


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_ahead(function: Callable[[T], R], items: Iterable[T], *, workers: int = 2, ahead: int = 16) -> Iterator[R]:
    """``map`` in threads, in order, with a bounded number of results in advance, so that memory stays bounded.

    Args:
        function: called in threads; what it raises is raised when its result is due.
        items: read as results are taken, not all at once.
        workers: threads.
        ahead: results in advance.
    """
    with ThreadPoolExecutor(workers) as pool:
        futures: deque[Future[R]] = deque()
        try:
            for item in items:
                futures.append(pool.submit(function, item))
                if len(futures) >= ahead:
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:
            for future in futures:
                future.cancel()


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


@dataclass(frozen=True)
class Progress:
    """What a function with ``progress=`` calls that function with.

    Attributes:
        stage: in words, such as "Computing embeddings".
        done: of ``total``: recordings, epochs, files.
        total: of the stage.
        measures: of a training's epoch, such as ``{"val_loss": 0.2}``.
    """

    stage: str
    done: int
    total: int
    measures: Mapping[str, float] = field(default_factory=dict)


OnProgress = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """For callers who show no progress."""
