"""YAMNet: MobileNet v1 on log-mel patches, trained on AudioSet's 521 classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from tfaudiotl.backbones import weights as weights_io
from tfaudiotl.backbones.assembly import assemble
from tfaudiotl.backbones.frontend import LogMelSpec
from tfaudiotl.backbones.registry import BackboneSpec, EmbeddingLayer, register_backbone
from tfaudiotl.backbones.scores import ClassScores

CLASSES = 521  # AudioSet's 527 less six that were dropped before training
EMBEDDING_SIZE = 1024

# (kernel, stride, filters) of each layer; the first is a plain convolution, the others are depthwise
# separable. Source: _YAMNET_LAYER_DEFS of tensorflow/models, research/audioset/yamnet/yamnet.py.
LAYERS: tuple[tuple[int, int, int], ...] = (
    (3, 2, 32),
    (3, 1, 64),
    (3, 2, 128),
    (3, 1, 128),
    (3, 2, 256),
    (3, 1, 256),
    (3, 2, 512),
    *[(3, 1, 512)] * 5,
    (3, 2, 1024),
    (3, 1, EMBEDDING_SIZE),
)
# Batch norm as there: no scale (a ReLU and a convolution follow), epsilon 1e-4.
BATCH_NORM = {"center": True, "scale": False, "epsilon": 1e-4}


def YAMNet(
    *,
    include_top: bool = True,
    weights: str | None = "audioset",
    input: str = "waveform",
    samples: int | None = None,
    patch_pooling: str | None = None,
    classes: int = CLASSES,
    classifier_activation: str | None = "sigmoid",
    name: str = "yamnet",
) -> keras.Model:
    """YAMNet as a functional Keras model, in the manner of ``keras.applications``.

    Args:
        include_top: with the classifier (scores), or without (embeddings).
        weights: "audioset" (TF Hub's google/yamnet/1), a TF Hub handle, the path of a SavedModel folder
            or archive, the path of a ``.weights.h5`` file, or None for random weights.
        input: "waveform": ``(batch, samples)`` float32 in [-1, 1] at 16 kHz, mono. "patches": ``(batch,
            96, 64)`` log-mel patches, one per row (what a microcontroller computes itself).
        samples: fixes the waveform's length, so that all shapes are static (TPU, XLA); None: any length.
        patch_pooling: over the patches of a clip: None keeps them, "avg" or "max" pools them; zeros at the end
            of the waveform are padding and do not count. Not for ``input="patches"``.
        classes: outputs of the classifier; 521 with pretrained weights.
        classifier_activation: "sigmoid" (YAMNet's: independent classes), "softmax", or None for logits.
        name: the model's name.

    Returns:
        A ``keras.Model`` from ``(batch, samples)`` to ``(batch, patches, 521)`` scores or ``(batch,
        patches, 1024)`` embeddings, without the patches axis if pooled or for ``input="patches"``.

    Raises:
        ValueError: an argument outside what is allowed.
        WeightsError: weights that cannot be found, read or matched.
    """
    model = assemble_table(
        LAYERS,
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


def assemble_table(
    table: Sequence[tuple[int, int, int]],
    *,
    include_top: bool,
    pretrained: bool,
    classes: int,
    classifier_activation: str | None,
    **options: Any,
) -> keras.Model:
    """The network of ``table`` with random weights; arguments as for ``YAMNet``."""
    if not isinstance(classes, int) or classes < 1:
        raise ValueError(f"classes={classes!r}: a positive whole number")
    if include_top and pretrained and classes != CLASSES:
        raise ValueError(
            f"classes={classes}: the pretrained classifier has {CLASSES}; use include_top=False and your own "
            "head (tfaudiotl.build_classifier), or weights=None"
        )

    def network(x: Any) -> Any:
        x = layers.GlobalAveragePooling2D(name="embedding")(conv_stack(x, table))
        if not include_top:
            return x
        x = layers.Dense(classes, name="logits")(x)
        return ClassScores(classifier_activation, name="scores")(x)

    return assemble(network, LogMelSpec(), **options)


def conv_stack(x: Any, table: Sequence[tuple[int, int, int]]) -> Any:
    """The convolutions of ``table``, with upstream's layer names (``/`` turned to ``_``)."""

    def norm_relu(x: Any, conv: str, relu: str) -> Any:
        x = layers.BatchNormalization(**BATCH_NORM, name=f"{conv}_bn")(x)
        return layers.ReLU(name=relu)(x)

    for number, (kernel, stride, filters) in enumerate(table, start=1):
        layer = f"layer{number}"
        shared = {"padding": "same", "use_bias": False}
        if number == 1:
            x = layers.Conv2D(filters, kernel, stride, **shared, name=f"{layer}_conv")(x)
            x = norm_relu(x, f"{layer}_conv", f"{layer}_relu")
            continue
        x = layers.DepthwiseConv2D(kernel, stride, **shared, name=f"{layer}_depthwise_conv")(x)
        x = norm_relu(x, f"{layer}_depthwise_conv", f"{layer}_depthwise_conv_relu")
        x = layers.Conv2D(filters, 1, 1, **shared, name=f"{layer}_pointwise_conv")(x)
        x = norm_relu(x, f"{layer}_pointwise_conv", f"{layer}_pointwise_conv_relu")
    return x


def hub_variables(model: keras.Model) -> dict[str, Any]:
    """TF Hub's checkpoint keys of YAMNet, each with the model's own variable.

    Upstream's checkpoint numbers the layers that hold weights in order: convolution and batch norm
    alternate, the classifier is 54.
    """
    names: list[str] = []
    for number in range(1, len(LAYERS) + 1):
        convs = ["conv"] if number == 1 else ["depthwise_conv", "pointwise_conv"]
        names += [f"layer{number}_{conv}{part}" for conv in convs for part in ("", "_bn")]
    names.append("logits")
    present = {layer.name: layer for layer in model.layers}
    variables: dict[str, Any] = {}
    for index, layer_name in enumerate(names):
        if layer_name not in present:
            continue  # cut off above an embedding, or no classifier
        for variable in present[layer_name].weights:
            part = variable.name
            if part == "kernel" and layer_name.endswith("depthwise_conv"):
                part = "depthwise_kernel"  # Keras 3 calls it kernel
            variables[f"_yamnet/layer_with_weights-{index}/{part}/.ATTRIBUTES/VARIABLE_VALUE"] = variable
    return variables


def load_weights(model: keras.Model, weights: str) -> None:
    """Gives ``model`` the weights of a preset, TF Hub handle, SavedModel or ``.weights.h5``."""
    names = weights_io.load_into(
        model,
        SPEC.presets.get(weights, weights),
        variables=hub_variables(model),
        leftover_prefixes=(f"_yamnet/layer_with_weights-{4 * len(LAYERS) - 2}/",),
        class_map="yamnet_class_map.csv",
    )
    if names and any(layer.name == "scores" for layer in model.layers):
        model.get_layer("scores").class_names = tuple(names)


def decode_predictions(
    scores: Any, *, top: int = 5, class_names: Sequence[str] | keras.Model
) -> list[list[tuple[str, float]]]:
    """The best classes of each row of scores, as ``keras.applications`` decodes them.

    Args:
        scores: ``(batch, classes)``; ``(batch, patches, classes)`` is averaged over the patches first.
        top: how many classes per row.
        class_names: the names in order, or the model that made the scores and knows them.

    Returns:
        For each row a list of ``(class name, score)``, best first.
    """
    from tfaudiotl.backbones.scores import class_names_of

    names = class_names_of(class_names) if isinstance(class_names, keras.Model) else tuple(class_names)
    rows = np.asarray(scores, np.float64)
    if rows.ndim == 3:
        rows = rows.mean(axis=1)
    if rows.ndim != 2 or rows.shape[1] != len(names):
        raise ValueError(
            f"scores has shape {np.shape(scores)}: allowed is (batch, {len(names)}) or (batch, patches, {len(names)})"
        )
    if not isinstance(top, int) or not 1 <= top <= len(names):
        raise ValueError(f"top={top!r}: allowed is 1 to {len(names)}")
    order = np.argsort(-rows, axis=1, kind="stable")[:, :top]
    return [[(names[i], float(row[i])) for i in best] for row, best in zip(rows, order, strict=True)]


def embedding_layers(table: Sequence[tuple[int, int, int]]) -> tuple[EmbeddingLayer, ...]:
    """The embedding layers of the network of ``table``, from the log-mel patches to the scores."""
    return (
        EmbeddingLayer("log_mel", "patch_batch", LogMelSpec().mel_bands),
        EmbeddingLayer("layer1", "layer1_relu", table[0][2]),
        *(
            EmbeddingLayer(f"layer{n}", f"layer{n}_pointwise_conv_relu", filters)
            for n, (_, _, filters) in enumerate(table[1:], start=2)
        ),
        EmbeddingLayer("embedding", "embedding", table[-1][2]),
        EmbeddingLayer("logits", "logits", CLASSES),
        EmbeddingLayer("scores", "scores", CLASSES),
    )


SPEC = register_backbone(
    BackboneSpec(
        name="yamnet",
        build=YAMNet,
        description="MobileNet v1 on log-mel patches of 0.96 s, trained on AudioSet (521 classes), 3.7 M parameters",
        presets={"audioset": "https://tfhub.dev/google/yamnet/1"},
        license="Apache-2.0",
        source="github.com/tensorflow/models, research/audioset/yamnet",
        classes=CLASSES,
        frontend=LogMelSpec(),
        layers=embedding_layers(LAYERS),
        top=("logits", "scores"),
    )
)
