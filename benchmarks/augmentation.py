"""What each augmentation is worth, with few clips and with all, on a frozen YAMNet.

    python -m benchmarks.augmentation esc10 ESC-10 YAMNET [KIND ...]
    python -m benchmarks.augmentation fsdd FSDD/recordings YAMNET

ESC-10: each of the five official folds is the test part once. FSDD: each of five speakers. Of the rest, 3 or 10 clips
of each class are drawn, or all are taken (for the chain only), and the recipe of ``train_classifier`` is followed
(number of epochs from an inner part, then again on everything): an epoch hears each clip as it is or as one of four
changed versions. Accuracies are means over the five.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")  # the heads are too small for more

import keras
import numpy as np
import tensorflow as tf

from benchmarks.imbalance import changed_examples
from tfaudiotl import Clips, FitOptions, build_classifier
from tfaudiotl.augment.chain import mild_augmentation
from tfaudiotl.augment.layers import (
    Augmentation,
    MixUp,
    RandomCrop,
    RandomEqualizer,
    RandomGain,
    RandomNoise,
    RandomReverb,
    RandomShift,
    RandomSpeed,
    SeededDraws,
    SpecAugment,
)
from tfaudiotl.classifiers.anatomy import parts
from tfaudiotl.embeddings.engine import PatchNetwork, embed_clips
from tfaudiotl.training.head import Examples, clip_scores, fit_head, new_head
from tfaudiotl.training.options import VAL
from tfaudiotl.training.train import inner_split

COPIES, DRAWS, SHOTS = 4, 5, (3, 10, None)
WITH_ALL = ("none", "augment=True")  # with all clips one layer alone would be lost in the noise
WAVEFORM: dict[str, Augmentation] = {
    "augment=True": mild_augmentation(),
    "gain": RandomGain((-6, 6)),
    "shift": RandomShift(0.5),
    "noise": RandomNoise((10, 30)),
    "equalizer": RandomEqualizer(6.0),
    "speed": RandomSpeed((0.9, 1.1)),
    "reverb": RandomReverb((0.1, 0.5)),
    "crop": RandomCrop(3.0),
}


def load(name: str, folder: str) -> tuple[Clips, np.ndarray]:
    """The clips, and the part that each is in: fold or speaker."""
    if name == "esc10":
        clips = Clips.from_directory(folder, fold_pattern=r"^(\d)-")
        return clips, np.asarray(clips.fold)
    files = sorted(Path(folder).glob("*.wav"))
    clips = Clips.from_files(files, [file.stem.split("_")[0] for file in files])
    return clips, np.array([file.stem.split("_")[1] for file in files])


class Masked:
    """A front-end whose patches have stripes covered."""

    def __init__(self, frontend: Any, seed: int):
        self._frontend, self.spec, self._seed, self._count = frontend, frontend.spec, seed, 0
        self._layer = SpecAugment(max_frames=16, max_bands=8)

    def patches(self, waveform: np.ndarray) -> np.ndarray:
        self._count += 1
        draws = SeededDraws(tf.constant([self._seed, 1_000 * self._count], tf.int64))
        return np.asarray(self._layer.augment(self._frontend.patches(waveform), draws))


class Study:
    """The embeddings of every clip and of its changed versions, made once."""

    def __init__(self, clips: Clips, yamnet: str, kinds: list[str]):
        self.clips = clips
        self.model = build_classifier(class_names=clips.class_names, weights=yamnet, seed=0)
        self.network = PatchNetwork(self.model, [self.model.get_layer("patch_embedding").output])
        found = embed_clips(self.network, clips)
        self.examples = Examples(found.vectors, found.counts, clips.targets, clips.weights)
        self.variants: dict[str, list[Examples]] = {"none": []}
        for kind in kinds:
            if kind in WAVEFORM:
                self.variants[kind] = changed_examples(self.network, clips, WAVEFORM[kind], copies=COPIES)
            else:
                self.variants[kind] = [self._masked(copy) for copy in range(COPIES)]

    def _masked(self, copy: int) -> Examples:
        plain, self.network.frontend = self.network.frontend, Masked(self.network.frontend, copy)  # type: ignore[assignment]
        found = embed_clips(self.network, self.clips)
        self.network.frontend = plain
        return Examples(found.vectors, found.counts, self.clips.targets, self.clips.weights)

    def mixed(self, rows: np.ndarray) -> list[Examples]:
        """Mixtures of the training clips among themselves."""
        part, made = self.clips[rows], []
        for copy in range(COPIES):
            dataset = part.dataset(batch_size=128, shuffle=True, seed=copy, augment=MixUp(0.4))
            pairs = list(dataset.as_numpy_iterator())
            outputs = [out[0] for out in self.network.run(wave for waves, _ in pairs for wave in waves)]
            targets = np.concatenate([targets for _, targets in pairs])
            counts = np.array([len(out) for out in outputs])
            made.append(Examples(np.concatenate(outputs), counts, targets, np.ones(len(counts), np.float32)))
        return made

    def accuracy(self, train: np.ndarray, test: np.ndarray, kind: str, options: FitOptions) -> float:
        def taken(rows: np.ndarray) -> list[Examples]:
            return [variant.take(rows) for variant in self.variants.get(kind, [])]

        part = self.clips[train]
        learn, stop = (side.source for side in inner_split(part, val=VAL, seed=options.seed))
        head, examples = parts(self.model).head, self.examples
        chosen = fit_head(
            new_head(head), examples.take(learn), examples.take(stop), options, variants=taken(learn)
        ).best_epochs
        head = new_head(head)
        # Of mixtures the number of epochs is that without them.
        variants = self.mixed(train) if kind == "mixup" else taken(train)
        fit_head(head, examples.take(train), None, options, variants=variants, epochs=chosen)
        scores = clip_scores(head, self.examples.take(test))
        keras.backend.clear_session()
        return float((scores.argmax(axis=1) == self.clips.label_ids[test]).mean())


def draw(clips: Clips, rows: np.ndarray, shots: int | None, seed: int) -> np.ndarray:
    if shots is None:
        return rows
    rng, labels = np.random.default_rng(seed), clips.label_ids
    return np.sort(np.concatenate([rng.permutation(rows[labels[rows] == c])[:shots] for c in np.unique(labels)]))


def main(name: str, folder: str, yamnet: str, kinds: list[str]) -> None:
    clips, parts = load(name, folder)
    kinds = kinds or [kind for kind in WAVEFORM if name == "esc10" or kind != "crop"] + ["masks", "mixup"]
    study = Study(clips, yamnet, [kind for kind in kinds if kind != "mixup"])
    print(f"{name}: {len(clips)} clips, tested on {sorted(set(parts.tolist()))[:DRAWS]}", flush=True)
    for shots in SHOTS:
        plain: list[float] = []
        every = ["none", *kinds]
        for kind in every if shots else [kind for kind in every if kind in WITH_ALL]:
            found = []
            for number, held in enumerate(sorted(set(parts.tolist()))[:DRAWS]):
                train = draw(clips, np.flatnonzero(parts != held), shots, number)
                batch_size = 32 if len(train) < 1_000 else 256
                options = FitOptions(batch_size=batch_size, seed=number, learning_rate=2e-3)
                found.append(study.accuracy(train, np.flatnonzero(parts == held), kind, options))
            plain = plain or found
            gains = np.array(found) - plain
            row = [shots or "all", kind, f"{100 * np.mean(found):.1f}", f"{100 * np.std(found):.1f}"]
            row += [f"{100 * gains.mean():+.1f}", f"{100 * gains.std():.1f}"]
            print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4], sys.argv[4:])
