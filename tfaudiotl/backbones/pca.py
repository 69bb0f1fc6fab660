"""VGGish's post-processing as AudioSet was released with: PCA, whitening, 8 bits."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from tfaudiotl.backbones.published import AUDIOSET, first_that_fits, original_sources, own_cache
from tfaudiotl.errors import WeightsError

PCA_FILE = "vggish_pca_params.npz"
PCA_SHA256 = "4d878af3e306defbfb37095365aa7e5a6cecb86bad13e859e626151c4e6a8b9d"
# Source of the limits: QUANTIZE_MIN_VAL and QUANTIZE_MAX_VAL of vggish_params.py.
LOW, HIGH = -2.0, 2.0
SIZE = 128


@dataclass(frozen=True)
class PcaParams:
    """The released parameters: ``eigen_vectors`` float64 (128, 128), ``means`` float64 (128, 1)."""

    eigen_vectors: np.ndarray
    means: np.ndarray


def load_pca_params(source: str | Path = "audioset") -> PcaParams:
    """Reads the PCA parameters.

    Args:
        source: "audioset": the official file, downloaded once and checked by its SHA-256; or the path of a
            ``vggish_pca_params.npz``.

    Raises:
        WeightsError: The file cannot be had, or is not what it should be.
    """
    path = _published() if source == "audioset" else Path(source).expanduser()
    try:
        with np.load(path, allow_pickle=False) as file:
            vectors, means = file["pca_eigen_vectors"], file["pca_means"]
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise WeightsError(f"pca_params={str(source)!r}: cannot be read as PCA parameters: {error}") from error
    if vectors.shape != (SIZE, SIZE) or means.size != SIZE:
        raise WeightsError(
            f"pca_params={str(source)!r}: shapes {vectors.shape} and {means.shape}, "
            f"expected ({SIZE}, {SIZE}) and ({SIZE},)"
        )
    if not (np.isfinite(vectors).all() and np.isfinite(means).all()):
        raise WeightsError(f"pca_params={str(source)!r}: holds numbers that are not finite")
    return PcaParams(vectors.astype(np.float64), means.astype(np.float64).reshape(SIZE, 1))


def _published() -> Path:
    found, _ = first_that_fits(
        original_sources(PCA_FILE, PCA_SHA256),
        lambda path: path,
        asked="pca_params='audioset'",
        advice=f"By hand: fetch {AUDIOSET}/{PCA_FILE} on a machine that reaches it, and give its path as pca_params=, "
        f"or copy it to {own_cache() / PCA_FILE}",
    )
    return found.path


def vggish_postprocess(embeddings: Any, params: PcaParams | str | Path = "audioset") -> np.ndarray:
    """PCA, whitening and quantisation of VGGish embeddings, by the published formula.

    Args:
        embeddings: ``(rows, 128)`` floats.
        params: the parameters, or where they are (see ``load_pca_params``).

    Returns:
        uint8 ``(rows, 128)``: the projections, clipped to [-2, 2], times 255 / 4, cut to whole numbers.
    """
    known = params if isinstance(params, PcaParams) else load_pca_params(params)
    rows = np.asarray(embeddings)
    if rows.ndim != 2 or rows.shape[1] != SIZE:
        raise ValueError(f"embeddings has shape {rows.shape}: expected (rows, {SIZE})")
    projected = np.dot(known.eigen_vectors, rows.T - known.means).T
    clipped = np.clip(projected, LOW, HIGH)
    return ((clipped - LOW) * (255.0 / (HIGH - LOW))).astype(np.uint8)


@keras.saving.register_keras_serializable(package="tfaudiotl")
class PcaPostprocess(keras.layers.Layer):
    """``vggish_postprocess`` inside a model: ``(rows, 128)`` to whole numbers 0 to 255 in float32.

    It computes in float64, as upstream does: numbers are cut, not rounded, so the last bit of a product
    can decide about one of the 256 steps. The parameters travel in the saved model as weights.
    """

    def __init__(self, **kwargs: Any):
        kwargs |= {"dtype": "float32", "trainable": False}
        super().__init__(**kwargs)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        options: Any = {"trainable": False, "dtype": "float64", "autocast": False}
        self.eigen_vectors = self.add_weight(
            shape=(SIZE, SIZE), initializer="identity", name="eigen_vectors", **options
        )
        self.means = self.add_weight(shape=(SIZE,), initializer="zeros", name="means", **options)

    def set_params(self, params: PcaParams) -> None:
        """Takes over the released parameters."""
        self.eigen_vectors.assign(params.eigen_vectors)
        self.means.assign(params.means[:, 0])

    def call(self, embedding: Any) -> Any:
        centred = ops.cast(embedding, "float64") - self.means
        projected = ops.matmul(centred, ops.transpose(self.eigen_vectors))
        scaled = (ops.clip(projected, LOW, HIGH) - LOW) * (255.0 / (HIGH - LOW))
        return ops.cast(ops.floor(scaled), "float32")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape
