"""Shards: whole or not there, and every unit's rows come back as they were."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tfaudiotl._files import claim
from tfaudiotl._shards import SHARD_NAMES, DamagedError, Shards, ShardWriter


def test_units_come_back_as_they_were_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(count, 3, 2)).astype(np.float32) for count in (2, 0, 5, 1)]
    shards = Shards(tmp_path)
    writer = ShardWriter(shards, most_bytes=48)
    for number, part in enumerate(rows):
        writer.add({"row": number}, {"a": part[:, ::-1], "b": part[:, 0].astype(np.float16)})
        writer.add({"row": -1, "reason": "broken"}, {})
    writer.flush()
    opened = Shards(tmp_path)
    assert len(opened.shards) == len(shards.shards) > 1
    found = [(shard, number) for shard in opened for number in range(len(shard.units))]
    assert [shard.units[number]["row"] for shard, number in found] == [0, -1, 1, -1, 2, -1, 3, -1]
    for (shard, number), part in zip(found[::2], rows, strict=True):
        assert shard.units[number]["count"] == len(part)
        np.testing.assert_array_equal(shard.read("a", number), part[:, ::-1])
        np.testing.assert_array_equal(shard.read("b", number), part[:, 0].astype(np.float16))
    np.testing.assert_array_equal(np.load(opened.shards[0].folder / "a.npy"), rows[0][:, ::-1])
    assert opened.bytes == sum(file.stat().st_size for file in tmp_path.glob("*/*.npy"))


def test_a_unit_fills_a_shard_or_its_age_does(tmp_path: Path) -> None:
    writer = ShardWriter(Shards(tmp_path), most_bytes=100)
    assert writer.add({}, {"a": np.zeros(24, np.float32)}) is None
    assert writer.add({}, {"a": np.zeros(1, np.float32)}) is not None
    assert writer.flush() is None
    old = ShardWriter(Shards(tmp_path), most_bytes=100, most_seconds=0)
    assert old.add({}, {"a": np.zeros(1, np.float32)}) is not None


def test_parts_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    shards = Shards(tmp_path)
    for other in (np.zeros((1, 3), np.float32), np.zeros((1, 2), np.float64)):
        with pytest.raises(ValueError, match="different shapes or types"):
            shards.write([{"count": 2}], {"a": [np.zeros((1, 2), np.float32), other]})
    assert Shards(tmp_path).shards == []


def test_what_a_kill_left_and_what_is_damaged_is_cleaned_away_and_nothing_else(tmp_path: Path) -> None:
    shards = Shards(tmp_path)
    first, second, third = (shards.write([{"count": 1}], {"a": [np.ones(1)]}) for _ in range(3))
    (tmp_path / f".{first.folder.name}").mkdir()
    (tmp_path / "somebody's").mkdir()
    (second.folder / "index.json").write_text(json.dumps({"units": [], "arrays": {}, "sum": ""}))
    (third.folder / "a.npy").write_bytes(b"other")
    opened = Shards(tmp_path)
    assert [shard.folder.name for shard in opened] == [first.folder.name, third.folder.name]
    assert opened.damaged == [second.folder.name]
    with pytest.raises(DamagedError, match=r"a\.npy: damaged"):
        opened.shards[1].read("a", 0)
    opened.clean()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(
        [first.folder.name, third.folder.name, "somebody's"]
    )
    opened.drop(opened.shards[1])
    assert [shard.folder.name for shard in Shards(tmp_path)] == [first.folder.name]


def test_a_claimed_folder_loses_its_shards(tmp_path: Path) -> None:
    claim(tmp_path, "cache.json", {"of": "a"}, ours=SHARD_NAMES)
    Shards(tmp_path).write([{"count": 1}], {"a": [np.ones(1)]})
    claim(tmp_path, "cache.json", {"of": "a"}, ours=SHARD_NAMES)
    assert len(Shards(tmp_path).shards) == 1
    claim(tmp_path, "cache.json", {"of": "b"}, ours=SHARD_NAMES)
    assert Shards(tmp_path).shards == []
