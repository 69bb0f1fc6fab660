"""TF Hub's waveform models as they come: one axis or two, fixed windows, dicts, sample rates as arguments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfaudiotl.backbones.embedding import embedding_layers, embedding_model
from tfaudiotl.backbones.tfhub import known_rate
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.classifiers.edit import replace_head
from tfaudiotl.embeddings.extract import embed
from tfaudiotl.errors import ExportError, WeightsError
from tfaudiotl.export.savedmodel import export_saved_model
from tfaudiotl.export.tflite import export_tflite
from tfaudiotl.runtime.load import open_artifact

WINDOW = 2_000
KERNEL = np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)


class _Module(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(KERNEL)

    def features(self, sound: Any) -> Any:
        return tf.tanh(tf.reshape(sound, (-1, 20, 100)) @ self.kernel)  # (rows, 20, 6)


class OneClip(_Module):
    """As speech models: one clip of a fixed window, a dict of outputs, one of them over time."""

    @tf.function(input_signature=[tf.TensorSpec([WINDOW], tf.float32)])
    def __call__(self, samples: Any) -> Any:
        x = self.features(samples)[0]
        return {"embedding": x, "logits": tf.reduce_sum(x, axis=0)[:2]}


class Batched(_Module):
    """As bird models: batches, a named method, numbered outputs, a rate of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.sample_rate = tf.Variable(32_000, trainable=False)

    @tf.function(input_signature=[tf.TensorSpec([None, WINDOW], tf.float32)])
    def infer_tf(self, sound: Any) -> Any:
        x = tf.reduce_mean(self.features(sound), axis=1)
        return x[:, :2], x


class WithRate(_Module):
    """As TRILL: any length, and the rate as an argument."""

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([], tf.int32)])
    def __call__(self, samples: Any, sample_rate: Any) -> Any:
        tf.debugging.assert_equal(sample_rate, 8_000)
        return {
            "embedding": tf.reduce_mean(tf.tanh(tf.reshape(samples, (tf.shape(samples)[0], -1, 100)) @ self.kernel), 1)
        }


def expected(windows: np.ndarray) -> np.ndarray:
    return np.tanh(windows.reshape(len(windows), 20, 100) @ KERNEL).mean(axis=1)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Any], str]:
    def save(module: Any) -> str:
        folder = tmp_path / type(module).__name__
        tf.saved_model.save(module, str(folder))
        return str(folder)

    return save


def windows(rows: int) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.3, (rows, WINDOW)).astype(np.float32)


def options(**given: Any) -> dict[str, Any]:
    return {"backbone_options": given}


def test_one_axis_dict_and_fixed_window(saved: Callable[[Any], str]) -> None:
    model = embedding_model(f"hub:{saved(OneClip())}", **options(sample_rate=16_000))
    sound = windows(5)
    batched = np.asarray(model(sound))[:, 0]
    alone = np.concatenate([np.asarray(model(row[None]))[:, 0] for row in sound])
    np.testing.assert_allclose(batched, alone, atol=1e-5)
    np.testing.assert_allclose(batched, expected(sound), atol=1e-5)


def test_batches_with_a_rate_of_their_own(saved: Callable[[Any], str]) -> None:
    handle = saved(Batched())
    model = embedding_model(f"hub:{handle}", **options(output=1))
    assert model.get_layer("windows").spec.sample_rate == 32_000
    sound = np.concatenate(windows(2))[None]
    found = np.asarray(model(sound))  # three windows, overlapping by half
    np.testing.assert_allclose(found[0, [0, 2]], expected(windows(2)), atol=1e-5)
    with pytest.raises(WeightsError, match=r"several outputs .* give backbone_options=\{'output'"):
        embedding_model(f"hub:{handle}")


def test_any_length_and_the_rate_as_an_argument(saved: Callable[[Any], str]) -> None:
    model = embedding_model(f"hub:{saved(WithRate())}", **options(sample_rate=8_000, window=WINDOW))
    np.testing.assert_allclose(np.asarray(model(windows(3)))[:, 0], expected(windows(3)), atol=1e-5)


