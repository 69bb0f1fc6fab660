"""``tfaudiotl train FOLDER -o OUT`` with no other option on folders of tiny recordings: its seconds and its memory.

    python -m benchmarks.main_job [--clips 100,200,400,2000,20000]

The recordings, 0.3 s of a tone or noise at 16 kHz, say nothing about accuracy: only about the number of files.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

KINDS = {"high": 3_000.0, "low": 300.0, "noise": None}
STAGES = ("embed", "train", "export_and_check", "report", "total")


def write_folder(folder: Path, clips: int) -> None:
    """``clips`` recordings, in one sub-folder per kind."""
    rng, time = np.random.default_rng(0), np.arange(4_800) / 16_000
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
    for number in range(clips):
        kind, pitch = list(KINDS.items())[number % len(KINDS)]
        if pitch is None:
            wave = rng.uniform(-1, 1, len(time))
        else:
            wave = np.sin(2 * np.pi * (pitch * rng.uniform(0.9, 1.1) * time + rng.uniform()))
        soundfile.write(folder / kind / f"{number:05d}.wav", rng.uniform(0.2, 0.9) * wave, 16_000)


def run(clips: int) -> list[str]:
    """A row of the table."""
    with tempfile.TemporaryDirectory() as work:
        folder, out = Path(work) / "sounds", Path(work) / "out"
        write_folder(folder, clips)
        command = [sys.executable, "-m", "tfaudiotl.cli", "train", str(folder), "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # of the largest child so far
        if done.returncode:
            sys.exit(f"{clips} clips: exit {done.returncode}\n{done.stderr[-2_000:]}")
        metrics = json.loads((out / "metrics.json").read_text())
    seconds = [f"{metrics['seconds'][stage]:.1f}" for stage in STAGES]
    return [f"{clips:,}", f"{metrics['accuracy']:.3f}", *seconds, f"{peak:,.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", default="100,200,400,2000,20000", help="Numbers of recordings, rising.")
    sizes = [int(size) for size in parser.parse_args().clips.split(",")]
    print("| " + " | ".join(["Clips", "Accuracy", *(f"{stage}, s" for stage in STAGES), "Peak memory, MB"]) + " |")
    print("|" + " ---: |" * (len(STAGES) + 3))
    for size in sizes:
        print("| " + " | ".join(run(size)) + " |", flush=True)


if __name__ == "__main__":
    main()
