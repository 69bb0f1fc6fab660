"""From a backbone's name to a Keras model: embeddings of any layer, and classifiers on top of them."""

from __future__ import annotations

import numbers
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import layers

from tfaudiotl.backbones.assembly import grid_of_model, patches_of_model
from tfaudiotl.backbones.frontend import PatchPooling, PatchSequence, ValidPatches
from tfaudiotl.backbones.registry import BackboneSpec, get_backbone
from tfaudiotl.backbones.scores import check_background, set_background
from tfaudiotl.models.freeze import train_blocks
from tfaudiotl.models.heads import HEADS, SEQUENCE_HEADS, dense_head, sequence_head

if TYPE_CHECKING:
    from tfaudiotl.audio.clips import Clips

POOLINGS = ("avg", "max", "avgmax", "time")
AGGREGATES = ("scores", "embeddings")


def embedding_model(
    backbone: str = "yamnet",
    *,
    embedding: str | Sequence[str] | None = None,
    pooling: str = "avg",
    patch_pooling: str | None = None,
    weights: str | None = "audioset",
    input: str = "waveform",
    samples: int | None = None,
    backbone_options: Mapping[str, Any] | None = None,
) -> keras.Model:
    """A Keras model from sound to the embedding of one layer, or of several side by side.

    Args:
        backbone: a name from ``list_backbones()``.
        embedding: names from ``embedding_layers(backbone)``; None: the backbone's own embedding. Nothing
            above the last of them is built.
        pooling: how a convolution's feature map is pooled to numbers: "avg", "max", "avgmax" (both), or "time":
            mean over frequency, time kept, for finer event times.
        patch_pooling: "avg" or "max" over the patches of a clip; None keeps them.
        weights: as for the backbone's builder.
        input: "waveform" or "patches", as for the backbone's builder.
        samples: a fixed waveform length, or None for any.
        backbone_options: further arguments of the backbone's builder, such as VGGish's ``pad_tail``.

    Returns:
        A ``keras.Model`` from ``(batch, samples)`` to ``(batch, patches, dim)``, to ``(batch, dim)`` with
        ``patch_pooling``, or to ``(batch, patches, steps, dim)`` with ``pooling="time"``; for
        ``input="patches"`` from ``(batch, 96, 64)`` to ``(batch, dim)`` or ``(batch, steps, dim)``.
    """
    spec = get_backbone(backbone)
    names = layer_names(spec, embedding, "embedding")
    if patch_pooling not in (None, "avg", "max"):
        raise ValueError(f"patch_pooling={patch_pooling!r}: allowed are None, 'avg' and 'max'")
    if pooling == "time" and patch_pooling is not None:
        raise ValueError(f"patch_pooling={patch_pooling!r}: pooling='time' keeps time, so patches cannot be pooled")
    base = cut_backbone(spec, names, weights=weights, input=input, samples=samples, **(backbone_options or {}))
    x = clip_pooling(base, spec, patch_embedding(base, spec, names, pooling), patch_pooling)
    return keras.Model(base.input, x, name=f"{_plain_name(spec)}_{'_'.join(names)}")


