"""Aliases of the resampler, and YAMNet embeddings through it against those through librosa's default resampler.

    python -m benchmarks.resampling ESC-10 YAMNET        (pip install librosa)

Tones and sweeps at 44.1 and 48 kHz, full scale, to 16 kHz: the loudest thing heard of what lies above 8 kHz.
"""

from __future__ import annotations

import sys

import numpy as np
import soundfile

from tfaudiotl import Clips, Extractor, resample

SECONDS = 4.0


def level(samples: np.ndarray) -> float:
    """Peak, dB of full scale; without the ends, where filters ring."""
    return 20 * np.log10(np.abs(samples[1_600:-1_600]).max() + 1e-12)


def aliases(rate: int) -> tuple[float, float]:
    """The loudest alias of tones from 8.1 kHz up, and of a sweep from there to half the rate."""
    time = np.arange(int(SECONDS * rate)) / rate
    tones = [level(resample(np.sin(2 * np.pi * hz * time), rate, 16_000)) for hz in range(8_100, rate // 2, 400)]
    low, high = 8_100, 0.499 * rate
    sweep = np.sin(2 * np.pi * (low * time + (high - low) / (2 * SECONDS) * time**2))
    return max(tones), level(resample(sweep, rate, 16_000))


def main(esc10: str, yamnet: str) -> None:
    import librosa

    for rate in (44_100, 48_000):
        print(f"{rate} Hz: loudest alias of a tone %.1f dB, of a sweep %.1f dB" % aliases(rate))
    clips = Clips.from_directory(esc10)
    ours, theirs = [], []
    for row, path in enumerate(clips.paths):
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        ours.append(clips.load(row))
        theirs.append(librosa.resample(samples.mean(axis=1), orig_sr=rate, target_sr=16_000))
        assert len(ours[-1]) == len(theirs[-1])
    network = Extractor("yamnet", weights=yamnet).network
    found, expected = (np.concatenate([rows[0] for rows in network.run(waves)]) for waves in (ours, theirs))
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = (found * expected).sum(axis=1) / np.maximum(norms, 1e-30)
    silent = int((norms == 0).sum())
    print(f"{len(cosines)} patches of {len(clips)} clips, {silent} with an embedding of zeros")
    print(f"cosine to librosa's default: least {cosines[norms > 0].min():.6f}, mean {cosines[norms > 0].mean():.6f}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
