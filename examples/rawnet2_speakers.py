"""Train RawNet2 from scratch to tell speakers apart, on a folder of recordings named like FSDD's.

    python examples/rawnet2_speakers.py recordings/ -o speakers.keras

Files are ``{digit}_{speaker}_{index}.wav``; the official test are the indices 0 to 4. Every epoch hears another piece
of each recording.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np

import tfaudiotl as tl


def crops(clips: list[np.ndarray], samples: int, rng: np.random.Generator) -> np.ndarray:
    """A random piece of each clip, ``(clips, samples)``; short clips are padded with zeros."""
    rows = np.zeros((len(clips), samples), np.float32)
    for row, clip in zip(rows, clips, strict=True):
        start = rng.integers(max(1, len(clip) - samples + 1))
        piece = clip[start : start + samples]
        row[: len(piece)] = piece
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--field", type=int, default=1, help="part of the name that is the class: 0 digit, 1 speaker")
    parser.add_argument("--samples", type=int, default=4_000, help="samples that the network hears at once")
    parser.add_argument("--sample-rate", type=int, default=8_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=Path("speakers.keras"))
    options = parser.parse_args()
    keras.utils.set_random_seed(options.seed)
    rng = np.random.default_rng(options.seed)

    paths = sorted(options.folder.glob("*.wav"))
    labels = [path.stem.split("_")[options.field] for path in paths]
    held = [int(path.stem.split("_")[2]) < 5 for path in paths]
    clips = tl.Clips.from_files(paths, labels)
    train, test = (clips[[row for row, out in enumerate(held) if out is wanted]] for wanted in (False, True))
    model = tl.build_classifier(
        "rawnet2",
        class_names=clips.class_names,
        weights=None,
        trainable="all",
        hidden=(),
        dropout=0.0,
        samples=options.samples,
        backbone_options={"sample_rate": options.sample_rate},
        seed=options.seed,
    )
    steps = -(-len(train) // options.batch_size) * options.epochs
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    model.compile(keras.optimizers.Adam(schedule), "categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    sound = [train.load(row, sample_rate=options.sample_rate) for row in range(len(train))]
    for epoch in range(options.epochs):
        model.fit(
            crops(sound, options.samples, rng), train.targets, batch_size=options.batch_size, epochs=epoch + 1,
            initial_epoch=epoch, verbose=2,
        )  # fmt: skip
        model.save(options.output)
        print(f"epoch {epoch + 1}: accuracy on the test {tl.evaluate(model, test).accuracy:.4f}", flush=True)


if __name__ == "__main__":
    main()
