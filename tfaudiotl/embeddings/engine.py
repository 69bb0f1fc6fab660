"""The extraction engine: waveforms in, the vectors of every patch out.

One pool of threads, one per core, does everything that takes time: decoding, the front-end at each
clip's own length (nothing is padded, each spectrogram frame is computed once), and the network on
batches of one fixed size in which patches of different clips sit side by side.
LiteRT interpreters run it on a CPU, a compiled Keras model elsewhere.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, Literal, Protocol

import keras
import numpy as np
import tensorflow as tf

from tfaudiotl._seeds import stream
from tfaudiotl._threads import OnProgress, Progress, cores, ignore, one_blas_thread
from tfaudiotl.audio.waveform import trim_padding
from tfaudiotl.backbones.assembly import fast_frontend, rows_of_model
from tfaudiotl.data.table import Table
from tfaudiotl.devices import has_accelerator
from tfaudiotl.errors import AudioError, AudioErrors, ExportError, OnError, check_choice
from tfaudiotl.tflite.graph import Graph
from tfaudiotl.tflite.litert import Interpreters, convert
from tfaudiotl.tflite.quantize import quantize_dynamic

Runtime = Literal["auto", "litert", "keras"]
Quantize = Literal["int8"]
# Cosine to Keras's own output that every row must reach before an interpreter is used.
PARITY = {None: 0.9999, "int8": 0.95}

_log = logging.getLogger(__name__)


class ParityError(RuntimeError):
    """A converted network that does not give what the Keras model gives."""


class Runner(Protocol):
    """Runs batches of one size; may be called from several threads."""

    def __call__(self, batch: np.ndarray) -> list[np.ndarray]:
        """``(batch, height, width, 1)`` float32 to one ``(batch, dim)`` per output."""


class KerasRunner:
    """The network as a compiled Keras model.

    Args:
        network: from patches to the outputs.
        batch_size: rows of every batch.
    """

    def __init__(self, network: keras.Model, batch_size: int):
        self._function = tf.function(
            lambda batch: keras.tree.flatten(network(batch, training=False)),  # always a list
            input_signature=[tf.TensorSpec((batch_size, *network.inputs[0].shape[1:]), tf.float32)],
            autograph=False,
        )

    def __call__(self, batch: np.ndarray) -> list[np.ndarray]:
        return [np.asarray(output, np.float32) for output in self._function(batch)]


class LiteRTRunner:
    """The network as LiteRT interpreters of one thread each, as many as there are workers.

    Two interpreters of one thread outrun one of two: nothing waits for the other half of a layer. An
    interpreter lets other Python threads run while it computes.

    Args:
        content: a .tflite file's bytes.
        workers: number of interpreters.
    """

    def __init__(self, content: bytes, workers: int):
        self._interpreters = Interpreters(content, count=workers)
        with self._interpreters.free_one() as interpreter:
            self._input = interpreter.get_input_details()[0]["index"]
            details = interpreter.get_signature_runner("serving_default").get_output_details()
        self._outputs = [details[f"output_{number:02d}"]["index"] for number in range(len(details))]

    def __call__(self, batch: np.ndarray) -> list[np.ndarray]:
        with self._interpreters.free_one() as interpreter:
            interpreter.set_tensor(self._input, batch)
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in self._outputs]


def to_litert(network: keras.Model, batch_size: int, quantize: Quantize | None = None) -> bytes:
    """Converts the network for batches of one size.

    Args:
        network: from patches to the outputs.
        batch_size: rows of every batch.
        quantize: None for float32; "int8": the weights of pointwise convolutions and dense layers in 8 bits and
            their inputs quantised as they come (``quantize_dynamic``), all else in float32: what holds YAMNet's
            accuracy.

    Raises:
        ValueError: the network has no form in built-in operators, or the quantizer is missing.
    """
    spec = tf.TensorSpec((batch_size, *network.inputs[0].shape[1:]), tf.float32, name="patches")

    def outputs(batch: Any) -> dict[str, Any]:
        found = keras.tree.flatten(network(batch, training=False))
        return {f"output_{number:02d}": output for number, output in enumerate(found)}

    try:
        content = convert(outputs, spec, network.variables, name=network.name)
        return content if quantize is None else quantize_dynamic(Graph(content)).graph.content
    except ExportError as error:
        raise ValueError(f"runtime='litert': {error}") from error
    except ImportError as error:
        raise ValueError(f"quantize='int8' needs the package ai-edge-quantizer: {error}") from error


def cosines(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Cosine of each row of ``found`` to that of ``expected``; rows that are both zero agree."""
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    same = np.abs(found - expected).max(axis=1) < 1e-6
    return np.where(same, 1.0, (found * expected).sum(axis=1) / np.maximum(norms, 1e-30))


