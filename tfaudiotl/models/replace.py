"""Another set of classes for a trained classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfaudiotl.backbones.hub import layer_from
from tfaudiotl.backbones.scores import class_names_of
from tfaudiotl.models.builder import check_classes, compile_classifier
from tfaudiotl.models.freeze import backbone_layers
from tfaudiotl.models.heads import layer_seed


def replace_head(
    model: keras.Model, classes: Sequence[str], *, extend: bool = False, keep: bool = True, seed: int | None = None
) -> keras.Model:
    """A classifier for other classes on the backbone of a trained one.

    The new head has the old one's shape. With ``keep`` it begins with the old head's hidden layers, and classes that
    the old one knew begin with what it knew of them: when classes are added, the others are told apart as before.

    Args:
        model: a classifier of ``build_classifier``, trained or not, or loaded from its file.
        classes: the class names, in the order of the targets' columns.
        extend: the old classes stay, in front of ``classes``.
        keep: begin with what the old head learned; False: its initial weights are drawn anew.
        seed: of new weights; None draws new ones each time.

    Returns:
        A compiled model of its own; ``model`` stays as it is. The same layers train.

    Raises:
        ValueError: ``classes`` is no list of different names, or ``extend`` with a name that is there already.
    """
    old = class_names_of(model)
    names = check_classes(classes, at_least=1 if extend else 2)
    if extend and set(old) & set(names):
        raise ValueError(f"classes={names!r}: {sorted(set(old) & set(names))} are there already (extend=True)")
    names = [*old, *names] if extend else names
    body = {layer.name for layer in backbone_layers(model)}

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name == "head_logits":
            config["units"] = len(names)
        if layer.name == "class_scores":
            config["class_names"] = names
            config.pop("thresholds", None)  # chosen on the old head's scores
            if config.get("background") not in names:
                config.pop("background", None)
        if layer.name not in body and "kernel_initializer" in config:
            config["kernel_initializer"] = keras.initializers.GlorotUniform(seed=layer_seed(seed, layer.name))
        return layer_from(config, layer)

    new = keras.models.clone_model(model, clone_function=clone)
    for layer in model.layers:
        twin = new.get_layer(layer.name)
        twin.trainable = layer.trainable
        if layer.weights and (layer.name in body or keep):
            known = layer.get_weights()
            twin.set_weights(_columns(known, twin.get_weights(), old, names) if layer.name == "head_logits" else known)
    multi_label = model.get_layer("class_scores").activation is keras.activations.sigmoid
    compile_classifier(new, multi_label=multi_label)
    return new


def _columns(
    known: Sequence[np.ndarray], fresh: Sequence[np.ndarray], old: Sequence[str], new: Sequence[str]
) -> list[np.ndarray]:
    """``fresh`` kernel and bias, with the columns of the classes that are in both from ``known``."""
    pairs = [(old.index(name), column) for column, name in enumerate(new) if name in old]
    for before, after in zip(known, fresh, strict=True):
        for source, target in pairs:
            after[..., target] = before[..., source]
    return list(fresh)
