from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.sounds import make_folder, tone, write
from tfaudiotl.data.clips import Clips
from tfaudiotl.data.dataset import make_dataset
from tfaudiotl.errors import AudioError


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    return Clips.from_directory(make_folder(tmp_path / "sounds", {"a": 7, "b": 6}))


def batches(dataset: tf.data.Dataset) -> list[tuple[np.ndarray, ...]]:
    return list(dataset.as_numpy_iterator())


def test_batches(clips: Clips) -> None:
    dataset = clips.dataset(batch_size=4)
    assert dataset.element_spec == (tf.TensorSpec((None, 1_600)), tf.TensorSpec((None, 2)))
    assert int(dataset.cardinality()) == 4
    result = batches(dataset)
    assert [waveforms.shape for waveforms, _ in result] == [(4, 1_600)] * 3 + [(1, 1_600)]
    waveforms, targets = (np.concatenate(part) for part in zip(*result, strict=True))
    assert np.array_equal(waveforms, np.stack([clips.load(row) for row in range(13)]))
    assert np.array_equal(targets, clips.targets)
    static = clips.dataset(batch_size=4, drop_remainder=True)
    assert static.element_spec == (tf.TensorSpec((4, 1_600)), tf.TensorSpec((4, 2)))
    assert len(batches(static)) == 3


def test_long_clips_are_cut_and_short_ones_padded(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{seconds}.wav", tone(seconds, 8_000), 8_000) for seconds in [0.5, 1.0, 2.4, 12.0]]
    clips = Clips.from_files(paths, ["a", "b", "a", "b"])
    (waveforms, targets) = batches(make_dataset(clips[:3], window_seconds=1.0))[0]
    assert waveforms.shape == (5, 16_000)
    assert np.array_equal(waveforms[0, 8_000:], np.zeros(8_000))
    assert np.array_equal(waveforms[0, :8_000], clips.load(0))
    assert np.abs(waveforms[4] - clips.load(2)[-16_000:]).max() < 1e-3
    assert targets.argmax(axis=1).tolist() == [0, 1, 0, 0, 0]
    assert batches(make_dataset(clips[:3]))[0][0].shape == (3, 38_400)
    assert batches(make_dataset(clips))[0][0].shape == (5, 160_000)  # 10 s at most
    assert batches(make_dataset(clips, sample_rate=8_000))[0][0].shape == (5, 80_000)


def test_rows_are_kept_of_unchanged_files_only(clips: Clips, tmp_path: Path) -> None:
    """Whatever decodes: tensorflow-io reads without a word to the table."""
    dataset = clips.dataset(batch_size=4, cache=tmp_path / "kept")
    write(Path(clips.paths[2]), tone(0.1, 16_000, frequency=900), 16_000)
    os.utime(clips.paths[2], ns=(5, 5))
    with pytest.raises((AudioError, tf.errors.OpError), match="changed while it was in use"):
        batches(dataset)


def test_sample_weights_only_where_there_are_some(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(0.1, 16_000))
    weighted = Clips.from_files([path, path], ["a", "b"], weights=[1, 0.25])
    assert batches(weighted.dataset())[0][2].tolist() == [1.0, 0.25]
    assert len(batches(Clips.from_files([path, path], ["a", "b"]).dataset())[0]) == 2


def order(dataset: tf.data.Dataset) -> list[float]:
    return [float(value) for waveforms, *_ in batches(dataset) for value in waveforms[:, 1]]


@pytest.mark.parametrize("cache", [False, True])
def test_shuffling_is_new_every_epoch_and_the_same_every_run(cache: bool) -> None:
    sounds = [np.full(160, value, np.float32) for value in np.linspace(0, 1, 20)]
    clips = Clips.from_arrays(sounds, ["a", "b"] * 10, sample_rate=16_000)
    first, again = (clips.dataset(batch_size=6, shuffle=True, seed=5, cache=cache) for _ in range(2))
    epochs = [order(first) for _ in range(3)]
    assert [order(again) for _ in range(3)] == epochs
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert order(clips.dataset(shuffle=True, seed=6, cache=cache)) != epochs[0]
    assert order(clips.dataset(cache=cache)) == sorted(epochs[0])


def test_a_cached_dataset_reads_files_once(clips: Clips, tmp_path: Path) -> None:
    in_memory, on_disk = clips.dataset(cache=True), clips.dataset(cache=tmp_path / "cache")
    before = [batches(in_memory), batches(on_disk)]
    for path in clips.paths:
        Path(path).unlink()
    for dataset, expected in zip([in_memory, on_disk], before, strict=True):
        assert np.array_equal(batches(dataset)[0][0], expected[0][0])


def test_repeat(clips: Clips) -> None:
    result = batches(clips.dataset(batch_size=5, repeat=True).take(8))
    assert [len(waveforms) for waveforms, _ in result] == [5] * 8


def test_a_bad_file_stops_with_its_name_and_reason(clips: Clips) -> None:
    Path(clips.paths[3]).write_bytes(b"")
    with pytest.raises(tf.errors.OpError) as caught:
        batches(clips.dataset())
    assert clips.paths[3] in str(caught.value)
    assert "the file is empty (0 bytes)" in str(caught.value)


def test_bad_files_are_skipped_counted_and_listed(clips: Clips, caplog: pytest.LogCaptureFixture) -> None:
    Path(clips.paths[3]).write_bytes(b"")
    samples = tone(0.1, 16_000)
    samples[7] = np.nan
    write(Path(clips.paths[9]), samples, 16_000, "FLOAT")
    log: list[AudioError] = []
    dataset = clips.dataset(batch_size=4, on_error="skip", log=log, window_seconds=0.05)
    for _ in range(2):
        waveforms = np.concatenate([waveforms for waveforms, _ in batches(dataset)])
        assert waveforms.shape == (23, 800)  # of 26: two of the empty file, one with the NaN
        assert np.isfinite(waveforms).all()
    assert sorted(error.path for error in log) == [clips.paths[3], clips.paths[9]]
    assert caplog.text.count("the file is empty") == 1


def test_arguments_out_of_range(clips: Clips) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"window_seconds": 0}, "window_seconds=0"),
        ({"on_error": "ignore"}, "on_error='ignore'"),
        ({"sample_rate": 0}, "sample_rate=0"),
        ({"batch_size": 64, "drop_remainder": True}, "leaves nothing of 13 rows"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            clips.dataset(**options)
    with pytest.raises(ValueError, match="clips is empty"):
        clips[:0].dataset()


def test_keras_trains_on_it(clips: Clips) -> None:
    import keras

    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.layers.Input((1_600,)), keras.layers.Reshape((1_600, 1)), keras.layers.Conv1D(8, 64, 16),
         keras.layers.GlobalMaxPooling1D(), keras.layers.Dense(2, activation="softmax")]
    )  # fmt: skip
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(
        clips.dataset(batch_size=4, shuffle=True, cache=True),
        validation_data=clips.dataset(),
        epochs=3,
        verbose=0,
    )
    assert np.isfinite(history.history["val_loss"]).all()


