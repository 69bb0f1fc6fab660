"""Time and memory of one training step on an accelerator, in float32, float16 and bfloat16, with or without TensorFlow.

KERAS_BACKEND=jax (or torch, tensorflow) python -m benchmarks.device_step [--backbone yamnet] [--batch 256]
    [--seconds 0.975] [--weights WEIGHTS.h5]

Random waveforms, everything trains. Needs keras, the backend, numpy, wrapt and this folder's tfaudiotl, which imports
nothing else for it. Prints a Markdown table with the chip's name.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else the peak is that of the pool

import keras
import numpy as np

from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.classifiers.build import build_classifier


def chip() -> tuple[str, Any]:
    """The accelerator's name, and a function that gives the peak of its memory in MB."""
    if keras.backend.backend() == "jax":
        import jax

        device = jax.devices()[0]
        return device.device_kind, lambda: (device.memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**20
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            return "CPU", lambda: 0.0
        return "GPU", lambda: tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20
    import torch

    if not torch.cuda.is_available():
        return "CPU", lambda: 0.0
    return torch.cuda.get_device_name(), lambda: torch.cuda.max_memory_allocated() / 2**20


def measure(precision: str, options: argparse.Namespace) -> tuple[float, float]:
    """Median milliseconds of a step, and the loss of the last one."""
    keras.config.set_dtype_policy(precision)
    samples = round(options.seconds * get_backbone(options.backbone).frontend.sample_rate)
    model = build_classifier(
        options.backbone, class_names=[f"class {n}" for n in range(50)], weights=options.weights, samples=samples,
        trainable="all", batch_norm="train", seed=0,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (options.batch, samples)).astype(np.float32)
    y = np.eye(50, dtype=np.float32)[rng.integers(0, 50, options.batch)]
    steps = []

    class Watch(keras.callbacks.Callback):
        """Times each epoch; an epoch is ``repeats`` steps, so that reading the loss does not count."""

        start = 0.0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            steps.append((time.perf_counter() - self.start) / options.repeats * 1000)

    x, y = np.tile(x, (options.repeats, 1)), np.tile(y, (options.repeats, 1))
    history = model.fit(x, y, batch_size=options.batch, epochs=6, verbose=0, shuffle=False, callbacks=[Watch()])
    return statistics.median(steps[1:]), history.history["loss"][-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="yamnet")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=0.975)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--weights", help="a .weights.h5 file; random without")
    parser.add_argument("--precisions", nargs="+", default=["float32", "mixed_float16", "mixed_bfloat16"])
    options = parser.parse_args()
    name, peak = chip()
    print(f"{name}, Keras {keras.__version__} on {keras.backend.backend()}, batches of {options.batch}")
    print("| precision | ms a step | patches/s | peak so far, MB | last loss |\n|---|---|---|---|---|")
    for precision in options.precisions:
        step, loss = measure(precision, options)
        patches = options.batch / step * 1000
        print(f"| {precision} | {step:.2f} | {patches:,.0f} | {peak():,.0f} | {loss:.4f} |", flush=True)


if __name__ == "__main__":
    main()
