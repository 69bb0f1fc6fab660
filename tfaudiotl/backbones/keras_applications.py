"""Image networks of keras.applications that look at log-mel pictures, with what they learned from ImageNet."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
from keras import layers, ops

from tfaudiotl.backbones.assembly import assemble
from tfaudiotl.backbones.frontend import LogMelSpec
from tfaudiotl.backbones.spec import BackboneSpec, Block, EmbeddingLayer, Recipe
from tfaudiotl.backbones.weight_files import load_own
from tfaudiotl.errors import WeightsError

FRONTEND = LogMelSpec()
# Log-mel values of black and white: silence, and about the loudest that full-scale sound reaches in a band.
BLACK, WHITE = math.log(FRONTEND.log_offset), 4.0
SIZE = 128  # pixels a side: MobileNets have ImageNet weights of this size, and it is near the picture's own 96


@dataclass(frozen=True)
class ImageNetwork:
    """A network of ``keras.applications``.

    Attributes:
        name: of the backbone.
        function: its name in ``keras.applications``.
        low, high: what it takes for black and white. Source: ``preprocess_input`` of its module; EfficientNetV2 scales
            0 to 255 itself.
        layers: name of a Keras layer -> its channels, from input to output; those of the last one are the embedding's.
        blocks: name of a block -> the Keras layer that it ends with, from input to output.
        bands: layers of the recipe "bands"; by analogy with YAMNet's, not measured.
        least: pixels a side that it needs.
    """

    name: str
    function: str
    low: float
    high: float
    layers: dict[str, int]
    blocks: dict[str, str]
    bands: tuple[str, ...]
    least: int = 32


NETWORKS = (
    ImageNetwork(
        "mobilenet", "MobileNet", -1.0, 1.0,
        {f"conv_pw_{n}_relu": w for n, w in enumerate([64, 128, 128, 256, 256, *[512] * 6, 1024, 1024], start=1)},
        {"conv1": "conv1_relu", **{f"conv_{n}": f"conv_pw_{n}_relu" for n in range(1, 14)}},
        ("conv_pw_6_relu", "conv_pw_8_relu"),
    ),
    ImageNetwork(
        "mobilenetv2", "MobileNetV2", -1.0, 1.0,
        {
            **{
                f"block_{n}_project_BN": w
                for n, w in enumerate([24] * 2 + [32] * 3 + [64] * 4 + [96] * 3 + [160] * 3 + [320], start=1)
            },
            "out_relu": 1280,
        },
        {
            "Conv1": "Conv1_relu", "expanded_conv": "expanded_conv_project_BN",
            **{f"block_{n}": f"block_{n}_project_BN" for n in range(1, 17)}, "Conv_1": "out_relu",
        },
        ("block_8_project_BN", "block_11_project_BN"),
    ),
    ImageNetwork(
        "inceptionv3", "InceptionV3", -1.0, 1.0,
        {f"mixed{n}": w for n, w in enumerate([256, 288, 288, *[768] * 5, 1280, 2048, 2048])},
        {f"mixed{n}": f"mixed{n}" for n in range(11)}, ("mixed4", "mixed6"), least=75,
    ),
    ImageNetwork(
        "efficientnetv2b0", "EfficientNetV2B0", 0.0, 255.0,
        {
            "block1a_project_activation": 16, "block2b_add": 32, "block3b_add": 48, "block4c_add": 96,
            "block5e_add": 112, "block6h_add": 192, "top_activation": 1280,
        },
        {
            "stem": "stem_activation", "block1": "block1a_project_activation", "block2": "block2b_add",
            "block3": "block3b_add", "block4": "block4c_add", "block5": "block5e_add", "block6": "block6h_add",
            "top": "top_activation",
        },
        ("block4c_add", "block5e_add"),
    ),
)  # fmt: skip


@keras.saving.register_keras_serializable(package="tfaudiotl")
class SpectrogramImage(keras.layers.Layer):
    """A log-mel patch as a picture: ``(rows, frames, bands, 1)`` to ``(rows, size, size, channels)``.

    Values from ``log 0.001`` (silence) to 4 become ``low`` to ``high``, what is beyond is cut; the picture is resized
    (bilinear), and each channel is the same.
    """

    def __init__(self, size: int, channels: int, *, low: float, high: float, **kwargs: Any):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.size, self.channels, self.low, self.high = size, channels, low, high

    def call(self, x: Any) -> Any:
        x = (x - BLACK) / (WHITE - BLACK)
        # Cut to 0 and 1, by operators that have an integer form in .tflite files; a minimum has none.
        x = 1.0 - ops.relu(1.0 - ops.relu(x))
        x = self.low + (self.high - self.low) * x
        x = ops.image.resize(x, (self.size, self.size), interpolation="bilinear", data_format="channels_last")
        return ops.concatenate([x] * self.channels, axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], self.size, self.size, self.channels)

    def get_config(self) -> dict[str, Any]:
        names = ("size", "channels", "low", "high")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def image_network(
    record: ImageNetwork,
    *,
    include_top: bool = False,
    weights: str | None = "imagenet",
    input: str = "waveform",
    samples: int | None = None,
    patch_pooling: str | None = None,
    size: int = SIZE,
    channels: int = 3,
    name: str | None = None,
) -> keras.Model:
    """An image network on YAMNet's log-mel patches, as a functional Keras model.

    Args:
        record: which one.
        include_top: has no meaning here: ImageNet's classes are none of sound.
        weights: "imagenet" (downloaded by Keras, checked, and kept in its cache), a file of ``keras.applications``
            without the top (``..._no_top.h5``), a ``.weights.h5`` file or a ``.keras`` classifier on the same network,
            or None.
        input: "waveform": ``(batch, samples)`` float32 in [-1, 1] at 16 kHz. "patches": ``(batch, 96, 64)``.
        samples: fixes the waveform's length, or None for any.
        patch_pooling: over the patches of a clip: None, "avg" or "max".
        size: pixels a side of the picture.
        channels: of the picture, 1 to 3; ImageNet's weights take 3.
        name: the model's name.

    Returns:
        A ``keras.Model`` to ``(batch, patches, width)``, without the patches axis if pooled or for ``input="patches"``.

    Raises:
        ValueError: an argument outside what is allowed.
        WeightsError: weights that cannot be found, read or matched.
    """
    if not isinstance(size, int) or size < record.least:
        raise ValueError(f"size={size!r}: {record.name} takes pictures of at least {record.least} pixels a side")
    if channels not in (1, 2, 3):
        raise ValueError(f"channels={channels!r}: allowed are 1, 2 and 3")
    own = weights is not None and (weights.endswith((".keras", ".weights.h5")))
    theirs = None if own else weights
    if theirs not in (None, "imagenet"):
        theirs = str(Path(theirs).expanduser())
    if theirs not in (None, "imagenet") and not Path(theirs).is_file():
        raise WeightsError(
            f"weights={weights!r}: {record.name} takes 'imagenet', a local file (.h5 or .keras), or None"
        )
    if theirs is not None and channels != 3:
        raise ValueError(f"channels={channels}: ImageNet's weights take 3; weights=None takes any")
    build = getattr(keras.applications, record.function)

    def network(x: Any) -> Any:
        x = SpectrogramImage(size, channels, low=record.low, high=record.high, name="picture")(x)
        try:
            model = build(include_top=False, weights=theirs, input_tensor=x, input_shape=(size, size, channels))
        except Exception as error:
            if theirs is None:
                raise
            raise WeightsError(
                f"weights={weights!r}: Keras cannot get or load them: {error}; a file of them may be given"
            ) from error
        return layers.GlobalAveragePooling2D(name="embedding")(model.output)

    model = assemble(
        network, FRONTEND, input=input, samples=samples, patch_pooling=patch_pooling, name=name or record.name
    )
    if own:
        load_own(model, str(weights))
    return model


def _spec(record: ImageNetwork) -> BackboneSpec:
    build: Callable[..., keras.Model] = partial(image_network, record)
    width = list(record.layers.values())[-1]
    return BackboneSpec(
        name=record.name,
        build=build,
        description=f"keras.applications.{record.function} on log-mel pictures of 0.96 s, trained on ImageNet",
        presets={"imagenet": "keras.applications"},
        license="Apache-2.0 (Keras)",
        source="keras.io/api/applications",
        frontend=FRONTEND,
        layers=(
            EmbeddingLayer("log_mel", "patch_batch", FRONTEND.mel_bands),
            *(EmbeddingLayer(layer, layer, channels) for layer, channels in record.layers.items()),
            EmbeddingLayer("embedding", "embedding", width),
        ),
        blocks=tuple(Block(name, end) for name, end in record.blocks.items()),
        recipes={"bands": Recipe(record.bands, "freq")},
    )


SPECS = tuple(_spec(record) for record in NETWORKS)
