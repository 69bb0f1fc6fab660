"""This process's memory, as Linux tells it; by itself: what many trainings in one process leave behind.

Not ``getrusage``: its peak begins at that of the process that started this one.

    python -m benchmarks.memory [--trainings 200] [--clips 400]
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def resident() -> float:
    """MiB held now."""
    return _status("VmRSS")


def peak() -> float:
    """The most MiB ever held, or held since ``forget_peak``."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Lets ``peak`` begin again at what is held now."""
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    """Trains small heads one after another, each on embeddings of its own, and prints what the process holds."""
    import keras
    import numpy as np

    from tfaudiotl.classifiers.heads import dense_head
    from tfaudiotl.training.head import Examples, fit_head
    from tfaudiotl.training.options import FitOptions

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--trainings", type=int, default=200)
    parser.add_argument("--clips", type=int, default=400, help="of each training, of 10 patches of 1,024 numbers each")
    arguments = parser.parse_args()
    clips, rng = arguments.clips, np.random.default_rng(0)
    held = {}
    for number in range(1, arguments.trainings + 1):
        vectors = rng.normal(size=(10 * clips, 1024)).astype(np.float32)
        targets = np.eye(5, dtype=np.float32)[rng.integers(5, size=clips)]
        data = Examples(vectors, np.full(clips, 10), targets, np.ones(clips, np.float32))
        inputs = keras.Input((1024,))
        head = keras.Model(inputs, dense_head(inputs, list("abcde"), hidden=(16,)))
        fit_head(head, data, data.take(np.arange(clips // 5)), FitOptions(epochs=2))
        gc.collect()
        held[number] = resident()
        if number % 10 == 0:
            print(f"after {number} trainings: {held[number]:.0f} MiB", flush=True)
    if len(held) > 10:
        print(f"from the 10th to the last: {held[len(held)] - held[10]:+.0f} MiB; a training's data: "
              f"{40 * clips * 1024 / 2**20:.0f} MiB")  # fmt: skip


if __name__ == "__main__":
    main()
