"""Unlabelled sound for distillation: endless, seeded variations of folders of recordings.

A teacher says what any sound is, so a sound may be mixed, sped up, cut and muffled in any way: unlike
augmentation for labelled clips, nothing here has to keep a label true.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.fft

from tfaudiotl._seeds import stream
from tfaudiotl.audio.files import load_audio
from tfaudiotl.audio.sources import sound_files
from tfaudiotl.audio.waveform import SAMPLE_RATE
from tfaudiotl.embeddings.runners import cores
from tfaudiotl.errors import AudioError, AudioErrors


@dataclass(frozen=True)
class MixOptions:
    """How sounds are varied. Shares are of the examples, in [0, 1]; ranges are drawn from evenly.

    Attributes:
        mix: share of examples of two sounds, the second up to 15 dB louder or quieter.
        synthetic: share of sounds that are made up: noise of any colour, tones, sweeps, clicks.
        gain_db: loudness against the recording's.
        speed: playback rate, changing pitch and tempo; drawn from evenly in its logarithm.
        short: share of sounds of which only 0.2 to 0.9 s are kept, in silence.
        noise: share of examples with coloured noise added, 0 to 30 dB below.
        narrow: share of examples without the frequencies above 2 to 6 kHz.
    """

    mix: float = 0.5
    synthetic: float = 0.08
    gain_db: tuple[float, float] = (-18.0, 6.0)
    speed: tuple[float, float] = (0.8, 1.25)
    short: float = 0.25
    noise: float = 0.2
    narrow: float = 0.25

    def __post_init__(self) -> None:
        for name in ("mix", "synthetic", "short", "noise", "narrow"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: a share in [0, 1]")
        for name in ("gain_db", "speed"):
            low, high = getattr(self, name)
            if not low <= high or (name == "speed" and low <= 0):
                raise ValueError(f"{name}={(low, high)!r}: the lower end first; speeds are positive")


def load_folders(
    folders: Sequence[str | os.PathLike[str]], *, exclude: str | None = None, on_error: str = "raise"
) -> tuple[list[list[np.ndarray]], list[AudioError]]:
    """Decodes every sound file in ``folders`` and below, as int16 (a minute takes 2 MB).

    Args:
        folders: at least one.
        exclude: regular expression; files whose path it is found in are left out.
        on_error: "raise" or "skip" files that cannot be used.

    Returns:
        For each folder its sounds, and the files that were left out with the reason.
    """
    if not folders:
        raise ValueError("folders: at least one folder of recordings")
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r}: allowed are 'raise' and 'skip'")
    sounds: list[list[np.ndarray]] = []
    errors: list[AudioError] = []
    total = 0
    for folder in folders:
        paths = [path for path in sound_files(folder) if not (exclude and re.search(exclude, path.as_posix()))]
        with ThreadPoolExecutor(cores()) as pool:
            found = list(pool.map(_decode, paths))
        total += len(paths)
        errors += [sound for sound in found if isinstance(sound, AudioError)]
        sounds.append([sound for sound in found if not isinstance(sound, AudioError)])
        if not sounds[-1] and not errors:
            raise ValueError(f"folders: exclude={exclude!r} leaves no sound in {os.fspath(folder)}")
    if errors and (on_error == "raise" or not all(sounds)):
        raise AudioErrors(errors, total, "Fix or remove them, or pass on_error='skip'.")
    return sounds, errors


def _decode(path: Path) -> np.ndarray | AudioError:
    try:
        waveform = load_audio(path)
    except AudioError as error:
        return error
    if len(waveform) == 0:
        return AudioError(str(path), "empty: no samples")
    return (np.clip(waveform, -1, 1) * 32_767).astype(np.int16)


class Mixer:
    """Example number n, the same for the same seed whatever was drawn before.

    Args:
        sounds: for each folder its sounds, int16 at 16 kHz. A folder is drawn from by the square root of its
            number of sounds, so that a big one does not drown a small one.
        samples: of an example.
        options: how sounds are varied.
        seed: of everything random.
    """

    def __init__(self, sounds: Sequence[Sequence[np.ndarray]], samples: int, options: MixOptions, seed: int):
        self.sounds, self.samples, self.options, self.seed = sounds, samples, options, seed
        roots = np.sqrt([len(folder) for folder in sounds])
        self.shares = roots / roots.sum()

    def __call__(self, number: int) -> np.ndarray:
        """float32 ``(samples,)`` in [-1, 1]."""
        rng, options = stream("distillation sound", self.seed, number), self.options
        wave = self._sound(rng)
        if rng.random() < options.mix:
            other = self._sound(rng)
            level = _rms(wave) / max(_rms(other), 1e-6) * 10 ** (rng.uniform(-15, 15) / 20)
            wave = wave + np.float32(min(level, 100.0)) * other if _rms(wave) > 1e-5 else other
        wave *= np.float32(10 ** (rng.uniform(*options.gain_db) / 20))
        if rng.random() < options.noise:
            hiss = coloured_noise(self.samples, rng.uniform(0, 2), rng)
            wave += np.float32(max(_rms(wave), 1e-4) * 10 ** (-rng.uniform(0, 30) / 20)) * hiss
        if rng.random() < options.narrow:
            spectrum = scipy.fft.rfft(wave)
            spectrum[int(rng.uniform(2_000, 6_000) / SAMPLE_RATE * self.samples) :] = 0
            wave = scipy.fft.irfft(spectrum, self.samples)
        return np.clip(wave, -1, 1, dtype=np.float32)

    def _sound(self, rng: np.random.Generator) -> np.ndarray:
        """One sound by itself, float32 ``(samples,)``."""
        options, wanted = self.options, self.samples
        if rng.random() < options.synthetic:
            wave = synthetic(wanted, rng)
        else:
            folder = self.sounds[int(rng.choice(len(self.sounds), p=self.shares))]
            sound = folder[int(rng.integers(len(folder)))]
            speed = np.exp(rng.uniform(*np.log(options.speed)))
            source = int(np.ceil(wanted * speed)) + 1
            start = rng.integers(0, max(len(sound) - source, 0) + 1)
            piece = sound[start : start + source].astype(np.float32) / 32_768
            places = np.arange(min(wanted, int((len(piece) - 1) / speed) + 1)) * speed
            wave = np.interp(places, np.arange(len(piece)), piece).astype(np.float32)
            if len(wave) < wanted:  # somewhere in silence; half of them start at once, as most clips do
                before = int(rng.integers(0, wanted - len(wave) + 1)) if rng.random() < 0.5 else 0
                wave = np.pad(wave, (before, wanted - len(wave) - before))
        if rng.random() < options.short:
            length = int(rng.uniform(0.2, 0.9) * SAMPLE_RATE)
            place = int(rng.integers(0, wanted - length + 1)) if wanted > length else 0
            kept = wave[place : place + length]
            shift = place if rng.random() < 0.5 else 0
            wave = np.pad(kept, (shift, wanted - len(kept) - shift))
        return wave


def _rms(wave: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(wave))))


def coloured_noise(samples: int, slope: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise with power falling as ``1 / f ** slope`` (0 white, 1 pink, 2 brown), of root mean square 1."""
    spectrum = scipy.fft.rfft(rng.standard_normal(samples, np.float32))
    spectrum[0] = 0
    spectrum[1:] *= np.arange(1, len(spectrum), dtype=np.float32) ** np.float32(-slope / 2)
    wave = scipy.fft.irfft(spectrum, samples)
    return (wave / max(_rms(wave), 1e-9)).astype(np.float32)


