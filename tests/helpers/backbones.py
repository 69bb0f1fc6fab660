"""Every registered backbone, small enough for a test."""

from __future__ import annotations

from functools import cache
from typing import Any

import keras
import numpy as np
import pytest

from tfaudiotl.backbones.frontend import WindowSpec
from tfaudiotl.backbones.registry import list_backbones
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.export.prepare import frontend_spec

# What keeps a network small enough for a test.
SMALL: dict[str, dict[str, Any]] = {
    "rawnet2": {"backbone_options": {"window": 4_000}},
    **{name: {"backbone_options": {"size": 32}} for name in ("mobilenet", "mobilenetv2", "efficientnetv2b0")},
    "inceptionv3": {"backbone_options": {"size": 75}},
}


NAMES = list_backbones()


HEAVY = ("vggish", "inceptionv3", "efficientnetv2b0")


SLOW = [pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in NAMES]


# Early layers: the same operators as the whole network's, in a fraction of the time.
EARLY = {
    "convnet": "conv2", "efficientnetv2b0": "block2b_add", "inceptionv3": "mixed0", "mobilenet": "conv_pw_3_relu",
    "mobilenetv2": "block_2_project_BN", "rawnet2": "block1", "vggish": "conv2", "yamnet": "layer3",
    "yamnet_mini": "layer3",
}  # fmt: skip


@cache
def network(name: str) -> keras.Model:
    options: dict[str, Any] = SMALL.get(name, {})
    keras.utils.set_random_seed(1)
    model = build_classifier(
        name, class_names=["a", "b", "c"], weights=None, hidden=(), seed=1, embedding=EARLY[name], **options
    )
    if not isinstance(frontend_spec(model), WindowSpec):  # an untrained network lets the sound fade from layer to layer
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.moving_variance.assign(np.full(layer.moving_variance.shape, 0.3))
        (head,) = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)][-1:]
        head.kernel.assign((1 if name in HEAVY else 50) * head.kernel)
    return model


def sounds(name: str) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    spec = frontend_spec(network(name))
    time = np.arange(spec.min_samples) / spec.sample_rate
    tones = [np.sin(2 * np.pi * pitch * time) for pitch in np.geomspace(200, 4_000, 10)]
    return [(0.3 * tone + rng.normal(0, 0.02, len(time))).astype(np.float32) for tone in tones]
