"""Weights: every source, the download from a server that answers as TF Hub does, and what goes wrong."""

from __future__ import annotations

import http.server
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tfaudiotl.backbones.scores import class_names_of
from tfaudiotl.backbones.yamnet import YAMNet
from tfaudiotl.errors import WeightsError


def tar(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname=".")
    return path


@pytest.fixture(scope="module")
def expected(stand_in: Path) -> list[np.ndarray]:
    return YAMNet(weights=str(stand_in)).get_weights()


def assert_loaded(weights: str, expected: list[np.ndarray]) -> None:
    model = YAMNet(weights=weights)
    for ours, theirs in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert class_names_of(model)[520] == "Sound 520, made up"


def test_archives(stand_in: Path, tmp_path: Path, expected: list[np.ndarray]) -> None:
    assert_loaded(str(tar(stand_in, tmp_path / "yamnet.tar.gz")), expected)
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


class _Hub(http.server.BaseHTTPRequestHandler):
    """Answers as TF Hub: the archive for ?tf-hub-format=compressed, 404 for anything else."""

    archive: bytes = b""
    requests: list[str]

    def do_GET(self) -> None:
        type(self).requests.append(self.path)
        found = self.path == "/google/yamnet/1?tf-hub-format=compressed"
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/gzip")
        self.end_headers()
        if found:
            self.wfile.write(self.archive)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub_server(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[_Hub]]]:
    """A TF Hub on 127.0.0.1 with google/yamnet/1, and an empty cache."""
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    handler = type("Handler", (_Hub,), {"requests": [], "archive": tar(stand_in, tmp_path / "hub.tar.gz").read_bytes()})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/google/yamnet/1", handler
    server.shutdown()


def test_download_once_then_cache(hub_server: tuple[str, type[_Hub]], expected: list[np.ndarray]) -> None:
    handle, handler = hub_server
    assert_loaded(handle, expected)
    assert_loaded(handle, expected)
    assert handler.requests == ["/google/yamnet/1?tf-hub-format=compressed"]


def test_missing_model_names_the_ways_out(hub_server: tuple[str, type[_Hub]]) -> None:
    handle = hub_server[0].replace("yamnet", "nonet")
    with pytest.raises(WeightsError) as caught:
        YAMNet(weights=handle)
    for word in (handle, "TFHUB_CACHE_DIR", "folder", "--weights"):
        assert word in str(caught.value)


def test_unreachable_hub_names_the_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    with pytest.raises(WeightsError, match="TFHUB_CACHE_DIR"):
        YAMNet(weights="http://127.0.0.1:9/google/yamnet/1")


def test_cut_off_download_is_an_error_and_leaves_no_cache(hub_server: tuple[str, type[_Hub]]) -> None:
    handle, handler = hub_server
    whole = handler.archive
    handler.archive = whole[: len(whole) // 2]
    with pytest.raises(WeightsError, match="could not be reached or does not have it"):
        YAMNet(weights=handle)
    handler.archive = whole
    YAMNet(weights=handle)


def test_empty_cache_folder_says_what_to_delete(hub_server: tuple[str, type[_Hub]], tmp_path: Path) -> None:
    handle = hub_server[0]
    YAMNet(weights=handle)
    (cached,) = [entry for entry in (tmp_path / "cache").iterdir() if entry.is_dir()]
    shutil.rmtree(cached / "variables")
    with pytest.raises(WeightsError, match=f"the cache is broken: delete {cached}"):
        YAMNet(weights=handle)


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
    from tfaudiotl.backbones.weights import assign

    model = YAMNet(weights=None)
    before = model.get_weights()
    variables = {f"v{i}": variable for i, variable in enumerate(model.weights)}
    values = {key: np.ones(variable.shape, np.float32) for key, variable in variables.items()}
    values["v109"] = np.ones(5, np.float32)
    values["stranger"] = np.ones(5, np.float32)
    with pytest.raises(WeightsError, match=r"shape of v109: \(5,\) there, .* here\n  left over: stranger"):
        assign(variables, values, source="test")
    values["v109"] = np.full(variables["v109"].shape, np.nan)
    del values["stranger"]
    with pytest.raises(WeightsError, match="not finite: v109"):
        assign(variables, values, source="test")
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
