"""RawNet2: from the raw waveform to a speaker embedding, by learned band-pass filters, residual blocks and a GRU.

Jung et al., "Improved RawNet with Feature Map Scaling" (arXiv 2004.00526); github.com/Jungjee/RawNet, python/RawNet2.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import keras
import numpy as np
from keras import initializers, layers, ops

from tfaudiotl.backbones.assembly import assemble, grid_of_model
from tfaudiotl.backbones.frontend import WindowSpec
from tfaudiotl.backbones.scores import ClassScores
from tfaudiotl.backbones.spec import BackboneSpec, Block, EmbeddingLayer
from tfaudiotl.backbones.weight_files import load_own, open_keras

WINDOW = 59_049  # samples, 3 ** 10: 3.69 s; seven pools by 3 leave 27 steps
SINC_FILTERS, SINC_TAPS = 128, 251
BLOCK = 16  # samples for which the sinc filters are laid out side by side in training; longer ones waste products
BLOCKS = (128, 128, 256, 256, 256, 256)  # filters of the residual blocks
GRU_UNITS = EMBEDDING_SIZE = 1024
POOL = 3
SLOPE = 0.3  # of the leaky ReLUs
# Batch norm as PyTorch's default there: epsilon 1e-5, momentum 0.1 (Keras counts from the other end).
BATCH_NORM = {"epsilon": 1e-5, "momentum": 0.9}
# Least cut-off and least width of a band. Source: the published configuration.
MIN_LOW_HZ = MIN_BAND_HZ = 50.0
FIRST_HZ = 30.0  # where the mel-spaced filters begin (SincNet)
VARIANTS = ("padded", "published")


@keras.saving.register_keras_serializable(package="tfaudiotl")
class SincConv(keras.layers.Layer):
    """Magnitude of the sound in bands of learned cut-offs: ``(rows, samples, 1)`` to ``(rows, samples, filters)``.

    Filter i is ``(sin(2 pi high t) - sin(2 pi low t)) / (pi t) / (2 (high - low))`` times a Hamming window, which is 1
    in the middle: as SincNet's (Ravanelli and Bengio, arXiv 1808.00158). ``low = min_low_hz + |low_hz|``,
    ``high = low + min_band_hz + |band_hz|``, at most half the sample rate.

    Args:
        filters: how many; their bands start side by side, spaced on the mel scale ``2595 log10(1 + f / 700)``.
        taps: length of a filter, odd.
        sample_rate: Hz.
        padding: "same" or "valid".
    """

    def __init__(
        self, filters: int = SINC_FILTERS, taps: int = SINC_TAPS, *, sample_rate: int, padding: str, **kwargs: Any
    ):
        super().__init__(**kwargs)
        if taps % 2 == 0:
            raise ValueError(f"taps={taps}: an odd number, so that a filter has a middle")
        self.filters, self.taps, self.sample_rate, self.padding = filters, taps, sample_rate, padding

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        top = self.sample_rate / 2 - (MIN_LOW_HZ + MIN_BAND_HZ)
        first, last = (2595 * np.log10(1 + hz / 700) for hz in (FIRST_HZ, top))
        mel = np.linspace(first, last, self.filters + 1)
        edges = 700 * (10 ** (mel / 2595) - 1)
        for name, values in (("low_hz", edges[:-1]), ("band_hz", np.diff(edges))):
            # In Hz: half precision would round the cut-offs.
            start = initializers.Constant(values.astype(np.float32))
            setattr(self, name, self.add_weight((self.filters,), start, "float32", autocast=False, name=name))

    def bands(self) -> tuple[Any, Any]:
        """Lower and upper cut-offs in Hz, ``(filters,)`` each."""
        low = MIN_LOW_HZ + ops.abs(self.low_hz)
        return low, ops.clip(low + MIN_BAND_HZ + ops.abs(self.band_hz), MIN_LOW_HZ, self.sample_rate / 2)

    def filter_bank(self) -> Any:
        """The filters ``(taps, filters)`` in float32."""
        low, high = self.bands()
        half = (self.taps - 1) // 2
        time = np.arange(-half, 0, dtype=np.float32)[:, None] / self.sample_rate
        window = 0.54 - 0.46 * np.cos(2 * np.pi * np.linspace(0, self.taps / 2 - 1, half) / self.taps)
        angle = (2 * np.pi * time).astype(np.float32)
        wings = (ops.sin(angle * high) - ops.sin(angle * low)) / (angle / 2) * window.astype(np.float32)[:, None]
        wings = wings / (2 * (high - low))
        return ops.concatenate([wings, ops.ones((1, self.filters)), ops.flip(wings, axis=0)], axis=0)

    def call(self, x: Any, training: bool | None = None) -> Any:
        kernel = ops.cast(self.filter_bank(), x.dtype)
        if training:
            return ops.abs(self._convolved_in_blocks(x, kernel))
        return ops.abs(ops.conv(x, kernel[:, None, :], padding=self.padding))

    def _convolved_in_blocks(self, x: Any, kernel: Any) -> Any:
        """The convolution as one matrix product, of stretches of sound by the filters at every place in a block.

        The layer norm before it learns, so the gradient by the sound is needed, and a convolution's gradient by its
        only channel is slow: with it a training step takes twice as long on a CPU.
        """
        around = (self.taps - 1) // 2 if self.padding == "same" else 0
        rows, samples, _ = ops.shape(x)
        outputs = samples + 2 * around - (self.taps - 1)
        blocks, span = -(-outputs // BLOCK), -(-(BLOCK + self.taps - 1) // BLOCK)
        x = ops.pad(x[..., 0], ((0, 0), (around, (blocks + span - 1) * BLOCK - samples - around)))
        parts = ops.reshape(x, (rows, blocks + span - 1, BLOCK))
        stretches = ops.concatenate([parts[:, i : i + blocks] for i in range(span)], axis=-1)
        # One zero more than a stretch is long, so that each copy of the filters begins one sample later.
        length = span * BLOCK
        longer = ops.pad(kernel, ((0, length + 1 - self.taps), (0, 0)))
        shifted = ops.reshape(ops.tile(longer, (BLOCK, 1))[: BLOCK * length], (BLOCK, length, self.filters))
        matrix = ops.reshape(ops.transpose(shifted, (1, 0, 2)), (length, BLOCK * self.filters))
        return ops.reshape(ops.matmul(stretches, matrix), (rows, blocks * BLOCK, self.filters))[:, :outputs]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        rows, samples, _ = input_shape
        if samples is not None and self.padding == "valid":
            samples -= self.taps - 1
        return (rows, samples, self.filters)

    def get_config(self) -> dict[str, Any]:
        names = ("filters", "taps", "sample_rate", "padding")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def RawNet2(
    *,
    include_top: bool = False,
    weights: str | None = None,
    input: str = "waveform",
    samples: int | None = None,
    patch_pooling: str | None = None,
    variant: str = "padded",
    window: int | None = None,
    sample_rate: int | None = None,
    classes: int = 1_000,
    classifier_activation: str | None = "softmax",
    name: str = "rawnet2",
) -> keras.Model:
    """RawNet2 as a functional Keras model, in the manner of ``keras.applications``.

    Each window is standardised sample by sample with learned factors (layer norm), so loudness does not matter.

    Args:
        include_top: with a classifier, or without (the speaker embedding).
        weights: the path of a ``.weights.h5`` file, or of a ``.keras`` classifier on a RawNet2, or None for random
            weights. There are none to download.
        input: "waveform" only.
        samples: fixes the waveform's length; None: any length, in windows that overlap by half.
        patch_pooling: over the windows of a clip: None keeps them, "avg" or "max" pools them.
        variant: "padded": every convolution keeps the length. "published": the first one does not (19,599 steps after
            it instead of 19,683).
        window: samples that the network hears at once, at least 2,600; None: as in the ``.keras`` file of ``weights``,
            else 59,049, or ``samples`` if that is shorter.
        sample_rate: of the waveform, Hz; None: as in that file, else 16,000.
        classes: outputs of the classifier.
        classifier_activation: "softmax", "sigmoid", or None for logits.
        name: the model's name.

    Returns:
        A ``keras.Model`` from ``(batch, samples)`` to ``(batch, windows, 1024)`` embeddings or ``(batch, windows,
        classes)`` scores, without the windows axis if pooled.

    Raises:
        ValueError: an argument outside what is allowed.
        WeightsError: weights that cannot be found, read or matched.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r}: allowed are {', '.join(VARIANTS)}")
    trained = _front_end(weights)
    window, sample_rate = window or trained.get("window"), sample_rate or trained.get("sample_rate", 16_000)
    if window is None:
        window = min(samples, WINDOW) if isinstance(samples, int) and samples > 0 else WINDOW
    least = POOL ** (len(BLOCKS) + 1) + SINC_TAPS + 162  # one step is left at the end
    if window < least:
        raise ValueError(f"window={window}: samples= or window= of at least {least}")

    def network(x: Any) -> Any:
        x = _network(x, sample_rate, "same" if variant == "padded" else "valid")
        if not include_top:
            return x
        return ClassScores(classifier_activation, name="scores")(layers.Dense(classes, name="logits")(x))

    spec = WindowSpec(sample_rate=sample_rate, window=window, hop=max(1, window // 2))
    model = assemble(network, spec, input=input, samples=samples, patch_pooling=patch_pooling, name=name)
    if weights is not None:
        load_own(model, weights)
    return model


def _front_end(weights: str | None) -> dict[str, Any]:
    """Window and rate that a ``.keras`` file was trained with: its layer norm has a factor for every sample."""
    if weights is None or not weights.endswith(".keras"):
        return {}
    spec = grid_of_model(open_keras(weights))
    return asdict(spec) if isinstance(spec, WindowSpec) else {}


def _network(x: Any, sample_rate: int, padding: str) -> Any:
    """From windows ``(rows, window, 1)`` to embeddings ``(rows, 1024)``."""
    x = layers.Reshape((x.shape[1],), name="layer1_flat")(x)
    x = layers.LayerNormalization(epsilon=1e-12, name="layer1_norm")(x)
    x = layers.Reshape((x.shape[1], 1), name="layer1_channel")(x)
    x = SincConv(sample_rate=sample_rate, padding=padding, name="layer1_sinc")(x)
    x = layers.MaxPooling1D(POOL, name="layer1_pool")(x)
    x = _norm_relu(x, "layer1")
    for number, filters in enumerate(BLOCKS, start=2):
        x = _block(x, filters, f"layer{number}", first=number == 2)
    x = _norm_relu(x, "layer8")
    x = layers.GRU(GRU_UNITS, name="layer8_gru")(x)
    return layers.Dense(EMBEDDING_SIZE, name="layer9_fc")(x)


def _norm_relu(x: Any, name: str) -> Any:
    x = layers.BatchNormalization(**BATCH_NORM, name=f"{name}_bn")(x)
    return layers.LeakyReLU(SLOPE, name=f"{name}_relu")(x)


def _block(x: Any, filters: int, name: str, *, first: bool) -> Any:
    """A residual block, a pool by 3, and the feature maps' scaling ``x s + s``."""
    skip = x if x.shape[-1] == filters else layers.Conv1D(filters, 1, name=f"{name}_skip")(x)
    y = x if first else _norm_relu(x, f"{name}_in")
    y = layers.Conv1D(filters, 3, padding="same", name=f"{name}_conv1")(y)
    y = _norm_relu(y, f"{name}_mid")
    y = layers.Conv1D(filters, 3, padding="same", name=f"{name}_conv2")(y)
    x = layers.Add(name=f"{name}_add")([y, skip])
    x = layers.MaxPooling1D(POOL, name=f"{name}_pool")(x)
    scale = layers.GlobalAveragePooling1D(keepdims=True, name=f"{name}_mean")(x)
    scale = layers.Dense(filters, activation="sigmoid", name=f"{name}_scale")(scale)
    x = layers.Multiply(name=f"{name}_scaled")([x, scale])
    return layers.Add(name=f"{name}_out")([x, scale])


SPEC = BackboneSpec(
    name="rawnet2",
    build=RawNet2,
    description="learned filters, residual blocks and a GRU on 3.69 s of raw sound, for speakers, 7 M parameters",
    presets={},
    license="the architecture of a publication; no weights are distributed",
    source="arXiv 2004.00526; github.com/Jungjee/RawNet, python/RawNet2",
    frontend=WindowSpec(window=WINDOW, hop=WINDOW // 2),
    layers=(
        EmbeddingLayer("sinc", "layer1_relu", SINC_FILTERS),
        *(EmbeddingLayer(f"block{n - 1}", f"layer{n}_out", filters) for n, filters in enumerate(BLOCKS, start=2)),
        EmbeddingLayer("gru", "layer8_gru", GRU_UNITS),
        EmbeddingLayer("embedding", "layer9_fc", EMBEDDING_SIZE),
    ),
    blocks=(
        Block("layer1", "layer1_relu"),
        *(Block(f"layer{n}", f"layer{n}_out") for n in range(2, len(BLOCKS) + 2)),
        Block("layer8", "layer8_gru"),
        Block("layer9", "layer9_fc"),
    ),
)
