"""VGGish: a VGG of six convolutions on log-mel patches, trained on YouTube-8M's labels; 128 numbers per 0.96 s."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from tfaudiotl.backbones import weight_files
from tfaudiotl.backbones.assembly import assemble, embed_patches
from tfaudiotl.backbones.frontend import LogMelSpec
from tfaudiotl.backbones.spec import BackboneSpec, Block, EmbeddingLayer, Recipe
from tfaudiotl.backbones.weight_sources import (
    AUDIOSET,
    Found,
    Published,
    first_that_fits,
    original_sources,
    own_cache,
)
from tfaudiotl.errors import WeightsError

EMBEDDING_SIZE = 128
# Convolutions 3 x 3 with ReLU between 2 x 2 max pools, then dense layers with ReLU but for the last.
# Source: define_vggish_slim of tensorflow/models, research/audioset/vggish/vggish_slim.py.
CONVS: tuple[tuple[tuple[str, int], ...], ...] = (
    (("conv1", 64),),
    (("conv2", 128),),
    (("conv3_1", 256), ("conv3_2", 256)),
    (("conv4_1", 512), ("conv4_2", 512)),
)
DENSE = (("fc1_1", 4096), ("fc1_2", 4096))
# In the order of TF Hub's ``_variables``, each with its name in the TF-Slim checkpoint.
CHECKPOINT_NAMES = {
    "conv1": "vggish/conv1",
    "conv2": "vggish/conv2",
    "conv3_1": "vggish/conv3/conv3_1",
    "conv3_2": "vggish/conv3/conv3_2",
    "conv4_1": "vggish/conv4/conv4_1",
    "conv4_2": "vggish/conv4/conv4_2",
    "fc1_1": "vggish/fc1/fc1_1",
    "fc1_2": "vggish/fc1/fc1_2",
    "fc2": "vggish/fc2",
}
PUBLISHED = Published(
    tfhub="google/vggish/1",
    kaggle="google/vggish/tensorFlow2/vggish/1",
    original="vggish_model.ckpt",
    sha256="0962b1914e3e053922d957c45bc84a78c985765641dc6bceeeb3a7d8dfecfdf6",
)
# Of a tone of 1 kHz: the authors measured means of -0.0333 and 0.000657 and standard deviations of 0.380 and 0.343, in
# 2020 and 2023, with two versions of the resampler, and allow 10 %. Source: vggish_smoke_test.py and the exporter to
# TF Hub, in the same folder.
KNOWN_MEAN, KNOWN_SPREAD = 0.1, (0.3, 0.42)
# What differs from YAMNet's front-end. Source: vggish_params.py in the same folder.
FRONTEND = LogMelSpec(log_offset=0.01, patch_hop=96)

# Post-processing that AudioSet's embeddings were released with: PCA, whitening, 8 bits.
PCA_FILE = "vggish_pca_params.npz"
PCA_SHA256 = "4d878af3e306defbfb37095365aa7e5a6cecb86bad13e859e626151c4e6a8b9d"
# Source of the limits: QUANTIZE_MIN_VAL and QUANTIZE_MAX_VAL of vggish_params.py.
PCA_LOW, PCA_HIGH = -2.0, 2.0


def VGGish(
    *,
    include_top: bool = False,
    weights: str | None = "audioset",
    input: str = "waveform",
    samples: int | None = None,
    patch_pooling: str | None = None,
    pad_tail: bool = True,
    pca_params: str | Path = "audioset",
    name: str = "vggish",
) -> keras.Model:
    """VGGish as a functional Keras model, in the manner of ``keras.applications``.

    Args:
        include_top: with the PCA and 8-bit post-processing that AudioSet's released embeddings went
            through, or without (the embedding itself, before any activation).
        weights: "audioset" (the published ones, from the caches, TF Hub, Kaggle or their authors), a TF Hub
            handle, the path of a SavedModel folder or archive, of the authors' TF-Slim checkpoint
            (``vggish_model.ckpt``), of a ``.weights.h5`` or ``.npz`` file, or None for random weights.
        input: "waveform": ``(batch, samples)`` float32 in [-1, 1] at 16 kHz, mono. "patches": ``(batch,
            96, 64)`` log-mel patches, one per row.
        samples: fixes the waveform's length, so that all shapes are static (TPU, XLA); None: any length.
        patch_pooling: over the patches of a clip: None keeps them, "avg" or "max" pools them. Not for
            ``input="patches"``.
        pad_tail: what becomes of sound that does not fill a last patch. True zero-pads it to one, as the
            TF Hub module does; False drops it, as the NumPy original does. Sound shorter than one patch
            is padded to one either way, where the NumPy original gives nothing.
        pca_params: with ``include_top``: "audioset" (the official file, downloaded once and checked), or
            the path of a ``vggish_pca_params.npz``.
        name: the model's name.

    Returns:
        A ``keras.Model`` from ``(batch, samples)`` to ``(batch, patches, 128)``, without the patches axis
        if pooled or for ``input="patches"``. With ``include_top`` the values are whole, 0 to 255.

    Raises:
        ValueError: an argument outside what is allowed.
        WeightsError: weights or PCA parameters that cannot be found, read or matched.
    """

    def network(x: Any) -> Any:
        x = layers.Identity(name="embedding")(_network(x))
        return PcaPostprocess(name="pca")(x) if include_top else x

    spec = replace(FRONTEND, pad_tail=pad_tail)
    model = assemble(network, spec, input=input, samples=samples, patch_pooling=patch_pooling, name=name)
    if include_top:
        model.get_layer("pca").set_params(load_pca_params(pca_params))
    if weights is not None:
        load_weights(model, weights)
    return model


def _network(x: Any) -> Any:
    """From pictures ``(rows, 96, 64, 1)`` to ``(rows, 128)``, with upstream's layer names."""
    for number, group in enumerate(CONVS, start=1):
        for conv, filters in group:
            x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=conv)(x)
        x = layers.MaxPooling2D(2, name=f"pool{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    for dense, units in DENSE:
        x = layers.Dense(units, activation="relu", name=dense)(x)
    return layers.Dense(EMBEDDING_SIZE, name="fc2")(x)


def published_forms(model: keras.Model) -> weight_files.Forms:
    """The names that the published files have for the model's variables: TF Hub's are weights and biases in turn."""
    ours = [variable for layer in CHECKPOINT_NAMES for variable in model.get_layer(layer).weights]
    slim = [f"{name}/{part}" for name in CHECKPOINT_NAMES.values() for part in ("weights", "biases")]
    return weight_files.Forms(
        saved_model={f"_variables/{index}/.ATTRIBUTES/VARIABLE_VALUE": ours[index] for index in range(len(ours))},
        slim=dict(zip(slim, ours, strict=True)),
    )


def load_weights(model: keras.Model, weights: str) -> Found:
    """Gives ``model`` the published weights ("audioset"), or those of a TF Hub handle, SavedModel or file."""
    bare = keras.Model(model.inputs, model.get_layer("embedding").output, name=model.name)  # files have no PCA
    forms = published_forms(bare)
    if weights == "audioset":
        return weight_files.load_published(bare, PUBLISHED, forms, lambda _: check_known_answers(bare))[0]
    weight_files.load_into(bare, weights, forms)
    return Found("you", str(weights), Path(weights))


def check_known_answers(model: keras.Model) -> None:
    """WeightsError unless the embeddings of silence and of a tone are what published weights give."""
    time = np.arange(FRONTEND.min_samples) / FRONTEND.sample_rate
    sounds = np.stack([np.zeros(len(time)), np.sin(2 * np.pi * 1000 * time)]).astype(np.float32)
    silence, tone = embed_patches(model, FRONTEND, sounds)
    if not np.isfinite([silence, tone]).all() or silence.std() == 0 or np.abs(silence - tone).max() == 0:
        raise WeightsError("damaged: the embeddings of silence and of a tone are not finite, constant or the same")
    low, high = KNOWN_SPREAD
    if not low <= tone.std() <= high or abs(tone.mean()) > KNOWN_MEAN:
        raise WeightsError(
            f"not the published weights, or damaged: the embedding of a 1 kHz tone has mean {tone.mean():.3g} and "
            f"standard deviation {tone.std():.3g}; published are about 0 and {low} to {high}"
        )


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
    path = _published_pca() if source == "audioset" else Path(source).expanduser()
    try:
        with np.load(path, allow_pickle=False) as file:
            vectors, means = file["pca_eigen_vectors"], file["pca_means"]
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise WeightsError(f"pca_params={str(source)!r}: cannot be read as PCA parameters: {error}") from error
    if vectors.shape != (EMBEDDING_SIZE, EMBEDDING_SIZE) or means.size != EMBEDDING_SIZE:
        raise WeightsError(
            f"pca_params={str(source)!r}: shapes {vectors.shape} and {means.shape}, "
            f"expected ({EMBEDDING_SIZE}, {EMBEDDING_SIZE}) and ({EMBEDDING_SIZE},)"
        )
    if not (np.isfinite(vectors).all() and np.isfinite(means).all()):
        raise WeightsError(f"pca_params={str(source)!r}: holds numbers that are not finite")
    return PcaParams(vectors.astype(np.float64), means.astype(np.float64).reshape(EMBEDDING_SIZE, 1))


def _published_pca() -> Path:
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
    if rows.ndim != 2 or rows.shape[1] != EMBEDDING_SIZE:
        raise ValueError(f"embeddings has shape {rows.shape}: expected (rows, {EMBEDDING_SIZE})")
    projected = np.dot(known.eigen_vectors, rows.T - known.means).T
    clipped = np.clip(projected, PCA_LOW, PCA_HIGH)
    return ((clipped - PCA_LOW) * (255.0 / (PCA_HIGH - PCA_LOW))).astype(np.uint8)


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
            shape=(EMBEDDING_SIZE, EMBEDDING_SIZE), initializer="identity", name="eigen_vectors", **options
        )
        self.means = self.add_weight(shape=(EMBEDDING_SIZE,), initializer="zeros", name="means", **options)

    def set_params(self, params: PcaParams) -> None:
        """Takes over the released parameters."""
        self.eigen_vectors.assign(params.eigen_vectors)
        self.means.assign(params.means[:, 0])

    def call(self, embedding: Any) -> Any:
        centred = ops.cast(embedding, "float64") - self.means
        projected = ops.matmul(centred, ops.transpose(self.eigen_vectors))
        scaled = (ops.clip(projected, PCA_LOW, PCA_HIGH) - PCA_LOW) * (255.0 / (PCA_HIGH - PCA_LOW))
        return ops.cast(ops.floor(scaled), "float32")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape


