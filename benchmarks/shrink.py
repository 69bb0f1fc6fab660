"""A classifier of your own, shrunk: YAMNet with a head distilled into yamnet_mini, against the labels alone.

    python -m benchmarks.shrink FOLDER SAVED_MODEL [--start FILE.npz] [--folds 4,5] [--seeds 2]

For each fold: the teacher (YAMNet, frozen, with a head) trains on the other folds; its student hears the same clips
without their labels; two more students of the same network train all their weights on the labels, for the same number
of steps of the same size, one from the same start and one from random weights. All are measured on the fold, as means
over the seeds. START must not have heard the folds either. The student's settings (layer8, the scores' weight, the
temperature, the mild mixing) were chosen on folds 2 and 3.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace

import keras
import numpy as np

import tfaudiotl as tl
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.markdown import markdown_table
from tfaudiotl.training.distill import DistillOptions, MixOptions, distill

PATCH = 15_600
MIXING = MixOptions(mix=0.3, noise=0.1, narrow=0.05, short=0.1, synthetic=0.0, speed=(0.9, 1.1))


def labelled(train: tl.Clips, waveforms: list[np.ndarray], start: str | None, options: DistillOptions) -> keras.Model:
    """The student network trained on the labels: random patches of the clips, as many as the distilled one learns."""
    plain = {"class_names": train.class_names, "hidden": (), "dropout": 0.0}
    model = build_classifier("yamnet_mini", weights=start, trainable="all", samples=PATCH, seed=options.seed, **plain)
    steps = options.patches * options.epochs // options.batch_size
    rate = keras.optimizers.schedules.CosineDecay(
        options.learning_rate / 100, steps, warmup_target=options.learning_rate, warmup_steps=max(1, steps // 20)
    )
    model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-4), "categorical_crossentropy", jit_compile=False)
    rng = np.random.default_rng(options.seed)
    rows = rng.integers(len(train), size=steps * options.batch_size)
    starts = [rng.integers(max(1, len(waveforms[row]) - PATCH)) for row in rows]
    pieces = [waveforms[row][begin : begin + PATCH] for row, begin in zip(rows, starts, strict=True)]
    x = np.stack([np.pad(piece, (0, PATCH - len(piece))) for piece in pieces])
    x *= 10 ** (rng.uniform(-18, 6, (len(x), 1)) / 20).astype(np.float32)
    model.fit(x, train.targets[rows], batch_size=options.batch_size, epochs=1, verbose=0, shuffle=False)
    whole = build_classifier("yamnet_mini", weights=None, **plain)
    whole.set_weights(model.get_weights())
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("weights")
    parser.add_argument("--start", default="audioset")
    parser.add_argument("--folds", default="4,5")
    parser.add_argument("--fold-pattern", default=r"^(\d)-")
    parser.add_argument("--patches", type=int, default=8_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    clips = tl.Clips.from_directory(arguments.folder, fold_pattern=arguments.fold_pattern)
    options = DistillOptions(
        patches=arguments.patches, epochs=arguments.epochs, learning_rate=1e-3, scores_weight=5.0, temperature=4.0,
        mixing=MIXING,
    )  # fmt: skip
    rows = []
    for fold in arguments.folds.split(","):
        train, test = clips[clips.fold != fold], clips[clips.fold == fold]
        teacher = tl.train_classifier(train, weights=arguments.weights, test=0.15).model
        reached = tl.evaluate(teacher, test).accuracy
        waveforms = [train.load(row) for row in range(len(train))]
        found: list[dict[str, float]] = []
        for seed in range(arguments.seeds):
            students = trained(teacher, train, waveforms, arguments.start, replace(options, seed=seed))
            found.append({name: tl.evaluate(model, test).accuracy for name, model in students})
            print(fold, seed, reached, found[-1], flush=True)
        means = {name: float(np.mean([each[name] for each in found])) for name in found[0]}
        rows.append(
            (fold, f"{reached:.4f}", *(f"{mean:.4f}" for mean in means.values()), f"{means['distilled'] / reached:.3f}")
        )
    print(markdown_table(["Fold", "teacher", *means, "Distilled / teacher"], rows))


def trained(
    teacher: keras.Model, train: tl.Clips, waveforms: list[np.ndarray], start: str | None, options: DistillOptions
) -> Iterator[tuple[str, keras.Model]]:
    """The student, and those that learn from the labels."""
    sounds = [[(np.clip(waveform, -1, 1) * 32_767).astype(np.int16) for waveform in waveforms]]
    yield "distilled", distill(teacher, sounds, embedding="layer8", student_weights=start, options=options).model
    yield "labels", labelled(train, waveforms, start, options)
    yield "labels, random start", labelled(train, waveforms, None, options)


if __name__ == "__main__":
    main()
