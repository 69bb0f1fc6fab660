"""Embeddings of a backbone: which layers give one, what they cost, and the backbone cut and pooled there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import layers, ops

from tfaudiotl.backbones.assembly import Input, to_clips
from tfaudiotl.backbones.rawnet2 import SincConv
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.backbones.spec import BackboneSpec, Pooling, Recipe

# Square roots of less are those of this: at zero, where a channel is silent, their gradient would be infinite.
LEAST = 1e-6


@keras.saving.register_keras_serializable(package="tfaudiotl")
class FrequencyPooling(keras.layers.Layer):
    """Keeps frequency: ``(rows, time, bands, channels)`` to ``(rows, bands * channels)``, in float32.

    The mean over time, and its square root: the few strong activations of a feature map weigh less beside the many
    weak ones. Numbers below zero keep their sign.

    Args:
        signed: whether the feature map can be negative; after a ReLU it cannot, which saves half of the work.
    """

    def __init__(self, *, signed: bool = False, **kwargs: Any):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.signed = signed

    def call(self, x: Any) -> Any:
        x = ops.reshape(ops.mean(x, axis=1), (-1, x.shape[2] * x.shape[3]))
        root = ops.sqrt(ops.maximum(x, LEAST))
        # By operators that have an integer form in .tflite files; a sign has none.
        return root - ops.sqrt(ops.maximum(-1.0 * x, LEAST)) if self.signed else root

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        rows, _, bands, channels = input_shape
        return (rows, bands * channels if bands and channels else None)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "signed": self.signed}


def embedding_model(
    backbone: str = "yamnet",
    *,
    embedding: str | Sequence[str] | None = None,
    pooling: Pooling | None = None,
    patch_pooling: Literal["avg", "max"] | None = None,
    weights: str | None = "audioset",
    input: Input = "waveform",
    samples: int | None = None,
    backbone_options: Mapping[str, Any] | None = None,
) -> keras.Model:
    """A Keras model from sound to the embedding of one layer, or of several side by side.

    Args:
        backbone: a name from ``list_backbones()``.
        embedding: a name or names from ``embedding_layers(backbone)``, or one from ``embedding_recipes(backbone)``;
            None: the backbone's own embedding. Nothing above the last layer is built.
        pooling: how a convolution's feature map is pooled to numbers: "avg", "max", "avgmax" (both), "freq": mean
            over a patch's time, frequency kept, square root (see ``FrequencyPooling``), or "time": mean over
            frequency, time kept, for finer event times. None: the recipe's, of layers "avg"; what is given goes before
            a recipe's.
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
    recipe = resolve_embedding(spec, embedding, pooling)
    names = recipe.layers
    if patch_pooling not in (None, "avg", "max"):
        raise ValueError(f"patch_pooling={patch_pooling!r}: allowed are None, 'avg' and 'max'")
    if recipe.pooling == "time" and patch_pooling is not None:
        raise ValueError(f"patch_pooling={patch_pooling!r}: pooling='time' keeps time, so patches cannot be pooled")
    base = cut_backbone(spec, names, weights=weights, input=input, samples=samples, **(backbone_options or {}))
    x = to_clips(base, patch_embedding(base, spec, recipe), patch_pooling)
    return keras.Model(base.input, x, name=f"{plain_name(spec)}_{'_'.join(names)}")


def plain_name(spec: BackboneSpec) -> str:
    """The backbone's name as part of a model's, which has no slashes."""
    return "hub" if spec.black_box else spec.name


