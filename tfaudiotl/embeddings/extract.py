"""Recordings in, embeddings out: as arrays, or into a store that outlives a killed run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from tfaudiotl._files import file_digest
from tfaudiotl._fingerprint import State, file_state, fingerprint, layers_parts, unchanged, versions
from tfaudiotl._threads import OnProgress, Progress, ignore, map_ahead
from tfaudiotl.audio.files import audio_info, load_audio
from tfaudiotl.audio.waveform import SAMPLE_RATE, check_waveform, resampled_length, trim_padding
from tfaudiotl.backbones.embedding import cut_backbone, pooled_layers, resolve_embedding
from tfaudiotl.backbones.frontend import LogMelSpec, WindowSpec
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.backbones.spec import BackboneSpec, Pooling
from tfaudiotl.embeddings.engine import Job, PatchNetwork, Quantize, Runtime, finite
from tfaudiotl.embeddings.store import ONE_PIECE_SECONDS, EmbeddingStore, Request, Unit
from tfaudiotl.errors import AudioError, AudioErrors, OnError, check_choice

# Longer recordings are taken in pieces of so many patches: YAMNet's 240 s. A piece starts on a whole
# second, so on a sample at every rate, and holds no more than 16 MB of sound.
PIECE_SECONDS = ONE_PIECE_SECONDS
SHARD_BYTES = 32 << 20
SHARD_SECONDS = 10.0  # a killed run loses no more than this

Sound = str | os.PathLike[str] | np.ndarray
PatchPooling = Literal["avg", "max"]


@dataclass(frozen=True)
class EngineOptions:
    """How the network is run; see ``tfaudiotl.embeddings.engine.PatchNetwork``."""

    runtime: Runtime = "auto"
    quantize: Quantize | None = None
    batch_size: int = 16
    workers: int | None = None


class Extractor:
    """A backbone cut above the layers asked for, ready to run.

    Args:
        backbone: a name from ``list_backbones()``.
        embedding: names from ``embedding_layers(backbone)``, or one from ``embedding_recipes(backbone)``; None: the
            backbone's own embedding.
        pooling: "avg", "max", "avgmax" or "freq" over a feature map; None: the recipe's, of layers "avg".
        weights: as for the backbone's builder.
        engine: how the network is run.
        backbone_options: further arguments of the backbone's builder.
    """

    def __init__(
        self,
        backbone: str,
        embedding: str | Sequence[str] | None = None,
        *,
        pooling: Pooling | None = None,
        weights: str | None = "audioset",
        engine: EngineOptions | None = None,
        backbone_options: Mapping[str, Any] | None = None,
    ):
        self.spec: BackboneSpec = get_backbone(backbone)
        recipe = resolve_embedding(self.spec, embedding, pooling)
        self.layers, self.pooling, self.engine = recipe.layers, recipe.pooling, engine or EngineOptions()
        base = cut_backbone(self.spec, self.layers, weights=weights, **(backbone_options or {}))
        outputs = pooled_layers(base, self.spec, recipe)
        self.width = sum(int(output.shape[-1]) for output in outputs)  # numbers per patch
        self.network = PatchNetwork(base, outputs, **asdict(self.engine))
        self._parts = layers_parts(layer for layer in base.layers if layer.name not in self.spec.top)
        self._top_digest = fingerprint(**layers_parts(layer for layer in base.layers if layer.name in self.spec.top))
        self.keys = [self._key(name) for name in self.layers]

    @property
    def frontend(self) -> LogMelSpec | WindowSpec:
        """The numbers of the front-end."""
        return self.network.frontend.spec

    def _key(self, name: str) -> str:
        """A layer's name in a store; of a layer of the top it tells the top's weights too."""
        return f"{name}@{self._top_digest[:12]}" if name in self.spec.top else name

    def config(self, *, trim: bool) -> dict[str, Any]:
        """Everything that the embeddings depend on but the sound and the layer."""
        return {
            "backbone": self.spec.name,
            **self._parts,
            "pooling": self.pooling,
            "quantize": self.engine.quantize,
            "trim": trim,
            "decoding": f"mono, {self.frontend.sample_rate} Hz, soxr HQ",
            "frontend": asdict(self.frontend),
            "patch_seconds": self.frontend.patch_seconds,
            "patch_hop_seconds": self.frontend.patch_hop_seconds,
            "versions": versions(),
        }


@dataclass
class EmbedReport:
    """What ``embed_to_store`` did.

    Attributes:
        computed: pieces of recordings that went through the network.
        reused: pieces found in the store.
        patches: rows computed.
        skipped: recordings that could not be used.
        damaged: shards that were found damaged, and computed again.
        seconds: wall-clock time.
    """

    computed: int = 0
    reused: int = 0
    patches: int = 0
    skipped: list[AudioError] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    seconds: float = 0.0


def embed_to_store(
    extractor: Extractor,
    paths: Sequence[str | os.PathLike[str]],
    store: str | os.PathLike[str],
    *,
    trim: bool = False,
    on_error: OnError = "raise",
    progress: OnProgress = ignore,
) -> EmbedReport:
    """Computes what a store lacks of these recordings; a killed run goes on where it was.

    Args:
        extractor: the network and its layers.
        paths: sound files.
        store: the folder; made if it is not there.
        trim: zeros at the end of a recording (of at most 240 s) are padding and make no rows.
        on_error: "raise": one AudioErrors that lists every unusable file, once all others are stored;
            "skip": they are listed in the report.
        progress: called after each file.

    Raises:
        StoreError: the folder is another store, or is being written.
        AudioErrors: (a ValueError) unusable files, with "raise".
    """
    check_choice("on_error", on_error, OnError)
    names = [os.fspath(path) for path in paths]
    if not names:
        raise ValueError("paths=[]: no sound files")
    start = perf_counter()
    opened = EmbeddingStore(store, config=extractor.config(trim=trim))
    report = EmbedReport()
    with opened.writing():
        writer = opened.writer(most_bytes=SHARD_BYTES, most_seconds=SHARD_SECONDS)
        units: list[Unit | AudioError] = []  # what was given to the engine, in order
        jobs = _missing(opened, extractor, names, trim, units, report, progress)
        for number, numbers in enumerate(extractor.network.run_jobs(jobs, trim=False)):
            unit = units[number]
            result = finite(numbers, unit.path)
            if isinstance(result, AudioError):
                report.skipped.append(result)
            else:
                assert isinstance(unit, Unit)
                # Trimmed or counted again: the rows that there are count.
                writer.add(asdict(unit), dict(zip(extractor.keys, result, strict=True)))
                report.computed += 1
                report.patches += len(result[0])
        writer.flush()
        report.damaged = list(dict.fromkeys(opened.damaged))
    report.seconds = perf_counter() - start
    if report.skipped and on_error == "raise":
        raise AudioErrors(report.skipped, len(names))
    return report


def _missing(
    store: EmbeddingStore,
    extractor: Extractor,
    names: Sequence[str],
    trim: bool,
    units: list[Unit | AudioError],
    report: EmbedReport,
    progress: OnProgress,
) -> Iterator[Job]:
    """Jobs for every piece that the store lacks; ``units`` gets a description of each."""
    seen: set[str] = set()
    plans = map_ahead(partial(_plan, spec=extractor.frontend), names, workers=2)
    for number, plan in enumerate(plans, start=1):
        progress(Progress("Computing embeddings", number, len(names)))
        if isinstance(plan, AudioError):
            units.append(plan)
            yield partial(_fail, plan)
            continue
        pieces = plan.units
        if pieces[0].digest in seen:
            continue  # the same sound under another name
        seen.add(pieces[0].digest)
        for unit in pieces:
            if store.has(unit.digest, unit.first, extractor.keys):
                report.reused += 1
                continue
            units.append(unit)
            whole, last = len(pieces) == 1, unit is pieces[-1]
            load = partial(_load, unit, spec=extractor.frontend, whole=whole, last=last, trim=trim)
            yield partial(unchanged, load, unit.path, plan.state)


@dataclass(frozen=True)
class _Plan:
    """The pieces of a recording, and the state of its file before anything was read."""

    units: list[Unit]
    state: State


def _plan(path: str, *, spec: LogMelSpec | WindowSpec) -> _Plan | AudioError:
    try:
        state = file_state(path)
        info = audio_info(path)
        digest = file_digest(path)
    except AudioError as error:
        return error
    except OSError as error:
        return AudioError(path, error.strerror or str(error))
    patches = spec.patches(resampled_length(info.frames, info.sample_rate, spec.sample_rate))
    size = round(PIECE_SECONDS / spec.patch_hop_seconds)
    pieces = range(0, patches, size)
    return _Plan([Unit(digest, first, min(size, patches - first), info.duration, path) for first in pieces], state)


def _load(unit: Unit, *, spec: LogMelSpec | WindowSpec, whole: bool, last: bool, trim: bool) -> np.ndarray:
    """Decodes one piece: exactly the samples that its patches cover."""
    if whole:
        waveform = load_audio(unit.path, sample_rate=spec.sample_rate)
        return trim_padding(waveform) if trim else waveform
    start = unit.first * spec.patch_hop_seconds
    needed = spec.min_samples + (unit.count - 1) * spec.patch_hop_samples
    end = None if last else start + needed / spec.sample_rate
    waveform = load_audio(unit.path, sample_rate=spec.sample_rate, start=start, end=end)[:needed]
    return np.pad(waveform, (0, needed - len(waveform)))


def _fail(error: AudioError) -> np.ndarray:
    raise error


def embed(
    backbone: str,
    sounds: Sequence[Sound],
    *,
    embedding: str | Sequence[str] | None = None,
    pooling: Pooling | None = None,
    patch_pooling: PatchPooling | None = "avg",
    sample_rate: int = SAMPLE_RATE,
    store: str | os.PathLike[str] | None = None,
    trim: bool = True,
    on_error: OnError = "raise",
    skipped: list[AudioError] | None = None,
    weights: str | None = "audioset",
    engine: EngineOptions | None = None,
    backbone_options: Mapping[str, Any] | None = None,
) -> Any:
    """Embeddings of sound files or arrays.

    Args:
        backbone: a name from ``list_backbones()``.
        sounds: paths, or arrays ``(samples,)`` or ``(samples, channels)``: floats in about [-1, 1], or
            integers, which are scaled by their full scale.
        embedding: a name from ``embedding_layers(backbone)``, or several, whose numbers come side by side, or a name
            from ``embedding_recipes(backbone)``.
        pooling: "avg", "max", "avgmax" or "freq" over a feature map; None: the recipe's, of layers "avg".
        patch_pooling: "avg" or "max" over the patches of a sound; None keeps them.
        sample_rate: of the arrays, Hz; files know theirs.
        store: a folder that keeps the embeddings of files, so that nothing is computed twice.
        trim: zeros at a sound's end are padding and make no patches.
        on_error: "raise" or "skip" sounds that cannot be used.
        skipped: a list that gets the reasons of those left out.
        weights: as for the backbone's builder.
        engine: how the network is run.
        backbone_options: further arguments of the backbone's builder, such as VGGish's ``pad_tail``.

    Returns:
        float32 ``(sounds, dim)``, or with ``patch_pooling=None`` a list of ``(patches, dim)``.

    Raises:
        ValueError: an argument outside what is allowed.
        AudioErrors: (a ValueError) sounds that cannot be used.
    """
    check_choice("on_error", on_error, OnError)
    if isinstance(sounds, (str, os.PathLike)):
        raise ValueError(f"sounds={sounds!r}: a list of paths or arrays")
    if len(sounds) == 0:
        raise ValueError("sounds=[]: no sounds")
    check_choice("patch_pooling", patch_pooling, PatchPooling | None)
    recipe = resolve_embedding(get_backbone(backbone), embedding, pooling)
    layers, pooling = recipe.layers, recipe.pooling
    build = partial(
        Extractor, backbone, layers, pooling=pooling, weights=weights, engine=engine, backbone_options=backbone_options
    )
    if store is None:
        results = run_sounds(build(), sounds, sample_rate=sample_rate, trim=trim)
    else:
        options = {
            "pooling": pooling,
            "trim": trim,
            "quantize": (engine or EngineOptions()).quantize,
            "options": backbone_options or {},
        }
        request = Request.of(backbone, layers, weights, options)
        results = _run_stored(build, request, _only_paths(sounds, store), store, trim=trim)
    rows: list[np.ndarray] = []
    errors: list[AudioError] = []
    for result in results:
        if isinstance(result, AudioError):
            errors.append(result)
        else:
            joined = result[0] if len(result) == 1 else np.concatenate(result, axis=1)
            rows.append(joined if patch_pooling is None else pool_patches(joined, patch_pooling))
    if errors and on_error == "raise":
        raise AudioErrors(errors, len(sounds))
    if skipped is not None:
        skipped += errors
    if patch_pooling is None:
        return rows
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)


def pool_patches(rows: np.ndarray, mode: PatchPooling) -> np.ndarray:
    """``(patches, dim)`` to ``(dim,)``: "avg" or "max"."""
    pooled: np.ndarray = rows.mean(axis=0, dtype=np.float64) if mode == "avg" else rows.max(axis=0)
    return pooled.astype(np.float32)


def run_sounds(
    extractor: Extractor, sounds: Sequence[Sound], *, sample_rate: int = SAMPLE_RATE, trim: bool = True
) -> Iterator[list[np.ndarray] | AudioError]:
    """For each sound one ``(patches, dim)`` per layer, or why there is none."""
    rate = extractor.frontend.sample_rate

    def load(number: int) -> np.ndarray:
        sound = sounds[number]
        if isinstance(sound, (str, os.PathLike)):
            return load_audio(sound, sample_rate=rate)
        return check_waveform(sound, sample_rate=sample_rate, target_rate=rate, name=f"sounds[{number}]")

    results = extractor.network.run_jobs((partial(load, n) for n in range(len(sounds))), trim=trim)
    for number, result in enumerate(results):
        sound = sounds[number]
        yield finite(result, os.fspath(sound) if isinstance(sound, (str, os.PathLike)) else f"sounds[{number}]")


def _only_paths(sounds: Sequence[Sound], store: str | os.PathLike[str]) -> list[str | os.PathLike[str]]:
    paths = [sound for sound in sounds if isinstance(sound, (str, os.PathLike))]
    if len(paths) < len(sounds):
        raise ValueError(f"store={os.fspath(store)!r}: keeps embeddings of files; arrays were given")
    return paths


def _run_stored(
    build: Callable[[], Extractor],
    request: Request,
    paths: Sequence[str | os.PathLike[str]],
    store: str | os.PathLike[str],
    *,
    trim: bool,
) -> Iterator[list[np.ndarray] | AudioError]:
    """As ``run_sounds``, through a store; no network is built where the store has it all."""
    known = request.answer(store, paths)
    if known is not None:
        yield from known
        return
    extractor = build()
    report = embed_to_store(extractor, paths, store, trim=trim, on_error="skip")
    reasons = {error.path: error for error in report.skipped}
    opened = EmbeddingStore(store)
    request.note(opened, extractor.keys)
    for path in paths:
        if os.fspath(path) in reasons:
            yield reasons[os.fspath(path)]
        else:
            digest = file_digest(path)
            yield [opened.read_digest(digest, key, name=os.fspath(path))[0] for key in extractor.keys]


class AudioEmbedding(TransformerMixin, BaseEstimator):
    """Sound files or arrays in, embeddings out.

    ``make_pipeline(AudioEmbedding("vggish"), StandardScaler(), SVC())`` is the classic; ``GridSearchCV``
    can search over ``embedding``. There is nothing to learn: ``fit`` checks the arguments.

    Args:
        backbone: a name from ``list_backbones()``.
        embedding: a name from ``embedding_layers(backbone)``, several, a name from
            ``embedding_recipes(backbone)``, or None for the backbone's own.
        pooling: "avg", "max", "avgmax" or "freq" over a feature map; None: the recipe's, of layers "avg".
        patch_pooling: "avg" or "max" over the patches of a sound.
        weights: as for the backbone's builder.
        sample_rate: of arrays, Hz.
        store: a folder that keeps the embeddings of files between calls and runs.
        runtime: "auto", "litert" or "keras".
        quantize: None or "int8".
    """

    def __init__(
        self,
        backbone: str = "yamnet",
        *,
        embedding: str | Sequence[str] | None = None,
        pooling: Pooling | None = None,
        patch_pooling: PatchPooling = "avg",
        weights: str | None = "audioset",
        sample_rate: int = 16_000,
        store: str | None = None,
        runtime: Runtime = "auto",
        quantize: Quantize | None = None,
    ):
        self.backbone = backbone
        self.embedding = embedding
        self.pooling = pooling
        self.patch_pooling = patch_pooling
        self.weights = weights
        self.sample_rate = sample_rate
        self.store = store
        self.runtime = runtime
        self.quantize = quantize

    def fit(self, X: Sequence[Any], y: Any = None) -> AudioEmbedding:
        """Checks the embedding's name; ValueError lists those there are."""
        resolve_embedding(get_backbone(self.backbone), self.embedding, self.pooling)
        return self

    def transform(self, X: Sequence[Any]) -> np.ndarray:
        """``(sounds,)`` paths or arrays to float32 ``(sounds, dim)``."""
        check_choice("patch_pooling", self.patch_pooling, PatchPooling)
        found: np.ndarray = embed(
            self.backbone,
            [str(x) if isinstance(x, np.str_) else x for x in X],
            embedding=self.embedding,
            pooling=self.pooling,
            patch_pooling=self.patch_pooling,
            sample_rate=self.sample_rate,
            store=self.store,
            weights=self.weights,
            engine=EngineOptions(runtime=self.runtime, quantize=self.quantize),
        )
        return found

    def __sklearn_is_fitted__(self) -> bool:
        return True
