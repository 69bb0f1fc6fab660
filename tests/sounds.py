"""Small made-up recordings for tests: tones and noise that any classifier can tell apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

KINDS = ("high", "low", "noise")


def sound(kind: str, rng: np.random.Generator, *, seconds: float = 1.2, rate: int = 16_000) -> np.ndarray:
    """A tone of 3 kHz or 300 Hz, or white noise; loudness and phase vary."""
    time = np.arange(int(seconds * rate)) / rate
    if kind == "noise":
        wave = rng.uniform(-1, 1, len(time))
    else:
        pitch = {"high": 3_000, "low": 300}[kind] * rng.uniform(0.9, 1.1)
        wave = np.sin(2 * np.pi * (pitch * time + rng.uniform()))
    return (rng.uniform(0.2, 0.9) * wave).astype(np.float32)


def write_folder(folder: Path, *, per_class: int = 8, kinds: tuple[str, ...] = KINDS, rate: int = 16_000) -> Path:
    """One sub-folder per kind; the files' names begin with a fold, 1 to 4."""
    rng = np.random.default_rng(3)
    for kind in kinds:
        (folder / kind).mkdir(parents=True)
        for number in range(per_class):
            path = folder / kind / f"{number % 4 + 1}-{kind}{number:02d}.wav"
            soundfile.write(path, sound(kind, rng, rate=rate), rate)
    return folder
