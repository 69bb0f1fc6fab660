"""The frozen lower part of a classifier: cut off, run once per sound, and kept on disk.

``cut`` finds where training begins, ``ActivationCache`` holds what the frozen part gives there, ``upper_model`` is the
rest, with the classifier's own layers: training it trains the classifier.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import tree

from tfaudiotl._files import claim, write_atomic
from tfaudiotl._fingerprint import fingerprint, model_parts, versions
from tfaudiotl._threads import OnProgress, Progress, ignore
from tfaudiotl.backbones.frontend import PatchSequence, ValidPatches
from tfaudiotl.embeddings.engine import PatchNetwork, finite
from tfaudiotl.errors import AudioError

SHARD_BYTES = 256 * 2**20  # finished work that a kill can cost, and what is written at a time

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
    found = _computed(model, known, valid, model.get_layer("patch_batch").input)
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


@dataclass
class ActivationCache:
    """Activations of every patch of every sound, in files; rows are read one by one, never a whole file.

    Attributes:
        folder: where the shards lie.
        shapes: of a patch's activations, by tensor.
        counts: row -> number of patches.
        skipped: row -> the sound that could not be used.
        shard_bytes: of a shard, about.
    """

    folder: Path
    shapes: list[tuple[int, ...]]
    shard_bytes: int = SHARD_BYTES
    counts: dict[int, int] = field(default_factory=dict)
    skipped: dict[int, AudioError] = field(default_factory=dict)
    _places: dict[int, tuple[int, int]] = field(default_factory=dict)  # row -> shard, patches before it there
    _open: dict[tuple[int, int], int] = field(default_factory=dict)  # shard, tensor -> file descriptor

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
        """Runs the frozen part over every sound; shards that an earlier run finished are used again.

        Args:
            folder: for the shards; those of another ``key``, or another frozen part, in it are removed.
            model: the classifier.
            tensors: of ``cut``.
            jobs: one per row.
            key: what tells one cache from another, beside the frozen part itself.
            paths: what the rows are called in messages; None: by their numbers.
            shard_bytes: of a shard, about; only so much is unfinished at any time.
            progress: called after each row.

        Raises:
            FileExistsError: the folder holds something and is no cache.
        """
        cache = cls(Path(folder), [tuple(tensor.shape[1:]) for tensor in tensors], shard_bytes)
        network = model_parts(keras.Model(model.inputs, list(tensors)))
        content = fingerprint(network=network, key=key, shapes=cache.shapes, versions=versions())
        claim(cache.folder, "cache.json", {"content": content}, ours=r"shard-\d{5}|unfinished")
        done = cache._reopen()
        if done < len(jobs):
            names = paths or [f"row {row}" for row in range(len(jobs))]
            numbers = _network(model, tensors).run_jobs(jobs[done:], expected_patches=2 * (len(jobs) - done))
            results = map(finite, numbers, names[done:])
            cache._write(results, done, len(jobs), progress)
        return cache

    @property
    def patches(self) -> int:
        """Of the longest sound."""
        return max(self.counts.values())

    @property
    def bytes(self) -> int:
        """Of all shards."""
        return sum(file.stat().st_size for file in self.folder.glob("shard-*/*.bin"))

    def read(self, tensor: int, row: int) -> np.ndarray:
        """The activations ``(patches, ...)`` of one row."""
        shard, before = self._places[row]
        shape = self.shapes[tensor]
        size = 4 * int(np.prod(shape))
        if (shard, tensor) not in self._open:
            self._open[shard, tensor] = os.open(self._shard(shard) / f"{tensor}.bin", os.O_RDONLY)
        # pread leaves nothing in this process's memory, where a mapped file would stay.
        content = os.pread(self._open[shard, tensor], self.counts[row] * size, before * size)
        return np.frombuffer(content, np.float32).reshape(self.counts[row], *shape)

    def close(self) -> None:
        """Closes the files."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _shard(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}"

    def _reopen(self) -> int:
        """Takes up finished shards; returns the number of rows in them."""
        number = done = 0
        while (index := self._shard(number) / "index.json").is_file():
            done = self._enter(number, json.loads(index.read_text(encoding="utf-8")))
            number += 1
        return done

    def _enter(self, number: int, index: dict[str, Any]) -> int:
        before = 0
        for row, count in index["counts"]:
            self._places[row], self.counts[row] = (number, before), count
            before += count
        for row, path, reason in index["skipped"]:
            self.skipped[row] = AudioError(path, reason)
        return int(index["end"])

    def _write(self, results: Any, done: int, total: int, progress: OnProgress) -> None:
        number = sum(1 for _ in self.folder.glob("shard-*/index.json"))
        results = enumerate(results, start=done)
        while done < total:
            done = self._write_shard(number, results, done, total, progress)
            number += 1

    def _write_shard(self, number: int, results: Any, done: int, total: int, progress: OnProgress) -> int:
        """One shard, under another name until it is complete; returns the number of rows done by then."""
        work = self.folder / "unfinished"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        index: dict[str, Any] = {"counts": [], "skipped": []}
        files = [(work / f"{tensor}.bin").open("wb") for tensor in range(len(self.shapes))]
        written = 0
        for row, result in results:
            if isinstance(result, AudioError):
                index["skipped"].append((row, result.path, result.reason))
            else:
                index["counts"].append((row, len(result[0])))
                for file, values in zip(files, result, strict=True):
                    written += file.write(np.ascontiguousarray(values, np.float32).tobytes())
            done = row + 1
            progress(Progress("Computing frozen layers", done, total))
            if written >= self.shard_bytes:
                break
        for file in files:
            file.flush()
            os.fsync(file.fileno())
            file.close()
        index["end"] = done
        write_atomic(work / "index.json", json.dumps(index))
        work.replace(self._shard(number))
        self._enter(number, index)
        return done


def _network(model: keras.Model, tensors: Sequence[Any]) -> PatchNetwork:
    patches = model.get_layer("patch_batch").output
    if not any(tensor is patches for tensor in tensors):
        return PatchNetwork(model, tensors)
    # Everything trains: what is frozen is the front-end, and there is no network to convert.
    outputs = [keras.layers.Identity()(tensor) if tensor is patches else tensor for tensor in tensors]
    return PatchNetwork(model, outputs, runtime="keras")
