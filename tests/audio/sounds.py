"""Sounds with known samples, written by the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

FREQUENCY = 440.0


def tone(seconds: float, rate: int, *, frequency: float = FREQUENCY, amplitude: float = 0.5) -> np.ndarray:
    """A sine at any rate, so that the expected result of resampling is known without resampling."""
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write(
    path: Path,
    waveform: np.ndarray,
    rate: int = 16_000,
    subtype: str | None = None,
    container: str | None = None,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(str(path), waveform, rate, subtype=subtype, format=container)
    return path


def make_folder(root: Path, counts: dict[str, int], *, seconds: float = 0.1, folds: int = 2) -> Path:
    """One sub-folder per class, files called fold-number.wav."""
    for position, (name, count) in enumerate(counts.items()):
        for number in range(count):
            sound = tone(seconds, 16_000, frequency=200.0 * (position + 1) + number)
            write(root / name / f"{number % folds + 1}-{number}.wav", sound)
    return root