def resolve_embedding(
    spec: BackboneSpec, embedding: str | Sequence[str] | None, pooling: Pooling | None = None
) -> Recipe:
    """What ``embedding=`` and ``pooling=`` ask for, checked: the one place that knows what they may be.

    Args:
        spec: the backbone's record.
        embedding: the name of a layer or of a recipe, names of several layers, or None: the backbone's own embedding.
        pooling: goes before a recipe's; None: the recipe's, of layers "avg".
    """
    if pooling is not None and pooling not in get_args(Pooling):
        raise ValueError(f"pooling={pooling!r}: allowed are {', '.join(get_args(Pooling))}")
    asked = spec.default_embedding if embedding is None else embedding
    names = [asked] if isinstance(asked, str) else list(asked)
    if len(names) == 1 and names[0] in spec.recipes:
        recipe = spec.recipes[names[0]]
        return recipe if pooling is None else replace(recipe, pooling=pooling)
    if not names or len(set(names)) != len(names):
        raise ValueError(f"embedding={embedding!r}: one layer name, or several different ones")
    for name in names:
        spec.embedding_layer(name)
    return Recipe(tuple(names), pooling or "avg")


def patch_embedding(base: keras.Model, spec: BackboneSpec, recipe: Recipe) -> Any:
    """The embedding of every patch, ``(batch * patches, dim)``: each layer pooled, side by side.

    With ``pooling="time"`` ``(batch * patches, steps, dim)``.
    """
    vectors = pooled_layers(base, spec, recipe)
    if len({vector.shape[1:-1] for vector in vectors}) > 1:
        steps = ", ".join(f"{name} {vector.shape[1]}" for name, vector in zip(recipe.layers, vectors, strict=True))
        raise ValueError(f"pooling='time': the layers have different numbers of time steps per patch: {steps}")
    x = vectors[0] if len(vectors) == 1 else layers.Concatenate(name="embedding_concat")(vectors)
    return layers.Identity(name="patch_embedding")(x)


def pooled_layers(base: keras.Model, spec: BackboneSpec, recipe: Recipe) -> list[Any]:
    """The embedding of every patch by each layer, ``(batch * patches, dim)``."""
    return [_pool(base.get_layer(spec.embedding_layer(name).layer), name, recipe.pooling) for name in recipe.layers]


def _pool(layer: keras.layers.Layer, name: str, pooling: Pooling) -> Any:
    x, plain = layer.output, "freq_" if pooling == "freq" else ""
    if len(x.shape) == 2:
        if pooling == "time":
            raise ValueError(f"pooling='time': layer {name!r} has no time axis left; take an earlier layer")
        return x
    if len(x.shape) == 3:  # a sequence: a feature map of one band
        x = layers.Reshape((x.shape[1], 1, x.shape[2]), name=f"{name}_{plain}sequence")(x)
    if pooling == "freq":
        return FrequencyPooling(signed=_can_be_negative(layer), name=f"{name}_freq")(x)
    if x.shape[3] == 1:  # one channel: the bands are the features, time is pooled
        x = layers.Reshape((x.shape[1], 1, x.shape[2]), name=f"{name}_bands")(x)
    if pooling == "time":  # mean over frequency
        x = layers.AveragePooling2D((1, x.shape[2]), name=f"{name}_{pooling}_mean")(x)
        return layers.Reshape((x.shape[1], x.shape[3]), name=f"{name}_{pooling}")(x)
    kinds = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}
    parts = [kinds[kind](name=f"{name}_{kind}")(x) for kind in ("avg", "max") if kind in pooling]
    return parts[0] if len(parts) == 1 else layers.Concatenate(name=f"{name}_{pooling}")(parts)


def _can_be_negative(layer: keras.layers.Layer) -> bool:
    """Whether a layer's output can be: unknown layers' can."""
    if isinstance(layer, keras.layers.ReLU):
        return bool(layer.negative_slope)
    return getattr(layer, "activation", None) not in (keras.activations.relu, keras.activations.sigmoid)


def cut_backbone(spec: BackboneSpec, names: Sequence[str], **options: Any) -> keras.Model:
    """The backbone as rows of patches, with its classifier or post-processing only if ``names`` has a layer of it."""
    rows = None if options.get("input") == "patches" else "rows"
    return spec.build(include_top=bool(set(spec.top) & set(names)), patch_pooling=rows, **options)


