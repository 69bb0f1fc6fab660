from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tests.helpers.sounds import make_folder, tone, write
from tfaudiotl._fingerprint import content_keys
from tfaudiotl.data import table as module
from tfaudiotl.data.clips import Clips
from tfaudiotl.data.splits import balanced_draw, connected, natural_order, rarest_class


def make(labels: list[str] | list[list[str]], *, contents: list[int] | None = None, **columns: list[object]) -> Clips:
    sounds = [np.full(16, number / 1_000, np.float32) for number in contents or range(1, len(labels) + 1)]
    return Clips.from_arrays(sounds, labels, sample_rate=16_000, **columns)  # type: ignore[arg-type]


def rows(clips: Clips) -> set[int]:
    return set(clips.source.tolist())


@st.composite
def tables(draw: st.DrawFn) -> tuple[Clips, np.ndarray]:
    """Clips of two to four classes in groups, each class in at least two groups of its own."""
    labels: list[str] = []
    groups: list[int] = []
    for number in range(draw(st.integers(2, 4))):
        for _ in range(draw(st.integers(2, 6))):
            size = draw(st.integers(1, 5))
            groups += [len(set(groups))] * size
            labels += [f"class{number}"] * size
    order = draw(st.permutations(range(len(labels))))
    labels, groups = [labels[row] for row in order], [groups[row] for row in order]
    return make(labels, groups=list(groups)), np.array(groups)


@settings(max_examples=80, deadline=None)
@given(tables(), st.floats(0.05, 0.95), st.integers(0, 5))
def test_a_split_loses_nothing_and_leaks_nothing(table: tuple[Clips, np.ndarray], val: float, seed: int) -> None:
    clips, groups = table
    train, held_out = clips.split(test=val, seed=seed)
    assert rows(train) | rows(held_out) == set(range(len(clips)))
    assert not rows(train) & rows(held_out)
    assert not set(groups[train.source]) & set(groups[held_out.source])
    assert all(train.counts().values())
    assert all(held_out.counts().values())
    again = clips.split(test=val, seed=seed, groups="group")
    assert [part.paths for part in again] == [train.paths, held_out.paths]
    assert train.class_names == held_out.class_names == clips.class_names
    assert np.all(np.diff(train.source) > 0)


@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(0, 5))
def test_folds_lose_nothing_and_leak_nothing(table: tuple[Clips, np.ndarray], seed: int) -> None:
    clips, groups = table
    folds = clips.folds(2, seed=seed)
    assert sorted(row for _, _, test in folds for row in test.source.tolist()) == list(range(len(clips)))
    for _, train, test in folds:
        assert rows(train) | rows(test) == set(range(len(clips)))
        assert not set(groups[train.source]) & set(groups[test.source])
        assert all(train.counts().values())
        assert all(test.counts().values())
    assert [test.paths for *_, test in clips.folds(2, seed=seed)] == [test.paths for *_, test in folds]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcd"), max_size=3), min_size=8, max_size=40),
    st.floats(0.1, 0.9),
    st.integers(0, 3),
)
def test_multi_label_splits_keep_every_class_that_is_there_twice(
    labels: list[list[str]], val: float, seed: int
) -> None:
    extra = [[name] for name in "abcd" for _ in range(2)]
    clips = make(labels + extra)
    train, held_out = clips.split(test=val, seed=seed)
    assert rows(train) | rows(held_out) == set(range(len(clips)))
    assert not rows(train) & rows(held_out)
    assert all(train.counts().values())
    assert all(held_out.counts().values())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), st.integers(1, 4), st.floats(0.1, 0.9))
