r"""Features with a support vector machine, with a dense head, or fine-tuned: what is each worth?

    python examples/study_svm.py FOLDER --fold-pattern '^(\d)-' [--backbone vggish] [--weights PATH] [--embedding a,b]

FOLDER has one sub-folder of recordings per class; the pattern finds the fold in a file's name (else folds are
drawn). For every fold: the mean of a clip's patches, standardised, and an SVM (RBF) whose C is chosen inside the
training part; the recipe of `tfaudiotl train`; the same with the last two blocks fine-tuned.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import tfaudiotl as tl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fold-pattern")
    parser.add_argument("--folds", type=int, default=5, help="to draw, without a pattern")
    parser.add_argument("--backbone", default="vggish")
    parser.add_argument("--weights", default="audioset")
    parser.add_argument("--embedding", default="embedding")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    clips = tl.Clips.from_directory(options.folder, fold_pattern=options.fold_pattern)
    folds = list(clips.folds("given" if options.fold_pattern else options.folds, seed=options.seed))
    network = {"backbone": options.backbone, "weights": options.weights}
    rows: dict[str, list[tuple[float, float]]] = {}
    for layer in options.embedding.split(","):
        start = perf_counter()
        vectors = tl.embed(options.backbone, list(clips.paths), embedding=layer, weights=options.weights)
        shared = (perf_counter() - start) / len(folds)
        for _, train, test in folds:
            start = perf_counter()
            search = GridSearchCV(make_pipeline(StandardScaler(), SVC()), {"svc__C": [1, 3, 10, 30]}, cv=4)
            search.fit(vectors[train.source], clips.label_ids[train.source])
            accuracy = search.score(vectors[test.source], clips.label_ids[test.source])
            rows.setdefault(f"{layer} + SVM", []).append((accuracy, shared + perf_counter() - start))
    for _, train, test in folds:
        start = perf_counter()
        model = tl.train_classifier(train, **network, test=0.15, fit=tl.FitOptions(seed=options.seed)).model
        rows.setdefault("dense head", []).append((tl.evaluate(model, test).accuracy, perf_counter() - start))
        way = tl.Strategy("last 2 blocks", options={"trainable": 2})
        run = tl.compare_strategies(train, test, **network, which=[way], seeds=[options.seed]).runs[0]
        rows.setdefault("last 2 blocks fine-tuned", []).append((run.accuracy, run.seconds))
    print(f"| {options.backbone} | accuracy | seconds for a fold |\n|---|---|---|")
    for name, found in rows.items():
        accuracy, seconds = np.array(found).T
        print(f"| {name} | {accuracy.mean():.4f} ± {accuracy.std():.4f} | {seconds.mean():.1f} |")


if __name__ == "__main__":
    main()
