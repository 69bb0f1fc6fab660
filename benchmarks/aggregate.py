"""Average the patches' scores or their embeddings? Accuracy over the folds of a folder, both ways, several seeds.

python -m benchmarks.aggregate FOLDER SAVED_MODEL [--fold-pattern REGEX] [--seeds 3]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile

from tfaudiotl.data.clips import Clips
from tfaudiotl.training.options import FitOptions
from tfaudiotl.training.train import train_classifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("weights")
    parser.add_argument("--fold-pattern", default=r"^(\d)-")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    clips = Clips.from_directory(options.folder, fold_pattern=options.fold_pattern)
    for aggregate in ("scores", "embeddings"):
        accuracies = []
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as work:
                result = train_classifier(
                    clips,
                    folds="given",
                    fit=FitOptions(seed=seed),
                    workdir=work,
                    weights=options.weights,
                    aggregate=aggregate,
                )
            accuracies.append(result.evaluation.accuracy)
        spread = statistics.pstdev(accuracies)
        each = ", ".join(f"{accuracy:.4f}" for accuracy in accuracies)
        print(f"{aggregate:12s} {statistics.mean(accuracies):.4f} +- {spread:.4f} ({each})", flush=True)


if __name__ == "__main__":
    main()
