"""A ConvNet for music genres: whole spectra in wide filters, on windows of 3 s.

Fourth place of the Musical Genre Recognition challenge of The Web Conference 2018, by Chumbalov and Pushnyakov:
github.com/pushnyakov/WWWMusicalGenreRecognitionChallenge. Every constant below comes from there.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from tfaudiotl.backbones.assembly import assemble
from tfaudiotl.backbones.frontend import WindowSpec
from tfaudiotl.backbones.scores import ClassScores
from tfaudiotl.backbones.spec import BackboneSpec, Block, EmbeddingLayer
from tfaudiotl.backbones.weight_files import load_own

CLASSES = 16
FILTERS, CONVS = 256, 5
CONV_FRAMES = 4
DENSE = (("fc1", 480), ("fc2", 240))
DROPOUT = 0.2
FFT, FFT_HOP = 1024, 512
# 3 s at 22,050 Hz every 1.5 s: 19 windows of a clip of 30 s.
FRONTEND = WindowSpec(sample_rate=22_050, window=66_150, hop=33_075)


@keras.saving.register_keras_serializable(package="tfaudiotl")
class Spectrum(keras.layers.Layer):
    """Magnitude spectrogram: ``(rows, samples, 1)`` to ``(rows, frames, fft // 2 + 1, 1)``; no log, no mel.

    Args:
        fft: samples in a frame, under a symmetric Hann window.
        hop: samples from frame to frame.
    """

    def __init__(self, fft: int = FFT, hop: int = FFT_HOP, **kwargs: Any):
        kwargs["dtype"] = "float32"  # a half-precision spectrum loses quiet sounds
        super().__init__(**kwargs)
        self.fft, self.hop = fft, hop

    def call(self, x: Any) -> Any:
        frames = ops.extract_sequences(x[..., 0], self.fft, self.hop)
        real, imag = ops.rfft(frames * np.hanning(self.fft).astype(np.float32), fft_length=self.fft)
        return ops.sqrt(ops.square(real) + ops.square(imag))[..., None]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        rows, samples, _ = input_shape
        return (rows, None if samples is None else 1 + (samples - self.fft) // self.hop, self.fft // 2 + 1, 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "fft": self.fft, "hop": self.hop}


def ConvNet(
    *,
    include_top: bool = False,
    weights: str | None = None,
    input: str = "waveform",
    samples: int | None = None,
    patch_pooling: str | None = None,
    classes: int = CLASSES,
    classifier_activation: str | None = "softmax",
    name: str = "convnet",
) -> keras.Model:
    """The ConvNet as a functional Keras model, in the manner of ``keras.applications``.

    Args:
        include_top: with a classifier, or without (the last hidden layer).
        weights: the path of a ``.weights.h5`` file, or of a ``.keras`` classifier on a ConvNet, or None for random
            weights. There are none to download.
        input: "waveform" only: ``(batch, samples)`` float32 in [-1, 1] at 22,050 Hz, mono.
        samples: fixes the waveform's length, or None for any.
        patch_pooling: over the windows of a clip: None keeps them, "avg" (as published) or "max" pools them.
        classes: outputs of the classifier.
        classifier_activation: "softmax", "sigmoid", or None for logits.
        name: the model's name.

    Returns:
        A ``keras.Model`` from ``(batch, samples)`` to ``(batch, windows, 240)`` embeddings or ``(batch, windows,
        classes)`` scores, without the windows axis if pooled.

    Raises:
        ValueError: an argument outside what is allowed.
        WeightsError: weights that cannot be found, read or matched.
    """

    def network(x: Any) -> Any:
        x = _network(x)
        if not include_top:
            return x
        x = layers.Dropout(DROPOUT, name="logits_dropout")(x)
        return ClassScores(classifier_activation, name="scores")(layers.Dense(classes, name="logits")(x))

    model = assemble(network, FRONTEND, input=input, samples=samples, patch_pooling=patch_pooling, name=name)
    if weights is not None:
        load_own(model, weights)
    return model


def _network(x: Any) -> Any:
    """From windows ``(rows, 66150, 1)`` to the last hidden layer ``(rows, 240)``."""
    x = Spectrum(name="spectrum")(x)  # (rows, 128, 513, 1)
    x = layers.BatchNormalization(name="spectrum_bn")(x)
    # A filter as high as the spectrum moves in time only: the published 4 x 513 is one of 4 frames of 513 channels.
    # In two dimensions the gradient by the spectrum is most of a training step on a CPU.
    x = layers.Reshape((-1, FFT // 2 + 1), name="frames")(x)
    x = first = layers.Conv1D(FILTERS, CONV_FRAMES, activation="relu", name="conv1")(x)
    for number in range(2, CONVS + 1):
        x = layers.Conv1D(FILTERS, CONV_FRAMES, padding="same", activation="relu", name=f"conv{number}")(x)
    x = layers.Concatenate(name="conv_shortcut")([x, first])  # (rows, 125, 512)
    pools = (layers.GlobalMaxPooling1D(name="pool_max"), layers.GlobalAveragePooling1D(name="pool_avg"))
    x = layers.Concatenate(name="pool")([pool(x) for pool in pools])
    for dense, units in DENSE:
        x = layers.Dropout(DROPOUT, name=f"{dense}_dropout")(x)
        x = layers.Dense(units, activation="relu", name=dense)(x)
    return x


SPEC = BackboneSpec(
    name="convnet",
    build=ConvNet,
    description="wide filters on magnitude spectra of 3 s at 22,050 Hz, for music genres, 2.2 M parameters",
    presets={},
    license="the architecture of a publication; no weights are distributed",
    source="github.com/pushnyakov/WWWMusicalGenreRecognitionChallenge",
    frontend=FRONTEND,
    layers=(
        EmbeddingLayer("spectrum", "spectrum", FFT // 2 + 1),
        *(EmbeddingLayer(f"conv{n}", f"conv{n}", FILTERS) for n in range(1, CONVS + 1)),
        EmbeddingLayer("pool", "pool", 4 * FILTERS),
        EmbeddingLayer("fc1", "fc1", DENSE[0][1]),
        EmbeddingLayer("embedding", "fc2", DENSE[1][1]),
    ),
    blocks=tuple(Block(name, name) for name in (*(f"conv{n}" for n in range(1, CONVS + 1)), "fc1", "fc2")),
)