def test_windows_of_one_file_stay_together(lengths: list[int], seed: int, val: float) -> None:
    sounds = [np.full(160 * (length + 1), n / 1_000, np.float32) for n, length in enumerate(lengths * 2)]
    labels = ["a"] * len(lengths) + ["b"] * len(lengths)
    windows = Clips.from_arrays(sounds, labels, sample_rate=16_000).windows(0.02)
    choices: list[Literal["source"] | None] = [None, "source"]
    for groups in choices:
        train, held_out = windows.split(test=val, seed=seed, groups=groups)
        assert not set(train.paths) & set(held_out.paths)
        assert len(train) + len(held_out) == len(windows)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7), st.integers(1, 9)), min_size=2, max_size=25),
    st.floats(0.1, 0.9),
    st.integers(0, 3),
)
def test_copies_are_on_one_side(clips_drawn: list[tuple[int, int, int]], val: float, seed: int) -> None:
    labels, groups, contents = (list(column) for column in zip(*clips_drawn, strict=True))
    clips = make([f"class{label}" for label in labels], groups=list(groups), contents=contents)
    together = connected(groups, contents)
    spread = [len(set(together[np.array(labels) == label])) for label in set(labels)]
    if min(spread) < 2:  # a class has one place to be
        with pytest.raises(ValueError, match=r"at least two groups|at least 2"):
            clips.split(test=val, seed=seed)
        return
    try:
        parts = clips.split(test=val, seed=seed)
    except ValueError as error:
        if "bound to other classes" not in str(error):
            raise
        return
    (train, held_out) = (part.source for part in parts)
    assert sorted([*train, *held_out]) == list(range(len(clips)))
    for column in (groups, contents):
        assert not {column[row] for row in train} & {column[row] for row in held_out}
    for part in parts:
        assert all(part.counts().values())


def test_copies_are_files_of_the_same_bytes(tmp_path: Path) -> None:
    names = ["a.wav", "a copy.wav", "b.wav", "other header.wav"]
    for name, frequency in zip(names, (440, 440, 500, 440), strict=True):
        write(tmp_path / name, tone(0.5, 16_000, frequency=frequency))
    content = bytearray((tmp_path / "other header.wav").read_bytes())
    content[-1] ^= 1
    (tmp_path / "other header.wav").write_bytes(content)
    clips = Clips.from_files([tmp_path / name for name in names], ["x", "x", "y", "y"], folds=[1, 2, 1, 2])
    keys = clips.content_keys()
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    Path(clips.paths[1]).unlink()
    assert len(set(content_keys(clips.paths))) == 4


def test_given_folds_with_copies_are_kept_but_told(caplog: pytest.LogCaptureFixture) -> None:
    clips = make(["a", "b", "a", "b"], folds=[1, 1, 2, 2], contents=[1, 2, 1, 3])
    assert [len(test) for *_, test in clips.folds()] == [2, 2]
    assert "2 clips have copies in other folds" in caplog.text or "1 clips have copies in other folds" in caplog.text


def test_balanced_draws(rng: np.random.Generator) -> None:
    targets = np.eye(3)[[0] * 30 + [1] * 5 + [2] * 2]
    drawn = balanced_draw(targets, rng)
    classes = targets[drawn].argmax(axis=1)
    assert sorted(np.bincount(classes).tolist()) == [12, 12, 13]
    counts = np.bincount(drawn, minlength=37)
    assert set(counts[30:35].tolist()) <= {2, 3}  # all once before one comes again
    assert counts[:30].max() == 1
    both = np.array([[1, 0], [1, 0], [1, 1], [0, 0]])
    assert rarest_class(both).tolist() == [0, 0, 1, -1]


def test_shares_are_exact_where_they_can_be() -> None:
    clips = make(["a"] * 40 + ["b"] * 20 + ["c"] * 2)
    train, val = clips.split(val=0.2)
    assert rows(clips.split(test=0.2)[1]) == rows(clips.split()[1]) == rows(val)
    assert val.counts() == {"a": 8, "b": 4, "c": 1}
    assert train.counts() == {"a": 32, "b": 16, "c": 1}
    assert rows(clips.split(test=0.2, seed=1)[1]) != rows(val)
    assert [test.counts() for *_, test in make(["a"] * 10 + ["b"] * 5).folds(5)] == [{"a": 2, "b": 1}] * 5
    plain = clips.split(test=0.5, stratify=False, seed=3)
    assert [len(part) for part in plain] == [31, 31]


