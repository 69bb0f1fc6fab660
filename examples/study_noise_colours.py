"""White, pink or brown noise, from five clips of each: what a frozen network and a linear head make of it.

    python examples/study_noise_colours.py [--backbone yamnet] [--weights audioset] [--shots 5] [--seeds 5]

The sounds are made here: 100 of 0.98 s of each colour, as in MATLAB's "Transfer Learning with Pretrained Audio
Networks"; `shots` of each are for training, the others for the test. One line per layer: mean and standard deviation of
the test accuracy over the seeds.
"""

from __future__ import annotations

import argparse

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tfaudiotl as tl
from tfaudiotl.audio.waveform import Colour, coloured_noise

COLOURS: tuple[Colour, ...] = ("white", "pink", "brown")
CLIPS, SAMPLES = 100, 15_680


def noise(colour: Colour, rng: np.random.Generator) -> np.ndarray:
    """Noise of 0.98 s, at most 1 in magnitude, of varying loudness."""
    wave = coloured_noise(colour, SAMPLES, rng)
    return rng.uniform(0.1, 1) * wave / np.abs(wave).max()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="yamnet")
    parser.add_argument("--weights", default="audioset", help='"none": random')
    parser.add_argument("--embedding", default="log_mel,layer2,layer6,layer10,layer14")
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    weights = None if options.weights == "none" else options.weights
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    labels = np.repeat(list(COLOURS), CLIPS)
    sounds = [noise(label, rng) for label in labels]
    layers = options.embedding.split(",")
    joined = tl.embed(options.backbone, sounds, embedding=layers, weights=weights)
    widths = [layer.width for layer in tl.embedding_layers(options.backbone) if layer.name in layers]
    for layer, vectors in zip(layers, np.split(joined, np.cumsum(widths)[:-1], axis=1), strict=True):
        found = [accuracy(vectors, labels, options.shots, seed) for seed in range(options.seeds)]
        print(f"{layer}: {np.mean(found):.4f} +- {np.std(found):.4f}")


def accuracy(vectors: np.ndarray, labels: np.ndarray, shots: int, seed: int) -> float:
    """Of a linear head trained on `shots` clips of each colour."""
    rng = np.random.default_rng(seed)
    train = np.concatenate([rng.permutation(np.flatnonzero(labels == colour))[:shots] for colour in COLOURS])
    test = np.setdiff1d(np.arange(len(labels)), train)
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2_000)).fit(vectors[train], labels[train])
    return float(head.score(vectors[test], labels[test]))


if __name__ == "__main__":
    main()
