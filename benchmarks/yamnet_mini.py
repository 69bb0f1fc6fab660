"""Is the embedded backbone worth having, and what does it cost? Beside YAMNet, random weights, and log-mel statistics.

    python -m benchmarks.yamnet_mini quality SHARED_FOLDER [--student FILE.npz] [--folds 4,5]
    python -m benchmarks.yamnet_mini cost SAVED_MODEL

quality: frozen embedding, mean over the patches, standardised, logistic regression. FSDD digits: test on recordings
0 to 4 of every speaker and digit. ESC-10: each of the folds named is tested on, the four others are trained on.
cost: the networks from log-mel patches to 521 scores, in LiteRT.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tfaudiotl as tl
from tfaudiotl.backbones.embedding import multiply_adds
from tfaudiotl.backbones.frontend import FastLogMel, LogMel
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.data.folders import sound_files
from tfaudiotl.embeddings.engine import LiteRTRunner, to_litert
from tfaudiotl.markdown import markdown_table

Splits = list[tuple[np.ndarray, np.ndarray]]


def tasks(data: Path, folds: list[str]) -> Iterator[tuple[str, tl.Clips, Splits]]:
    """Name, clips, and (train, test) row numbers of each task."""
    paths = [str(path) for path in sound_files(data / "fsdd")]
    names = [Path(path).name for path in paths]
    test = np.array([re.search(r"_[0-4]\.wav$", name) is not None for name in names])
    digits = tl.Clips.from_files(paths, [name[0] for name in names])
    yield "FSDD digits", digits, [(np.flatnonzero(~test), np.flatnonzero(test))]
    clips = tl.Clips.from_directory(data / "esc10", fold_pattern=r"^(\d)-")
    yield (
        f"ESC-10, folds {', '.join(folds)}",
        clips,
        [(np.flatnonzero(clips.fold != fold), np.flatnonzero(clips.fold == fold)) for fold in folds],
    )


def log_mel_accuracy(clips: tl.Clips, splits: Splits) -> float:
    frontend = FastLogMel(LogMel())
    pictures = [frontend(clips.load(row)) for row in range(len(clips))]
    x = np.stack([np.concatenate([picture.mean(axis=0), picture.std(axis=0)]) for picture in pictures])
    labels = clips.label_ids
    scores = []
    for train, test in splits:
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(x[train], labels[train])
        scores.append(probe.score(x[test], labels[test]))
    return float(np.mean(scores))


def quality(shared: Path, student: str, folds: list[str]) -> None:
    hub = str(shared / "hub" / "yamnet")
    keras.utils.set_random_seed(0)
    networks = [
        ("yamnet", hub, ["embedding", "layer8", "layer6"]),
        ("yamnet_mini", student, ["embedding"]),
        ("yamnet_mini, random weights", None, ["embedding"]),
    ]
    found: dict[str, list[str]] = {}
    header = ["Embedding"]
    for task, clips, splits in tasks(shared / "data", folds):
        header.append(task)
        for name, weights, layers in networks:
            backbone = name.split(",")[0]
            for row in tl.probe_layers(backbone, clips, folds=splits, embedding=layers, weights=weights).rows:
                found.setdefault(f"{name}: {row.layer} ({row.width})", []).append(f"{row.accuracy:.3f}")
        statistics = "log-mel, mean and standard deviation (128)"
        found.setdefault(statistics, []).append(f"{log_mel_accuracy(clips, splits):.3f}")
    print(markdown_table(header, [(name, *scores) for name, scores in found.items()]))


def cost(weights: str) -> None:
    batch, rows, files = 16, [], {}
    for backbone, source in (("yamnet", weights), ("yamnet_mini", "audioset")):
        model = get_backbone(backbone).build(weights=source, input="patches")
        files[backbone] = (to_litert(model, batch), model.count_params(), multiply_adds(backbone)["logits"][0])
    runners = {backbone: LiteRTRunner(content, 1) for backbone, (content, _, _) in files.items()}
    patches = np.random.default_rng(0).normal(size=(batch, 96, 64)).astype(np.float32)
    seconds: dict[str, list[float]] = {backbone: [] for backbone in runners}
    for _ in range(60):  # in turns, so that other work on the machine falls on both
        for backbone, runner in runners.items():
            start = time.perf_counter()
            runner(patches)
            seconds[backbone].append(time.perf_counter() - start)
    rates = {backbone: batch / float(np.median(taken[10:])) for backbone, taken in seconds.items()}
    for backbone, (content, parameters, work) in files.items():
        rows.append(
            (backbone, f"{parameters:,}", f"{work / 1e6:.1f}", f"{rates[backbone]:.0f}", round(len(content) / 1e3))
        )
    big, small = files["yamnet"], files["yamnet_mini"]
    ratios = (small[1] / big[1], small[2] / big[2], rates["yamnet_mini"] / rates["yamnet"], len(small[0]) / len(big[0]))
    rows.append(("ratio", *(f"{ratio:.3f}" for ratio in ratios)))
    header = [
        "Network with 521 scores",
        "Parameters",
        "Million multiply-adds",
        "Patches/s, one thread",
        "kB of .tflite",
    ]
    print(markdown_table(header, rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["quality", "cost"])
    parser.add_argument("source", type=Path)
    parser.add_argument("--student", default="audioset")
    parser.add_argument("--folds", default="4,5")
    options = parser.parse_args()
    if options.part == "quality":
        quality(options.source, options.student, options.folds.split(","))
    else:
        cost(str(options.source))


if __name__ == "__main__":
    main()
