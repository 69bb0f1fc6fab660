"""Every backbone by its name, and its published weights. A new network's module is entered here."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from tfaudiotl.backbones import convnet, keras_applications, rawnet2, vggish, yamnet
from tfaudiotl.backbones.spec import BackboneSpec
from tfaudiotl.backbones.tfhub import PREFIX, hub_spec
from tfaudiotl.backbones.weight_files import npz_variables
from tfaudiotl.backbones.weight_sources import Found

SPECS = {
    spec.name: spec
    for spec in (yamnet.SPEC, yamnet.MINI_SPEC, vggish.SPEC, rawnet2.SPEC, convnet.SPEC, *keras_applications.SPECS)
}


def get_backbone(name: str) -> BackboneSpec:
    """The record of the backbone called ``name``; ValueError lists those there are."""
    if isinstance(name, str) and name.startswith(PREFIX):
        return hub_spec(name)
    if name not in SPECS:
        raise ValueError(f"backbone={name!r}: allowed are {', '.join(sorted(SPECS))}, and 'hub:' with a TF Hub handle")
    return SPECS[name]


def list_backbones() -> list[str]:
    """Names of the backbones that ``build_classifier`` and its siblings take; besides, "hub:" with a TF Hub handle."""
    return sorted(SPECS)


@dataclass(frozen=True)
class Fetched:
    """Published weights, checked, in the network that they are of.

    Attributes:
        spec: the network's record.
        model: the network, with its classifier if it has one.
        found: where the weights were and where they lie now.
    """

    spec: BackboneSpec
    model: keras.Model
    found: Found

    @property
    def sha256(self) -> str:
        """Of the values, layer by layer: the same for the same weights, whatever file they came from."""
        digest = hashlib.sha256()
        for key, variable in sorted(npz_variables(self.model).items()):
            digest.update(f"{key} {tuple(variable.shape)}".encode())
            digest.update(np.asarray(variable, "<f4").tobytes())
        return digest.hexdigest()

    def describe(self) -> list[tuple[str, str]]:
        """What a reader wants to know of them, each with its name."""
        place = "" if self.found.place == str(self.found.path) else f", {self.found.place}"
        return [
            ("network", f"{self.spec.name}: {self.spec.description}"),
            ("from", f"{self.found.name}{place}"),
            ("path", str(self.found.path)),
            ("SHA-256", f"{self.sha256} (of the values)"),
            ("parameters", f"{self.model.count_params():,}"),
            ("licence", f"{self.spec.license} ({self.spec.source})"),
        ]


def fetch_weights(backbone: str) -> Fetched:
    """The published weights of a network, fetched if they are not on this machine, and checked.

    Args:
        backbone: "yamnet", "vggish", "yamnet_mini" or a network of keras.applications.

    Raises:
        ValueError: no such network, or one without published weights.
        WeightsError: every place that was asked, with the reason why it failed.
    """
    known = [name for name in list_backbones() if get_backbone(name).presets]
    if backbone not in known:
        raise ValueError(f"backbone={backbone!r}: no published weights of that name; there are: {', '.join(known)}")
    spec = get_backbone(backbone)
    if spec.load_weights is None:  # Keras fetches, checks and keeps them itself
        model = spec.build(weights=next(iter(spec.presets)))
        kept = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
        return Fetched(spec, model, Found("Keras", "keras.applications", kept))
    model = spec.build(weights=None, include_top="scores" in spec.top)
    return Fetched(spec, model, spec.load_weights(model, "audioset"))
