"""Sounds with known samples, and folders of them: tones and noise that any classifier can tell apart."""

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


def write_vbr(path: Path, *, rate: int, channels: int, loud_first: bool, seconds: int = 6) -> bytes:
    """An MP3 file of frames of all sizes: loud noise and a soft tone. Returns its bytes."""
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, (2 * rate, channels))
    tone = 1e-3 * np.sin(np.arange((seconds - 2) * rate) * 0.03)[:, None].repeat(channels, axis=1)
    parts = [noise, tone] if loud_first else [tone, noise]
    with soundfile.SoundFile(
        path, "w", rate, channels, "MPEG_LAYER_III", format="MP3", compression_level=0.5, bitrate_mode="VARIABLE"
    ) as sound:
        sound.write(np.concatenate(parts))
    return path.read_bytes()


def without_tag(data: bytes) -> bytes:
    """An MP3 file of ``write_vbr`` without its first frame, which tells the length."""
    assert b"Xing" in data[:64]
    sync = data[:2]
    place = data.index(sync, 4)
    while data[place + 2] & 0x0C != data[2] & 0x0C:  # the sample rate
        place = data.index(sync, place + 1)
    return data[place:]


def make_folder(root: Path, counts: dict[str, int], *, seconds: float = 0.1, folds: int = 2) -> Path:
    """One sub-folder per class, files called fold-number.wav."""
    for position, (name, count) in enumerate(counts.items()):
        for number in range(count):
            sound = tone(seconds, 16_000, frequency=200.0 * (position + 1) + number)
            write(root / name / f"{number % folds + 1}-{number}.wav", sound)
    return root
