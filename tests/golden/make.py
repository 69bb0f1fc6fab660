"""Makes the golden files: small classifiers and a store of embeddings, with the scores that they give.

    python -m tests.golden.make NEW_FOLDER [CASE ...]

``NEW_FOLDER.zip`` then holds them. An archive beside this file is never made again: it stands for what users saved with
the version that wrote it. To guard a new kind of file, add an archive made by the version that introduces it.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import soundfile
import tensorflow as tf

import tfaudiotl as tl
from tfaudiotl.runtime.load import open_artifact

RATE = 16_000
WINDOW = 19_600  # samples that the .tflite of a head on sequences takes
NAMES = ["dog", "rain", "siren"]
HEADS = ("dense", "average", "attention", "gru", "lstm", "conv", "statistics")
# Early layers keep the files small; the name says what is inside.
CASES: dict[str, dict[str, Any]] = {
    **{
        f"yamnet_mini_{head}_{'multi' if multi_label else 'single'}": {
            "backbone": "yamnet_mini", "embedding": "layer2", "head": head, "multi_label": multi_label
        }
        for head in HEADS
        for multi_label in (False, True)
    },
    "yamnet_patches": {"backbone": "yamnet", "embedding": "layer2", "input": "patches", "weights": None},
    "yamnet_layer2": {"backbone": "yamnet", "embedding": "layer2", "weights": None},
    "vggish_conv1": {"backbone": "vggish", "embedding": "conv1", "weights": None},
    "rawnet2_sinc": {
        "backbone": "rawnet2", "embedding": "sinc", "weights": None, "backbone_options": {"window": 4_000}
    },
    "convnet_spectrum": {"backbone": "convnet", "embedding": "spectrum", "weights": None},
    "mobilenet_block1": {
        "backbone": "mobilenet", "embedding": "conv_pw_1_relu", "weights": None, "backbone_options": {"size": 32}
    },
}  # fmt: skip


def clip() -> np.ndarray:
    """float32 (30,000,): 1.875 s at 16 kHz, a sweep over two octaves with a little noise."""
    time = np.arange(30_000) / RATE
    sweep = 0.4 * np.sin(2 * np.pi * (300 * time + 250 * time**2))
    sound = sweep * (1 + np.sin(2 * np.pi * 3 * time)) / 2 + np.random.default_rng(7).normal(0, 0.02, len(time))
    return (np.round(sound * 32767) / 32768).astype(np.float32)


def classifier(options: dict[str, Any]) -> keras.Model:
    """A small classifier whose batch norms have statistics, as those of a trained one have."""
    model = tl.build_classifier(class_names=NAMES, hidden=(8,), seed=1, **options)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, layer.moving_variance.shape))
            layer.moving_mean.assign(rng.normal(0, 0.1, layer.moving_mean.shape))
    return model


def scores(path: Path, sound: np.ndarray) -> list[float]:
    """What the opened file gives for the clip, cut or repeated to the window where the file has one of its own."""
    artifact = open_artifact(path, class_names=NAMES)
    return [float(score) for score in artifact.scores(np.resize(sound, artifact.samples or len(sound))[None])[0]]


def main(folder: Path, *cases: str) -> None:
    """Writes everything, or the classifiers ``cases`` alone, into ``folder``, which must be new, and packs it."""
    folder.mkdir(parents=True)
    sound = clip()
    soundfile.write(folder / "clip.wav", sound, RATE, subtype="PCM_16")
    expected: dict[str, Any] = {
        "versions": {"tfaudiotl": tl.__version__, "tensorflow": tf.__version__, "keras": keras.__version__},
        "scores": {},
    }
    for name in cases or CASES:
        options = CASES[name]
        model = classifier(options)
        written = [folder / f"{name}.keras"]
        model.save(written[0])
        samples = None if options.get("head", "dense") == "dense" else WINDOW
        if samples is None or not options["multi_label"]:  # long windows make large files: one for each head
            written.append(tl.export_tflite(model, folder / f"{name}.tflite", samples=samples))
        if name in ("yamnet_mini_dense_single", "yamnet_mini_gru_multi"):
            written.append(folder / f"{name}_saved_model")
            tl.export_saved_model(model, written[-1])
        for path in written:
            expected["scores"][path.name] = scores(path, sound)
    if not cases:
        tl.embed("yamnet_mini", [folder / "clip.wav"], embedding="layer2", store=folder / "store", patch_pooling=None)
        store = tl.EmbeddingStore(folder / "store")
        rows, times = store.read(folder / "clip.wav", "layer2")
        expected["store"] = {"shape": list(rows.shape), "sum": float(rows.sum()), "end": float(times[-1, 1])}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
    shutil.make_archive(str(folder), "zip", folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
