"""How much of a rare class's recall comes back: each class of ESC-10 in turn is cut to a tenth of its training clips.

    python -m benchmarks.imbalance ESC-10 YAMNET [FOLD ...]

Frozen YAMNet; the five official folds; the recipe of ``train_classifier`` (number of epochs from an inner part of the
training clips, then again on all of them). "given back" is the share of the recall lost by the cut that a remedy
returns, over the means of all classes and folds.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")  # the heads are too small for more

import keras
import numpy as np

from tfaudiotl import Clips, FitOptions, build_classifier
from tfaudiotl.augment.chain import mild_augmentation
from tfaudiotl.augment.layers import Augmentation
from tfaudiotl.classifiers.anatomy import parts
from tfaudiotl.embeddings.engine import PatchNetwork, embed_clips
from tfaudiotl.training.batches import Sounds
from tfaudiotl.training.head import Examples, clip_scores, fit_head, new_head
from tfaudiotl.training.options import VAL

COPIES = 4
REMEDIES = {
    "nothing": FitOptions(class_weight=None),
    "class weights": FitOptions(class_weight="balanced"),
    "balanced sampling": FitOptions(class_weight=None, sampling="balanced"),
    "focal loss": FitOptions(class_weight=None, loss="focal"),
    "focal loss and weights": FitOptions(class_weight="balanced", loss="focal"),
}
OVERSAMPLED = "the rare class oversampled, with augmentation"


def changed_examples(network: PatchNetwork, clips: Clips, augment: Augmentation, *, copies: int) -> list[Examples]:
    """The embeddings of ``copies`` changed versions of all clips."""
    every = np.arange(len(clips))
    sounds = Sounds.of([clips], sample_rate=network.frontend.spec.sample_rate)
    changed = sounds.changed(augment, copies=copies, rows=every, seed=0)
    found = [output[0] for output in network.run_jobs(changed.jobs[len(clips) :])]
    made = []
    for start in range(0, len(found), len(clips)):
        part = found[start : start + len(clips)]
        counts = np.array([len(vectors) for vectors in part])
        made.append(Examples(np.concatenate(part), counts, clips.targets, clips.weights))
    return made


class Study:
    """The embeddings of all clips, and the heads trained on parts of them."""

    def __init__(self, folder: str, yamnet: str):
        self.clips = Clips.from_directory(folder, fold_pattern=r"^(\d)-")
        self.labels = self.clips.label_ids
        model = build_classifier(class_names=self.clips.class_names, weights=yamnet, seed=0)
        network = PatchNetwork(model, [model.get_layer("patch_embedding").output])
        found, (targets, weights) = embed_clips(network, self.clips), (self.clips.targets, self.clips.weights)
        self.examples = Examples(found.vectors, found.counts, targets, weights)
        self.variants = changed_examples(network, self.clips, mild_augmentation(), copies=COPIES)
        self.head = parts(model).head

    def recalls(self, rows: np.ndarray, test: np.ndarray, options: FitOptions, rare: int | None = None) -> np.ndarray:
        """Of every class, on the test clips; ``rare``: a class to oversample in training."""
        inner, stop = self.clips[rows].split(val=VAL, seed=0)
        chosen = fit_head(
            new_head(self.head), self.taken(inner.source, rare), self.examples.take(stop.source), options
        ).best_epochs
        head = new_head(self.head)
        fit_head(head, self.taken(rows, rare), None, options, epochs=chosen)
        found = clip_scores(head, self.examples.take(test)).argmax(axis=1)
        keras.backend.clear_session()
        return np.array([(found[self.labels[test] == c] == c).mean() for c in range(len(self.clips.class_names))])

    def taken(self, train: np.ndarray, rare: int | None) -> Examples:
        """The training clips, and changed versions of the rare class's until there are as many as of the others."""
        if rare is None:
            return self.examples.take(train)
        own = train[self.labels[train] == rare]
        wanted = np.bincount(self.labels[train]).max()
        pairs = [(copy, row) for copy in range(COPIES) for row in own]
        chosen = [pairs[n % len(pairs)] for n in range(wanted - len(own))]
        extra = [self.variants[copy].take(np.array([row])) for copy, row in chosen]
        return self.examples.take(train).with_variants(extra)


def main(folder: str, yamnet: str, *only: str) -> None:
    study = Study(folder, yamnet)
    names = [*REMEDIES, OVERSAMPLED]
    found = {name: np.full((5, 10), np.nan) for name in ["all clips", *names]}
    for number, (fold, train, test) in enumerate(study.clips.folds()):
        if only and fold not in only:
            continue
        found["all clips"][number] = study.recalls(train.source, test.source, REMEDIES["nothing"])
        for rare in range(10):
            own = np.flatnonzero(study.labels[train.source] == rare)
            kept = np.random.default_rng([number, rare]).permutation(own)[: max(1, round(len(own) / 10))]
            cut = np.sort(np.concatenate([np.setdiff1d(np.arange(len(train)), own), kept]))
            cut_rows = train.source[cut]
            for name, options in REMEDIES.items():
                found[name][number, rare] = study.recalls(cut_rows, test.source, options)[rare]
            recalls = study.recalls(cut_rows, test.source, REMEDIES["nothing"], rare)
            found[OVERSAMPLED][number, rare] = recalls[rare]
        print(f"fold {number + 1}: " + ", ".join(f"{n} {found[n][number].mean():.3f}" for n in found), flush=True)
    found = {name: recalls[~np.isnan(recalls[:, 0])] for name, recalls in found.items()}
    full, cut_recall = found["all clips"].mean(), found["nothing"].mean()
    print("\n| | recall of the rare class | over the folds | given back |\n|---|---|---|---|")
    for name, recalls in found.items():
        back = "" if name in ("all clips", "nothing") else f"{(recalls.mean() - cut_recall) / (full - cut_recall):.0%}"
        print(f"| {name} | {recalls.mean():.3f} | +- {recalls.mean(axis=1).std():.3f} | {back} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
