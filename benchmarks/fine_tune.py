"""What the frozen-prefix cache saves: an epoch with it against one of plain ``fit``; memory; equality of every step.

python -m benchmarks.fine_tune FOLDER SAVED_MODEL [--epochs 3]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks import memory
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.classifiers.edit import freeze
from tfaudiotl.data.clips import Clips
from tfaudiotl.training.activation_cache import ActivationCache, cut
from tfaudiotl.training.batches import CachedInputs, Sounds
from tfaudiotl.training.fine_tune import fine_tune, sample_rate_of

BATCH = 32
STEPS = 50  # that are compared


class Watch(keras.callbacks.Callback):
    """Seconds of every epoch but the first, in which TensorFlow traces the step, and the losses of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self._start = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch:
            self.seconds.append(time.perf_counter() - self._start)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.losses.append(logs["loss"])

    @property
    def epoch(self) -> float:
        """The median."""
        return statistics.median(self.seconds)


def classifier(clips: Clips, weights: str, **options: Any) -> keras.Model:
    return build_classifier("yamnet", class_names=clips.class_names, weights=weights, seed=0, **options)


def cached_epoch(clips: Clips, weights: str, blocks: int, epochs: int) -> float:
    watch = Watch()
    options = {"head_epochs": epochs if not blocks else 0, "epochs": epochs, "batch_size": BATCH}
    fine_tune(classifier(clips, weights), clips, trainable=blocks, verbose=False, callbacks=[watch], **options)
    return watch.epoch


def plain_epoch(clips: Clips, weights: str, blocks: int, epochs: int, *, in_memory: bool) -> float:
    model, watch = classifier(clips, weights, trainable=blocks), Watch()
    data = clips.dataset(batch_size=BATCH, shuffle=True, cache=in_memory)
    model.fit(data, epochs=epochs, verbose=0, callbacks=[watch])
    return watch.epoch


def largest_difference(clips: Clips, weights: str, blocks: int) -> float:
    """Of the losses of the first steps with and without the cache."""
    losses = []
    steps = -(-len(clips) // BATCH)
    for cache in (True, False):
        watch = Watch()
        fine_tune(
            classifier(clips, weights), clips, trainable=blocks, head_epochs=0, epochs=-(-STEPS // steps),
            batch_size=BATCH, cache=cache, verbose=False, callbacks=[watch],
        )  # fmt: skip
        losses.append(watch.losses[:STEPS])
    return float(np.abs(np.subtract(*losses)).max())


def cache_memory(clips: Clips, weights: str, blocks: int, shard_bytes: int) -> tuple[float, float]:
    """MiB by which this process grew at most while a cache was made and read once, and the cache's own size."""
    model = freeze(classifier(clips, weights), trainable=blocks)
    sounds, tensors = Sounds.of([clips], sample_rate=sample_rate_of(model)), cut(model)
    with tempfile.TemporaryDirectory() as warm, tempfile.TemporaryDirectory() as work:
        # TensorFlow's and the converter's own memory is not the cache's.
        ActivationCache.build(Path(warm) / "c", model, tensors, sounds.jobs[:40], key="", shard_bytes=shard_bytes)
        memory.forget_peak()
        before = memory.resident()
        cache = ActivationCache.build(Path(work) / "c", model, tensors, sounds.jobs, key="", shard_bytes=shard_bytes)
        inputs = CachedInputs(cache, range(len(tensors)))
        for start in range(0, len(clips), BATCH):
            inputs.batch(np.arange(start, min(start + BATCH, len(clips))))
        return memory.peak() - before, cache.bytes / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("weights")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--clips", type=int, help="only so many, drawn over the classes")
    options = parser.parse_args()
    clips = Clips.from_directory(options.folder)
    if options.clips:
        clips = clips[np.random.default_rng(0).permutation(len(clips))[: options.clips]]
    grown, size = cache_memory(clips, options.weights, 2, 32 * 2**20)
    print(f"memory: a cache of {size:.0f} MB in shards of 32 MB raised the peak by {grown:.0f} MB", flush=True)
    print("| trains | cached, s | plain fit, in memory, s | ratio | plain fit, from files, s | ratio |")
    print("|---|---|---|---|---|---|")
    for blocks, name in ((0, "head"), (2, "last 2 blocks")):
        cached = cached_epoch(clips, options.weights, blocks, options.epochs)
        memory_s = plain_epoch(clips, options.weights, blocks, options.epochs, in_memory=True)
        files_s = plain_epoch(clips, options.weights, blocks, options.epochs, in_memory=False)
        print(
            f"| {name} | {cached:.3f} | {memory_s:.2f} | {cached / memory_s:.3f} | {files_s:.2f} | "
            f"{cached / files_s:.3f} |",
            flush=True,
        )
    difference = largest_difference(clips[np.arange(0, len(clips), 8)], options.weights, 2)
    print(f"largest difference of a step's loss, {STEPS} steps: {difference:.2e}", flush=True)


if __name__ == "__main__":
    main()