def test_real_clips(shared: Path) -> None:
    clips = Clips.from_directory(shared / "data" / "esc10")
    waveforms, targets = batches(clips[::40].dataset())[0]
    assert waveforms.shape[0] == targets.shape[0] == 10
    assert targets.argmax(axis=1).tolist() == list(range(10))
    assert np.isfinite(waveforms).all()
    assert 0.05 < np.abs(waveforms).max() < 2


def test_balanced_batches_reject_nothing() -> None:
    sounds = [np.full(160, value, np.float32) for value in np.linspace(0, 1, 100)]
    clips = Clips.from_arrays(sounds, ["rare"] * 4 + ["common"] * 96, sample_rate=16_000)
    for cache in (False, True):
        dataset = clips.dataset(balance=True, cache=cache, seed=1)
        first, second = (np.concatenate([targets for _, targets in batches(dataset)]) for _ in range(2))
        assert len(first) == len(second) == 100
        assert 30 < first[:, clips.class_names.index("rare")].sum() < 70
        assert not np.array_equal(first, second)
        again = np.concatenate([targets for _, targets in batches(clips.dataset(balance=True, cache=cache, seed=1))])
        assert np.array_equal(first, again)
    with pytest.raises(ValueError, match="balance=True"):
        clips.dataset(balance=True, cache=True, on_error="skip")


def test_shards_share_out_the_rows(clips: Clips) -> None:
    parts = [np.concatenate([x for x, _ in batches(clips.dataset(shard=(number, 3)))]) for number in range(3)]
    assert [len(part) for part in parts] == [5, 4, 4]
    everything = {row.tobytes() for part in parts for row in part}
    assert everything == {row.tobytes() for x, _ in batches(clips.dataset()) for row in x}
    for shard in [(3, 3), (0, 14)]:
        with pytest.raises(ValueError, match="shard="):
            clips.dataset(shard=shard)


def test_static_shapes_from_memory(clips: Clips) -> None:
    choices: list[dict[str, Any]] = [{}, {"shuffle": True}, {"balance": True}, {"repeat": True}]
    for options in choices:
        spec = clips.dataset(batch_size=4, drop_remainder=True, cache=True, **options).element_spec
        assert spec == (tf.TensorSpec((4, 1_600)), tf.TensorSpec((4, 2)))


def test_a_strategy_takes_it(clips: Clips) -> None:
    dataset = clips.dataset(batch_size=4, shuffle=True, cache=True, augment=True)
    shared = tf.distribute.get_strategy().experimental_distribute_dataset(dataset)
    assert sum(len(x) for x, _ in shared) == 13


@pytest.mark.parametrize("options", [{}, {"cache": True}, {"shuffle": True, "repeat": True}])
def test_a_dataset_that_is_dropped_frees_its_sounds(options: dict[str, Any]) -> None:
    sounds = [np.full(1_600, 0.1 * n, np.float32) for n in range(1, 6)]
    clips = Clips.from_arrays(sounds, list("abaab"), sample_rate=16_000)
    held = weakref.ref(next(iter(clips._waveforms.values())))  # type: ignore[union-attr]
    iterator = iter(clips.dataset(batch_size=2, **options))
    del clips, sounds
    gc.collect()
    assert held() is not None  # an iterator alone keeps what it reads
    assert next(iterator)[0].shape == (2, 1_600)
    del iterator
    gc.collect()
    assert held() is None


def test_datasets_inside_a_graph() -> None:
    clips = Clips.from_arrays([np.full(1_600, 0.5, np.float32)] * 2, list("ab"), sample_rate=16_000)
    twice = tf.data.Dataset.range(2).flat_map(lambda _: clips.dataset(batch_size=2))
    gc.collect()
    assert [x.shape for x, _ in twice] == [(2, 1_600)] * 2