def check_parity(runner: Runner, network: keras.Model, sample: np.ndarray, quantize: str | None) -> None:
    """Runs both on the sample and raises ParityError where a row of an output points elsewhere."""
    expected = keras.tree.flatten(network(sample, training=False))
    for number, (found, wanted) in enumerate(zip(runner(sample), expected, strict=True)):
        rows = (len(sample), -1)  # a layer's picture counts as one vector
        worst = float(cosines(found.reshape(rows), np.asarray(wanted, np.float32).reshape(rows)).min())
        if not worst >= PARITY[quantize]:
            raise ParityError(
                f"output {number} of the converted network has a cosine of {worst:.5f} to Keras's, "
                f"expected at least {PARITY[quantize]}"
            )


def make_runner(
    network: keras.Model,
    sample: np.ndarray,
    *,
    runtime: Runtime = "auto",
    quantize: Quantize | None = None,
    workers: int | None = None,
) -> Runner:
    """The fastest runner that gives what the Keras model gives.

    Args:
        network: from patches to the outputs.
        sample: a batch of patches to check on; its size is that of every batch.
        runtime: "litert", "keras", or "auto": LiteRT on a CPU, Keras where there is an accelerator,
            under a reduced precision policy, and where the conversion fails or disagrees.
        quantize: None or "int8" (LiteRT only).
        workers: interpreters; None: one per core.

    Raises:
        ParityError: with "litert" or "int8", a network that disagrees with Keras.
        ValueError: with "litert" or "int8", a network that cannot be converted.
    """
    check_runtime(runtime, quantize)
    if runtime == "auto" and quantize is None and (has_accelerator() or not _is_float32(network)):
        runtime = "keras"
    if runtime != "keras":
        try:
            runner = LiteRTRunner(to_litert(network, len(sample), quantize), workers or cores())
            check_parity(runner, network, sample, quantize)
            return runner
        except (ValueError, ParityError) as error:
            if runtime == "litert" or quantize is not None:
                raise
            _log.warning("LiteRT is not used: %s", str(error).splitlines()[0])
    return KerasRunner(network, len(sample))


def check_runtime(runtime: str, quantize: str | None) -> None:
    """ValueError unless both are allowed, together."""
    check_choice("runtime", runtime, Runtime)
    check_choice("quantize", quantize, Quantize | None)
    if quantize is not None and runtime == "keras":
        raise ValueError(f"quantize={quantize!r}: needs runtime='litert' or 'auto', not 'keras'")


def _is_float32(network: keras.Model) -> bool:
    dtypes: Sequence[str] = [layer.compute_dtype for layer in network.layers]
    return all(dtype == "float32" for dtype in dtypes)


# Converting a network for LiteRT takes some 5 s; Keras needs longer than that for so many patches more.
WORTH_CONVERTING = 5_000

Job = Callable[[], np.ndarray]  # gives a waveform (samples,) or raises AudioError
Result = list[np.ndarray] | AudioError


