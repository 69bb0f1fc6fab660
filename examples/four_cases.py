"""Small or large, near or far: what each way of training gives in the four cases, and whether advise() saw it coming.

    python examples/four_cases.py ESC-10 FSDD/recordings --weights path/to/yamnet [--seeds 2] [--epochs 20]

Near are ESC-10's sounds, which are what YAMNet was trained to tell apart; far are FSDD's spoken digits. Large near: is
the sound a living being's? Each training has the same number of epochs at most, and of seconds if they are given. The
test, ESC-10's fold 5 and FSDD's recordings 0 to 4, decides nothing; advise() hears the training clips only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import tfaudiotl as tl

LIVING = ("baby_cry", "dog_bark", "person_sneeze", "rooster")
SMALL, LARGE = 8, 100  # clips of each class
WINDOW = 0.975  # s, one patch


def digits(folder: Path) -> tuple[tl.Clips, tl.Clips]:
    """FSDD's training and test part."""
    paths = sorted(folder.glob("*.wav"))
    clips = tl.Clips.from_files(paths, [path.stem.split("_")[0] for path in paths])
    test = np.array([int(path.stem.split("_")[2]) < 5 for path in paths])
    return clips[~test], clips[test]


def few(clips: tl.Clips, number: int) -> tl.Clips:
    """So many clips of each class."""
    rng, labels = np.random.default_rng(0), clips.label_ids
    drawn = [rng.permutation(np.flatnonzero(labels == label))[:number] for label in range(len(clips.class_names))]
    return clips[np.sort(np.concatenate(drawn))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("near", type=Path)
    parser.add_argument("far", type=Path)
    parser.add_argument("--weights", default="audioset")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seconds", type=float)
    options = parser.parse_args()
    sounds = tl.Clips.from_directory(options.near, fold_pattern=r"^(\d)-")
    living = sounds.relabel({name: "living" if name in LIVING else "other" for name in sounds.class_names})
    last = np.asarray(sounds.fold) == "5"
    far = digits(options.far)
    cases = {
        "small and near": (few(sounds[~last], SMALL), sounds[last]),
        "large and near": (living[~last], living[last]),
        "small and far": (few(far[0], SMALL), far[1]),
        "large and far": (few(far[0], LARGE), far[1]),
    }
    for case, (train, test) in cases.items():
        advice = tl.advise(train, weights=options.weights)
        budget = {
            "weights": options.weights, "seeds": range(options.seeds), "epochs": options.epochs,
            "seconds": options.seconds, "window_seconds": WINDOW, "say": lambda line: print(line, flush=True),
        }  # fmt: skip
        blocks = advice.trainable if advice.strategy == "last blocks" else 2
        advised = advice.strategy
        table = tl.compare_strategies(train, test, trainable=blocks, **budget)
        if advice.strategy == "last blocks":
            advised = next(name for name in table.names if name.startswith(("last", "from layer")))
        if advice.strategy == "head on a lower layer":
            advised = f"head on {advice.embedding}"
            way = tl.Strategy(advised, options={"trainable": 0})
            table += tl.compare_strategies(
                train, test, which=[way], classifier={"embedding": advice.embedding}, **budget
            )
        print(f"\n## {case}: {len(train)} clips to train on, {len(test)} to test on\n\n{table.to_markdown()}")
        best = max(table.names, key=lambda name: table.values(name).mean())
        lost = table.values(best).mean() - table.values(advised).mean()
        print(f"\nThe best: {best}. Advised ({advice.case}): {advised}, {lost:.4f} below it.\n", flush=True)


if __name__ == "__main__":
    main()
