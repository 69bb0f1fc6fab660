"""What each embedding layer of a backbone is: its width, what it costs, how finely it tells time."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np

from tfaudiotl.backbones.rawnet2 import SincConv
from tfaudiotl.backbones.registry import BackboneSpec, get_backbone


@dataclass(frozen=True)
class LayerInfo:
    """An embedding layer.

    Attributes:
        name: what ``embedding=`` takes.
        width: numbers per patch with "avg" or "max" pooling.
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


def multiply_adds(backbone: str) -> dict[str, tuple[int, int]]:
    """For each embedding layer: multiply-adds per patch up to it, and its time steps (0: it has none).

    Convolutions and dense layers count; the front-end, norms, activations and pooling do not.
    """
    spec: BackboneSpec = get_backbone(backbone)
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
