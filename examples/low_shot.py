"""Snore or not: a detector from a few clips of each of two folders, with the threshold for a wanted false-alarm rate.

    python examples/low_shot.py snore/ other/ [--shots 8] [--false-alarms 0.02] [--draws 20] [--weights audioset]

The first folder is what to find. In every draw, `shots` clips of each are for training, half of the others choose the
threshold, and the rest is the test. The last head is saved as detector.keras and detector.tflite.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tfaudiotl as tl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wanted", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--embedding", default="layer13")
    parser.add_argument("--weights", default="audioset")
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--false-alarms", type=float, default=0.02)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, default=Path("detector"))
    options = parser.parse_args()
    found = [sorted(path for path in folder.iterdir() if path.is_file()) for folder in (options.wanted, options.other)]
    vectors = tl.embed("yamnet", [*found[0], *found[1]], embedding=options.embedding, weights=options.weights)
    labels = np.repeat([1, 0], [len(part) for part in found])
    table = [one_draw(vectors, labels, options.shots, options.false_alarms, seed) for seed in range(options.draws)]
    rows = np.array([row for row, _ in table])
    for name, column in zip(("precision", "recall", "false alarms", "ROC-AUC", "threshold"), rows.T, strict=True):
        print(f"{name}: {column.mean():.3f} +- {column.std():.3f}")
    head = table[-1][1]
    names = [options.other.name, options.wanted.name]
    model = tl.classifier_from_sklearn(head, class_names=names, embedding=options.embedding, weights=options.weights)
    model.save(options.output.with_suffix(".keras"))
    tl.export_tflite(model, options.output.with_suffix(".tflite"), overwrite=True)


def one_draw(vectors: np.ndarray, labels: np.ndarray, shots: int, false_alarms: float, seed: int) -> tuple:
    """Precision, recall and false alarms at the chosen threshold, ROC-AUC, the threshold; and the head."""
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(np.flatnonzero(labels == label)) for label in (1, 0)]
    train = np.concatenate([rows[:shots] for rows in shuffled])
    val = np.concatenate([rows[shots : (shots + len(rows)) // 2] for rows in shuffled])
    test = np.concatenate([rows[(shots + len(rows)) // 2 :] for rows in shuffled])
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2_000)).fit(vectors[train], labels[train])
    scores = head.predict_proba(vectors)[:, 1]
    chosen = tl.choose_threshold(scores[val], labels[val], goal="false_alarms", value=false_alarms)
    heard = scores[test] >= chosen.value
    truth = labels[test] == 1
    precision = (heard & truth).sum() / max(1, heard.sum())
    evaluation = tl.evaluate_scores(scores[test, None], truth[:, None], class_names=["wanted"], multi_label=True)
    area = tl.roc_auc(evaluation)["wanted"]
    return (precision, heard[truth].mean(), heard[~truth].mean(), area, chosen.value), head


if __name__ == "__main__":
    main()
