"""From scratch, head only, last blocks, everything: ESC-10's five folds and FSDD's official test, with seeds.

python -m benchmarks.strategies ESC10_FOLDER FSDD_FOLDER SAVED_MODEL [--seeds 2] [--only esc10] [--whole --refit]
"""

from __future__ import annotations

import argparse
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from tfaudiotl.data.clips import Clips
from tfaudiotl.data.folders import from_names, sound_files
from tfaudiotl.training.compare import Comparison, compare_strategies, strategies

# One patch: a spoken digit is hardly longer. ESC-10's clips are cut into such windows and every second one is learned,
# so that training everything takes minutes on two cores; --whole learns the clips whole. Whole clips are measured.
WINDOW = 0.975
EVERY = {"esc10": 2, "fsdd": 1}
OPTIONS: dict[str, dict[str, Any]] = {
    "esc10": {"trainable": 2, "learning_rate": 1e-4},
    # Chosen on recordings 5 to 9, with 10 and up to learn.
    "fsdd": {"trainable": "layer7", "learning_rate": 1e-3, "label_smoothing": 0.1, "block_decay": 1.0},
}


def fsdd(folder: str) -> list[tuple[Clips, Clips]]:
    """Recordings 0 to 4 of each speaker and digit are the test."""
    paths = [str(path) for path in sound_files(Path(folder))]
    test = np.array([int(number) < 5 for number in from_names(paths, "", r"_(\d+)\.wav$")])
    clips = Clips.from_files(paths, from_names(paths, "", r"^(\d)_"))
    return [(clips[~test], clips[test])]


def esc10(folder: str) -> list[tuple[Clips, Clips]]:
    clips = Clips.from_directory(folder, fold_pattern=r"^(\d)-")
    return [(train, test) for _, train, test in clips.folds()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("esc10")
    parser.add_argument("fsdd")
    parser.add_argument("weights")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", choices=["esc10", "fsdd"])
    parser.add_argument("--which", nargs="*", type=int, help="numbers of the strategies, from 0")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--head-epochs", type=int, default=20)
    parser.add_argument("--whole", action="store_true", help="train on whole clips, not on windows of one patch")
    parser.add_argument("--refit", action="store_true", help="when to stop is known: train again, on all clips")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    for name, splits in (("esc10", esc10), ("fsdd", fsdd)):
        if options.only not in (None, name):
            continue
        tuning = dict(OPTIONS[name])
        ways = strategies(tuning.pop("trainable"))
        found: list[Comparison] = []
        for train, test in splits(getattr(options, name)):
            learn = train if options.whole else train.windows(WINDOW)[:: EVERY[name]]
            found.append(
                compare_strategies(
                    learn,
                    test,
                    weights=options.weights,
                    which=[ways[number] for number in options.which] if options.which else ways,
                    seeds=range(options.seeds),
                    window_seconds=10.0 if options.whole else WINDOW,
                    head_epochs=options.head_epochs,
                    epochs=options.epochs,
                    refit=options.refit,
                    **tuning,
                    say=lambda line: print(line, flush=True),
                )
            )
        table = reduce(add, found)
        print(f"{name}\n{table.to_markdown()}", flush=True)
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / f"{name}.md").write_text(table.to_markdown() + "\n", encoding="utf-8")
            table.plot(options.out / f"{name}.png")


if __name__ == "__main__":
    main()