def test_speakers_who_say_everything() -> None:
    speakers = [speaker for speaker in "uvwxyz" for _ in range(20)]
    clips = make([f"digit{row % 10}" for row in range(120)], groups=list(speakers))
    train, val = clips.split(test=0.2)
    assert (len(train), len(val)) == (100, 20)
    assert set(val.counts().values()) == {2}
    for _, train, test in clips.folds(3):
        assert (len(train), len(test)) == (80, 40)
    by_array, _ = clips.split(test=0.2, groups=np.array(speakers))
    assert len(by_array) == 100
    free, _ = clips.split(test=0.2, groups="source")
    assert set(free.counts().values()) == {10}  # 9.6 of 12


def test_a_group_bound_to_two_classes_finds_the_only_way() -> None:
    # a is in groups 0 and 1, b in 1 and 2: group 1 alone on either side is the only good split.
    clips = make(["a", "a", "b", "b"], groups=[0, 1, 1, 2])
    for seed in range(20):
        train, val = clips.split(test=0.5, seed=seed)
        assert {len(train), len(val)} == {2}
        assert all(train.counts().values())
        assert all(val.counts().values())


def test_splits_that_cannot_be() -> None:
    clips = make(["a"] * 5 + ["b"])
    with pytest.raises(ValueError, match=r"a split, which needs at least 2: 'b' has 1 clips in 1 groups"):
        clips.split()
    assert len(clips.split(stratify=False)[1]) == 1
    grouped = make(["a"] * 4 + ["b"] * 4, groups=[0, 0, 1, 1, 2, 2, 2, 2])
    with pytest.raises(ValueError, match="'b' has 4 clips in 1 groups"):
        grouped.split()
    with pytest.raises(ValueError, match="'b' has 4 clips in 1 groups"):
        make(["a"] * 4 + ["b"] * 4).split(groups=[0, 0, 1, 1, 2, 2, 2, 2])
    for val in [0, 1, -0.1, 2, float("nan"), "0.2", True]:
        with pytest.raises(ValueError, match=r"^val=.*: allowed are numbers above 0 and below 1"):
            clips.split(val=val)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"^test=.*: allowed are numbers above 0 and below 1"):
            clips.split(test=val)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^test=0\.2 and val=0\.2: give one of them"):
        clips.split(test=0.2, val=0.2)
    with pytest.raises(ValueError, match="in one group cannot be split"):
        make(["a", "b"], groups=[1, 1]).split()
    with pytest.raises(ValueError, match="bound to other classes"):  # no third group to part a from b
        make(["a", "b", "a", "c", "b", "c"], groups=[0, 0, 1, 1, 2, 2]).split()
    with pytest.raises(ValueError, match="the clips have no groups"):
        clips.split(groups="group")
    with pytest.raises(ValueError, match=r'groups=\'speaker\': expected None, "group", "source" or an array'):
        clips.split(groups="speaker")
    with pytest.raises(ValueError, match="groups has 2 entries: expected one for each"):
        clips.split(groups=[1, 2])


def test_given_folds() -> None:
    clips = make(["a", "b"] * 6, folds=[2, 2, 10, 10, 1, 1] * 2)
    folds = clips.folds()
    assert [name for name, *_ in folds] == ["1", "2", "10"]
    assert [test.source.tolist() for *_, test in folds] == [[4, 5, 10, 11], [0, 1, 6, 7], [2, 3, 8, 9]]
    assert len(clips.folds(4)) == 4


def test_folds_that_cannot_be() -> None:
    clips = make(["a"] * 5 + ["b"] * 3)
    with pytest.raises(ValueError, match=r"no folds were given.*fold_pattern="):
        clips.folds()
    with pytest.raises(ValueError, match=r"too few for 5 folds, which needs at least 5: 'b' has 3 clips"):
        clips.folds(5)
    for folds in [1, 0, -1, 2.5, True, None, "5"]:
        with pytest.raises(ValueError, match=r"^folds=.*: allowed are whole numbers of at least 2"):
            clips.folds(folds)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"fold '2' has every clip of 'b'"):
        make(["a", "a", "b", "b"], folds=[1, 2, 2, 2]).folds()
    with pytest.raises(ValueError, match="all clips are in fold '1'"):
        make(["a", "b"], folds=[1, 1]).folds()
    torn = make(["a", "a", "b", "b"], folds=[1, 2, 1, 2], groups=[0, 0, 1, 2])
    with pytest.raises(ValueError, match=r"array\[1\] is in fold '2', but array\[0\].* in fold '1'"):
        torn.folds()
    assert len(torn.folds(groups="source")) == 2


