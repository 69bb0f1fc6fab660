"""What work in threads shares: the linear algebra below numpy, and how it says what is done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

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
