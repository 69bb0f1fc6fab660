"""The store: what is there is whole, of these weights, and not computed twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.helpers.sounds import sound, write_folder
from tfaudiotl._shards import index_sum
from tfaudiotl.backbones.embedding import embedding_model
from tfaudiotl.data.folders import sound_files
from tfaudiotl.embeddings import extract
from tfaudiotl.embeddings.extract import EngineOptions, Extractor, embed, embed_to_store
from tfaudiotl.embeddings.store import EmbeddingStore, StoreError, Unit
from tfaudiotl.errors import AudioErrors

KERAS = EngineOptions(runtime="keras")


@pytest.fixture(scope="module")
def extractor(stand_in: Path) -> Extractor:
    return Extractor("yamnet", ["layer2", "layer4"], weights=str(stand_in), engine=KERAS)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return sound_files(write_folder(tmp_path / "sounds", per_class=2))


def contents(store: Path, files: list[Path]) -> dict[str, np.ndarray]:
    opened = EmbeddingStore(store)
    return {f"{path.name} {layer}": opened.read(path, layer)[0] for path in files for layer in ("layer2", "layer4")}


def test_rows_are_the_models_and_know_their_time(
    extractor: Extractor, files: list[Path], stand_in: Path, tmp_path: Path
) -> None:
    report = embed_to_store(extractor, files, tmp_path / "store")
    assert (report.computed, report.reused, report.patches) == (6, 0, 12)
    opened = EmbeddingStore(tmp_path / "store")
    assert opened.layers == ["layer2", "layer4"]
    assert sorted(opened.files.values()) == sorted(map(str, files))
    model = embedding_model("yamnet", embedding="layer4", weights=str(stand_in))
    for path in files:
        rows, times = opened.read(path, "layer4")
        waveform, _ = soundfile.read(path, dtype="float32")
        np.testing.assert_allclose(rows, np.asarray(model(waveform[None]))[0], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(times, [[0, 0.96], [0.48, 1.2]])
    with pytest.raises(StoreError, match=r"embedding='layer9' is not in the store, which has \['layer2', 'layer4'\]"):
        opened.read(files[0], "layer9")


def test_nothing_is_computed_twice(
    extractor: Extractor, files: list[Path], stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    embed_to_store(extractor, files[:4], store)
    before = contents(store, files[:4])
    files[0].rename(files[0].with_name("renamed.wav"))  # the content is what counts
    files[0] = files[0].with_name("renamed.wav")
    report = embed_to_store(extractor, files, store)
    assert (report.computed, report.reused) == (2, 4)
    assert contents(store, files[1:4]).keys() <= before.keys()
    rng = np.random.default_rng(9)
    soundfile.write(files[1], sound("noise", rng), 16_000)  # other content under the same name
    report = embed_to_store(extractor, files, store)
    assert (report.computed, report.reused) == (1, 5)
    more = Extractor("yamnet", "layer6", weights=str(stand_in), engine=KERAS)
    report = embed_to_store(more, files, store)
    assert (report.computed, report.reused) == (6, 0)
    assert EmbeddingStore(store).layers == ["layer2", "layer4", "layer6"]


def test_a_long_recording_is_taken_in_pieces(
    extractor: Extractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, rng.uniform(-0.5, 0.5, int(44_100 * 61.3)), 44_100)
    embed_to_store(extractor, [path], tmp_path / "whole")
    monkeypatch.setattr(extract, "PIECE_SECONDS", 12)
    report = embed_to_store(extractor, [path], tmp_path / "pieces")
    assert report.computed == 6
    whole, pieces = (EmbeddingStore(tmp_path / name).read(path, "layer4") for name in ("whole", "pieces"))
    np.testing.assert_allclose(pieces[0], whole[0], rtol=1e-2, atol=1e-3)
    np.testing.assert_array_equal(pieces[1], whole[1])


@pytest.mark.parametrize("what", ["layer4.npy", "index.json", "missing"])
def test_damaged_shards_are_found_and_computed_again(
    what: str, extractor: Extractor, files: list[Path], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    embed_to_store(extractor, files[:3], store)
    embed_to_store(extractor, files, store)
    before = contents(store, files)
    shard = sorted((store / "shards").iterdir())[0]
    if what == "missing":
        (shard / "layer2.npy").unlink()
    else:
        data = bytearray((shard / what).read_bytes())
        data[-40] ^= 1
        (shard / what).write_bytes(data)
    with pytest.raises(StoreError):
        contents(store, files)
    report = embed_to_store(extractor, files, store)
    assert (report.computed, report.reused) == (3, 3)
    assert report.damaged == [shard.name]
    after = contents(store, files)
    for key, value in before.items():
        np.testing.assert_allclose(after[key], value, rtol=1e-4, atol=1e-5)  # Keras rounds by the batch


def test_a_store_of_other_weights_or_pooling_is_refused(
    extractor: Extractor, files: list[Path], stand_in: Path, tmp_path: Path
) -> None:
    embed_to_store(extractor, files, tmp_path / "store")
    other = Extractor("yamnet", "layer2", weights=None, engine=KERAS)
    with pytest.raises(StoreError, match="was made in another way: weights is"):
        embed_to_store(other, files, tmp_path / "store")
    pooled = Extractor("yamnet", "layer2", pooling="max", weights=str(stand_in), engine=KERAS)
    with pytest.raises(StoreError, match="pooling is 'avg', not 'max'"):
        embed_to_store(pooled, files, tmp_path / "store")
    with pytest.raises(StoreError, match="a folder of other things"):
        embed_to_store(extractor, files, files[0].parent)
    with pytest.raises(StoreError, match="no store there"):
        EmbeddingStore(tmp_path / "nowhere")


def test_one_writer_at_a_time(extractor: Extractor, files: list[Path], tmp_path: Path) -> None:
    embed_to_store(extractor, files[:1], tmp_path / "store")
    with EmbeddingStore(tmp_path / "store").writing(), pytest.raises(StoreError, match="another process is writing"):
        embed_to_store(extractor, files, tmp_path / "store")


def test_unusable_files_do_not_stop_the_others(extractor: Extractor, files: list[Path], tmp_path: Path) -> None:
    files[2].write_bytes(b"RIFF nothing")
    (tmp_path / "gone.wav").write_bytes(b"")
    with pytest.raises(AudioErrors) as caught:
        embed_to_store(extractor, [*files, tmp_path / "gone.wav"], tmp_path / "store")
    assert [error.path for error in caught.value.errors] == [str(files[2]), str(tmp_path / "gone.wav")]
    report = embed_to_store(extractor, files, tmp_path / "store", on_error="skip")
    assert (report.computed, report.reused) == (0, 5)
    assert [error.path for error in report.skipped] == [str(files[2])]


def test_embed_uses_a_store(files: list[Path], stand_in: Path, tmp_path: Path) -> None:
    options = {"embedding": "layer4", "weights": str(stand_in), "engine": KERAS}
    plain = embed("yamnet", files, **options)  # type: ignore[arg-type]
    stored = embed("yamnet", files, store=tmp_path / "store", **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(stored, plain, rtol=1e-4, atol=1e-5)
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    np.testing.assert_array_equal(embed("yamnet", files, store=tmp_path / "copy", **options), stored)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="arrays were given"):
        embed("yamnet", [np.zeros(8_000)], store=tmp_path / "store", **options)  # type: ignore[arg-type]


def make_store(folder: Path, recordings: int) -> tuple[EmbeddingStore, list[str]]:
    """A store of so many recordings of two patches, in shards of 100."""
    store = EmbeddingStore(folder, config={"patch_seconds": 0.975, "patch_hop_seconds": 0.4875})
    digests = [f"{number:064x}" for number in range(recordings)]
    with store.writing():
        for first in range(0, recordings, 100):
            units = [Unit(digest, 0, 2, 1.2, "a.wav") for digest in digests[first : first + 100]]
            store.write(units, {"layer4": np.arange(6 * len(units), dtype=np.float32).reshape(-1, 3) + first})
    return store, digests


def test_reading_many_recordings_holds_no_file_open(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    store, digests = make_store(tmp_path / "store", 1_500)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        rows = [store.read_digest(digest, "layer4")[0] for digest in digests]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [int(row[0, 0]) for row in rows[:102]] == [*range(0, 600, 6), 100, 106]


def test_a_passing_read_error_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, digests = make_store(tmp_path / "store", 3)
    shard = next((tmp_path / "store" / "shards").iterdir())

    def fails(path: object) -> str:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("tfaudiotl._shards.file_digest", fails)
        with EmbeddingStore(tmp_path / "store").writing():
            assert not store.has(digests[0], 0, ["layer4"])
        broken.setattr(Path, "read_text", lambda path, **options: fails(path))
        with pytest.raises(StoreError, match="cannot be read"):
            EmbeddingStore(tmp_path / "store")
    assert store.has(digests[0], 0, ["layer4"])
    with EmbeddingStore(tmp_path / "store").writing():
        assert sorted(path.name for path in shard.iterdir()) == ["index.json", "layer4.npy"]


def test_only_the_writer_removes_what_is_damaged(tmp_path: Path) -> None:
    _, digests = make_store(tmp_path / "store", 3)
    shard = next((tmp_path / "store" / "shards").iterdir())
    (shard / "layer4.npy").write_bytes(b"other")
    opened = EmbeddingStore(tmp_path / "store")
    assert not opened.has(digests[0], 0, ["layer4"])
    assert shard.is_dir()
    with opened.writing():
        assert not opened.has(digests[0], 0, ["layer4"])
    assert not shard.exists()
    assert opened.damaged == [shard.name]


@pytest.mark.parametrize(
    "change",
    [{"count": "2"}, {"count": 10**6}, {"first": -1}, {"digest": 7}, {"more": 1}],
    ids=lambda change: str(change),
)
def test_an_index_that_cannot_be_is_damaged(tmp_path: Path, change: dict[str, object]) -> None:
    _, digests = make_store(tmp_path / "store", 3)
    path = next((tmp_path / "store" / "shards").iterdir()) / "index.json"
    index = json.loads(path.read_text())
    index["units"][0].update(change)
    index["sum"] = index_sum(index["units"], index["arrays"])
    path.write_text(json.dumps(index))
    opened = EmbeddingStore(tmp_path / "store")
    with pytest.raises(StoreError):
        opened.read_digest(digests[1], "layer4")


def test_two_first_writers_of_different_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = EmbeddingStore(tmp_path / "store", config={"weights": "a"})
    (tmp_path / "store" / "store.json").unlink()  # as if the second one had not seen it yet
    EmbeddingStore(tmp_path / "store", config={"weights": "b"})
    with pytest.raises(StoreError, match="weights is 'b', not 'a'"), first.writing():
        pass
