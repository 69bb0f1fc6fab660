"""What the package knows of a network: the record that each network's module has of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import keras

from tfaudiotl.backbones.frontend import LogMelSpec, WindowSpec
from tfaudiotl.backbones.weight_sources import Found, Published

Pooling = Literal["avg", "max", "avgmax", "freq", "time"]


@dataclass(frozen=True)
class EmbeddingLayer:
    """A layer whose output serves as an embedding.

    Attributes:
        name: the short name a user types, such as "layer8".
        layer: the Keras layer's name in the model, such as "layer8_pointwise_conv_relu".
        width: numbers per patch once pooled.
    """

    name: str
    layer: str
    width: int


@dataclass(frozen=True)
class Recipe:
    """What is taken from a network: some layers, side by side, and how their feature maps become numbers.

    Attributes:
        layers: short names of embedding layers.
        pooling: of each; a layer without time and bands passes as it is.
    """

    layers: tuple[str, ...]
    pooling: Pooling = "avg"


@dataclass(frozen=True)
class Block:
    """A block of a network: what lies between the end of the block before and its own, in the order of computation.

    Attributes:
        name: what ``trainable=`` takes, such as "layer8".
        end: the name of the Keras layer that it ends with.
    """

    name: str
    end: str


@dataclass(frozen=True)
class BackboneSpec:
    """Everything about one pretrained network: how to build it, what it hears, where it comes from."""

    name: str
    build: Callable[..., keras.Model]
    description: str
    presets: dict[str, str]  # preset name -> TF Hub handle, or path of a file in this package
    license: str
    source: str  # where the definition and its constants were published
    frontend: LogMelSpec | WindowSpec
    layers: tuple[EmbeddingLayer, ...]
    blocks: tuple[Block, ...] = ()  # from input to output; none for what is not trained in parts
    default_embedding: str = "embedding"
    recipes: Mapping[str, Recipe] = field(default_factory=dict)  # by the name that ``embedding=`` takes
    top: tuple[str, ...] = ()  # layers that ``build(include_top=True)`` has and False has not
    published: Published | None = None  # where the preset "audioset" is looked for
    # fills a model of this network from a preset, handle or file, and says where they were found
    load_weights: Callable[[keras.Model, str], Found] | None = None
    black_box: bool = False  # one output, nothing inside to look at or to train
    _by_name: dict[str, EmbeddingLayer] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {layer.name: layer for layer in self.layers})

    @property
    def keras_layers(self) -> set[str]:
        """Names of the Keras layers that this record speaks of, by which a model of the network is recognised."""
        return {layer.layer for layer in self.layers} | {block.end for block in self.blocks}

    def embedding_layer(self, name: str) -> EmbeddingLayer:
        """The embedding layer called ``name``; ValueError lists those there are."""
        if name not in self._by_name:
            recipes = f", and alone the recipes {', '.join(self.recipes)}" if self.recipes else ""
            raise ValueError(f"embedding={name!r}: {self.name} has the layers {', '.join(self._by_name)}{recipes}")
        return self._by_name[name]
