"""Weights: every source, the download from a server that answers as TF Hub does, and what goes wrong."""

from __future__ import annotations

import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.servers import Server, isolate, sends, serving, tar_gz, zip_of
from tests.helpers.yamnet import StandIn, keras2_file
from tfaudiotl.backbones.convnet import ConvNet
from tfaudiotl.backbones.scores import class_names_of
from tfaudiotl.backbones.weight_files import load_into, load_path, npz_bytes
from tfaudiotl.backbones.weight_sources import first_that_fits, published_sources
from tfaudiotl.backbones.yamnet import PUBLISHED, YAMNet, YAMNetMini, check_known_answers, published_forms
from tfaudiotl.errors import WeightsError


@pytest.fixture(scope="module")
def expected(stand_in: Path) -> list[np.ndarray]:
    return YAMNet(weights=str(stand_in)).get_weights()


def assert_loaded(weights: str, expected: list[np.ndarray]) -> None:
    model = YAMNet(weights=weights)
    for ours, theirs in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert class_names_of(model)[520] == "Sound 520, made up"


def test_archives(stand_in: Path, tmp_path: Path, expected: list[np.ndarray]) -> None:
    (tmp_path / "yamnet.tar.gz").write_bytes(tar_gz(stand_in))
    # as a browser or wget names what it fetched
    (tmp_path / "yamnet.tar.gz").rename(tmp_path / "1?tf-hub-format=compressed")
    assert_loaded(str(tmp_path / "1?tf-hub-format=compressed"), expected)
    # Kaggle's archives hold the files at the top; people's own often hold the folder.
    with tarfile.open(tmp_path / "nested.tgz", "w:gz") as archive:
        archive.add(stand_in, arcname="yamnet")
    assert_loaded(str(tmp_path / "nested.tgz"), expected)
    with zipfile.ZipFile(tmp_path / "yamnet.zip", "w") as zipped:
        for file in stand_in.rglob("*"):
            zipped.write(file, file.relative_to(stand_in))
    assert_loaded(str(tmp_path / "yamnet.zip"), expected)


