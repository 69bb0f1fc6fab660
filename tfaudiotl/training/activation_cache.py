"""The frozen lower part of a classifier: cut off, run once per sound, and kept on disk.

``cut`` finds where training begins, ``ActivationCache`` holds what the frozen part gives there, ``upper_model`` is the
rest, with the classifier's own layers: training it trains the classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import tree

from tfaudiotl._files import claim
from tfaudiotl._fingerprint import fingerprint, model_parts, versions
from tfaudiotl._shards import SHARD_NAMES, DamagedError, Shard, Shards, ShardWriter
from tfaudiotl._threads import OnProgress, Progress, ignore
from tfaudiotl.backbones.assembly import patches_of_model, rows_of_model
from tfaudiotl.backbones.frontend import PatchSequence, ValidPatches
from tfaudiotl.embeddings.engine import PatchNetwork, finite
from tfaudiotl.errors import AudioError

SHARD_BYTES = 64 * 2**20  # finished work that a kill can cost, and what is held in memory until it is written

Job = Callable[[], np.ndarray]


def cut(model: keras.Model) -> list[Any]:
    """The tensors of a classifier, one row per patch, that frozen layers give to those that train or draw at random.

    Nothing below them changes in training. Pooling over the patches is never below them.
    """
    fixed = {id(tensor) for tensor in model.inputs}
    found: dict[int, Any] = {}
    for layer in model.layers:
        tensors = _read_by(layer)
        if all(id(tensor) in fixed for tensor in tensors) and not _changes(layer):
            fixed.update(id(tensor) for tensor in tree.flatten(layer.output))
        else:
            found |= {id(tensor): tensor for tensor in tensors if id(tensor) in fixed}
    return [tensor for tensor in found.values() if id(tensor) not in _valid_tensors(model)]


def _read_by(layer: Any) -> list[Any]:
    """The tensors whose values a layer reads."""
    tensors = tree.flatten(layer.input)
    return tensors[:1] if isinstance(layer, PatchSequence) else tensors  # of the second it reads the shape


def _changes(layer: Any) -> bool:
    if isinstance(layer, PatchSequence):
        return True
    if isinstance(layer, keras.layers.BatchNormalization):
        return bool(layer.trainable)  # its statistics do, even without a variable that trains
    return bool(layer.trainable_variables) or _draws(layer)


def _draws(layer: Any) -> bool:
    """Whether a layer draws at random in training; recurrent layers have a seed even if they drop nothing."""
    rates = [getattr(layer, name) for name in ("rate", "dropout", "recurrent_dropout") if hasattr(layer, name)]
    return any("seed" in variable.path for variable in layer.variables) and (not rates or any(rates))


def _valid_tensors(model: keras.Model) -> set[int]:
    return {id(layer.output) for layer in model.layers if isinstance(layer, ValidPatches)}


def upper_model(model: keras.Model, tensors: Sequence[Any], end: Any = None) -> keras.Model:
    """The part of a classifier above ``tensors``, sharing its layers.

    Args:
        model: the classifier.
        tensors: as ``cut`` gives them.
        end: what to compute; None: the scores ``(batch, classes)``.

    Returns:
        A model of ``[(batch, patches, ...) for each tensor, (batch, patches) valid]`` to ``end``.
    """
    inputs = [keras.Input((None, *tensor.shape[1:]), name=f"activations_{n}") for n, tensor in enumerate(tensors)]
    valid = keras.Input((None,), name="valid")
    known = {
        id(tensor): keras.ops.reshape(values, (-1, *tensor.shape[1:]))
        for tensor, values in zip(tensors, inputs, strict=True)
    }
    known |= dict.fromkeys(_valid_tensors(model), valid)
    found = _computed(model, known, valid, inputs[0])
    return keras.Model([*inputs, valid], found[id(model.output if end is None else end)], name=f"{model.name}_upper")


def whole_model(model: keras.Model) -> keras.Model:
    """The classifier of waveforms as ``upper_model`` makes its part, from the waveform on, sharing its layers."""
    valid = next(layer.output for layer in model.layers if isinstance(layer, ValidPatches))
    known = {id(model.input): model.input, id(valid): valid}
    found = _computed(model, known, valid, patches_of_model(model))
    return keras.Model(model.input, found[id(model.output)], name=f"{model.name}_whole")


def _computed(model: keras.Model, known: dict[int, Any], valid: Any, patches: Any) -> dict[int, Any]:
    """What the classifier's layers make of ``known``, by the id of their output in the classifier.

    Batch norms that train take their statistics from patches of sound, never from a batch's padding.

    Args:
        model: the classifier.
        known: what stands in for tensors of the classifier, by their id.
        valid: which patches hold sound, ``(batch, patches)``.
        patches: any tensor ``(batch, patches, ...)``.
    """
    known, by_clip = dict(known), set()  # ids of what has an axis of clips, not of all clips' patches
    for layer in model.layers:
        read = _read_by(layer)
        if isinstance(layer, keras.layers.InputLayer) or id(layer.output) in known:
            continue
        if not all(id(tensor) in known for tensor in read):
            continue
        if isinstance(layer, PatchSequence) or any(id(tensor) in by_clip for tensor in read):
            by_clip.add(id(layer.output))
        if isinstance(layer, PatchSequence):
            known[id(layer.output)] = layer([known[id(read[0])], patches])
        elif isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            values = known[id(read[0])]
            mask = _norm_mask(values, valid, by_clip=id(layer.output) in by_clip)
            # A copy, since Keras hands the mask on: recurrent layers would take it for their own, others warn of it.
            known[id(layer.output)] = keras.ops.copy(layer(values, mask=mask))
        else:
            known[id(layer.output)] = layer(tree.map_structure(lambda tensor: known[id(tensor)], layer.input))
    return known


def _norm_mask(values: Any, valid: Any, *, by_clip: bool) -> Any:
    """A batch norm's mask, which has an axis less than ``values``: of patches, of clips' sequences, or none."""
    if by_clip:
        return valid if len(values.shape) == 3 else None
    return keras.ops.reshape(valid, (-1, *[1] * (len(values.shape) - 2)))


class ActivationCache:
    """Activations of every patch of every sound, on disk; rows are read one by one, never a whole file.

    Args:
        folder: of the shards.
        shapes: of a patch's activations, by tensor.

    Attributes:
        shapes: as given.
        counts: row -> number of patches.
        skipped: row -> the sound that could not be used.
    """

    def __init__(self, folder: Path, shapes: Sequence[tuple[int, ...]]):
        self.shapes, self._shards = list(shapes), Shards(folder)
        self.counts: dict[int, int] = {}
        self.skipped: dict[int, AudioError] = {}
        self._places: dict[int, tuple[Shard, int]] = {}  # row -> shard, number of its unit there

    @classmethod
    def build(
        cls,
        folder: str | Path,
        model: keras.Model,
        tensors: Sequence[Any],
        jobs: Sequence[Job],
        *,
        key: str,
        paths: Sequence[str] | None = None,
        shard_bytes: int = SHARD_BYTES,
        progress: OnProgress = ignore,
    ) -> ActivationCache:
        """Runs the frozen part over every sound; what an earlier run finished is used again.

        Args:
            folder: for the shards; those of another ``key``, or another frozen part, in it are removed.
            model: the classifier.
            tensors: of ``cut``.
            jobs: one per row.
            key: what tells one cache from another, beside the frozen part itself.
            paths: what the rows are called in messages; None: by their numbers.
            shard_bytes: of a shard, about; only so much is unfinished, and in memory, at any time.
            progress: called after each row.

        Raises:
            FileExistsError: the folder holds something and is no cache.
        """
        shapes = [tuple(tensor.shape[1:]) for tensor in tensors]
        network = model_parts(keras.Model(model.inputs, list(tensors)))
        content = fingerprint(network=network, key=key, shapes=shapes, versions=versions())
        claim(Path(folder), "cache.json", {"content": content}, ours=SHARD_NAMES)
        cache = cls(Path(folder), shapes)
        missing = cache._reopen(len(jobs))
        if missing:
            names = paths or [f"row {row}" for row in range(len(jobs))]
            outputs = _network(model, tensors).run_jobs(
                [jobs[row] for row in missing], expected_patches=2 * len(missing)
            )
            results = map(finite, outputs, [names[row] for row in missing])
            cache._write(missing, results, len(jobs), ShardWriter(cache._shards, most_bytes=shard_bytes), progress)
        return cache

    @property
    def patches(self) -> int:
        """Of the longest sound."""
        return max(self.counts.values())

    @property
    def bytes(self) -> int:
        """On disk."""
        return self._shards.bytes

    def read(self, tensor: int, row: int) -> np.ndarray:
        """The activations ``(patches, ...)`` of one row."""
        shard, unit = self._places[row]
        return shard.read(str(tensor), unit)

    def _reopen(self, rows: int) -> list[int]:
        """Takes up finished shards that are as they were written; returns the rows that are in none."""
        self._shards.clean()
        for shard in list(self._shards):
            try:
                for name in shard.sums:
                    shard.check(name)
            except DamagedError:
                self._shards.drop(shard)
            else:
                self._enter(shard)
        return [row for row in range(rows) if row not in self.counts and row not in self.skipped]

    def _enter(self, shard: Shard | None) -> None:
        for number, unit in enumerate(shard.units if shard is not None else ()):
            if "reason" in unit:
                self.skipped[unit["row"]] = AudioError(unit["path"], unit["reason"])
            else:
                self.counts[unit["row"]] = unit["count"]
                self._places[unit["row"]] = (shard, number)  # type: ignore[assignment]

    def _write(
        self, rows: Sequence[int], results: Iterable[Any], total: int, writer: ShardWriter, progress: OnProgress
    ) -> None:
        for done, (row, result) in enumerate(zip(rows, results, strict=True), start=total - len(rows) + 1):
            if isinstance(result, AudioError):
                self._enter(writer.add({"row": row, "path": result.path, "reason": result.reason}, {}))
            else:
                arrays = {str(n): np.ascontiguousarray(values, np.float32) for n, values in enumerate(result)}
                self._enter(writer.add({"row": row}, arrays))
            progress(Progress("Computing frozen layers", done, total))
        self._enter(writer.flush())


def _network(model: keras.Model, tensors: Sequence[Any]) -> PatchNetwork:
    patches = rows_of_model(model)
    if not any(tensor is patches for tensor in tensors):
        return PatchNetwork(model, tensors)
    # Everything trains: what is frozen is the front-end, and there is no network to convert.
    outputs = [keras.layers.Identity()(tensor) if tensor is patches else tensor for tensor in tensors]
    return PatchNetwork(model, outputs, runtime="keras")
