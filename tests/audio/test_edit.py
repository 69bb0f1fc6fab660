from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.sounds import make_folder, tone, write
from tfaudiotl.audio.clips import Clips


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    folder = make_folder(tmp_path / "sounds", {"cat": 6, "dog": 3, "rain": 1})
    return Clips.from_directory(folder, fold_pattern=r"^(\d)-")


def test_filter(clips: Clips) -> None:
    assert clips.filter(labels=["rain", "dog"]).counts() == {"dog": 3, "rain": 1}
    assert clips.filter(lambda clip: clip.fold == "2").counts() == {"cat": 3, "dog": 1, "rain": 0}
    assert len(clips.filter(min_seconds=0.2)) == 0
    assert len(clips.filter(max_seconds=0.2)) == 10
    with pytest.raises(ValueError, match="'cow'"):
        clips.filter(labels=["cow"])
    several = Clips.from_arrays([np.ones(160)] * 2, [["a", "b"], ["b"]], sample_rate=16_000)
    assert several.filter(labels="a").labels == (("a",),)


def test_merge(clips: Clips, tmp_path: Path) -> None:
    more = Clips.from_directory(make_folder(tmp_path / "more", {"cow": 2, "dog": 1}), fold_pattern=r"^(\d)-")
    both = clips.merge(more)
    assert both.class_names == ("cat", "dog", "rain", "cow")
    assert both.counts() == {"cat": 6, "dog": 4, "rain": 1, "cow": 2}
    assert both.source.tolist() == list(range(13))
    assert both.load(12).shape == (1_600,)
    with pytest.raises(ValueError, match="fold"):
        clips.merge(Clips.from_directory(tmp_path / "more"))
    held = [Clips.from_arrays([np.full(160, v)], ["a"], sample_rate=16_000) for v in (0.25, 0.5)]
    assert [float(held[0].merge(held[1]).load(row)[0]) for row in (0, 1)] == [0.25, 0.5]
    with pytest.raises(ValueError, match="in memory"):
        held[0].merge(Clips.from_directory(tmp_path / "more"))


def test_relabel(clips: Clips) -> None:
    pets = clips.relabel({"cat": "pet", "dog": "pet"})
    assert pets.counts() == {"pet": 9, "rain": 1}
    assert not pets.multi_label
    negative = clips.relabel({"rain": None, "cat": ["cat", "pet"]})
    assert negative.multi_label
    assert negative.counts() == {"cat": 6, "pet": 6, "dog": 3}
    assert clips.relabel({}, class_names=["rain", "dog", "cat", "cow"]).counts() == {
        "rain": 1, "dog": 3, "cat": 6, "cow": 0
    }  # fmt: skip
    with pytest.raises(ValueError, match="'cow'"):
        clips.relabel({"cow": "dog"})


def test_balance(clips: Clips) -> None:
    assert clips.balance().counts() == {"cat": 6, "dog": 6, "rain": 6}
    assert clips.balance("smallest").counts() == {"cat": 1, "dog": 1, "rain": 1}
    assert clips.balance(4).counts() == {"cat": 4, "dog": 4, "rain": 4}
    assert len(set(clips.balance(4, seed=1).filter(labels=["cat"]).paths)) == 4
    assert clips.balance(seed=3).paths == clips.balance(seed=3).paths
    train, val = clips.filter(labels=["cat", "dog"]).balance().split(test=0.3)
    assert not set(train.paths) & set(val.paths)
    with pytest.raises(ValueError, match="per_class='most'"):
        clips.balance("most")


def test_saved_and_opened(clips: Clips, tmp_path: Path) -> None:
    stereo = write(tmp_path / "sounds" / "stereo.wav", np.stack([tone(1.0, 16_000)] * 2, axis=1))
    spans = Clips.from_files(
        [stereo, stereo], [["a"], []], starts=[0.25, 0], ends=[0.75, None], groups=["g", "h"], weights=[1, 0.5],
        class_names=["b", "a"], channels=1,
    )  # fmt: skip
    for number, table in enumerate((clips, spans)):
        path = tmp_path / f"{number}.json"
        table.save(path)
        opened = Clips.from_saved(path)
        assert [Path(p).resolve() for p in opened.paths] == [Path(p).resolve() for p in table.paths]
        for name in ("labels", "class_names", "multi_label"):
            assert getattr(opened, name) == getattr(table, name)
        for name in ("starts", "ends", "durations", "weights", "fold", "group", "channel"):
            before, after = getattr(table, name), getattr(opened, name)
            assert (before is None and after is None) or np.array_equal(
                before, after, equal_nan=before.dtype.kind == "f"
            )
    (tmp_path / "sounds").rename(tmp_path / "elsewhere")
    (tmp_path / "0.json").rename(tmp_path / "elsewhere" / "0.json")
    (tmp_path / "no.json").write_text("{}")
    for path in (tmp_path / "no.json", tmp_path / "missing.json"):
        with pytest.raises(ValueError, match="no table that"):
            Clips.from_saved(path)
    with pytest.raises(ValueError, match="in memory"):
        Clips.from_arrays([np.ones(160)], ["a"], sample_rate=16_000).save(tmp_path / "a.json")
    assert not list(tmp_path.glob(".*"))


def test_channels(tmp_path: Path) -> None:
    sound = np.stack([tone(0.5, 16_000), tone(0.5, 16_000, frequency=1_000)], axis=1)
    stereo, mono = write(tmp_path / "stereo.wav", sound), write(tmp_path / "mono.wav", sound[:, 0])
    clips = Clips.from_files([stereo, mono], ["a", "b"], channels="all", groups=["x", "y"])
    assert [(Path(c.path).name, c.channel, c.labels, c.group) for c in clips] == [
        ("stereo.wav", 0, ("a",), "x"),
        ("stereo.wav", 1, ("a",), "x"),
        ("mono.wav", 0, ("b",), "y"),
    ]
    for row, expected in enumerate([sound[:, 0], sound[:, 1], sound[:, 0]]):
        assert np.abs(clips.load(row) - expected).max() < 1e-4
    assert clips.windows(0.2).channel is not None
    first = Clips.from_files([stereo], ["a"], channels="first")
    assert np.abs(first.load(0) - sound[:, 0]).max() < 1e-4
    mean = Clips.from_files([stereo], ["a"])
    assert mean.channel is None
    assert np.abs(mean.load(0) - sound.mean(axis=1)).max() < 1e-4
    merged = first.merge(mean)
    assert np.abs(merged.load(1) - sound.mean(axis=1)).max() < 1e-4
    assert [e.reason for e in Clips.from_files([stereo, mono], ["a", "b"], channels=1, on_error="skip").skipped] == [
        "has 1 channels, so none of number 1 (from 0)"
    ]
    with pytest.raises(ValueError, match="channels='left'"):
        Clips.from_files([stereo], ["a"], channels="left")  # type: ignore[arg-type]