def test_rows_are_connected_through_any_column() -> None:
    assert connected(["a", "a", "b", "c", "b"]).tolist() == [0, 0, 1, 2, 1]
    assert connected(["a", "a", "b", "c"], [1, 2, 2, 3]).tolist() == [0, 0, 0, 1]
    assert natural_order(["10", "2", "2", "1"]) == ["1", "2", "10"]
    assert natural_order(["b", "a", "10"]) == ["10", "a", "b"]


def test_large_tables_are_quick() -> None:
    random = np.random.default_rng(0)
    names = [f"class{number}" for number in range(50)]
    labels = [[names[number] for number in random.integers(0, 50, 2)] for _ in range(3_000)]
    train, val = make(labels).split(test=0.1)
    shares = np.array([val.counts()[name] / (val.counts()[name] + train.counts()[name]) for name in names])
    assert np.abs(shares - 0.1).max() < 0.04


NAMES = ["train", "Training", "train", "train", "val", "valid", "test", "eval"]
PARTS = ["train"] * 4 + ["val"] * 2 + ["test"] * 2


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{n}.wav" for n in range(8)]
    return [str(write(path, tone(0.1, 16_000, frequency=200.0 + n))) for n, path in enumerate(paths)]


def columns(files: list[str], **more: list[Any]) -> dict[str, list[Any]]:
    return {"path": files, "label": ["a", "b"] * 4, "split": NAMES, **more}


def test_a_column_of_parts(files: list[str], tmp_path: Path) -> None:
    rows = map(",".join, zip(*columns(files).values(), strict=True))
    (tmp_path / "t.csv").write_text("\n".join(["path,label,split", *rows]))
    clips = Clips.from_table(tmp_path / "t.csv", part="split")
    clips.save(tmp_path / "saved.json")
    given = Clips.from_files(files, ["a", "b"] * 4, parts=NAMES)
    again = Clips.from_table(clips.to_columns(), part="part")
    for found in (clips, given, again, Clips.from_saved(tmp_path / "saved.json")):
        assert [clip.part for clip in found] == PARTS
        assert {name: part.source.tolist() for name, part in found.parts().items()} == {
            "train": [0, 1, 2, 3], "val": [4, 5], "test": [6, 7],
        }  # fmt: skip
        train, val = found.split()
        assert (train.source.tolist(), val.source.tolist()) == ([0, 1, 2, 3], [4, 5])
    train, held = clips[[0, 1, 2, 3, 6, 7]].split()
    assert held.source.tolist() == [6, 7]  # the test part, where there is no val
    assert [len(part) for part in clips.parts()["train"].split(test=0.5)] == [2, 2]
    assert Clips.from_files(files, ["a", "b"] * 4).parts() == {}


def test_parts_are_not_mixed(files: list[str]) -> None:
    clips = Clips.from_table(columns(files), part="split")
    with pytest.raises(ValueError, match=r"test=0\.2: these clips have their own parts, train, val, test"):
        clips.split(test=0.2)
    with pytest.raises(ValueError, match="folds would mix the clips' own parts"):
        clips.folds(2)
    with pytest.raises(ValueError, match="none to train on"):
        clips[4:].split()
    torn = Clips.from_table(columns(files, g=[1, 2, 3, 4, 4, 5, 6, 7]), part="split", group="g")
    with pytest.raises(ValueError, match=r"4\.wav is in part 'val', but .*3\.wav, of the same file or group"):
        torn.split()
    with pytest.raises(ValueError, match=r"row 1, column 'split': 'dev': 'dev' is no part: expected train, training"):
        Clips.from_table(columns(files) | {"split": ["train", "dev", *NAMES[2:]]}, part="split")
    with pytest.raises(ValueError, match=r"parts\[0\]: None is no part"):
        Clips.from_files(files, ["a", "b"] * 4, parts=[None, *NAMES[1:]])  # type: ignore[list-item]


