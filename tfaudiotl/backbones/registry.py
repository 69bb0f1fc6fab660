"""What the package knows of each backbone: one record per network, and the lookup by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras

from tfaudiotl.backbones.frontend import LogMelSpec, WindowSpec
from tfaudiotl.backbones.published import Found, Published


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
class BackboneSpec:
    """Everything about one pretrained network: how to build it, what it hears, where it comes from."""

    name: str
    build: Callable[..., keras.Model]
    description: str
    presets: dict[str, str]  # preset name -> TF Hub handle, or path of a file in this package
    license: str
    source: str  # where the definition and its constants were published
    classes: int
    frontend: LogMelSpec | WindowSpec
    layers: tuple[EmbeddingLayer, ...]
    default_embedding: str = "embedding"
    top: tuple[str, ...] = ()  # layers that ``build(include_top=True)`` has and False has not
    published: Published | None = None  # where the preset "audioset" is looked for
    # fills a model of this network from a preset, handle or file, and says where they were found
    load_weights: Callable[[keras.Model, str], Found] | None = None
    black_box: bool = False  # one output, nothing inside to look at or to train
    _by_name: dict[str, EmbeddingLayer] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {layer.name: layer for layer in self.layers})

    def embedding_layer(self, name: str, argument: str = "embedding") -> EmbeddingLayer:
        """The embedding layer called ``name``; ValueError for ``argument`` lists those there are."""
        if name not in self._by_name:
            raise ValueError(f"{argument}={name!r}: {self.name} has the layers {', '.join(self._by_name)}")
        return self._by_name[name]


_SPECS: dict[str, BackboneSpec] = {}


def register_backbone(spec: BackboneSpec) -> BackboneSpec:
    """Adds a backbone under ``spec.name``; a name can be taken once."""
    if spec.name in _SPECS:
        raise ValueError(f"name={spec.name!r}: a backbone of that name is registered already")
    _SPECS[spec.name] = spec
    return spec


def get_backbone(name: str) -> BackboneSpec:
    """The record of the backbone called ``name``; ValueError lists those there are."""
    if isinstance(name, str) and name.startswith("hub:"):
        from tfaudiotl.backbones.hub import hub_spec

        return hub_spec(name)
    specs = _registered()
    if name not in specs:
        raise ValueError(f"backbone={name!r}: allowed are {', '.join(sorted(specs))}, and 'hub:' with a TF Hub handle")
    return specs[name]


def list_backbones() -> list[str]:
    """Names of the backbones that ``build_classifier`` and its siblings take; besides, "hub:" with a TF Hub handle."""
    return sorted(_registered())


def _registered() -> dict[str, BackboneSpec]:
    # Each network's module registers itself; imported here because they import this module.
    import tfaudiotl.backbones.convnet
    import tfaudiotl.backbones.image
    import tfaudiotl.backbones.rawnet2
    import tfaudiotl.backbones.vggish
    import tfaudiotl.backbones.yamnet
    import tfaudiotl.backbones.yamnet_mini  # noqa: F401

    return _SPECS


def build_backbone(name: str, **options: Any) -> keras.Model:
    """Builds the backbone called ``name`` with its builder's own options."""
    return get_backbone(name).build(**options)