def test_the_real_yamnet_finds_its_own_way(hub_yamnet: str) -> None:
    with pytest.raises(WeightsError, match=r"several outputs|give output="):
        embedding_model(f"hub:{hub_yamnet}")
    model = embedding_model(f"hub:{hub_yamnet}", **options(output=1, window=15_600))
    sound = np.random.default_rng(0).normal(0, 0.1, (1, 15_600)).astype(np.float32)
    own = embedding_model("yamnet", weights=hub_yamnet)
    np.testing.assert_allclose(np.asarray(model(sound)), np.asarray(own(sound)), atol=1e-3)


def test_a_classifier_trains_saves_serves_and_says_what_it_cannot(saved: Callable[[Any], str], tmp_path: Path) -> None:
    handle = saved(OneClip())
    backbone = {"backbone": f"hub:{handle}", **options(sample_rate=16_000)}
    model = build_classifier(class_names=["a", "b"], hidden=(), **backbone)
    model.fit(windows(4), np.eye(2)[[0, 1, 0, 1]], epochs=1, verbose=0)
    scores = np.asarray(model(windows(3)))
    model.save(tmp_path / "model.keras")
    (tmp_path / "OneClip").rename(tmp_path / "elsewhere")  # the file has all it needs
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(windows(3)), scores, atol=1e-6)
    loaded.save(tmp_path / "again.keras")
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "again.keras")(windows(3)), scores, atol=1e-6)
    more = replace_head(loaded, ["c"], extend=True, seed=0)
    embeddings = [keras.Model(m.input, m.get_layer("patch_embedding").output)(windows(3)) for m in (loaded, more)]
    np.testing.assert_array_equal(*embeddings)
    folder = export_saved_model(loaded, tmp_path / "served")
    np.testing.assert_allclose(open_artifact(folder).scores(windows(3)), scores, atol=1e-5)
    with pytest.raises(ExportError, match="black box"):
        export_tflite(model, tmp_path / "model.tflite")
    (tmp_path / "elsewhere").rename(tmp_path / "OneClip")
    with pytest.raises(ValueError, match=r"trainable=2.*black box"):
        build_classifier(class_names=["a", "b"], trainable=2, **backbone)
    with pytest.raises(ValueError, match="black box"):
        embedding_layers(f"hub:{handle}")
    with pytest.raises(ValueError, match="brings its own"):
        build_classifier(class_names=["a", "b"], weights="other", **backbone)


def test_the_engine_runs_it(saved: Callable[[Any], str]) -> None:
    sound = list(windows(3))
    found = embed(f"hub:{saved(OneClip())}", sound, backbone_options={"sample_rate": 16_000})
    np.testing.assert_allclose(found, expected(windows(3)), atol=1e-5)


@pytest.mark.parametrize(
    ("module", "given", "message"),
    [
        (OneClip, {}, "give sample_rate="),
        (OneClip, {"sample_rate": 16_000, "window": 99}, "takes 2000 samples at a time"),
        (OneClip, {"sample_rate": 16_000, "output": "layer19"}, r"output='layer19': there are embedding \(20, 6\)"),
        (Batched, {"signature": "serve"}, "signature='serve': no function takes one waveform"),
    ],
)
def test_what_must_be_given_is_said(
    module: type[Any], given: dict[str, Any], message: str, saved: Callable[[Any], str]
) -> None:
    with pytest.raises(WeightsError, match=message):
        embedding_model(f"hub:{saved(module())}", **options(**given))


@pytest.mark.parametrize(
    ("handle", "rate"),
    [
        ("https://tfhub.dev/google/yamnet/1", 16_000),
        ("google/nonsemantic-speech-benchmark/trill/3", 16_000),
        ("https://www.kaggle.com/models/google/bird-vocalization-classifier/tensorFlow2/perch_v2/1", 32_000),
        ("https://tfhub.dev/someone/yamnet-remade/1", None),
    ],
)
def test_a_rate_is_known_by_a_name_not_by_a_piece_of_one(handle: str, rate: int | None) -> None:
    assert known_rate(handle) == rate


def test_a_folder_is_known_by_its_own_name(tmp_path: Path) -> None:
    for path, rate in {
        "yamnet": 16_000,
        "vggish/my_32khz_model": None,
        "vggish-versus-perch": None,
        "yamnet/1": 16_000,
    }.items():
        (tmp_path / path).mkdir(parents=True, exist_ok=True)
        assert known_rate(str(tmp_path / path)) == rate


def test_no_handle() -> None:
    with pytest.raises(ValueError, match="give the handle"):
        embedding_model("hub:")
