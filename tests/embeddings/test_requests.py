"""A store that has it all is read without a network; what differs in anything is not taken from it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from tests.helpers.sounds import write_folder
from tfaudiotl.data.folders import sound_files
from tfaudiotl.embeddings import extract
from tfaudiotl.embeddings.extract import AudioEmbedding, EngineOptions, embed
from tfaudiotl.embeddings.store import EmbeddingStore, Request, StoreError, Unit

KERAS = EngineOptions(runtime="keras")


class NetworkBuiltError(Exception):
    """Raised in place of building a network."""


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object, **options: object) -> None:
        raise NetworkBuiltError

    monkeypatch.setattr(extract, "cut_backbone", fails)


@pytest.fixture(scope="module")
def filled(stand_in: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str], np.ndarray]:
    """Weights, a store that is full of two layers, the files, and their embeddings."""
    folder = tmp_path_factory.mktemp("requests")
    files = list(map(str, sound_files(write_folder(folder / "sounds", per_class=3))))
    weights = Path(shutil.copytree(stand_in, folder / "weights"))
    for layer in ("layer4", "layer2"):
        rows = embed("yamnet", files, embedding=layer, weights=str(weights), store=folder / "store", engine=KERAS)
    return weights, folder / "store", files, rows


def test_a_full_store_needs_no_network(
    filled: tuple[Path, Path, list[str], np.ndarray], no_network: None, tmp_path: Path
) -> None:
    weights, store, files, rows = filled
    again = embed("yamnet", files[::-1], embedding="layer2", weights=str(weights), store=store, engine=KERAS)
    np.testing.assert_array_equal(again, rows[::-1])
    labels = [Path(file).parent.name for file in files]
    pipeline = make_pipeline(AudioEmbedding("yamnet", weights=str(weights), store=str(store)), LogisticRegression())
    search = GridSearchCV(
        pipeline,
        {"audioembedding__embedding": ["layer2", "layer4"], "audioembedding__patch_pooling": ["avg", "max"]},
        cv=3,
        error_score="raise",
    )
    assert search.fit(files, labels).n_splits_ == 3


@pytest.mark.parametrize(
    "options",
    [
        {"embedding": "layer3"},
        {"pooling": "max"},
        {"trim": False},
        {"weights": None},
        {"engine": EngineOptions(quantize="int8")},
        {"backbone_options": {"name": "other"}},
    ],
    ids=str,
)
def test_another_request_is_not_answered(
    filled: tuple[Path, Path, list[str], np.ndarray], no_network: None, options: dict[str, Any]
) -> None:
    weights, store, files, _ = filled
    with pytest.raises(NetworkBuiltError):
        embed("yamnet", files, **{"embedding": "layer2", "weights": str(weights), "store": store, **options})


def test_another_precision_weights_file_or_recording_is_not_answered(
    filled: tuple[Path, Path, list[str], np.ndarray], no_network: None, tmp_path: Path
) -> None:
    _, store, files, _ = filled
    weights = Path(shutil.copytree(filled[0], tmp_path / "weights"))  # the same weights, but from elsewhere

    def ask(files: list[str], weights: Path) -> None:
        embed("yamnet", files, embedding="layer2", weights=str(weights), store=store, engine=KERAS)

    with pytest.raises(NetworkBuiltError):
        ask(files, weights)
    other = tmp_path / "other.wav"
    other.write_bytes(Path(files[0]).read_bytes() + b"\0\0")
    with pytest.raises(NetworkBuiltError):
        ask([*files, str(other)], filled[0])
    keras.config.set_dtype_policy("mixed_float16")
    with pytest.raises(NetworkBuiltError):
        ask(files, filled[0])


def test_a_weights_file_that_is_written_again_makes_another_request(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    seen = set()
    for content in (b"one", b"two"):
        path.write_bytes(content)
        seen.add(Request.of("yamnet_mini", ["layer2"], str(path), {}).digest)
    assert len(seen) == 2
    assert Request.of("rawnet2", ["layer2"], None, {}).digest == ""  # drawn at random, so never the same


def test_the_first_pieces_of_a_recording_are_not_the_whole(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path / "store", config={"patch_seconds": 0.96, "patch_hop_seconds": 0.48})
    units = [Unit("a" * 64, 0, 500, 300.0, "long.wav"), Unit("b" * 64, 0, 3, 240.0, "silent end.wav")]
    with store.writing():
        store.write(units, {"layer2": np.zeros((503, 4), np.float32)})
        assert not store.is_whole("a" * 64, "layer2")
        assert store.is_whole("b" * 64, "layer2")
        assert not store.is_whole("c" * 64, "layer2")
        store.write([Unit("a" * 64, 500, 124, 300.0, "long.wav")], {"layer2": np.zeros((124, 4), np.float32)})
    assert store.is_whole("a" * 64, "layer2")


def test_a_damaged_store_is_computed_again(filled: tuple[Path, Path, list[str], np.ndarray], tmp_path: Path) -> None:
    weights, _, files, rows = filled
    store = Path(shutil.copytree(filled[1], tmp_path / "store"))
    for path in (store / "shards").glob("*/layer2.npy"):
        path.write_bytes(b"damaged")
    with pytest.raises(StoreError):
        EmbeddingStore(store).read(files[0], "layer2")
    again = embed("yamnet", files, embedding="layer2", weights=str(weights), store=store, engine=KERAS)
    np.testing.assert_allclose(again, rows, rtol=1e-4, atol=1e-5)
