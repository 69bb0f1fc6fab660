"""VGGish: a VGG of six convolutions on log-mel patches, trained on YouTube-8M's labels; 128 numbers per 0.96 s."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
from keras import layers

from tfaudiotl.backbones import weights as weights_io
from tfaudiotl.backbones.assembly import assemble
from tfaudiotl.backbones.frontend import LogMelSpec
from tfaudiotl.backbones.pca import PcaPostprocess, load_pca_params
from tfaudiotl.backbones.registry import BackboneSpec, EmbeddingLayer, register_backbone

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
# What differs from YAMNet's front-end. Source: vggish_params.py in the same folder.
FRONTEND = LogMelSpec(log_offset=0.01, patch_hop=96)


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
        weights: "audioset" (TF Hub's google/vggish/1), a TF Hub handle, the path of a SavedModel folder
            or archive, of a TF-Slim checkpoint (``vggish_model.ckpt``), of a ``.weights.h5`` file, or
            None for random weights.
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


def hub_variables(model: keras.Model) -> dict[str, Any]:
    """TF Hub's checkpoint keys of VGGish, each with the model's own variable: weights and biases in turn."""
    keys = [f"_variables/{index}/.ATTRIBUTES/VARIABLE_VALUE" for index in range(2 * len(CHECKPOINT_NAMES))]
    ours = [variable for layer in CHECKPOINT_NAMES for variable in model.get_layer(layer).weights]
    return dict(zip(keys, ours, strict=True))


def slim_variables(model: keras.Model) -> dict[str, Any]:
    """The names of the TF-Slim checkpoint, each with the model's own variable."""
    return {
        f"{slim}/{part}": variable
        for layer, slim in CHECKPOINT_NAMES.items()
        for part, variable in zip(("weights", "biases"), model.get_layer(layer).weights, strict=True)
    }


def load_weights(model: keras.Model, weights: str) -> None:
    """Gives ``model`` the weights of a preset, TF Hub handle, SavedModel, checkpoint or ``.weights.h5``."""
    source = SPEC.presets.get(weights, weights)
    if weights_io.is_checkpoint(source):
        values = weights_io.read_slim_checkpoint(source, "vggish/")
        weights_io.assign(slim_variables(model), values, source=str(source))
        return
    weights_io.load_into(model, source, variables=hub_variables(model))


SPEC = register_backbone(
    BackboneSpec(
        name="vggish",
        build=VGGish,
        description="VGG on log-mel patches of 0.96 s, trained on YouTube-8M, 128 numbers, 72 M parameters",
        presets={"audioset": "https://tfhub.dev/google/vggish/1"},
        license="Apache-2.0",
        source="github.com/tensorflow/models, research/audioset/vggish",
        classes=0,
        frontend=FRONTEND,
        layers=(
            EmbeddingLayer("log_mel", "patch_batch", FRONTEND.mel_bands),
            *(EmbeddingLayer(conv, conv, filters) for group in CONVS for conv, filters in group),
            *(EmbeddingLayer(dense, dense, units) for dense, units in DENSE),
            EmbeddingLayer("embedding", "embedding", EMBEDDING_SIZE),
            EmbeddingLayer("pca", "pca", EMBEDDING_SIZE),
        ),
        top=("pca",),
    )
)
