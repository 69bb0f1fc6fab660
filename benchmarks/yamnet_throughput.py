"""Patches per second: TF Hub's graph clip by clip, against this package's model in batches of clips.

    TF_ENABLE_ONEDNN_OPTS=1 python -m benchmarks.yamnet_throughput SAVED_MODEL

All run on the same 32 clips of 5 s of noise, in turns, so that a busy machine slows all: the graph, the Keras model
as one ``tf.function`` over batches of clips, the same with its batch norms folded (``fold_batch_norm``), and the
extraction engine, which batches the patches of all clips and runs the same model through LiteRT. TensorFlow turns its
oneDNN kernels on by itself only on CPUs with AVX-512; the variable above turns them on for all of these ways, the hub
graph's too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
import tensorflow_hub

from tfaudiotl.backbones.yamnet import YAMNet
from tfaudiotl.classifiers.edit import fold_batch_norm
from tfaudiotl.embeddings.engine import PatchNetwork

CLIPS, SECONDS, ROUNDS = 32, 5, 7
BATCH = 8  # clips: 80 patches


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def in_batches(model: keras.Model, clips: np.ndarray) -> Callable[[], object]:
    step = tf.function(lambda x: model(x, training=False), input_signature=[tf.TensorSpec((BATCH, clips.shape[1]))])
    return lambda: [step(clips[i : i + BATCH]).numpy() for i in range(0, len(clips), BATCH)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="folder of TF Hub's YAMNet")
    weights = parser.parse_args().weights
    samples = SECONDS * 16_000
    clips = np.random.default_rng(0).uniform(-1, 1, (CLIPS, samples)).astype(np.float32)
    hub = tensorflow_hub.load(weights)
    model = YAMNet(weights=weights, include_top=False, samples=samples)
    engine = PatchNetwork(model, [model.get_layer("embedding").output], runtime="litert")
    patches = CLIPS * model.output_shape[1]
    ways = {
        "hub graph, clip by clip": lambda: [hub(clip)[1].numpy() for clip in clips],
        "Keras model in batches": in_batches(model, clips),
        "Keras model, folded, in batches": in_batches(fold_batch_norm(model), clips),
        "engine in batches": lambda: list(engine.run(clips)),
    }
    for function in ways.values():
        function()  # traces and warms up
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, function in ways.items():
            times[name].append(seconds(function))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:32s} {patches / median:8.0f} patches/s")
    hub_name, *our_names = ways
    for name in our_names:
        ratios = [theirs / ours for theirs, ours in zip(times[hub_name], times[name], strict=True)]
        print(f"{name} over {hub_name}: {statistics.median(ratios):.2f} (median of {ROUNDS} paired rounds)")


if __name__ == "__main__":
    main()
