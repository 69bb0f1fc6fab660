from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.sounds import make_folder, tone, write
from tfaudiotl._threads import OnProgress, Progress, ignore
from tfaudiotl.augment.chain import augment_dataset, mild_augmentation
from tfaudiotl.augment.layers import RandomEqualizer, RandomGain
from tfaudiotl.data.clips import Clips
from tfaudiotl.data.tfrecords import read_info, read_records, write_records


def together(dataset: tf.data.Dataset) -> tuple[np.ndarray, ...]:
    return tuple(np.concatenate(part) for part in zip(*dataset.as_numpy_iterator(), strict=True))


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    return Clips.from_directory(make_folder(tmp_path / "sounds", {"a": 7, "b": 6}))


@pytest.mark.parametrize("place", ["local", "ram"])
def test_records_give_what_the_clips_give(clips: Clips, tmp_path: Path, place: str) -> None:
    folder = str(tmp_path / "records") if place == "local" else f"ram://{tmp_path.name}/records"  # no local file system
    told: list[tuple[int, int]] = []
    info = write_records(clips, folder, shards=3, progress=lambda step: told.append((step.done, step.total)))
    assert told[-1] == (13, 13)
    assert (info.rows, info.samples, info.class_names) == (13, 1_600, ["a", "b"])
    assert read_info(folder) == info
    waveforms, targets = together(read_records(folder, batch_size=5))
    by_row = {waveform.tobytes(): target for waveform, target in zip(*together(clips.dataset()), strict=True)}
    assert len(waveforms) == len(by_row) == 13
    for waveform, target in zip(waveforms, targets, strict=True):
        assert np.array_equal(by_row[waveform.tobytes()], target)
    spec = read_records(folder, batch_size=4, drop_remainder=True).element_spec
    assert spec == (tf.TensorSpec((4, 1_600)), tf.TensorSpec((4, 2)))
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write_records(clips, folder)
    assert len(write_records(clips[:4], folder, shards=1, overwrite=True).shards) == 1
    assert len(together(read_records(folder))[0]) == 4
    assert len(tf.io.gfile.listdir(folder)) == 2


def test_sixteen_bits_and_weights(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(0.1, 16_000), subtype="FLOAT")
    clips = Clips.from_files([path, path], ["a", "b"], weights=[1, 0.25])
    info = write_records(clips, tmp_path / "records", dtype="int16", shards=1)
    assert info.weighted
    waveforms, _, weights = together(read_records(tmp_path / "records"))
    assert 0 < np.abs(waveforms[0] - clips.load(0)).max() <= 2**-16
    assert weights.tolist() == [1, 0.25]


def test_order_seed_hosts_and_augmentation(clips: Clips, tmp_path: Path) -> None:
    write_records(clips, tmp_path / "r", shards=4)

    def epochs(**options: object) -> list[list[bytes]]:
        dataset = read_records(tmp_path / "r", shuffle=True, **options)  # type: ignore[arg-type]
        return [[waveform.tobytes() for waveform in together(dataset)[0]] for _ in range(2)]

    first, again = epochs(seed=3), epochs(seed=3)
    assert first == again
    assert first[0] != first[1]
    assert sorted(first[0]) == sorted(first[1])
    hosts = [set(epochs(shard=(number, 2))[0]) for number in range(2)]
    assert not hosts[0] & hosts[1]
    assert hosts[0] | hosts[1] == set(first[0])
    changed = together(read_records(tmp_path / "r", augment=[RandomGain((-6, -6))]))[0]
    assert np.allclose(changed, together(read_records(tmp_path / "r"))[0] * 10**-0.3, atol=1e-6)
    assert len(list(read_records(tmp_path / "r", batch_size=5, repeat=True).take(7))) == 7
    with pytest.raises(ValueError, match="shard="):
        read_records(tmp_path / "r", shard=(0, 5))