def test_keras_weights_file(tmp_path: Path, stand_in: Path, expected: list[np.ndarray]) -> None:
    YAMNet(weights=str(stand_in)).save_weights(tmp_path / "yamnet.weights.h5")
    model = YAMNet(weights=str(tmp_path / "yamnet.weights.h5"))
    for ours, theirs in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    headless = YAMNet(weights=str(tmp_path / "yamnet.weights.h5"), include_top=False)
    for ours, theirs in zip(headless.get_weights(), expected[:-2], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    headless.save_weights(tmp_path / "headless.weights.h5")
    with pytest.raises(WeightsError, match=r"does not fit the model 'yamnet'"):
        YAMNet(weights=str(tmp_path / "headless.weights.h5"))
    with pytest.raises(WeightsError, match="no such file"):
        YAMNet(weights=str(tmp_path / "missing.weights.h5"))


@pytest.fixture
def hub(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A TF Hub on 127.0.0.1 with google/yamnet/1, and empty caches."""
    isolate(monkeypatch, tmp_path)
    with serving() as server:
        server.answers["/google/yamnet/1?tf-hub-format=compressed"] = sends(tar_gz(stand_in))
        yield server


def test_download_once_then_cache(hub: Server, expected: list[np.ndarray]) -> None:
    assert_loaded(f"{hub.url}/google/yamnet/1", expected)
    assert_loaded(f"{hub.url}/google/yamnet/1", expected)
    assert hub.requests == ["/google/yamnet/1?tf-hub-format=compressed"]


def test_missing_model_names_the_ways_out(hub: Server) -> None:
    handle = f"{hub.url}/google/nonet/1"
    with pytest.raises(WeightsError) as caught:
        YAMNet(weights=handle)
    for word in (handle, "HTTP 404", "TFHUB_CACHE_DIR", "folder", "--weights"):
        assert word in str(caught.value)


def test_unreachable_hub_names_the_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate(monkeypatch, tmp_path)
    with pytest.raises(WeightsError, match="TFHUB_CACHE_DIR"):
        YAMNet(weights="http://127.0.0.1:9/google/yamnet/1")


def test_a_damaged_copy_in_the_cache_is_replaced_or_named(hub: Server, tmp_path: Path) -> None:
    handle = f"{hub.url}/google/yamnet/1"
    YAMNet(weights=handle)
    (cached,) = (tmp_path / "tfhub").iterdir()
    shutil.rmtree(cached / "variables")
    YAMNet(weights=handle)
    assert len(hub.requests) == 2
    shutil.rmtree(cached / "variables")
    hub.answers.clear()
    with pytest.raises(WeightsError, match=rf"{cached}\): no SavedModel: .*; a damaged or foreign copy, which can be"):
        YAMNet(weights=handle)
    assert list((tmp_path / "tfhub").iterdir()) == [cached]


def test_damaged_checkpoint(stand_in: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(stand_in, broken)
    data = broken / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1_000])
    with pytest.raises(WeightsError, match="cannot be read"):
        YAMNet(weights=str(broken))


def test_other_network_lists_what_does_not_fit(tmp_path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.kernel = tf.Variable(tf.zeros((3, 3)))
    tf.saved_model.save(module, str(tmp_path / "other"))
    with pytest.raises(WeightsError) as caught:
        YAMNet(weights=str(tmp_path / "other"))
    assert "missing: _yamnet/layer_with_weights-0/kernel" in str(caught.value)
    assert "and 101 more" in str(caught.value)  # 110 missing, 1 left over, 10 shown


def test_a_model_is_unchanged_when_one_variable_does_not_fit() -> None:
    from tfaudiotl.backbones.weight_files import assign

    model = YAMNet(weights=None)
    before = model.get_weights()
    variables = {f"v{i}": variable for i, variable in enumerate(model.weights)}
    values = {key: np.ones(variable.shape, np.float32) for key, variable in variables.items()}
    values["v109"] = np.ones(5, np.float32)
    values["stranger"] = np.ones(5, np.float32)
    with pytest.raises(WeightsError, match=r"shape of v109: \(5,\) there, .* here\n  left over: stranger"):
        assign(variables, values)
    values["v109"] = np.full(variables["v109"].shape, np.nan)
    del values["stranger"]
    with pytest.raises(WeightsError, match="not finite: v109"):
        assign(variables, values)
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("weights", ["audiosett", "no/such/folder", ""])
def test_unknown_weights_say_what_is_allowed(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="weights="):
        YAMNet(weights=weights)


def test_folder_without_a_saved_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(WeightsError, match=r"lacks variables/variables.index \(found: notes.txt\)"):
        YAMNet(weights=str(tmp_path))
    (tmp_path / "bad.tar.gz").write_bytes(b"not an archive")
    with pytest.raises(WeightsError, match="cannot be unpacked"):
        YAMNet(weights=str(tmp_path / "bad.tar.gz"))


def same(model: keras.Model, expected: list[np.ndarray], tolerance: float = 0) -> None:
    for ours, theirs in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def original(stand_in: Path) -> bytes:
    return keras2_file(stand_in)


def test_the_authors_file_of_keras_2(original: bytes, tmp_path: Path, expected: list[np.ndarray]) -> None:
    (tmp_path / "yamnet.h5").write_bytes(original)
    model = YAMNet(weights=str(tmp_path / "yamnet.h5"))
    same(model, expected)
    assert class_names_of(model)[494] == "Silence"
    same(YAMNet(weights=str(tmp_path / "yamnet.h5"), include_top=False), expected[:-2])


def change_h5(path: Path, change: Callable[[h5py.File], object]) -> Path:
    with h5py.File(path, "r+") as file:
        change(file)
    return path


KERNEL = "layer1/conv/layer1/conv/kernel:0"


def set_nan(file: h5py.File, name: str) -> None:
    file[name][0] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.__delitem__(KERNEL), f"missing: {KERNEL}"),
        (lambda file: file.move(KERNEL, "layer15/kernel"), "left over: layer15/kernel"),
        (lambda file: set_nan(file, KERNEL), f"not finite: {KERNEL}"),
        # of a part that this model does not take, but by which it is checked
        (lambda file: set_nan(file, "logits/logits/bias:0"), "not finite: logits/logits/bias:0"),
    ],
)
def test_authors_files_that_are_wrong(
    change: Callable[[h5py.File], object], message: str, original: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "yamnet.h5"
    path.write_bytes(original)
    change_h5(path, change)
    with pytest.raises(WeightsError, match=rf"(?s)weights='{path}': .*{message}"):
        YAMNet(weights=str(path), include_top=False)


@pytest.fixture(scope="module")
def keras_file(stand_in: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keras") / "yamnet.weights.h5"
    YAMNet(weights=str(stand_in)).save_weights(path)
    return path


def first_array(file: h5py.File) -> str:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names[0]


def test_a_keras_file_must_be_of_the_network_and_finite(keras_file: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"does not fit the model 'yamnet_mini': .* missing: \(256, 521\)$"):
        YAMNetMini(weights=str(keras_file))
    with pytest.raises(WeightsError, match=r"does not fit the model 'yamnet_mini': .* left over"):
        YAMNetMini(weights=str(keras_file), include_top=False)
    mini = tmp_path / "mini.weights.h5"
    YAMNetMini(weights=None).save_weights(mini)
    with pytest.raises(WeightsError, match=r"does not fit the model 'yamnet': .* missing: .*"):
        YAMNet(weights=str(mini))
    damaged = tmp_path / "nan.weights.h5"
    shutil.copyfile(keras_file, damaged)
    change_h5(damaged, lambda file: set_nan(file, first_array(file)))
    with pytest.raises(WeightsError, match="not finite"):
        YAMNet(weights=str(damaged))
    damaged.write_bytes(keras_file.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match="damaged, cut off or no HDF5"):
        YAMNet(weights=str(damaged))


def test_a_keras_file_of_a_compiled_model_has_its_optimizer_too(tmp_path: Path) -> None:
    model = YAMNetMini(input="patches")
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)  # as the first step of a training does
    model.save_weights(tmp_path / "mini.weights.h5")
    with h5py.File(tmp_path / "mini.weights.h5") as file:
        assert "optimizer" in file
    same(YAMNetMini(weights=str(tmp_path / "mini.weights.h5")), model.get_weights())


def test_the_home_folder_is_understood(
    keras_file: Path, tmp_path: Path, expected: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copyfile(keras_file, tmp_path / "y.weights.h5")
    same(YAMNet(weights="~/y.weights.h5"), expected)
    YAMNetMini().save_weights(tmp_path / "mini.weights.h5")
    YAMNetMini(weights="~/mini.weights.h5")
    network = ConvNet()
    network.save_weights(tmp_path / "own.weights.h5")
    same(ConvNet(weights="~/own.weights.h5"), network.get_weights())
    network.save(tmp_path / "own.keras")
    same(ConvNet(weights="~/own.keras"), network.get_weights())


def test_an_npz_of_yamnet(stand_in: Path, tmp_path: Path, expected: list[np.ndarray]) -> None:
    model = YAMNet(weights=str(stand_in))
    (tmp_path / "yamnet.npz").write_bytes(npz_bytes(model, class_names=class_names_of(model)))
    same(YAMNet(weights=str(tmp_path / "yamnet.npz")), expected, tolerance=1e-3)
    same(YAMNet(weights=str(tmp_path / "yamnet.npz"), include_top=False), expected[:-2], tolerance=1e-3)
    (tmp_path / "yamnet.npz").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(WeightsError, match="cannot be read"):
        YAMNet(weights=str(tmp_path / "yamnet.npz"))


def test_an_encrypted_archive_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "yamnet.zip").write_bytes(zip_of("saved_model.pb", encrypted=True))
    with pytest.raises(WeightsError, match="encrypted"):
        YAMNet(weights=str(tmp_path / "yamnet.zip"))


def test_the_address_of_a_file_is_no_handle(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="the address of a file; fetch it"):
        YAMNet(weights="https://127.0.0.1:9/yamnet.h5")


def test_cloud_storage_needs_tensorflow_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_hub", None)
    with pytest.raises(WeightsError, match=r"tfaudiotl\[hub\]"):
        YAMNet(weights="gs://bucket/yamnet.tar.gz")


@pytest.mark.parametrize("options", [{"input": "patches"}, {"include_top": False, "samples": 8000}])
def test_published_weights_answer_known_questions(options: dict[str, Any], stand_in: Path) -> None:
    model = YAMNet(weights=None, **options)
    loaded = load_into(model, stand_in, published_forms(model))
    check_known_answers(model, loaded.values)
    with pytest.raises(WeightsError, match="the classifier of 521 classes is missing"):
        check_known_answers(model, {})
    rolled = {key: np.roll(value, 1, -1) for key, value in loaded.values.items()}
    with pytest.raises(WeightsError, match="'Silence' is called"):
        check_known_answers(model, rolled)


def test_real_weights_with_one_layer_in_disorder_answer_otherwise(hub_yamnet: str) -> None:
    model = YAMNet(weights=None)
    loaded = load_into(model, hub_yamnet, published_forms(model))
    check_known_answers(model, loaded.values)
    for layer in map(model.get_layer, ("layer1_conv", "layer7_pointwise_conv", "layer14_pointwise_conv_bn")):
        before = layer.get_weights()
        layer.set_weights([value[..., ::-1] for value in before])
        with pytest.raises(WeightsError, match=r"not the published weights, or damaged: '.*' is called"):
            check_known_answers(model, loaded.values)
        layer.set_weights(before)


def test_weights_with_other_answers_are_passed_over(
    stand_in: Path, tmp_path: Path, expected: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = tmp_path / "foreign"
    (tmp_path / "classes.csv").write_text("index,mid,display_name\n")
    tf.train.Checkpoint(StandIn(str(tmp_path / "classes.csv"), seed=8)).write(foreign / "variables" / "variables")
    with serving() as server:
        isolate(monkeypatch, tmp_path, servers=server.url)
        server.answers["/tfhub/google/yamnet/1?tf-hub-format=compressed"] = sends(tar_gz(foreign))
        with pytest.raises(WeightsError, match=r"TF Hub \(.*: not the published weights, or damaged: '"):
            YAMNet()
        kaggle = "/kaggle/api/v1/models/google/yamnet/tensorFlow2/yamnet/1/download"
        server.answers[kaggle] = sends(tar_gz(stand_in))
        same(YAMNet(), expected)
    assert list((tmp_path / "tfhub").iterdir()) == []
    same(YAMNet(include_top=False), expected[:-2])  # from kagglehub's cache


@pytest.mark.network
@pytest.mark.parametrize("place", ["TF Hub", "Kaggle by kagglehub", "Kaggle", "AudioSet's authors"])
def test_every_real_place_has_the_weights(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch, tmp_path)
    for name in ("TFHUB", "KAGGLE", "AUDIOSET"):
        monkeypatch.delenv(f"TFAUDIOTL_{name}_URL")
    sources = [source for source in published_sources(PUBLISHED) if source.name == place]
    if not sources:
        pytest.skip("kagglehub is not installed")
    model = YAMNet(weights=None)

    def accept(path: Path) -> None:
        check_known_answers(model, load_path(model, path, published_forms(model)).values)

    first_that_fits(sources, accept, asked=place, advice="")
