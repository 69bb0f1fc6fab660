"""What Clips.dataset costs over the bare work, against other ways to feed tf.data; ratios of one run.

    python -m benchmarks.pipeline ESC-10

Every way decodes all clips (OGG, 44.1 kHz), resamples them to 16 kHz and gives batches of 32, with as many threads as
there are cores. The ways take turns, and the best of the rounds counts: now and then Linux
leaves both threads on one core for a whole round. librosa and tensorflow-io are timed where they are
installed (the latter on TensorFlow 2.16).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from tfaudiotl import Clips, load_audio
from tfaudiotl.augment.chain import augment_dataset, mild_augmentation
from tfaudiotl.augment.layers import (
    Augmentation,
    MixUp,
    RandomCrop,
    RandomEqualizer,
    RandomGain,
    RandomNoise,
    RandomReverb,
    RandomShift,
    RandomSpeed,
)

ROUNDS, BATCH = 3, 32
THREADS = os.cpu_count() or 1


def drain(dataset: tf.data.Dataset) -> None:
    for _ in dataset:
        pass


def seconds(way: Callable[[], object]) -> float:
    start = perf_counter()
    way()
    return perf_counter() - start


def in_turns(ways: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Best seconds of each."""
    taken = [{name: seconds(way) for name, way in ways.items()} for _ in range(rounds)]
    return {name: min(each[name] for each in taken) for name in ways}


def bare(clips: Clips) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(load_audio, clips.paths))


def with_librosa(clips: Clips, samples: int) -> tf.data.Dataset | None:
    """What people write: librosa.load in a numpy_function under a parallel map."""
    try:
        import librosa
    except ImportError:
        return None

    def load(path: bytes) -> np.ndarray:
        waveform, _ = librosa.load(path.decode(), sr=16_000)
        return np.pad(waveform, (0, max(0, samples - len(waveform))))[:samples].astype(np.float32)

    paths = tf.data.Dataset.from_tensor_slices(list(clips.paths))
    mapped = paths.map(lambda path: tf.numpy_function(load, [path], tf.float32), num_parallel_calls=THREADS)
    return mapped.batch(BATCH).prefetch(2)


def cold(clips: Clips) -> None:
    samples = next(iter(clips[:1].dataset(window_seconds=10.0)))[0].shape[1]
    ways: dict[str, Callable[[], object]] = {
        "bare decode + resample": lambda: bare(clips),
        "Clips.dataset": lambda: drain(clips.dataset(batch_size=BATCH, decoder="python")),
    }
    librosa = with_librosa(clips, samples)
    if librosa is not None:
        drain(librosa.take(1))
        ways["librosa in numpy_function"] = lambda: drain(librosa)
    try:
        graph = clips.dataset(batch_size=BATCH, decoder="tfio", num_parallel_calls=THREADS)
        drain(graph.take(1))
        ways["Clips.dataset, decoder='tfio'"] = lambda: drain(graph)
    except ValueError as error:
        print(f"tensorflow-io: {error}")
    found = in_turns(ways, rounds=9)
    print("| decode to batch | seconds | over the bare work |\n|---|---|---|")
    for name, taken in found.items():
        print(f"| {name} | {taken:.2f} | {taken / found['bare decode + resample']:.2f} |")


def warm(clips: Clips) -> None:
    print("\n| cache | cold epoch | warm epoch | ratio |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, options in {
            "memory": {"cache": True},
            "memory, shuffled": {"cache": True, "shuffle": True},
            "disk, shuffled": {"shuffle": True},
        }.items():
            firsts = []
            for number in range(3):  # a cache of its own each
                own = {**options, "cache": Path(folder) / str(number)} if "disk" in name else options
                dataset = clips.dataset(batch_size=BATCH, decoder="python", **own)
                firsts.append(seconds(lambda d=dataset: drain(d)))
            first = min(firsts)
            again = float(np.median([seconds(lambda d=dataset: drain(d)) for _ in range(7)]))
            print(f"| {name} | {first:.2f} | {again:.4f} | {first / again:.0f} |")


def augmentations(clips: Clips) -> None:
    base = clips.dataset(batch_size=BATCH, cache=True, shuffle=True, decoder="python")
    drain(base)
    makers = (
        RandomGain,
        RandomShift,
        RandomNoise,
        RandomEqualizer,
        RandomSpeed,
        RandomReverb,
        MixUp,
        mild_augmentation,
    )
    layers = [*(make() for make in makers), RandomCrop(2.0)]
    ways: dict[str, Callable[[], object]] = {"none": lambda: drain(base)}
    alone: dict[str, float] = {}
    batch, targets = next(iter(base))
    for layer in layers:
        name = layer.name
        dataset = augment_dataset(base, layer)
        drain(dataset.take(1))
        ways[name] = lambda d=dataset: drain(d)

        @tf.function
        def only(x: tf.Tensor, y: tf.Tensor, layer: Augmentation = layer) -> object:
            return layer([x, y] if isinstance(layer, MixUp) else x, training=True)

        only(batch, targets)
        runs = [seconds(lambda f=only: f(batch, targets)) for _ in range(5)]
        alone[name] = min(runs)
    found = in_turns(ways)
    print("\n| augmentation | warm epoch, s | ms a batch over none | ms a batch, the layer alone |\n|---|---|---|---|")
    batches = -(-len(clips) // BATCH)
    for name, taken in found.items():
        more, own = 1_000 * (taken - found["none"]) / batches, 1_000 * alone.get(name, 0.0)
        print(f"| {name} | {taken:.3f} | {more:.1f} | {own:.1f} |")


def main(folder: str) -> None:
    clips = Clips.from_directory(folder)
    bare(clips)
    print(f"TensorFlow {tf.__version__}, {THREADS} threads, {len(clips)} clips\n")
    cold(clips)
    warm(clips)
    augmentations(clips)


if __name__ == "__main__":
    main(sys.argv[1])
