"""The curious case: networks trained on one task, asked another. Does it transfer? And which layer would have?

    python examples/curious_case.py DATA [--weights path/to/yamnet] [--seeds 0 1] [-o NETWORKS]

DATA has the folders fsdd/recordings, librispeech, orchestra and esc10. RawNet2 learns FSDD's speakers and ConvNet
learns ESC-10's sounds, both from random weights. Then each gets all five tasks: "last" replaces its last layer and
freezes all else, the classic transfer; "best" is a head on the layer that suits the training clips best (three folds
of them); "scratch" is the same network trained on the task itself, with as many examples. YAMNet stands beside them.
``--networks`` and ``--seeds`` run a part of it: hours on a CPU.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tfaudiotl as tl


@dataclass(frozen=True)
class Task:
    """What shall be told apart."""

    name: str
    train: tl.Clips
    test: tl.Clips


@dataclass(frozen=True)
class Network:
    """A network to train: what it hears at once, and what its builder is told."""

    backbone: str
    home: str  # the task that it is trained on before it gets the others
    sample_rate: int
    window_seconds: float
    options: dict[str, Any] = field(default_factory=dict)


# RawNet2 hears half a second at FSDD's own rate, so that a CPU can train it.
NETWORKS = (
    Network("rawnet2", "speakers", 8_000, 0.5, {"samples": 4_000, "backbone_options": {"sample_rate": 8_000}}),
    Network("convnet", "sounds", 22_050, 3.0),
)


def divided(name: str, paths: list[Path], label: Callable[[Path], str], is_test: Callable[[Path], bool]) -> Task:
    """The task of these files, by what their names say."""
    clips = tl.Clips.from_files(paths, [label(path) for path in paths])
    test = np.array([is_test(path) for path in paths])
    return Task(name, clips[~test], clips[test])


def tasks(data: Path) -> list[Task]:
    """All five; nothing of a file, a fold or a pitch is on both sides."""
    digits = [path for path in sorted(data.glob("fsdd/recordings/*.wav")) if index(path) < 15]
    readers = sorted(data.glob("librispeech/*/*.flac"))
    notes = sorted(data.glob("orchestra/*/*.mp3"))
    sounds = sorted(data.glob("esc10/*/*.ogg"))
    pitches = sorted({pitch(path) for path in notes})
    return [
        divided("speakers", digits, lambda path: path.stem.split("_")[1], lambda path: index(path) < 5),
        divided("digits", digits, lambda path: path.stem.split("_")[0], lambda path: index(path) < 5),
        divided("readers", readers, lambda path: path.parent.name, lambda path: int(path.stem.split("-")[2]) >= 5),
        divided("instruments", notes, lambda path: path.parent.name, lambda path: pitch(path) in pitches[::3]),
        divided("sounds", sounds, lambda path: path.parent.name, lambda path: path.name.startswith("5-")),
    ]


def index(path: Path) -> int:
    """Number of the recording, of the same speaker and digit."""
    return int(path.stem.split("_")[2])


def pitch(path: Path) -> str:
    """The note's name, such as As4."""
    found = re.search(r"_([A-G]s?\d)_", path.name)
    if not found:
        raise ValueError(f"{path}: no pitch in the name, such as _As4_")
    return found[1]


def trained(network: Network, task: Task, steps: int, seed: int) -> keras.Model:
    """The network, trained on the task from random weights."""
    model = tl.build_classifier(
        network.backbone, class_names=task.train.class_names, weights=None, trainable="all", hidden=(), dropout=0.0,
        seed=seed, **network.options,
    )  # fmt: skip
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    model.compile(keras.optimizers.Adam(schedule), "categorical_crossentropy", jit_compile=False)
    batches = task.train.dataset(
        window_seconds=network.window_seconds, sample_rate=network.sample_rate, shuffle=True, seed=seed, cache=True,
        repeat=True, drop_remainder=True,
    )  # fmt: skip
    model.fit(batches, steps_per_epoch=steps, epochs=1, verbose=0)
    return model


def transferred(backbone: str, weights: str, task: Task) -> tuple[float, float, str]:
    """Accuracy of a linear head on the last embedding and on the best layer, and that layer."""
    layers = [layer for layer in tl.embedding_layers(backbone) if layer.name != "scores"]
    names = [layer.name for layer in layers]
    both = task.train.merge(task.test)
    joined = tl.embed(backbone, list(both.paths), embedding=names, weights=weights)
    columns = np.split(joined, np.cumsum([layer.width for layer in layers])[:-1], axis=1)
    vectors = dict(zip(names, columns, strict=True))
    labels, learn = both.label_ids, np.arange(len(both)) < len(task.train)
    heads = {name: make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)) for name in names}
    inner = {name: cross_val_score(heads[name], x[learn], labels[learn], cv=3).mean() for name, x in vectors.items()}
    best = max(inner, key=lambda name: inner[name])
    last, at_best = (
        float(heads[name].fit(vectors[name][learn], labels[learn]).score(vectors[name][~learn], labels[~learn]))
        for name in ("embedding", best)
    )
    return last, at_best, best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", default="audioset", help="YAMNet's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--networks", nargs="+", default=["rawnet2", "convnet", "yamnet"])
    parser.add_argument("--steps", type=int, default=190, help="of 32 examples, for every training")
    parser.add_argument("-o", "--output", type=Path, default=Path("curious_case"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    every = tasks(options.data)
    found: dict[tuple[str, str], list[float]] = {}
    for seed in options.seeds:
        for network in [network for network in NETWORKS if network.backbone in options.networks]:
            keras.utils.set_random_seed(seed)
            home = next(task for task in every if task.name == network.home)
            path = options.output / f"{network.backbone}_{home.name}_{seed}.keras"
            own = trained(network, home, options.steps, seed)
            own.save(path)
            for task in every:
                scratch = own if task is home else trained(network, task, options.steps, seed)
                note(found, task, f"{network.backbone} scratch", tl.evaluate(scratch, task.test).accuracy)
                last, best, layer = transferred(network.backbone, str(path), task)
                note(found, task, f"{network.backbone} last", last)
                note(found, task, f"{network.backbone} best", best, layer)
    for task in every if "yamnet" in options.networks else []:  # nothing random here
        last, best, layer = transferred("yamnet", options.weights, task)
        note(found, task, "yamnet last", last)
        note(found, task, "yamnet best", best, layer)
    ways = list(dict.fromkeys(way for _, way in found))
    print(f"\n| task | {' | '.join(ways)} |\n|{'---|' * (len(ways) + 1)}")
    for task in every:
        cells = [f"{np.mean(found[task.name, way]):.3f} ± {np.std(found[task.name, way]):.3f}" for way in ways]
        print(f"| {task.name} | {' | '.join(cells)} |")


def note(found: dict[tuple[str, str], list[float]], task: Task, way: str, accuracy: float, layer: str = "") -> None:
    """Keeps and prints one result."""
    found.setdefault((task.name, way), []).append(accuracy)
    print(f"{task.name}: {way} {layer} {accuracy:.4f}", flush=True)


if __name__ == "__main__":
    main()