def synthetic(samples: int, rng: np.random.Generator) -> np.ndarray:
    """A made-up sound, float32 ``(samples,)``: coloured noise, a chord, a sweep or clicks."""
    time = np.arange(samples, dtype=np.float32) / SAMPLE_RATE
    kind = rng.integers(4)
    if kind == 0:
        wave = 0.2 * coloured_noise(samples, rng.uniform(0, 2), rng)
    elif kind == 1:
        pitches = np.exp(rng.uniform(np.log(80), np.log(6_000), rng.integers(1, 5)))
        wave = sum(rng.uniform(0.05, 0.3) * np.sin(2 * np.pi * pitch * time) for pitch in pitches)
        wave = wave * np.exp(-time * rng.uniform(0, 8))
    elif kind == 2:
        low, high = np.exp(rng.uniform(np.log(80), np.log(7_000), 2))
        pitch = low + (high - low) * time / time[-1]
        wave = rng.uniform(0.05, 0.5) * np.sin(2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE)
    else:
        wave = np.zeros(samples, np.float32)
        length = int(rng.uniform(0.001, 0.02) * SAMPLE_RATE)
        click = coloured_noise(length, rng.uniform(0, 1), rng) * np.hanning(length)
        for start in rng.integers(0, samples - length, rng.integers(1, 12)):
            wave[start : start + length] += rng.uniform(0.05, 0.4) * click
    return np.asarray(wave, np.float32)
