from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.helpers.sounds import tone, write
from tfaudiotl.data.clips import Clips
from tfaudiotl.data.inspection import Description


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        for number in range(3):
            pitch = 300.0 + 50 * number + 400 * (name == "dog")
            write(tmp_path / name / f"{number % 2 + 1}-x{number}.wav", tone(1.0, 44_100, frequency=pitch), 44_100)
    return tmp_path


def found(description: Description, kind: str) -> list[tuple[str, ...]]:
    return [
        tuple(Path(name).name for name in problem.names) for problem in description.problems if problem.kind == kind
    ]


def test_nothing_wrong(folder: Path) -> None:
    description = Clips.from_directory(folder, fold_pattern=r"^(\d)-").describe()
    assert description.problems == ()
    assert [(each.name, each.clips) for each in description.classes] == [("cat", 3), ("dog", 3)]
    assert description.hours == pytest.approx(6 / 3_600)
    assert description.rates == {44_100: 6}
    assert description.formats == {"WAV PCM_16": 6}
    assert description.seconds == (1.0, 1.0, 1.0)
    assert description.silence == 0
    json.dumps(description.to_dict())
    assert "No problems" in description.to_markdown()


def test_every_problem(folder: Path) -> None:
    write(folder / "cat" / "1-zeros.wav", np.zeros(16_000))
    write(folder / "cat" / "1-quiet.flac", tone(1.0, 16_000, amplitude=5e-4), subtype="PCM_24")
    write(folder / "cat" / "1-loud.wav", np.clip(tone(1.0, 16_000, amplitude=3.0), -1, 1))
    write(folder / "cat" / "1-offset.wav", tone(1.0, 16_000, amplitude=0.2) + 0.3)
    samples, rate = soundfile.read(str(folder / "dog" / "1-x0.wav"))
    write(folder / "cat" / "2-same.flac", samples, rate)  # a copy in another format
    (folder / "dog" / "2-bytes.wav").write_bytes((folder / "dog" / "1-x2.wav").read_bytes())
    broken = tone(1.0, 16_000)
    broken[10] = np.nan
    write(folder / "dog" / "1-nan.wav", broken, 16_000, "FLOAT")
    (folder / "dog" / "1-empty.wav").write_bytes(b"")
    clips = Clips.from_directory(folder, fold_pattern=r"^(\d)-", class_names=["cat", "dog", "cow"], on_error="skip")
    description = clips.describe()
    assert sorted(found(description, "unreadable")) == [("1-empty.wav",), ("1-nan.wav",)]
    assert sorted(found(description, "silent")) == [("1-quiet.flac",), ("1-zeros.wav",)]
    assert found(description, "clipped") == [("1-loud.wav",)]
    assert found(description, "offset") == [("1-offset.wav",)]
    assert sorted(found(description, "copies")) == [("1-x2.wav", "2-bytes.wav"), ("2-same.flac", "1-x0.wav")]
    assert found(description, "leak") == [("1-x2.wav", "2-bytes.wav")]
    assert found(description, "no clips") == [("cow",)]
    assert description.silence == pytest.approx(2 / 12, abs=0.01)
    text = description.to_markdown()
    assert "10 problems" in text
    assert all(kind in text for kind in ("clipped", "copies", "leak", "1-nan.wav"))


def test_leaks_between_the_sides_of_a_split(folder: Path) -> None:
    clips = Clips.from_directory(folder, group_pattern=r"^(\d)-")
    train, val = clips[[0, 1, 3, 4]], clips[[1, 2, 5]]
    leaks = found(train.describe(against=[val]), "leak")
    assert ("1-x2.wav",) in leaks  # the file
    assert ("1",) in leaks  # a group
    good = clips.split(test=0.4, groups="group")
    assert found(good[0].describe(against=[good[1]]), "leak") == []


def test_sounds_in_memory() -> None:
    sounds = [tone(1.0, 16_000), tone(1.0, 16_000), np.zeros(1_600)]
    description = Clips.from_arrays(sounds, ["a", "b", "b"], sample_rate=16_000).describe()
    assert found(description, "copies") == [("array[0]", "array[1]")]
    assert found(description, "silent") == [("array[2]",)]


def test_long_recordings_are_measured_in_pieces(tmp_path: Path) -> None:
    sound = np.zeros(130 * 4_000, np.float32)
    sound[-100:] = 0.5
    path = write(tmp_path / "a.wav", sound, 4_000)
    description = Clips.from_files([path, path], ["a", "b"], starts=[0, 10], ends=[5, 12]).describe()
    assert description.files == 1
    assert description.silence == pytest.approx(1 - 1 / 5_200, abs=1e-6)
    assert found(description, "silent") == []


def test_channels_that_cancel_each_other_out(folder: Path) -> None:
    sound = tone(1.0, 16_000)
    write(folder / "cat" / "1-opposite.wav", np.stack([sound, -sound], axis=1))
    write(folder / "cat" / "1-lossy.ogg", np.stack([1.01 * sound, -sound], axis=1))
    write(folder / "cat" / "1-one.wav", np.stack([sound, 0 * sound], axis=1))
    write(folder / "cat" / "1-unlike.wav", np.stack([sound, tone(1.0, 16_000, frequency=700)], axis=1))
    clips = Clips.from_directory(folder)
    assert sorted(found(clips.describe(), "cancelled")) == [("1-lossy.ogg",), ("1-opposite.wav",)]
    assert [Path(clips.paths[row]).name for row in range(len(clips)) if clips.cancelled(row)] == [
        "1-lossy.ogg",
        "1-opposite.wav",
    ]
    assert not any(map(Clips.from_directory(folder, channels="first").cancelled, range(len(clips))))
