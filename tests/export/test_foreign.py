"""Classifiers that were built elsewhere: a waveform without a batch, any length, no class names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.sounds import KINDS, sound
from tfaudiotl.audio.files import load_audio
from tfaudiotl.data.clips import Clips
from tfaudiotl.errors import WeightsError
from tfaudiotl.export.savedmodel import export_saved_model
from tfaudiotl.runtime.evaluate import evaluate
from tfaudiotl.runtime.predictor import Predictor
from tfaudiotl.tflite.graph import Graph
from tfaudiotl.tflite.metadata import Metadata, write_metadata

FRAME = 800


def loudness(frames: tf.Tensor) -> tf.Tensor:
    """Scores ``(..., 2)`` of frames ``(..., samples)``: quiet and loud."""
    loud = tf.reduce_mean(tf.abs(frames), axis=-1, keepdims=True)
    return tf.concat([1 - loud, loud], axis=-1)


class OneWaveform(tf.Module):
    """As TF Hub's audio networks are: a waveform ``(samples,)`` to scores of its frames, and more."""

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, name="waveform")])
    def __call__(self, waveform: tf.Tensor) -> dict[str, tf.Tensor]:
        frames = tf.signal.frame(waveform, FRAME, FRAME, pad_end=True)
        return {"output_0": loudness(frames), "output_1": tf.tile(loudness(frames), [1, 8])}


class TwoInputs(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None, 8), tf.float32), tf.TensorSpec((None, 8), tf.float32)])
    def __call__(self, a: tf.Tensor, b: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"scores": loudness(a + b)}


def saved(module: tf.Module, folder: Path) -> Path:
    tf.saved_model.save(module, str(folder), signatures=module.__call__.get_concrete_function())
    return folder


def test_a_saved_model_of_one_waveform_gives_scores(tmp_path: Path) -> None:
    predictor = Predictor(saved(OneWaveform(), tmp_path / "one"), class_names=["quiet", "loud"])
    wave = np.concatenate([np.full(16_000, 0.1), np.full(16_000, 0.9)]).astype(np.float32)
    np.testing.assert_allclose(predictor.scores(wave, sample_rate=16_000), [0.5, 0.5], atol=1e-4)
    assert [event.label for event in predictor.predict(wave, sample_rate=16_000)][:2] == ["quiet", "loud"]


def test_a_saved_model_of_something_else_says_what_is_expected(tmp_path: Path) -> None:
    one = saved(OneWaveform(), tmp_path / "one")
    with pytest.raises(WeightsError, match=r"no class names in .*assets; pass class_names="):
        Predictor(one)
    with pytest.raises(WeightsError, match=r"3 class names for none of its outputs \{'output_0': '\(None, 2\)'"):
        Predictor(one, class_names=["a", "b", "c"])
    with pytest.raises(
        WeightsError, match=r"takes \{.*\}; expected is one float32 waveform, \(samples,\) or \(batch, s"
    ):
        Predictor(saved(TwoInputs(), tmp_path / "two"), class_names=["a", "b"])


def test_the_published_yamnet_gives_its_classes(shared: Path, hub_yamnet: str) -> None:
    wave = load_audio(shared / "reference" / "miaow_16k.wav")
    hub = Predictor(hub_yamnet)
    scores = hub.scores(wave, sample_rate=16_000)
    assert hub.class_names[int(scores.argmax())] in ("Cat", "Animal")
    assert (hub.window, hub.hop) == (15_600, 7_680)  # one patch, to the next


def test_googles_own_tflite_gives_its_classes(shared: Path) -> None:
    predictor = Predictor(shared / "reference" / "official_yamnet_classification.tflite")
    found = {event.label for event in predictor.predict_file(shared / "reference" / "miaow_16k.wav")}
    assert {"Cat", "Animal"} <= found


@pytest.mark.parametrize("shape", [(None,), (1, None)])
def test_a_tflite_file_of_any_length_is_never_run_on_one_sample(shape: tuple[int | None, ...], tmp_path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)])
    def scores(x: tf.Tensor) -> tf.Tensor:
        return tf.reshape(loudness(x), (1, 2))

    content = tf.lite.TFLiteConverter.from_concrete_functions([scores.get_concrete_function()]).convert()
    path = tmp_path / "any.tflite"
    path.write_bytes(write_metadata(Graph(content), Metadata(labels=("quiet", "loud"))))
    predictor = Predictor(path)
    assert predictor.artifact.samples is None
    assert predictor.window == 15_600
    wave = np.tile(np.array([0.9, -0.1], np.float32), 12_000)
    np.testing.assert_allclose(predictor.scores(wave, sample_rate=16_000), [0.5, 0.5], atol=1e-4)
    assert Predictor(path, window_seconds=0.5).timeline(wave)[1].shape == (5, 2)
    path.write_bytes(write_metadata(Graph(content), Metadata(labels=("quiet", "loud"), settings={"window": 4_000})))
    assert Predictor(path).window == 4_000


def test_a_tflite_file_that_takes_no_waveform_says_so(tmp_path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec((1, 8), tf.float32), tf.TensorSpec((1, 8), tf.float32)])
    def scores(x: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        return loudness(x + state)

    content = tf.lite.TFLiteConverter.from_concrete_functions([scores.get_concrete_function()]).convert()
    (tmp_path / "two.tflite").write_bytes(content)
    with pytest.raises(WeightsError, match=r"two.tflite': takes \{.*\}; expected is one waveform"):
        Predictor(tmp_path / "two.tflite", class_names=["a", "b"])


@pytest.fixture(scope="module")
def own() -> keras.Model:
    inputs = keras.Input((None,))
    x = keras.layers.Reshape((-1, 1))(inputs)
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Conv1D(4, 9, strides=4, activation="relu")(x))
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))


def test_a_keras_model_of_ones_own_takes_class_names(own: keras.Model, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clips = Clips.from_arrays([sound(kind, rng) for kind in KINDS], KINDS, sample_rate=16_000)
    own.save(tmp_path / "own.keras")
    for model in (own, tmp_path / "own.keras"):
        found = evaluate(model, clips, class_names=KINDS)
        np.testing.assert_allclose(found.scores[0], own(clips.load(0)[None])[0], atol=1e-5)
        with pytest.raises(WeightsError, match=r"classifier without class names; .* pass class_names="):
            Predictor(model)
    with pytest.raises(WeightsError, match="2 class names for 3 outputs"):
        Predictor(own, class_names=["a", "b"])
    with pytest.raises(ValueError, match=r"class_names=\['a'\]: a Predictor has its own"):
        evaluate(Predictor(own, class_names=KINDS), clips, class_names=["a"])


def test_a_keras_model_of_several_inputs_says_what_is_expected(own: keras.Model) -> None:
    more: Any = keras.Input((3,))
    two = keras.Model([own.inputs[0], more], keras.layers.Add()([own.outputs[0], more]))
    with pytest.raises(WeightsError, match="has 2 inputs and 1 outputs; expected is one of each"):
        Predictor(two, class_names=KINDS)


@pytest.mark.parametrize("name", ["x.h5", "a.bin", "m.tflite"])
def test_no_folder_is_written_under_a_files_name(name: str, own: keras.Model, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{name}': a SavedModel is a folder without an ending"):
        export_saved_model(own, tmp_path / name)
    assert not list(tmp_path.iterdir())
