"""Half precision against float32: accuracy over a folder's folds, and many steps on loud, silent and clipped sound.

python -m benchmarks.precision FOLDER SAVED_MODEL [--steps 2000] [--fold-pattern REGEX]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from tests.training.test_precision import train_steps

from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.data.clips import Clips
from tfaudiotl.devices import PRECISIONS, set_precision
from tfaudiotl.training.options import FitOptions
from tfaudiotl.training.train import train_classifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("weights")
    parser.add_argument("--fold-pattern", default=r"^(\d)-")
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS))
    options = parser.parse_args()
    clips = Clips.from_directory(options.folder, fold_pattern=options.fold_pattern)
    print("| precision | accuracy over the folds | s | finite losses | last losses |\n|---|---|---|---|---|")
    for precision in options.precisions:
        set_precision(precision)
        start = time.perf_counter()
        result = train_classifier(clips, folds="given", weights=options.weights, fit=FitOptions(seed=0))
        taken = time.perf_counter() - start
        model = build_classifier(
            "yamnet", class_names=["a", "b", "c"], weights=options.weights, trainable="layer13", seed=0, samples=15_600
        )
        losses = train_steps(model, options.steps)
        finite = int(np.isfinite(losses).sum())
        print(
            f"| {precision} | {result.evaluation.accuracy:.4f} | {taken:.0f} | {finite} of {len(losses)} | "
            f"{np.mean(losses[-50:]):.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
