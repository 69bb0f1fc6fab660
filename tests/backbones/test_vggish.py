"""VGGish: parity with a second writing of the published network, weight sources, post-processing, saving."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.helpers.servers import isolate, sends, serving
from tests.helpers.vggish import (
    PUBLISHED_UNITS,
    UNITS,
    kernel_shapes,
    published_examples,
    published_network,
    random_variables,
    write_slim_checkpoint,
)
from tfaudiotl._files import file_digest
from tfaudiotl.backbones import vggish
from tfaudiotl.backbones.assembly import embed_patches
from tfaudiotl.backbones.embedding import embedding_model
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.backbones.vggish import (
    FRONTEND,
    PCA_SHA256,
    PcaParams,
    VGGish,
    check_known_answers,
    load_pca_params,
    load_weights,
    vggish_postprocess,
)
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.errors import WeightsError

DENSE = vggish.DENSE


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The builder makes networks of the stand-in's size."""
    monkeypatch.setattr(vggish, "DENSE", tuple((name, UNITS) for name, _ in DENSE))


@cache
def opened(weights: str) -> keras.Model:
    return VGGish(weights=weights)


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(4).uniform(-1, 1, samples).astype(np.float32)


def published_pca(embeddings: np.ndarray, vectors: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Postprocessor.postprocess of vggish_postprocess.py, line for line."""
    pca_applied = np.dot(vectors, (embeddings.T - means.reshape(-1, 1))).T
    clipped = np.clip(pca_applied, -2.0, 2.0)
    return ((clipped - -2.0) * (255.0 / (2.0 - -2.0))).astype(np.uint8)


@pytest.fixture
def pca_file(tmp_path: Path, rng: np.random.Generator) -> Path:
    vectors, _ = np.linalg.qr(rng.normal(size=(128, 128)))
    np.savez(tmp_path / "pca.npz", pca_eigen_vectors=vectors, pca_means=rng.normal(size=128))
    return tmp_path / "pca.npz"


@pytest.mark.parametrize("samples", [0, 399, 15_600, 15_601, 30_960, 40_000])
def test_equals_the_hub_module_of_the_same_variables(samples: int, stand_in_vggish: Path) -> None:
    import tensorflow_hub

    hub = tensorflow_hub.load(str(stand_in_vggish))
    expected = hub(noise(samples)).numpy()
    ours = np.asarray(opened(str(stand_in_vggish))(noise(samples)[None]))[0]
    assert ours.shape == expected.shape
    assert expected.std() > 0.1  # the stand-in's activations are alive
    np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_equals_the_published_definition_written_in_numpy(stand_in_vggish: Path) -> None:
    waveform = noise(2 * 15_360 + 20_000)
    examples = published_examples(waveform)
    assert examples.shape == (3, 96, 64)  # the tail is dropped
    model = VGGish(weights=str(stand_in_vggish), pad_tail=False)
    both = keras.Model(model.input, [model.get_layer("log_mel").output, model.output])
    patches, embeddings = both(waveform[None])
    np.testing.assert_allclose(patches[0], examples, atol=1e-3)
    np.testing.assert_allclose(embeddings[0], published_network(examples, random_variables()), atol=1e-3)


def test_the_two_manners_with_the_tail(stand_in_vggish: Path) -> None:
    waveform = noise(40_000)
    padded = np.asarray(opened(str(stand_in_vggish))(waveform[None]))
    dropped = np.asarray(VGGish(weights=str(stand_in_vggish), pad_tail=False)(waveform[None]))
    assert padded.shape == (1, 3, 128)
    assert dropped.shape == (1, 2, 128)
    np.testing.assert_allclose(padded[:, :2], dropped, atol=1e-4)
    options = {"pad_tail": False}
    model = embedding_model("vggish", embedding="conv2", weights=str(stand_in_vggish), backbone_options=options)
    assert model(waveform[None]).shape == (1, 2, 128)


def test_size_is_the_published_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vggish, "DENSE", DENSE)
    model = VGGish(weights=None)
    assert model.count_params() == 72_141_184
    assert [variable.shape for variable in model.weights[::2]] == kernel_shapes(PUBLISHED_UNITS)


def test_published_weights_load_from_the_authors_checkpoint(
    stand_in_vggish: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolate(monkeypatch, tmp_path)
    (tmp_path / "own").mkdir()
    checkpoint = write_slim_checkpoint(tmp_path / "own" / "vggish_model.ckpt", random_variables())
    monkeypatch.setattr(vggish, "PUBLISHED", replace(vggish.PUBLISHED, sha256=file_digest(checkpoint)))
    monkeypatch.setattr(vggish, "KNOWN_SPREAD", (0, 100))
    monkeypatch.setattr(vggish, "KNOWN_MEAN", 100)
    expected = np.asarray(opened(str(stand_in_vggish))(noise(16_000)[None]))
    np.testing.assert_array_equal(np.asarray(VGGish()(noise(16_000)[None])), expected)


def test_weights_of_another_network_are_refused(stand_in: Path) -> None:
    with pytest.raises(WeightsError, match="missing: _variables/0/"):
        VGGish(weights=str(stand_in))


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vggish_model.ckpt").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"vggish_model\.ckpt"):
        VGGish(weights=str(tmp_path / "vggish_model.ckpt"))


def test_postprocessing_is_the_published_formula_bit_for_bit(pca_file: Path, rng: np.random.Generator) -> None:
    embeddings = rng.normal(size=(500, 128)).astype(np.float32)
    with np.load(pca_file) as file:
        expected = published_pca(embeddings, file["pca_eigen_vectors"], file["pca_means"])
    found = vggish_postprocess(embeddings, pca_file)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    assert 0 in found
    assert 255 in found


def test_postprocessing_with_the_official_parameters(shared: Path, rng: np.random.Generator) -> None:
    import hashlib

    path = shared / "reference" / "vggish_pca_params.npz"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == PCA_SHA256
    embeddings = rng.normal(size=(200, 128)).astype(np.float32)
    params = load_pca_params(path)
    expected = published_pca(embeddings, params.eigen_vectors, params.means)
    np.testing.assert_array_equal(vggish_postprocess(embeddings, path), expected)


def test_postprocessing_inside_the_model(stand_in_vggish: Path, pca_file: Path, tmp_path: Path) -> None:
    model = VGGish(weights=str(stand_in_vggish), include_top=True, pca_params=pca_file)
    waveform = noise(31_000)[None]
    embeddings = np.asarray(keras.Model(model.input, model.get_layer("embedding").output)(waveform))
    found = np.asarray(model(waveform))[0]
    np.testing.assert_array_equal(found.astype(np.uint8), vggish_postprocess(embeddings, pca_file))
    options = {"pca_params": pca_file}
    cut = embedding_model("vggish", embedding="pca", weights=str(stand_in_vggish), backbone_options=options)
    np.testing.assert_array_equal(np.asarray(cut(waveform))[0], found)


@pytest.mark.parametrize("content", [b"", b"PK no archive"])
def test_bad_pca_parameters(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "pca.npz").write_bytes(content)
    with pytest.raises(WeightsError, match=r"pca\.npz"):
        load_pca_params(tmp_path / "pca.npz")


def test_pca_parameters_of_another_shape(tmp_path: Path) -> None:
    np.savez(tmp_path / "pca.npz", pca_eigen_vectors=np.eye(3), pca_means=np.zeros(3))
    with pytest.raises(WeightsError, match=r"shapes \(3, 3\) and \(3,\)"):
        load_pca_params(tmp_path / "pca.npz")
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        vggish_postprocess(np.zeros((2, 3)), PcaParams(np.eye(128), np.zeros((128, 1))))


def test_every_layer_is_an_embedding(stand_in_vggish: Path, pca_file: Path) -> None:
    spec = get_backbone("vggish")
    names = [layer.name for layer in spec.layers]
    assert names == [
        "log_mel",
        "conv1",
        "conv2",
        "conv3_1",
        "conv3_2",
        "conv4_1",
        "conv4_2",
        "fc1_1",
        "fc1_2",
        "embedding",
        "pca",
    ]
    for name in ("log_mel", "conv3_2", "embedding"):
        model = embedding_model("vggish", embedding=name, weights=str(stand_in_vggish))
        assert model(noise(16_000)[None]).shape == (1, 2, spec.embedding_layer(name).width)


def test_a_classifier_on_vggish_saves_and_frees_blocks(stand_in_vggish: Path, tmp_path: Path) -> None:
    model = build_classifier(
        "vggish", class_names=["a", "b"], embedding="conv3_2", weights=str(stand_in_vggish), trainable=1
    )
    trainable = {layer.name for layer in model.layers if layer.trainable and layer.weights}
    assert {"conv3_1", "conv3_2"} <= trainable
    assert "conv2" not in trainable
    waveform = noise(20_000)[None]
    expected = np.asarray(model(waveform))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(np.asarray(loaded(waveform)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input": "picture"}, "input='picture'"),
        ({"patch_pooling": "mean"}, "patch_pooling='mean'"),
        ({"samples": 0}, "samples=0"),
        ({"input": "patches", "patch_pooling": "avg"}, "a row is one patch"),
        ({"weights": "nowhere"}, "weights='nowhere'"),
    ],
)
def test_bad_arguments(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VGGish(**options)  # type: ignore[arg-type]


@pytest.mark.network
def test_published_smoke_values() -> None:
    """vggish_smoke_test.py: 3 s of a 1 kHz sine made at 16 kHz, tail dropped, within 10 %."""
    sine = np.sin(2 * np.pi * 1000 * np.arange(48_000) / 16_000).astype(np.float32)
    embeddings = np.asarray(VGGish(pad_tail=False)(sine[None]))[0]
    quantised = vggish_postprocess(embeddings)
    found = [embeddings.mean(), embeddings.std(), quantised.mean(), quantised.std()]
    np.testing.assert_allclose(found, [0.000657, 0.343, 126.0, 89.3], rtol=0.1)


def test_the_stand_in_without_a_graph_is_refused(stand_in_vggish: Path, tmp_path: Path) -> None:
    folder = tmp_path / "vggish"
    shutil.copytree(stand_in_vggish, folder, symlinks=True)
    data = folder / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="damaged or cut off"):
        VGGish(weights=str(folder))


def test_published_weights_answer_a_known_question() -> None:
    model = VGGish(weights=None)
    bare = keras.Model(model.inputs, model.get_layer("embedding").output)
    model.get_layer("fc2").set_weights([value * 1e-3 for value in model.get_layer("fc2").get_weights()])
    with pytest.raises(WeightsError, match="the embedding of a 1 kHz tone has mean"):
        check_known_answers(bare)
    spread = embed_patches(bare, FRONTEND, tone()).std()
    model.get_layer("fc2").set_weights([value * 0.36 / spread for value in model.get_layer("fc2").get_weights()])
    check_known_answers(bare)
    kernel, bias = model.get_layer("conv1").get_weights()
    model.get_layer("conv1").set_weights([kernel * 0, bias])
    with pytest.raises(WeightsError, match="damaged"):
        check_known_answers(bare)


def tone() -> np.ndarray:
    return np.sin(2 * np.pi * 1000 * np.arange(15_600) / 16_000).astype(np.float32)[None]


def test_the_chain_ends_at_the_authors_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch, tmp_path)
    with pytest.raises(WeightsError, match=r"(?s)Kaggle \(.*/google/vggish/tensorFlow2/vggish/1.*vggish_model\.ckpt"):
        VGGish()
    with pytest.raises(WeightsError, match=r"(?s)pca_params='audioset': .*authors \(.*/vggish_pca_params\.npz\)"):
        load_pca_params()
    with serving() as server:
        isolate(monkeypatch, tmp_path, servers=server.url)
        server.answers["/audioset/vggish_pca_params.npz"] = sends(b"PK other")
        with pytest.raises(WeightsError, match=PCA_SHA256):
            load_pca_params()


def test_the_official_pca_parameters_are_fetched_once(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as server:
        isolate(monkeypatch, tmp_path, servers=server.url)
        content = (shared / "reference" / "vggish_pca_params.npz").read_bytes()
        server.answers["/audioset/vggish_pca_params.npz"] = sends(content)
        for _ in range(2):
            assert load_pca_params().eigen_vectors.shape == (128, 128)
        assert len(server.requests) == 1


def test_a_keras_file_without_pca_serves_a_model_with_it(pca_file: Path, tmp_path: Path) -> None:
    model = VGGish(weights=None, include_top=True, pca_params=pca_file)
    bare = keras.Model(model.inputs, model.get_layer("embedding").output)
    bare.save_weights(tmp_path / "vggish.weights.h5")
    kernel, bias = model.get_layer("fc2").get_weights()
    model.get_layer("fc2").set_weights([kernel + 1, bias])
    load_weights(model, str(tmp_path / "vggish.weights.h5"))
    np.testing.assert_array_equal(model.get_layer("fc2").get_weights()[0], kernel)
