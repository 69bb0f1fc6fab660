"""A SavedModel built like google/vggish/1, and VGGish written a second time, in NumPy, as published.

The SavedModel has TF Hub's checkpoint keys (``_variables/0`` to ``_variables/17``) with seeded random
variables; its call is an independent TensorFlow writing. The NumPy writing follows mel_features.py,
vggish_input.py and vggish_slim.py of tensorflow/models, research/audioset/vggish, in float64.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

# In the order of the checkpoint: names, then kernel shapes.
SLIM = ["conv1", "conv2", "conv3/conv3_1", "conv3/conv3_2", "conv4/conv4_1", "conv4/conv4_2"]
SLIM += ["fc1/fc1_1", "fc1/fc1_2", "fc2"]
# The width of the two dense layers below the embedding, as published and in tests: nothing that a test shows depends on
# their 68 million numbers.
PUBLISHED_UNITS, UNITS = 4096, 64
POOL_AFTER = {0, 1, 3, 5}


def kernel_shapes(units: int = UNITS) -> list[tuple[int, ...]]:
    """Of the layers in ``SLIM``."""
    channels = (1, 64, 128, 256, 256, 512, 512)
    convolutions = [(3, 3, *pair) for pair in pairwise(channels)]
    return [*convolutions, (6 * 4 * 512, units), (units, units), (units, 128)]


def random_variables(seed: int = 11) -> list[np.ndarray]:
    """Weights and biases in turn, scaled so that the activations neither die nor explode."""
    rng = np.random.default_rng(seed)
    values: list[np.ndarray] = []
    for shape in kernel_shapes():
        fan_in = int(np.prod(shape[:-1]))
        values.append(rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(1.5 / fan_in)))
        values.append(rng.standard_normal(shape[-1], np.float32) * np.float32(0.05))
    return values


class StandIn(tf.Module):
    """``waveform (samples,) -> (patches, 128)``, as TF Hub's module."""

    def __init__(self, values: list[np.ndarray]) -> None:
        super().__init__()
        self._variables = [tf.Variable(value) for value in values]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def __call__(self, waveform: Any) -> Any:
        beyond = tf.maximum(tf.shape(waveform)[0] - 15_600, 0)
        length = 15_600 + 15_360 * tf.cast(tf.math.ceil(beyond / 15_360), tf.int32)
        waveform = tf.pad(waveform, [[0, length - tf.shape(waveform)[0]]])
        spectrum = tf.abs(tf.signal.stft(waveform, 400, 160, 512))
        mel = spectrum @ tf.signal.linear_to_mel_weight_matrix(64, 257, 16_000, 125.0, 7_500.0)
        x = tf.signal.frame(tf.math.log(mel + 0.01), 96, 96, axis=0)[..., None]
        for number in range(9):
            weights, biases = self._variables[2 * number : 2 * number + 2]
            if number == 6:
                x = tf.reshape(x, [-1, 6 * 4 * 512])
            x = (tf.nn.conv2d(x, weights, 1, "SAME") if number < 6 else x @ weights) + biases
            if number < 8:
                x = tf.nn.relu(x)
            if number in POOL_AFTER:
                x = tf.nn.max_pool2d(x, 2, 2, "SAME")
        return x


def write_stand_in(folder: Path) -> Path:
    """Writes the SavedModel to ``folder`` and returns it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    tf.saved_model.save(StandIn(random_variables()), str(folder))
    return folder


def write_slim_checkpoint(path: Path, values: list[np.ndarray]) -> Path:
    """Writes a version 1 checkpoint under the published names, as vggish_model.ckpt is, and returns it."""
    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
        names = [f"vggish/{name}/{part}" for name in SLIM for part in ("weights", "biases")]
        places, variables = [], []
        for name, value in zip(names, values, strict=True):
            places.append(tf.compat.v1.placeholder(tf.float32, value.shape))
            variables.append(tf.compat.v1.Variable(places[-1], name=name, use_resource=False))
        session.run(tf.compat.v1.global_variables_initializer(), dict(zip(places, values, strict=True)))
        saver = tf.compat.v1.train.Saver(variables, write_version=tf.compat.v1.train.SaverDef.V1)
        saver.save(session, str(path), write_meta_graph=False)
    return path


def published_examples(waveform: np.ndarray) -> np.ndarray:
    """``waveform_to_examples`` of vggish_input.py for 16 kHz mono: ``(patches, 96, 64)``; the tail is dropped."""

    def frame(data: np.ndarray, window: int, hop: int) -> np.ndarray:
        count = max(0, 1 + (len(data) - window) // hop)
        return np.stack([data[i * hop : i * hop + window] for i in range(count)]) if count else data[:0]

    hann = 0.5 - 0.5 * np.cos(2 * np.pi / 400 * np.arange(400))
    spectrogram = np.abs(np.fft.rfft(frame(waveform.astype(np.float64), 400, 160) * hann, 512))

    def hertz_to_mel(hertz: Any) -> Any:
        return 1127.0 * np.log(1.0 + hertz / 700.0)

    bins = hertz_to_mel(np.linspace(0.0, 8000.0, 257))
    edges = np.linspace(hertz_to_mel(125.0), hertz_to_mel(7500.0), 66)
    matrix = np.empty((257, 64))
    for i in range(64):
        lower, center, upper = edges[i : i + 3]
        matrix[:, i] = np.maximum(0.0, np.minimum((bins - lower) / (center - lower), (upper - bins) / (upper - center)))
    matrix[0] = 0.0
    return frame(np.log(spectrogram @ matrix + 0.01), 96, 96)


def published_network(examples: np.ndarray, values: list[np.ndarray]) -> np.ndarray:
    """define_vggish_slim in NumPy: ``(patches, 96, 64)`` to the 128 numbers before any activation."""
    x = examples[..., None]
    for number in range(9):
        weights, biases = (value.astype(np.float64) for value in values[2 * number : 2 * number + 2])
        if number < 6:
            padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            high, wide = x.shape[1:3]
            x = sum(padded[:, i : i + high, j : j + wide] @ weights[i, j] for i in range(3) for j in range(3)) + biases
        else:
            x = x.reshape(len(x), -1) @ weights + biases
        if number < 8:
            x = np.maximum(x, 0)
        if number in POOL_AFTER:
            x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).max(axis=(2, 4))
    return x