@dataclass(frozen=True)
class LayerInfo:
    """An embedding layer.

    Attributes:
        name: what ``embedding=`` takes.
        width: numbers per patch with "avg" or "max" pooling; "freq" gives as many for each band of the feature map.
        share: share of the whole network's multiply-adds that computing it takes, 0 to 1.
        seconds_per_step: time from one step to the next with ``pooling="time"``; for layers without a
            time axis from one patch to the next.
    """

    name: str
    width: int
    share: float
    seconds_per_step: float


def embedding_layers(backbone: str = "yamnet") -> list[LayerInfo]:
    """The embedding layers of a backbone, from its input to its output.

    Args:
        backbone: a name from ``list_backbones()``.

    Raises:
        ValueError: no such backbone (the message lists those there are).
    """
    spec = get_backbone(backbone)
    work = multiply_adds(backbone)
    total = max(1, *(cost for cost, _ in work.values()))
    return [
        LayerInfo(
            name=layer.name,
            width=layer.width,
            share=work[layer.name][0] / total,
            seconds_per_step=spec.frontend.patch_seconds / work[layer.name][1]
            if work[layer.name][1]
            else spec.frontend.patch_hop_seconds,
        )
        for layer in spec.layers
    ]


@dataclass(frozen=True)
class RecipeInfo:
    """A recipe: layers and their pooling, under one name.

    Attributes:
        name: what ``embedding=`` takes.
        layers: names from ``embedding_layers``.
        pooling: of their feature maps.
        width: numbers per patch.
        share: share of the whole network's multiply-adds that computing it takes, 0 to 1; the network above is cut off.
    """

    name: str
    layers: tuple[str, ...]
    pooling: Pooling
    width: int
    share: float


def embedding_recipes(backbone: str = "yamnet") -> list[RecipeInfo]:
    """The recipes of a backbone; ``[]`` for one whose feature maps have no bands.

    Args:
        backbone: a name from ``list_backbones()``.

    Raises:
        ValueError: no such backbone (the message lists those there are).
    """
    spec = get_backbone(backbone)
    if not spec.recipes:
        return []
    shares = {layer.name: layer.share for layer in embedding_layers(backbone)}
    with keras.device("cpu:0"):
        base = spec.build(include_top=False, weights=None, patch_pooling="rows")
    found = []
    for name, recipe in spec.recipes.items():
        width = sum(int(output.shape[-1]) for output in pooled_layers(base, spec, recipe))
        found.append(
            RecipeInfo(name, recipe.layers, recipe.pooling, width, max(shares[layer] for layer in recipe.layers))
        )
    return found


def multiply_adds(backbone: str) -> dict[str, tuple[int, int]]:
    """For each embedding layer: multiply-adds per patch up to it, and its time steps (0: it has none).

    Convolutions and dense layers count; the front-end, norms, activations and pooling do not.
    """
    spec = get_backbone(backbone)
    if spec.black_box:
        raise ValueError(f"backbone={backbone!r}: a SavedModel of TF Hub is a black box: its one layer is 'embedding'")
    with keras.device("cpu:0"):
        model = spec.build(include_top=False, weights=None, samples=spec.frontend.min_samples)
    ends = {layer.layer: layer.name for layer in spec.layers}
    done, found = 0, {}
    for layer in model.layers:  # in the order of the network, which is one chain
        done += _cost(layer)
        if layer.name in ends:
            shape = layer.output.shape
            found[ends[layer.name]] = (done, int(shape[1]) if len(shape) > 2 else 0)
    width = spec.embedding_layer(spec.default_embedding).width
    for name in spec.top:  # a classifier or a projection of the embedding
        found[name] = (done + width * spec.embedding_layer(name).width, 0)
    return found


def _cost(layer: keras.layers.Layer) -> int:
    if isinstance(layer, keras.layers.GRU):  # all weights but the biases, at every step
        return int(layer.input.shape[1]) * sum(int(np.prod(w.shape)) for w in layer.weights if len(w.shape) == 2)
    if isinstance(layer, SincConv):
        return int(np.prod(layer.output.shape[1:])) * layer.taps
    if not isinstance(
        layer, (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
    ):
        return 0
    places = int(np.prod(layer.output.shape[1:-1]))
    return places * int(np.prod(layer.kernel.shape))