def test_copies_in_two_parts_are_told(files: list[str], caplog: pytest.LogCaptureFixture) -> None:
    Path(files[4]).write_bytes(Path(files[0]).read_bytes())
    clips = Clips.from_table(columns(files), part="split")
    with caplog.at_level(logging.WARNING):
        clips.split()
    assert "1 clips have copies in other parts" in caplog.text


def test_parts_put_together(tmp_path: Path) -> None:
    train = Clips.from_directory(make_folder(tmp_path / "train", {"a": 2, "b": 3}))
    test = Clips.from_directory(make_folder(tmp_path / "test", {"b": 1}), class_names=["b", "a"])
    clips = Clips.from_parts(train=train, test=test)
    assert clips.class_names == ("a", "b")
    assert [len(part) for part in clips.split()] == [5, 1]
    with pytest.raises(ValueError, match="test has clips of 'c', which train has not"):
        Clips.from_parts(
            train=train, test=Clips.from_directory(make_folder(tmp_path / "other", {"c": 1}), class_names=["b", "c"])
        )
    with pytest.raises(ValueError, match="give val= or test="):
        Clips.from_parts(train=train)


def test_a_share_that_cannot_be_met_is_told(files: list[str], caplog: pytest.LogCaptureFixture) -> None:
    clips = Clips.from_files(
        [files[0]] * 4 + [files[1]] * 4,
        ["a", "b"] * 4,
        starts=[0, 0.02, 0.04, 0.06] * 2,
        ends=[0.02, 0.04, 0.06, 0.08] * 2,
    )
    with caplog.at_level(logging.WARNING):
        clips.split(test=0.2)
    assert "test=0.2: 4 of 8 clips are held out, 50 %: they come from 2 recordings" in caplog.text


def test_channels_come_back(tmp_path: Path) -> None:
    stereo = write(tmp_path / "s.wav", np.stack([tone(0.1, 16_000), tone(0.1, 16_000)], axis=1))
    mono = write(tmp_path / "m.wav", tone(0.1, 16_000))
    second = Clips.from_files([stereo], ["a"], channels=1)
    clips = second.merge(Clips.from_files([mono], ["b"]))
    clips.save(tmp_path / "c.json")
    assert '"channel": null' in (tmp_path / "c.json").read_text()
    assert json.loads(json.dumps(clips.to_columns()))["channel"] == [1, None]
    for found in (
        clips,
        Clips.from_table(clips.to_columns(), channel="channel"),
        Clips.from_saved(tmp_path / "c.json"),
    ):
        assert [clip.channel for clip in found] == [1, None]
    with pytest.raises(ValueError, match="row 0, column 'channel': -1"):
        Clips.from_table({"path": [str(mono)], "label": ["a"], "channel": [-1]}, channel="channel")
    with pytest.raises(ValueError, match="channels='first': the table says"):
        Clips.from_table(clips.to_columns(), channel="channel", channels="first")


def test_files_are_compared_once(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def counted(paths: list[str], held: Any) -> Any:
        asked.extend(paths)
        return content_keys(paths, held)

    monkeypatch.setattr(module, "content_keys", counted)
    clips = Clips.from_files(files, ["a", "b"] * 4)
    train, _ = clips.split(test=0.25)
    train.split(test=0.5)
    clips.folds(2)
    assert asked == files
    first, second = Clips.from_files(files[:2], ["a", "b"])[:1], clips.merge(clips)
    assert len(first.content_keys()) == 1
    assert second.content_keys() == clips.content_keys() * 2


def test_sounds_in_memory_are_not_shared() -> None:
    clips = Clips.from_arrays([np.zeros(100, np.float32)], ["a"], sample_rate=16_000)
    clips.load(0)[:] = 1
    assert not clips.load(0).any()