def build_classifier(
    backbone: str = "yamnet",
    *,
    classes: Sequence[str],
    embedding: str | Sequence[str] | None = None,
    head: str = "dense",
    hidden: Sequence[int] = (128,),
    dropout: float = 0.2,
    multi_label: bool = False,
    pooling: str = "avg",
    aggregate: str = "scores",
    trainable: int | str = 0,
    batch_norm: str | None = None,
    weights: str | None = "audioset",
    input: str = "waveform",
    samples: int | None = None,
    learning_rate: float = 1e-3,
    seed: int | None = None,
    name: str | None = None,
    background: str | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    probe_clips: Clips | None = None,
) -> keras.Model:
    """A sound classifier: backbone, embedding, head, mean over the clip's patches. One flat Keras model.

    It comes compiled (Adam; cross-entropy on one-hot or multi-hot targets; accuracy), so ``fit`` works at
    once; call ``compile`` yourself for anything else.

    Args:
        backbone: a name from ``list_backbones()``.
        classes: the class names, in the order of the targets' columns; kept inside the model.
        embedding: layer name or names, from ``embedding_layers(backbone)``; None: the backbone's own;
            "auto": what ``probe_layers`` recommends on ``probe_clips``.
        head: "dense" on each patch, or on the mean embedding (see ``aggregate``); "average": the latter; on the
            patches in their order: "attention", "gru", "lstm", "conv" (``sequence_head`` says what they are).
        hidden: widths of the head's hidden layers; ``()`` gives a linear classifier.
        dropout: dropout in the head, in [0, 1).
        multi_label: independent classes (sigmoid, binary cross-entropy) instead of exactly one.
        pooling: how a convolution's feature map is pooled to numbers: "avg", "max" or "avgmax".
        aggregate: how the patches of a clip become one result: "scores" classifies every patch and
            averages the scores, "embeddings" averages the embeddings and classifies once. Heads on sequences
            have their own way.
        trainable: 0 trains the head only, n also the last n blocks of the backbone, "layer12" from that block on,
            "all" everything.
        batch_norm: "frozen" or "train", for the backbone's blocks that train; see ``freeze``. None: "train" without
            weights, else "frozen".
        weights: preset, TF Hub handle, SavedModel folder or archive, ``.weights.h5`` file, or None.
        input: "waveform" ``(batch, samples)``, or "patches" ``(batch, 96, 64)``.
        samples: a fixed waveform length (static shapes, for TPU and XLA), or None for any.
        learning_rate: Adam's.
        seed: of the head's initial weights and dropout; None draws new ones each time.
        name: the model's name; "<backbone>_classifier" if not given.
        background: one of ``classes`` that is no sound of interest: scored like the others, never an event.
        backbone_options: further arguments of the backbone's builder, such as VGGish's ``pad_tail``.

        probe_clips: labelled clips for ``embedding="auto"``: those to train on, never those to test on.

    Returns:
        A compiled ``keras.Model`` from ``(batch, samples)`` to scores ``(batch, classes)`` in float32.

    Raises:
        ValueError: an argument outside what is allowed.
        WeightsError: weights that cannot be found, read or matched.
    """
    class_names = check_classes(classes)
    check_background(background, class_names)
    if head not in HEADS:
        raise ValueError(f"head={head!r}: allowed are {', '.join(HEADS)}")
    if not isinstance(dropout, numbers.Real) or not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout!r}: allowed is 0 up to, not including, 1")
    if not isinstance(hidden, Sequence) or any(not isinstance(units, int) or units < 1 for units in hidden):
        raise ValueError(f"hidden={hidden!r}: a sequence of positive whole numbers")
    if aggregate not in AGGREGATES:
        raise ValueError(f"aggregate={aggregate!r}: allowed are {', '.join(AGGREGATES)}")
    if head in SEQUENCE_HEADS and (input == "patches" or aggregate == "embeddings"):
        given = "input='patches'" if input == "patches" else "aggregate='embeddings'"
        raise ValueError(f"head={head!r} takes the sequence of a clip's patches; it cannot go with {given}")
    if pooling == "time":
        raise ValueError("pooling='time' is for embedding_model; a classifier's head takes 'avg', 'max' or 'avgmax'")
    spec = get_backbone(backbone)
    if spec.black_box and trainable != 0:
        raise ValueError(f"trainable={trainable!r}: {backbone} is a black box and stays frozen; allowed is 0")
    if embedding == "auto":
        embedding = _probed(backbone, probe_clips, pooling=pooling, weights=weights)
    names = layer_names(spec, embedding)
    base = cut_backbone(spec, names, weights=weights, input=input, samples=samples, **(backbone_options or {}))
    x = patch_embedding(base, spec, names, pooling)
    options: dict[str, Any] = {"hidden": tuple(hidden), "dropout": dropout, "multi_label": multi_label, "seed": seed}
    if head in SEQUENCE_HEADS:
        sequence = clip_pooling(base, spec, x, None)
        x = sequence_head(head, sequence, valid_patches(base), class_names, **options)
    elif head == "average" or aggregate == "embeddings":
        x = dense_head(clip_pooling(base, spec, x, "avg"), class_names, **options)
    else:
        x = clip_pooling(base, spec, dense_head(x, class_names, **options), "avg")
    model = keras.Model(base.input, x, name=name or f"{_plain_name(spec)}_classifier")
    train_blocks(model, trainable, batch_norm=batch_norm or ("train" if weights is None else "frozen"))
    compile_classifier(model, multi_label=multi_label, learning_rate=learning_rate)
    set_background(model, background)
    return model


