"""A SavedModel built like google/yamnet/1: the same checkpoint keys and assets, seeded random variables.

Its call is an independent TensorFlow writing of the published network, so that it also serves as the
reference for parity where the real weights are missing.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorflow as tf

from tfaudiotl.backbones.weight_files import read_saved_model
from tfaudiotl.backbones.yamnet import YAMNet, published_forms

# (kernel shape, stride, depthwise) of the 27 convolutions, as published.
_SEPARABLE = [
    (1, 64),
    (2, 128),
    (1, 128),
    (2, 256),
    (1, 256),
    (2, 512),
    *[(1, 512)] * 5,
    (2, 1024),
    (1, 1024),
]


class _Weights(tf.Module):
    """One entry of ``layer_with_weights-N``: its variables under upstream's names."""

    def __init__(self, **values: np.ndarray) -> None:
        super().__init__()
        for name, value in values.items():
            setattr(self, name, tf.Variable(value, dtype=tf.float32))


class _Network(tf.Module):
    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.strides: list[tuple[int, bool]] = []
        self.entries: list[_Weights] = []
        channels = 32
        self._conv(rng, (3, 3, 1, 32), 2, depthwise=False)
        for stride, filters in _SEPARABLE:
            self._conv(rng, (3, 3, channels, 1), stride, depthwise=True)
            self._conv(rng, (1, 1, channels, filters), 1, depthwise=False)
            channels = filters
        kernel = rng.normal(0, 0.05, (1024, 521))
        self.entries.append(_Weights(kernel=kernel, bias=rng.normal(0, 0.5, 521)))
        for index, entry in enumerate(self.entries):
            setattr(self, f"layer_with_weights-{index}", entry)

    def _conv(self, rng: np.random.Generator, shape: tuple[int, ...], stride: int, *, depthwise: bool) -> None:
        fan_in = shape[0] * shape[1] * (1 if depthwise else shape[2])
        kernel = rng.normal(0, np.sqrt(2 / fan_in), shape)
        self.entries.append(_Weights(**{"depthwise_kernel" if depthwise else "kernel": kernel}))
        filters = shape[2] if depthwise else shape[3]
        self.entries.append(
            _Weights(
                beta=rng.normal(0, 0.3, filters),
                moving_mean=rng.normal(0, 0.2, filters),
                moving_variance=rng.uniform(0.5, 1.5, filters),
            )
        )
        self.strides.append((stride, depthwise))

    def __call__(self, patches: Any) -> tuple[Any, Any]:
        x = patches[..., None]
        for number, (stride, depthwise) in enumerate(self.strides):
            conv, norm = self.entries[2 * number], self.entries[2 * number + 1]
            steps = [1, stride, stride, 1]
            if depthwise:
                x = tf.nn.depthwise_conv2d(x, conv.depthwise_kernel, steps, "SAME")
            else:
                x = tf.nn.conv2d(x, conv.kernel, steps, "SAME")
            x = tf.nn.relu((x - norm.moving_mean) * tf.math.rsqrt(norm.moving_variance + 1e-4) + norm.beta)
        embeddings = tf.reduce_mean(x, axis=[1, 2])
        top = self.entries[-1]
        return tf.sigmoid(embeddings @ top.kernel + top.bias), embeddings


# Places of AudioSet's classes "Silence", "White noise" and "Sine wave", which published weights must find.
KNOWN = (494, 514, 495)


class StandIn(tf.Module):
    """``waveform (samples,) -> (scores, embeddings, log_mel)`` and a class map, as TF Hub's module."""

    def __init__(self, class_map: str, seed: int = 7) -> None:
        super().__init__()
        self._yamnet = _Network(np.random.default_rng(seed))
        self._class_map = tf.saved_model.Asset(class_map)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def __call__(self, waveform: Any) -> tuple[Any, Any, Any]:
        beyond = tf.maximum(tf.shape(waveform)[0] - 15_600, 0)
        length = 15_600 + 7_680 * tf.cast(tf.math.ceil(beyond / 7_680), tf.int32)
        waveform = tf.pad(waveform, [[0, length - tf.shape(waveform)[0]]])
        spectrum = tf.abs(tf.signal.stft(waveform, 400, 160, 512))
        mel = spectrum @ tf.signal.linear_to_mel_weight_matrix(64, 257, 16_000, 125.0, 7_500.0)
        log_mel = tf.math.log(mel + 0.001)
        scores, embeddings = self._yamnet(tf.signal.frame(log_mel, 96, 48, axis=0))
        return scores, embeddings, log_mel

    def learn_known_answers(self) -> None:
        """Changes three columns of the classifier as little as possible, so that three sounds are called by name."""
        time = np.arange(15_600) / 16_000
        noise = np.random.default_rng(0).uniform(-1, 1, len(time))
        sounds = (np.zeros(len(time)), noise, np.sin(2 * np.pi * 440 * time))
        embeddings = np.concatenate([self(sound.astype(np.float32))[1].numpy() for sound in sounds])
        kernel, bias = (
            variable.numpy() for variable in (self._yamnet.entries[-1].kernel, self._yamnet.entries[-1].bias)
        )
        logits = embeddings @ kernel + bias
        for row, column in enumerate(KNOWN):
            wanted = logits[:, column].copy()
            wanted[row] = logits[row].max() + 1
            kernel[:, column] += np.linalg.pinv(embeddings) @ (wanted - logits[:, column])
        self._yamnet.entries[-1].kernel.assign(kernel)

    @tf.function(input_signature=[])
    def class_map_path(self) -> Any:
        return self._class_map.asset_path


def write_stand_in(folder: Path) -> Path:
    """Writes the SavedModel to ``folder`` and returns it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    class_map = folder.parent / "yamnet_class_map.csv"
    rows = "".join(f'{i},/m/{i:05d},"Sound {i}, made up"\n' for i in range(521))
    class_map.write_text("index,mid,display_name\n" + rows, encoding="utf-8")
    module = StandIn(str(class_map))
    module.learn_known_answers()
    tf.saved_model.save(module, str(folder))
    return folder


def keras2_file(saved_model: Path) -> bytes:
    """The SavedModel's variables as the authors' yamnet.h5 has them: Keras 2's layout, groups in groups."""
    values, forms, content = read_saved_model(saved_model), published_forms(YAMNet(weights=None)), io.BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = b"2.2.4", b"tensorflow"
        file.attrs["layer_names"] = [b"input_1", b"layer1/conv", b"logits", b"predictions"]
        for key, path in zip(forms.saved_model, forms.keras2, strict=True):
            file[path] = values[key]
        file["logits"].attrs["weight_names"] = [b"logits/kernel:0", b"logits/bias:0"]
    return content.getvalue()
