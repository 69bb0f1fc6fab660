"""YAMNet-mini: YAMNet's front-end and first six blocks, distilled from YAMNet; its weights are in the package."""

from __future__ import annotations

from pathlib import Path

import keras

from tfaudiotl.backbones import weights as weights_io
from tfaudiotl.backbones.frontend import LogMelSpec
from tfaudiotl.backbones.published import Found
from tfaudiotl.backbones.registry import BackboneSpec, register_backbone
from tfaudiotl.backbones.yamnet import CLASSES, LAYERS, assemble_table, embedding_layers
from tfaudiotl.errors import WeightsError

# Up to the first 256 channels: the size that STM32's model zoo made known as YAMNet-256.
MINI_LAYERS = LAYERS[:6]
# Written by recipes/yamnet_mini.sh, and by nothing else.
EMBEDDED = Path(__file__).with_name("yamnet_mini.npz")
SHA256 = "13949a31fa3bfb9bb4d98005db8a5f524bf65ccdbadd4c263093e44dc8a1cb6b"


def YAMNetMini(
    *,
    include_top: bool = True,
    weights: str | None = "audioset",
    input: str = "waveform",
    samples: int | None = None,
    patch_pooling: str | None = None,
    classes: int = CLASSES,
    classifier_activation: str | None = "sigmoid",
    name: str = "yamnet_mini",
) -> keras.Model:
    """The small network with embedded weights, in the manner of ``keras.applications``; needs no network.

    Args:
        include_top: with the classifier (scores), or without (embeddings).
        weights: "audioset": the weights in the package, distilled from a YAMNet that was trained on
            AudioSet; the path of an ``.npz`` that ``distill`` wrote or of a ``.weights.h5`` file; or None
            for random weights.
        input: "waveform" or "patches", as for ``YAMNet``.
        samples: fixes the waveform's length; None: any length.
        patch_pooling: over the patches of a clip: None keeps them, "avg" or "max" pools them.
        classes: outputs of the classifier; 521 with pretrained weights.
        classifier_activation: "sigmoid" (independent classes), "softmax", or None for logits.
        name: the model's name.

    Returns:
        A ``keras.Model`` from ``(batch, samples)`` to ``(batch, patches, 521)`` scores or ``(batch,
        patches, 256)`` embeddings, without the patches axis if pooled or for ``input="patches"``.

    Raises:
        ValueError: an argument outside what is allowed.
        WeightsError: weights that cannot be found, read or matched.
    """
    model = assemble_table(
        MINI_LAYERS,
        include_top=include_top,
        pretrained=weights is not None,
        input=input,
        samples=samples,
        patch_pooling=patch_pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        name=name,
    )
    if weights is not None:
        load_weights(model, weights)
    return model


def load_weights(model: keras.Model, weights: str) -> Found:
    """Gives ``model`` the embedded weights, or those of an ``.npz`` or ``.weights.h5``."""
    path = Path(SPEC.presets.get(weights, weights)).expanduser()
    if path.suffix not in (".h5", ".npz"):
        raise WeightsError(
            f"weights={str(weights)!r}: yamnet_mini takes 'audioset' (the weights in the package), or the path of an "
            ".npz or .weights.h5 file; for TF Hub's weights and SavedModels choose the backbone yamnet"
        )
    names: list[str] = []
    with weights_io.errors_name(str(weights)):
        if path.suffix == ".h5":
            weights_io.load_h5(model, path)
        else:
            digest = SHA256 if path == EMBEDDED else None
            names = weights_io.load_npz(model, path, leftover_prefixes=("logits/",), sha256=digest)
    if names and any(layer.name == "scores" for layer in model.layers):
        model.get_layer("scores").class_names = tuple(names)
    return Found("the package" if path == EMBEDDED else "you", str(path), path)


SPEC = register_backbone(
    BackboneSpec(
        name="yamnet_mini",
        build=YAMNetMini,
        description="YAMNet's first six blocks, distilled from it, weights in the package, 0.14 M parameters",
        presets={"audioset": str(EMBEDDED)},
        load_weights=load_weights,
        license="Apache-2.0",
        source="docs/yamnet_mini.md",
        classes=CLASSES,
        frontend=LogMelSpec(),
        layers=embedding_layers(MINI_LAYERS),
        top=("logits", "scores"),
    )
)