def _plain_name(spec: BackboneSpec) -> str:
    """The backbone's name as part of a model's, which has no slashes."""
    return "hub" if spec.black_box else spec.name


def _probed(backbone: str, clips: Clips | None, **options: Any) -> str:
    """The layer that a probe recommends on these clips."""
    if clips is None:
        raise ValueError("embedding='auto': needs probe_clips=, the labelled clips to choose the layer on")
    # The one import from a later stage: the builder is where people ask for it, and the probe needs the builder.
    from tfaudiotl.embeddings.probe import probe_layers

    return probe_layers(backbone, clips, **options).recommended


def compile_classifier(
    model: keras.Model,
    *,
    multi_label: bool,
    learning_rate: float = 1e-3,
    loss: keras.losses.Loss | None = None,
    optimizer: keras.optimizers.Optimizer | None = None,
) -> None:
    """Compiles with the loss (None: cross-entropy that fits the targets), the optimizer (None: Adam), and accuracy."""
    kind: Any = keras.metrics.BinaryAccuracy if multi_label else keras.metrics.CategoricalAccuracy
    # Keras compiles with XLA wherever it can; on a CPU that is much slower for YAMNet (docs/decisions.md).
    jit_compile: Any = "auto" if _has_accelerator() else False
    model.compile(
        scaled(model, freed_with_its_model(optimizer or keras.optimizers.Adam(learning_rate))),
        loss or (keras.losses.BinaryCrossentropy() if multi_label else keras.losses.CategoricalCrossentropy()),
        metrics=[kind(name="accuracy")],
        jit_compile=jit_compile,
    )


def scaled(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer, with loss scaling where layers compute in float16.

    Keras itself goes by the session's precision, which says nothing of a model that was loaded from a file.
    """
    half = any(layer.compute_dtype == "float16" for layer in model.layers)
    return keras.optimizers.LossScaleOptimizer(optimizer) if half else optimizer


def freed_with_its_model(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer, changed so that the graph of its training step does not outlive the model.

    Keras adds gradients up over devices through ``tf.custom_gradient``, whose registry lasts as long as the process and
    keeps the graph: 5 MB for every model that is trained. Where there is one device there is nothing to add up.
    """
    add_up = getattr(optimizer, "_all_reduce_sum_gradients", None)  # of Keras's TensorFlow backend
    if add_up is not None:

        def over_devices(gradients: Any) -> Any:
            import tensorflow as tf

            several = tf.distribute.get_strategy().num_replicas_in_sync > 1
            return add_up(gradients) if several else list(gradients)

        optimizer._all_reduce_sum_gradients = over_devices
    return optimizer


def _has_accelerator() -> bool:
    return any(not device.startswith("cpu") for device in keras.distribution.list_devices())


def layer_names(spec: BackboneSpec, names: str | Sequence[str] | None, argument: str = "embedding") -> list[str]:
    """``names``, given as ``argument``, as a checked list; None means the backbone's own embedding."""
    listed = [spec.default_embedding] if names is None else [names] if isinstance(names, str) else list(names)
    if not listed or len(set(listed)) != len(listed):
        raise ValueError(f"{argument}={names!r}: one layer name, or several different ones")
    for name in listed:
        spec.embedding_layer(name, argument)
    return listed


def patch_embedding(base: keras.Model, spec: BackboneSpec, names: Sequence[str], pooling: str) -> Any:
    """The embedding of every patch, ``(batch * patches, dim)``: each layer pooled, side by side.

    With ``pooling="time"`` ``(batch * patches, steps, dim)``.
    """
    vectors = pooled_layers(base, spec, names, pooling)
    if len({vector.shape[1:-1] for vector in vectors}) > 1:
        steps = ", ".join(f"{name} {vector.shape[1]}" for name, vector in zip(names, vectors, strict=True))
        raise ValueError(f"pooling='time': the layers have different numbers of time steps per patch: {steps}")
    x = vectors[0] if len(vectors) == 1 else layers.Concatenate(name="embedding_concat")(vectors)
    return layers.Identity(name="patch_embedding")(x)


def pooled_layers(base: keras.Model, spec: BackboneSpec, names: Sequence[str], pooling: str) -> list[Any]:
    """The embedding of every patch by each layer, ``(batch * patches, dim)``."""
    if pooling not in POOLINGS:
        raise ValueError(f"pooling={pooling!r}: allowed are {', '.join(POOLINGS)}")
    return [_pool(base.get_layer(spec.embedding_layer(name).layer).output, name, pooling) for name in names]


def _pool(x: Any, name: str, pooling: str) -> Any:
    if len(x.shape) == 2:
        if pooling == "time":
            raise ValueError(f"pooling='time': layer {name!r} has no time axis left; take an earlier layer")
        return x
    if len(x.shape) == 3:  # a sequence: a picture of one band
        x = layers.Reshape((x.shape[1], 1, x.shape[2]), name=f"{name}_sequence")(x)
    elif x.shape[3] == 1:  # one channel: the bands are the features, time is pooled
        x = layers.Reshape((x.shape[1], 1, x.shape[2]), name=f"{name}_bands")(x)
    if pooling == "time":  # mean over frequency
        x = layers.AveragePooling2D((1, x.shape[2]), name=f"{name}_{pooling}_mean")(x)
        return layers.Reshape((x.shape[1], x.shape[3]), name=f"{name}_{pooling}")(x)
    kinds = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}
    parts = [kinds[kind](name=f"{name}_{kind}")(x) for kind in ("avg", "max") if kind in pooling]
    return parts[0] if len(parts) == 1 else layers.Concatenate(name=f"{name}_{pooling}")(parts)


