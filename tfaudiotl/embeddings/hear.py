"""The three functions of the HEAR benchmark (hearbenchmark.com), for any layer of any backbone."""

from __future__ import annotations

import json
import os
from typing import Any

import keras
import numpy as np

from tfaudiotl.embeddings.engine import PatchNetwork
from tfaudiotl.embeddings.extract import Extractor

__all__ = ["HearModel", "get_scene_embeddings", "get_timestamp_embeddings", "load_model"]


class HearModel:
    """What HEAR asks of a model: its sample rate and the sizes of its embeddings.

    Attributes:
        sample_rate: Hz.
        scene_embedding_size: numbers per sound.
        timestamp_embedding_size: numbers per timestamp.
    """

    def __init__(self, extractor: Extractor):
        self.network: PatchNetwork = extractor.network
        self.sample_rate = extractor.frontend.sample_rate
        self.scene_embedding_size = self.timestamp_embedding_size = extractor.width


def load_model(model_file_path: str | os.PathLike[str] = "", *, backbone: str = "yamnet", **options: Any) -> HearModel:
    """Loads a model.

    Args:
        model_file_path: "" for the published weights, else weights as a backbone's builder takes them, or
            a .json file with the arguments below (and "weights").
        backbone: a name from ``list_backbones()``.
        **options: further arguments of ``Extractor``: ``embedding``, ``pooling``, ``engine``.
    """
    path = os.fspath(model_file_path)
    if path.endswith(".json"):
        with open(path, encoding="utf-8") as file:
            options = {"backbone": backbone, **json.load(file), **options}
        backbone = options.pop("backbone")
    elif path:
        options = {"weights": path, **options}
    return HearModel(Extractor(backbone, **options))


def get_timestamp_embeddings(audio: Any, model: HearModel) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of short stretches of sound.

    The sounds are padded with zeros by half a patch at both ends, so that the stretches are centred on
    their timestamps: the first on 0 ms.

    Args:
        audio: ``(sounds, samples)`` floats in [-1, 1] at ``model.sample_rate``.
        model: from ``load_model``.

    Returns:
        float32 ``(sounds, timestamps, dim)``, and float32 ``(sounds, timestamps)``: centres in ms.
    """
    waveforms = _checked(audio)
    spec = model.network.frontend.spec
    half = round(spec.patch_seconds * spec.sample_rate) // 2
    padded = np.pad(waveforms, ((0, 0), (half, half)))
    rows = np.stack([_joined(result) for result in model.network.run(padded, trim=False)])
    # The last patch may be mere padding: its centre lies after the sound.
    centres = np.arange(rows.shape[1]) * spec.patch_hop_samples
    inside = centres <= waveforms.shape[1]
    stamps = (centres[inside] / spec.sample_rate * 1000.0).astype(np.float32)
    return rows[:, inside], np.tile(stamps, (len(rows), 1))


def get_scene_embeddings(audio: Any, model: HearModel) -> np.ndarray:
    """One embedding per sound, the mean over its patches: ``(sounds, samples)`` to float32 ``(sounds, dim)``."""
    waveforms = _checked(audio)
    return np.stack([_joined(result).mean(axis=0) for result in model.network.run(waveforms, trim=False)])


def _joined(result: list[np.ndarray]) -> np.ndarray:
    return result[0] if len(result) == 1 else np.concatenate(result, axis=1)


def _checked(audio: Any) -> np.ndarray:
    waveforms = np.asarray(keras.ops.convert_to_numpy(audio), np.float32)
    if waveforms.ndim != 2 or waveforms.size == 0:
        raise ValueError(f"audio has shape {waveforms.shape}: expected (sounds, samples), not empty")
    if not np.isfinite(waveforms).all():
        raise ValueError("audio: holds NaN or infinite samples")
    return waveforms
