"""YAMNet, MobileNet v1 on log-mel patches trained on AudioSet's 521 classes; and its first six blocks, YAMNet-mini."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from tfaudiotl._seeds import stream
from tfaudiotl.backbones import weight_files
from tfaudiotl.backbones.assembly import assemble, embed_patches
from tfaudiotl.backbones.frontend import LogMelSpec
from tfaudiotl.backbones.scores import ClassScores, class_names_of
from tfaudiotl.backbones.spec import BackboneSpec, Block, EmbeddingLayer, Recipe
from tfaudiotl.backbones.weight_sources import Found, Published
from tfaudiotl.errors import WeightsError

CLASSES = 521  # AudioSet's 527 less six that were dropped before training
EMBEDDING_SIZE = 1024
# YAMNet-mini's weights, distilled from YAMNet, written by recipes/yamnet_mini.sh and by nothing else. They hold
# AudioSet's names of the classes too; the authors' yamnet.h5 and .weights.h5 files have none.
EMBEDDED = Path(__file__).with_name("yamnet_mini.npz")
EMBEDDED_SHA256 = "13949a31fa3bfb9bb4d98005db8a5f524bf65ccdbadd4c263093e44dc8a1cb6b"
# Sounds that YAMNet must name. Source: yamnet_test.py in the same folder as LAYERS' source, which asks
# that each is among the best 10 classes; silence is the best one by far.
KNOWN_ANSWERS = {"Silence": 1, "White noise": 10, "Sine wave": 10}

PUBLISHED = Published(
    tfhub="google/yamnet/1",
    kaggle="google/yamnet/tensorFlow2/yamnet/1",
    original="yamnet.h5",
    sha256="13c3308955bbfaef262f175ac9c40e47b134573a93984f009220dd7cc12a1744",
)

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
# YAMNet-mini, up to the first 256 channels: the size that STM32's model zoo made known as YAMNet-256.
MINI_LAYERS = LAYERS[:6]
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
        weights: "audioset" (the published ones, from the caches, TF Hub, Kaggle or their authors), a TF Hub
            handle, the path of a SavedModel folder or archive, of the authors' ``yamnet.h5``, of a
            ``.weights.h5`` or ``.npz`` file, or None for random weights.
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
        load_mini_weights(model, weights)
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


def published_forms(model: keras.Model) -> weight_files.Forms:
    """The names that the published files have for the model's variables.

    TF Hub's checkpoint numbers the layers that hold weights in order: convolution and batch norm alternate, the
    classifier is 54. The authors' ``yamnet.h5`` says a layer's name twice: "layer1/conv/layer1/conv/kernel:0".
    """
    names: list[str] = []
    for number in range(1, len(LAYERS) + 1):
        convs = ["conv"] if number == 1 else ["depthwise_conv", "pointwise_conv"]
        names += [f"layer{number}/{conv}{part}" for conv in convs for part in ("", "/bn")]
    names.append("logits")
    present = {layer.name: layer for layer in model.layers}
    saved_model: dict[str, Any] = {}
    keras2: dict[str, Any] = {}
    for index, name in enumerate(names):
        if name.replace("/", "_") not in present:
            continue  # cut off above an embedding, or no classifier
        for variable in present[name.replace("/", "_")].weights:
            part = variable.name
            if part == "kernel" and name.endswith("depthwise_conv"):
                part = "depthwise_kernel"  # Keras 3 calls it kernel
            saved_model[f"_yamnet/layer_with_weights-{index}/{part}/.ATTRIBUTES/VARIABLE_VALUE"] = variable
            keras2[f"{name}/{name}/{part}:0"] = variable
    return weight_files.Forms(
        saved_model=saved_model,
        leftover=(f"_yamnet/layer_with_weights-{4 * len(LAYERS) - 2}/",),
        class_map="yamnet_class_map.csv",
        keras2=keras2,
        head=("logits/",),
    )


def load_weights(model: keras.Model, weights: str) -> Found:
    """Gives ``model`` the published weights ("audioset"), or those of a TF Hub handle, SavedModel or file."""
    forms = published_forms(model)
    if weights == "audioset":
        check = partial(check_known_answers, model)
        found, loaded = weight_files.load_published(model, PUBLISHED, forms, check)
    else:
        found, loaded = Found("you", str(weights), Path(weights)), weight_files.load_into(model, weights, forms)
    present = {layer.name: layer for layer in model.layers}
    if "scores" in present:
        present["scores"].class_names = tuple(loaded.class_names or weight_files.npz_class_names(EMBEDDED))
    return found


def load_mini_weights(model: keras.Model, weights: str) -> Found:
    """Gives ``model`` the embedded weights, or those of an ``.npz`` or ``.weights.h5``."""
    path = Path(EMBEDDED if weights == "audioset" else weights).expanduser()
    if path.suffix not in (".h5", ".npz"):
        raise WeightsError(
            f"weights={str(weights)!r}: yamnet_mini takes 'audioset' (the weights in the package), or the path of an "
            ".npz or .weights.h5 file; for TF Hub's weights and SavedModels choose the backbone yamnet"
        )
    names: list[str] = []
    with weight_files.errors_name(str(weights)):
        if path.suffix == ".h5":
            weight_files.load_h5(model, path)
        else:
            digest = EMBEDDED_SHA256 if path == EMBEDDED else None
            names = weight_files.load_npz(model, path, leftover_prefixes=("logits/",), sha256=digest)
    if names and any(layer.name == "scores" for layer in model.layers):
        model.get_layer("scores").class_names = tuple(names)
    return Found("the package" if path == EMBEDDED else "you", str(path), path)


def check_known_answers(model: keras.Model, values: Mapping[str, np.ndarray]) -> None:
    """Asks the network what everybody knows; WeightsError if it answers otherwise than the published weights.

    Args:
        model: YAMNet, with or without its classifier.
        values: what was read, under any names; the classifier is known by its shape.
    """
    head = {value.shape: value for value in values.values() if CLASSES in value.shape}
    if set(head) != {(EMBEDDING_SIZE, CLASSES), (CLASSES,)}:
        raise WeightsError(f"the classifier of {CLASSES} classes is missing, by which the weights are checked")
    names = weight_files.npz_class_names(EMBEDDED)
    time = np.arange(LogMelSpec().min_samples) / LogMelSpec().sample_rate
    noise = stream("network check", 0, "known answers").uniform(-1, 1, len(time))
    sounds = np.stack([np.zeros(len(time)), noise, np.sin(2 * np.pi * 440 * time)]).astype(np.float32)
    embeddings = embed_patches(model, LogMelSpec(), sounds)
    logits = embeddings @ head[EMBEDDING_SIZE, CLASSES] + head[CLASSES,]
    for row, (answer, best) in zip(logits, KNOWN_ANSWERS.items(), strict=True):
        ranked = [names[i] for i in np.argsort(-row, kind="stable")]
        if not np.isfinite(row).all() or answer not in ranked[:best]:
            raise WeightsError(
                f"not the published weights, or damaged: {answer!r} is called {ranked[0]!r} and comes "
                f"{ranked.index(answer) + 1} of {CLASSES}; it must be among the first {best}"
            )


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


def _spec(table: Sequence[tuple[int, int, int]], **fields: Any) -> BackboneSpec:
    relus = ["layer1_relu", *(f"layer{n}_pointwise_conv_relu" for n in range(2, len(table) + 1))]
    blocks = tuple(Block(f"layer{n}", relu) for n, relu in enumerate(relus, start=1))
    return BackboneSpec(
        license="Apache-2.0",
        frontend=LogMelSpec(),
        layers=(
            EmbeddingLayer("log_mel", "patch_batch", LogMelSpec().mel_bands),
            *(EmbeddingLayer(block.name, block.end, row[2]) for block, row in zip(blocks, table, strict=True)),
            EmbeddingLayer("embedding", "embedding", table[-1][2]),
            EmbeddingLayer("logits", "logits", CLASSES),
            EmbeddingLayer("scores", "scores", CLASSES),
        ),
        blocks=blocks,
        top=("logits", "scores"),
        **fields,
    )


SPEC = _spec(
    LAYERS,
    name="yamnet",
    build=YAMNet,
    description="MobileNet v1 on log-mel patches of 0.96 s, trained on AudioSet (521 classes), 3.7 M parameters",
    presets={"audioset": PUBLISHED.handle},
    published=PUBLISHED,
    load_weights=load_weights,
    source="github.com/tensorflow/models, research/audioset/yamnet",
    # 58 % of the multiply-adds; on words, with few clips above all, better than the embedding and than either layer
    # averaged, on sounds that AudioSet names worse than the embedding (docs/embeddings.md).
    recipes={"bands": Recipe(("layer7", "layer9"), "freq")},
)
MINI_SPEC = _spec(
    MINI_LAYERS,
    name="yamnet_mini",
    build=YAMNetMini,
    description="YAMNet's first six blocks, distilled from it, weights in the package, 0.14 M parameters",
    presets={"audioset": str(EMBEDDED)},
    load_weights=load_mini_weights,
    source="docs/yamnet_mini.md",
    recipes={"bands": Recipe(("layer5", "layer6"), "freq")},
)