def cut_backbone(spec: BackboneSpec, names: Sequence[str], **options: Any) -> keras.Model:
    """The backbone with its classifier or post-processing only if one of the layers is part of it."""
    return spec.build(include_top=bool(set(spec.top) & set(names)), **options)


def clip_pooling(base: keras.Model, spec: BackboneSpec, x: Any, mode: str | None) -> Any:
    """From patches ``(batch * patches, dim)`` to clips ``(batch, dim)``, over the valid patches.

    ``mode=None`` keeps the patches, ``(batch, patches, dim)``. A model of patches has nothing to pool.
    """
    if base.input.name != "waveform":
        return x
    x = PatchSequence(name="patch_sequence")([x, patches_of_model(base)])
    if mode is None:
        return x
    return PatchPooling(mode, name="patch_pooling")([x, valid_patches(base)])


def valid_patches(base: keras.Model) -> Any:
    """Which patches of a waveform are not padding, ``(batch, patches)``."""
    return ValidPatches(grid_of_model(base), name="valid_patches")(base.input)


def clip_embedding_model(classifier: keras.Model) -> keras.Model:
    """The model of the embedding that a classifier's head sees, pooled over the clip: ``(batch, dim)``."""
    x = classifier.get_layer("patch_embedding").output
    names = {layer.name for layer in classifier.layers}
    if "patch_sequence" in names:
        x = PatchSequence()([x, patches_of_model(classifier)])
        x = PatchPooling("avg")([x, classifier.get_layer("valid_patches").output])
    return keras.Model(classifier.inputs[0], x)


# Control characters, bytes that are no UTF-8, separators of lines and paragraphs: most of them end a line of labels.
_UNFIT = ("Cc", "Cs", "Zl", "Zp")


def check_classes(classes: Sequence[str], *, at_least: int = 2) -> list[str]:
    """``classes`` as a list of different names, two or as many as ``at_least`` says, or a ValueError."""
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        raise ValueError(f"classes={classes!r}: a sequence of class names, such as ['dog', 'rain']")
    names = list(classes)
    if (
        len(names) < at_least
        or len(set(names)) != len(names)
        or not all(isinstance(name, str) and name for name in names)
    ):
        number = {1: "one name", 2: "two different, non-empty names"}[at_least]
        raise ValueError(f"classes={names!r}: at least {number}")
    for place, name in enumerate(names):
        bad = next((letter for letter in name if unicodedata.category(letter) in _UNFIT), None)
        if bad is not None:
            raise ValueError(
                f"classes[{place}]={name!r} has the character {bad!r}: a name is one line of text without control "
                "characters, since exported files hold one name a line; rename the folder, or relabel the clips"
            )
    return names