SPEC = BackboneSpec(
    name="vggish",
    build=VGGish,
    description="VGG on log-mel patches of 0.96 s, trained on YouTube-8M, 128 numbers, 72 M parameters",
    presets={"audioset": PUBLISHED.handle},
    published=PUBLISHED,
    load_weights=load_weights,
    license="Apache-2.0",
    source="github.com/tensorflow/models, research/audioset/vggish",
    frontend=FRONTEND,
    layers=(
        EmbeddingLayer("log_mel", "patch_batch", FRONTEND.mel_bands),
        *(EmbeddingLayer(conv, conv, filters) for group in CONVS for conv, filters in group),
        *(EmbeddingLayer(dense, dense, units) for dense, units in DENSE),
        EmbeddingLayer("embedding", "embedding", EMBEDDING_SIZE),
        EmbeddingLayer("pca", "pca", EMBEDDING_SIZE),
    ),
    blocks=(
        *(Block(f"conv{number}", group[-1][0]) for number, group in enumerate(CONVS, start=1)),
        Block("fc1", DENSE[-1][0]),
        Block("fc2", "fc2"),
    ),
    recipes={"bands": Recipe(("conv3_2", "conv4_1"), "freq")},  # by analogy with YAMNet's, not measured
    top=("pca",),
)