class PatchNetwork:
    """A model cut in two: its front-end (waveform to patches), and its network (patches to vectors).

    Args:
        model: a functional model of waveforms with a front-end.
        outputs: tensors of the model above the latter, each ``(batch * patches, dim)``. Nothing above
            them is run.
        batch_size: patches per run of the network.
        runtime: "litert", "keras" or "auto"; see ``make_runner``.
        quantize: None, or "int8": pointwise convolutions in 8 bits.
        workers: threads; None: one per core.
    """

    def __init__(
        self,
        model: keras.Model,
        outputs: Sequence[keras.KerasTensor],
        *,
        batch_size: int = 16,
        runtime: Runtime = "auto",
        quantize: Quantize | None = None,
        workers: int | None = None,
    ):
        check_runtime(runtime, quantize)
        self.frontend = fast_frontend(model)
        self.batch_size, self.workers = batch_size, workers or cores()
        self._network = keras.Model(rows_of_model(model), list(outputs))
        self._runtime, self._quantize = runtime, quantize
        self._runner: Runner | None = None

    def prepare(self, expected_patches: int | None = None) -> Runner:
        """Readies the network, once.

        Args:
            expected_patches: with ``runtime="auto"``, so few that a conversion would take longer than
                it saves leave the network to Keras; None: many.

        Returns:
            What runs its batches.
        """
        few = expected_patches is not None and expected_patches < WORTH_CONVERTING
        if self._runtime == "auto" and self._quantize is None and few:
            return self._runner or KerasRunner(self._network, self.batch_size)
        if self._runner is None:
            self._runner = make_runner(
                self._network,
                self._sample(),
                runtime=self._runtime,
                quantize=self._quantize,
                workers=self.workers,
            )
        return self._runner

    def _sample(self) -> np.ndarray:
        """A batch of patches of noise and tones at different loudness, to check a conversion on."""
        rng, spec = stream("network check", 0, "patches"), self.frontend.spec
        time = np.arange(spec.min_samples) / spec.sample_rate
        pictures = []
        for row in range(self.batch_size):
            wave = np.sin(2 * np.pi * rng.uniform(100, 4_000) * time) + rng.uniform(0, 1) * rng.normal(size=len(time))
            pictures.append(self.frontend.patches((10.0 ** -(row % 4) * wave / 4).astype(np.float32)))
        return np.concatenate(pictures)[..., None]

    def run(
        self, waveforms: Iterable[np.ndarray], *, trim: bool = True, expected_patches: int | None = None
    ) -> Iterator[list[np.ndarray]]:
        """For each waveform ``(samples,)``, in order, one array ``(patches, dim)`` per output.

        Args:
            waveforms: float32, at the front-end's rate.
            trim: zeros at a waveform's end are padding and make no patches of their own, as in the
                models; False: they are sound like any other.
            expected_patches: see ``prepare``.
        """
        jobs = (partial(_same, waveform) for waveform in waveforms)
        for result in self.run_jobs(jobs, trim=trim, expected_patches=expected_patches):
            assert not isinstance(result, AudioError)
            yield result

    def run_jobs(
        self, jobs: Iterable[Job], *, trim: bool = True, expected_patches: int | None = None
    ) -> Iterator[Result]:
        """As ``run``, for functions that give a waveform; they are called in threads.

        An AudioError that a job raises is given out in its place.
        """
        runner = self.prepare(expected_patches)
        # The pool's threads are all the cores can take; products in them must not start more.
        with one_blas_thread(), ThreadPoolExecutor(self.workers) as pool:
            yield from _Pass(self, runner, pool, trim).results(iter(jobs))

    def pictures(self, job: Job, trim: bool) -> np.ndarray | AudioError:
        """Decodes and runs the front-end: the patches ``(patches, *patch_shape)``."""
        try:
            waveform = job()
        except AudioError as error:
            return error
        return self.frontend.patches(trim_padding(waveform) if trim else waveform)


def _same(waveform: np.ndarray) -> np.ndarray:
    return waveform


class _Pass:
    """One pass over the jobs: what is under way, in the order it was begun."""

    def __init__(self, network: PatchNetwork, runner: Runner, pool: ThreadPoolExecutor, trim: bool):
        self._network, self._runner, self._pool, self._trim = network, runner, pool, trim
        self._front: deque[Future[np.ndarray | AudioError]] = deque()
        self._batches: deque[tuple[int, Future[list[np.ndarray]]]] = deque()  # rows that count, outputs
        self._filling = np.empty((0,), np.float32)
        self._filled = 0
        self._waiting: deque[int | AudioError] = deque()  # patches of the clips not yet given out
        self._vectors: list[list[np.ndarray]] = []  # of those clips, by batch and output
        self._ready = 0  # rows in ``_vectors``

    def results(self, jobs: Iterator[Job]) -> Iterator[Result]:
        ahead = 2 * self._network.workers
        try:
            self._begin(jobs, ahead)
            while self._front:
                pictures = self._front.popleft().result()
                self._begin(jobs, ahead)
                yield from self._take(pictures)
            yield from self._finish()
        finally:  # also when whoever listens has had enough
            for front in self._front:
                front.cancel()
            for _, batch in self._batches:
                batch.cancel()

    def _begin(self, jobs: Iterator[Job], ahead: int) -> None:
        while len(self._front) < ahead and (job := next(jobs, None)) is not None:
            self._front.append(self._pool.submit(self._network.pictures, job, self._trim))

    def _take(self, pictures: np.ndarray | AudioError) -> Iterator[Result]:
        """Puts a clip's patches into batches; gives out the clips that are complete by then."""
        if isinstance(pictures, AudioError):
            self._waiting.append(pictures)
            yield from self._complete()
            return
        self._waiting.append(len(pictures))
        done = 0
        while done < len(pictures):
            if not self._filled:
                self._filling = np.zeros((self._network.batch_size, *pictures.shape[1:], 1), np.float32)
            part = pictures[done : done + self._network.batch_size - self._filled]
            self._filling[self._filled : self._filled + len(part), ..., 0] = part
            self._filled += len(part)
            done += len(part)
            if self._filled == self._network.batch_size:
                yield from self._send()

    def _send(self) -> Iterator[Result]:
        """Hands the batch to the pool; waits for old ones, so that memory stays bounded."""
        self._batches.append((self._filled, self._pool.submit(self._runner, self._filling)))
        self._filled = 0
        while len(self._batches) > 2 * self._network.workers or (self._batches and self._batches[0][1].done()):
            self._collect()
        yield from self._complete()

    def _collect(self) -> None:
        rows, future = self._batches.popleft()
        self._vectors.append([output[:rows] for output in future.result()])
        self._ready += rows

    def _finish(self) -> Iterator[Result]:
        if self._filled:
            yield from self._send()
        while self._batches:
            self._collect()
        yield from self._complete()

    def _complete(self) -> Iterator[Result]:
        """Takes complete clips off the front."""
        while self._waiting:
            first = self._waiting[0]
            if isinstance(first, AudioError):
                yield first
            elif first <= self._ready:
                yield self._cut(first)
            else:
                return
            self._waiting.popleft()

    def _cut(self, count: int) -> list[np.ndarray]:
        """The next ``count`` rows of every output."""
        self._ready -= count
        taken: list[list[np.ndarray]] = []
        while count:
            batch = self._vectors.pop(0)
            rows = len(batch[0])
            if rows > count:
                self._vectors.insert(0, [output[count:] for output in batch])
                batch = [output[:count] for output in batch]
            taken.append(batch)
            count -= min(rows, count)
        # A copy even of one part, or a short clip would keep its whole batch alive.
        return [np.concatenate(parts) for parts in zip(*taken, strict=True)]


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


def finite(result: Result, path: str) -> Result:
    """The result, or an AudioError in its place if the network answers with something else than finite numbers."""
    if isinstance(result, AudioError) or all(np.isfinite(output).all() for output in result):
        return result
    return AudioError(
        path,
        "the network gives NaN or infinite numbers for it (a network that divides by the loudness does so for silence; "
        "half precision overflows)",
    )


def clip_results(
    network: PatchNetwork,
    clips: Table,
    load: Callable[[int], np.ndarray],
    *,
    trim: bool = True,
    progress: OnProgress = ignore,
) -> Iterator[Result]:
    """What the network makes of each clip, in order; see ``PatchNetwork.run_jobs``.

    Args:
        network: the cut model.
        clips: the table.
        load: gives the waveform of a row; called in threads.
        trim: zeros at a clip's end make no patches.
        progress: called after each clip.
    """
    expected = int(clips.durations.sum() / network.frontend.spec.patch_hop_seconds)
    jobs = (partial(load, row) for row in range(len(clips)))
    for row, result in enumerate(network.run_jobs(jobs, trim=trim, expected_patches=expected)):
        progress(Progress("Computing embeddings", row + 1, len(clips)))
        yield finite(result, clips.paths[row])


def embed_clips(
    network: PatchNetwork,
    clips: Table,
    *,
    on_error: OnError = "raise",
    check: Callable[[int, str, np.ndarray], None] | None = None,
    progress: OnProgress = ignore,
    samples: int | None = None,
) -> ClipEmbeddings:
    """Decodes each clip once and runs it through the network once.

    Args:
        network: the cut model; its outputs are put side by side.
        clips: what to embed.
        on_error: "raise": one AudioErrors that lists every unusable sound, once all were tried; "skip":
            they are left out and listed.
        check: called with row, path and waveform, in threads; raises AudioError for what must not be used.
        progress: called after each clip.
        samples: zeros are put behind shorter clips up to this length, and their patches are computed as well; None:
            zeros at a clip's end make no patches.
    """
    check_choice("on_error", on_error, OnError)

    def load(row: int) -> np.ndarray:
        waveform = clips.load(row, sample_rate=network.frontend.spec.sample_rate)
        if check:
            check(row, clips.paths[row], waveform)
        return waveform if samples is None else np.pad(waveform[:samples], (0, max(0, samples - len(waveform))))

    start = perf_counter()
    kept: list[int] = []
    vectors: list[np.ndarray] = []
    skipped: list[AudioError] = []
    for row, result in enumerate(clip_results(network, clips, load, trim=samples is None, progress=progress)):
        if isinstance(result, AudioError):
            skipped.append(result)
        else:
            kept.append(row)
            vectors.append(result[0] if len(result) == 1 else np.concatenate(result, axis=1))
    if skipped and on_error == "raise":
        raise AudioErrors(skipped, len(clips))
    return ClipEmbeddings(
        np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32),
        np.array([len(output) for output in vectors], int),
        np.array(kept, int),
        skipped,
        {"embed": perf_counter() - start},
    )
