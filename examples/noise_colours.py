"""Noise colours told apart from five clips of each, in plain Keras: ``python examples/noise_colours.py OUT``.

Needs no network: the backbone's weights are in the package. ``tfaudiotl demo`` does the same with a report.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np

import tfaudiotl as tl
from tfaudiotl.audio.waveform import Colour, coloured_noise

COLOURS: tuple[Colour, ...] = ("white", "brown", "pink")
CLIPS, TRAINED_ON, SAMPLES = 100, 5, 15_680  # per colour; 0.98 s at 16 kHz


def noise(colour: Colour, rng: np.random.Generator) -> np.ndarray:
    wave = coloured_noise(colour, SAMPLES, rng)
    return wave / np.abs(wave).max()


def main(out: str, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    x = np.stack([noise(colour, rng) for colour in COLOURS for _ in range(CLIPS)])
    y = np.repeat(np.eye(len(COLOURS), dtype=np.float32), CLIPS, axis=0)
    training = np.arange(len(x)) % CLIPS < TRAINED_ON

    model = tl.build_classifier(
        "yamnet_mini", class_names=COLOURS, hidden=(), dropout=0.0, learning_rate=5e-3, seed=seed
    )
    model.get_layer("head_batch_norm").momentum = 0.5  # 15 clips are few steps to learn statistics in
    model.fit(
        x[training], y[training], validation_data=(x[~training], y[~training]), batch_size=5, epochs=20, verbose=2
    )

    predicted = model.predict(x[~training], verbose=0).argmax(axis=1)
    confusion = np.zeros((len(COLOURS), len(COLOURS)), int)
    np.add.at(confusion, (y[~training].argmax(axis=1), predicted), 1)
    print(f"Validation accuracy {np.trace(confusion) / confusion.sum():.4f} on {confusion.sum()} clips\n{confusion}")

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / "noise_colours.keras")
    tl.export_tflite(model, folder / "noise_colours.tflite", overwrite=True)
    reloaded = keras.saving.load_model(folder / "noise_colours.keras")
    small = tl.Predictor(folder / "noise_colours.tflite")
    same = reloaded.predict(x, verbose=0).argmax(axis=1)
    agree = sum(small.scores(clip, sample_rate=16_000).argmax() == best for clip, best in zip(x, same, strict=True))
    print(f"The .tflite file agrees with the reloaded model on {agree} of {len(x)} clips; both are in {folder}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
