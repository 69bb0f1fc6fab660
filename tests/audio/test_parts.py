"""A data set's own division into train, val and test is kept, and never mixed."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.sounds import make_folder, tone, write
from tfaudiotl.audio import table as module
from tfaudiotl.audio.clips import Clips
from tfaudiotl.audio.table import content_keys

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
