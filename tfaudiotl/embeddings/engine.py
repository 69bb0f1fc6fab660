"""The extraction engine: waveforms in, the vectors of every patch out.

Decoding runs in threads beside the network. The front-end runs once per clip, at the clip's own
length, so nothing is padded and each spectrogram frame is computed once; the patches of different
clips then share batches of one fixed size for the network.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from tfaudiotl.audio.clips import Clips
from tfaudiotl.errors import AudioError, AudioErrors

T = TypeVar("T")
R = TypeVar("R")


class PatchNetwork:
    """A model cut in two: its front-end (waveform to patches), and its network (patches to vectors).

    Args:
        model: a functional model with a "patch_batch" layer.
        outputs: tensors of the model above that layer, each ``(batch * patches, dim)``.
        batch_size: patches per run of the network.
    """

    def __init__(self, model: keras.Model, outputs: Sequence[Any], *, batch_size: int = 32):
        patches = model.get_layer("patch_batch")
        frontend = keras.Model(model.inputs[0], patches.output)
        network = keras.Model(patches.output, list(outputs))
        picture = tuple(patches.output.shape[1:])
        self.batch_size = batch_size
        self._frontend = tf.function(
            lambda waveform: frontend(waveform, training=False),
            input_signature=[tf.TensorSpec((1, None), tf.float32)],
            autograph=False,
        )
        self._network = tf.function(
            lambda batch: keras.tree.flatten(network(batch, training=False)),  # always a list
            input_signature=[tf.TensorSpec((batch_size, *picture), tf.float32)],
            autograph=False,
        )

    def run(self, waveforms: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """For each waveform ``(samples,)``, in order, one array ``(patches, dim)`` per output.

        Zeros at a waveform's end are padding and make no patches of their own, as in the models.
        """
        waiting: deque[int] = deque()  # number of patches of the clips not yet given out
        pictures: list[np.ndarray] = []  # patches not yet through the network
        vectors: list[list[np.ndarray]] = []  # of the clips in ``waiting``, by output
        for waveform in waveforms:
            patches = self._frontend(trim_padding(waveform)[None]).numpy()
            waiting.append(len(patches))
            pictures.append(patches)
            if sum(map(len, pictures)) >= self.batch_size:
                pictures = self._run_batches(pictures, vectors)
                yield from _give_out(waiting, vectors)
        self._run_batches(pictures, vectors, rest=True)
        yield from _give_out(waiting, vectors)

    def _run_batches(
        self, pictures: list[np.ndarray], vectors: list[list[np.ndarray]], *, rest: bool = False
    ) -> list[np.ndarray]:
        """Runs whole batches (and the rest, filled up with zeros); returns what is left over."""
        if not pictures:
            return []
        stack, size = np.concatenate(pictures), self.batch_size
        end = len(stack) if rest else len(stack) // size * size
        for start in range(0, end, size):
            batch = stack[start : start + size]
            filled = np.pad(batch, ((0, size - len(batch)), *[(0, 0)] * (batch.ndim - 1)))
            outputs = self._network(filled)
            vectors.append([output.numpy()[: len(batch)] for output in outputs])
        return [stack[end:]] if end < len(stack) else []


def _give_out(waiting: deque[int], vectors: list[list[np.ndarray]]) -> Iterator[list[np.ndarray]]:
    """Takes complete clips off the front of ``waiting`` and ``vectors``."""
    if not vectors:
        return
    joined = [np.concatenate(parts) for parts in zip(*vectors, strict=True)]
    done = 0
    while waiting and done + waiting[0] <= len(joined[0]):
        count = waiting.popleft()
        yield [output[done : done + count] for output in joined]
        done += count
    vectors[:] = [[output[done:] for output in joined]]


def trim_padding(waveform: np.ndarray) -> np.ndarray:
    """The waveform without the zeros at its end; at least one sample stays."""
    sounding = np.flatnonzero(waveform)
    return waveform[: max(1, sounding[-1] + 1 if len(sounding) else 1)]


@dataclass
class ClipEmbeddings:
    """The vectors of every clip's patches, and what became of the clips that have none.

    Attributes:
        vectors: float32 ``(patches, dim)``, clip after clip.
        counts: int ``(clips,)``: patches of each clip.
        kept: row numbers, in the clips given, that ``counts`` is about.
        skipped: the sounds that could not be used.
        seconds: where the time went, by stage.
    """

    vectors: np.ndarray
    counts: np.ndarray
    kept: np.ndarray
    skipped: list[AudioError] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def embed_clips(
    network: PatchNetwork,
    clips: Clips,
    *,
    on_error: str = "raise",
    check: Callable[[int, str, np.ndarray], None] | None = None,
    progress: Callable[[int], None] | None = None,
    workers: int = 2,
) -> ClipEmbeddings:
    """Decodes each clip once and runs it through the network once.

    Args:
        network: the cut model; its first output is taken.
        clips: what to embed.
        on_error: "raise": one AudioErrors that lists every unusable sound, once all were tried; "skip":
            they are left out and listed.
        check: called with row, path and waveform; raises AudioError for what must not be used.
        progress: called with 1 after each clip.
        workers: decoding threads.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r}: allowed are 'raise' and 'skip'")
    kept: list[int] = []
    skipped: list[AudioError] = []
    waited = 0.0

    def load(row: int) -> np.ndarray | AudioError:
        try:
            waveform = clips.load(row)
            if check:
                check(row, clips.paths[row], waveform)
            return waveform
        except AudioError as error:
            return error

    def usable() -> Iterator[np.ndarray]:
        nonlocal waited
        loaded = map_ahead(load, range(len(clips)), workers=workers)
        for row in range(len(clips)):
            start = perf_counter()
            waveform = next(loaded)
            waited += perf_counter() - start
            if progress:
                progress(1)
            if isinstance(waveform, AudioError):
                skipped.append(waveform)
                continue
            kept.append(row)
            yield waveform

    start = perf_counter()
    vectors = [output for output, *_ in network.run(usable())]
    if skipped and on_error == "raise":
        raise AudioErrors(
            skipped,
            len(clips),
            "Mend or remove them, or pass on_error='skip' (--on-error skip) to leave them out.",
        )
    total = perf_counter() - start
    return ClipEmbeddings(
        np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32),
        np.array([len(output) for output in vectors], int),
        np.array(kept, int),
        skipped,
        {"embed": total - waited, "waiting_for_decode": waited},
    )


def map_ahead(function: Callable[[T], R], items: Iterable[T], *, workers: int = 2, ahead: int = 16) -> Iterator[R]:
    """``map`` in threads, in order, at most ``ahead`` results in advance, so that memory stays bounded."""
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
