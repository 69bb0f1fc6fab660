"""Where the time of ``tfaudiotl train`` goes, beside TF Hub's graph run once over the same clips.

python -m benchmarks.train_command FOLDER SAVED_MODEL [--fold-pattern REGEX]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import tensorflow_hub

from tfaudiotl.data.clips import Clips
from tfaudiotl.workflow import train_folder


def hub_seconds(clips: Clips, weights: str) -> tuple[float, float]:
    """Seconds to decode all clips, and to run the hub graph over them, one after the other."""
    start = time.perf_counter()
    waveforms = [clips.load(row) for row in range(len(clips))]
    decoded = time.perf_counter()
    hub = tensorflow_hub.load(weights)
    hub(waveforms[0])
    loaded = time.perf_counter()
    for waveform in waveforms:
        hub(waveform)[1].numpy()
    return decoded - start, time.perf_counter() - loaded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("weights")
    parser.add_argument("--fold-pattern", default=r"^(\d)-")
    options = parser.parse_args()
    clips = Clips.from_directory(options.folder, fold_pattern=options.fold_pattern)
    with tempfile.TemporaryDirectory() as out:
        metrics = train_folder(clips, Path(out) / "out", folds="given", weights=options.weights)
    decode, hub = hub_seconds(clips, options.weights)
    print(f"{len(clips)} clips, {metrics['patches']} patches, {len(metrics['folds'])} folds")
    print(f"accuracy_mean {metrics['accuracy_mean']:.4f}, accuracy_std {metrics['accuracy_std']:.4f}")
    for stage, seconds in metrics["seconds"].items():
        print(f"{stage:20s} {seconds:7.1f} s")
    print(f"{'decode, one thread':20s} {decode:7.1f} s")
    print(f"{'hub graph once':20s} {hub:7.1f} s")
    listening = metrics["seconds"]["embed"]  # decoding runs beside it
    print(f"decode + hub graph over our decode + embedding: {(decode + hub) / listening:.2f}")


if __name__ == "__main__":
    main()