def test_augmentation_has_the_sample_rate_of_the_records(clips: Clips, tmp_path: Path) -> None:
    write_records(clips, tmp_path / "r", sample_rate=8_000)
    found = together(read_records(tmp_path / "r", augment=True, seed=2))[0]
    plain = read_records(tmp_path / "r", seed=2)
    same, other = (
        together(augment_dataset(plain, mild_augmentation(sample_rate=rate), seed=2))[0] for rate in (8_000, 16_000)
    )
    np.testing.assert_array_equal(found, same)
    assert not np.allclose(found, other, atol=1e-3)
    with pytest.raises(ValueError, match="RandomEqualizer has sample_rate=16000, the waveforms have 8000 Hz"):
        read_records(tmp_path / "r", augment=[RandomEqualizer()])


def test_bad_files_are_left_out_and_listed_or_stop_it(clips: Clips, tmp_path: Path) -> None:
    Path(clips.paths[3]).write_bytes(b"")
    with pytest.raises(tf.errors.OpError, match="empty"):
        write_records(clips, tmp_path / "r")
    with pytest.raises(ValueError, match="did not finish"):
        read_records(tmp_path / "r")
    info = write_records(clips, tmp_path / "r", on_error="skip")
    assert info.rows == 12
    assert info.skipped == [(clips.paths[3], "the file is empty (0 bytes)")]
    for options, message in [({"dtype": "int8"}, "dtype='int8'"), ({"shards": 0}, "shards=0")]:
        with pytest.raises(ValueError, match=message):
            write_records(clips, tmp_path / "r", **options)  # type: ignore[arg-type]


def test_what_an_index_says_cannot_remove_or_read_other_files(clips: Clips, tmp_path: Path) -> None:
    folder, victim = tmp_path / "r", tmp_path / "victim.txt"
    info = write_records(clips, folder, shards=2)
    victim.write_text("precious")
    (folder / "notes.txt").write_text("mine")
    index = folder / "records.json"
    index.write_text(index.read_text().replace(info.shards[0], "../victim.txt"))
    with pytest.raises(ValueError, match=r"names '\.\./victim\.txt'"):
        read_records(folder)
    again = write_records(clips, folder, shards=1, overwrite=True)
    assert victim.read_text() == "precious"
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", *again.shards, "records.json"]
    index.write_text("[1]")
    with pytest.raises(ValueError, match="not what write_records wrote"):
        read_records(folder)


@pytest.mark.parametrize("moment", ["a bad clip", "a full disk", "the last rename", "interrupted"])
def test_the_old_records_stay_until_the_new_are_whole(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    folder = tmp_path / "r"
    before = write_records(clips, folder, shards=2)
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    failure: type[BaseException] = tf.errors.OpError
    progress: OnProgress = ignore
    if moment == "a bad clip":
        Path(clips.paths[8]).write_bytes(b"")
    elif moment == "interrupted":
        failure = KeyboardInterrupt

        def progress(step: Progress) -> None:
            raise KeyboardInterrupt
    else:
        real, call, failing = tf.io.gfile.rename, [0], 3 if moment == "the last rename" else 1

        def rename(source: str, target: str, overwrite: bool = False) -> None:
            call[0] += 1
            if call[0] == failing:
                raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")
            real(source, target, overwrite=overwrite)

        monkeypatch.setattr(tf.io.gfile, "rename", rename)
    with pytest.raises(failure):
        write_records(clips, folder, shards=2, overwrite=True, progress=progress)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept
    assert read_info(folder) == before


def test_what_a_killed_run_left_is_cleared(clips: Clips, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "part-00000-of-00002-0123abcd.tfrecord.tmp").touch()
    (tmp_path / "r" / "part-00000-of-00002.tfrecord").touch()  # of another program
    info = write_records(clips, tmp_path / "r", shards=1)
    names = {path.name for path in (tmp_path / "r").iterdir()}
    assert names == {"part-00000-of-00002.tfrecord", *info.shards, "records.json"}
