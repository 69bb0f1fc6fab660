"""One rule says which files of a folder are sounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.sounds import tone, write
from tfaudiotl.cli import options
from tfaudiotl.data.clips import Clips
from tfaudiotl.data.folders import sound_files


def test_the_same_files_for_every_command(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "elsewhere" / "c.flac", tone(0.1, 16_000)).parent
    root = tmp_path / "sounds"
    for name in ("dog/b.wav", "dog/deeper/a.WAV", "rain/r.wav"):
        write(root / name, tone(0.1, 16_000))
    (root / "dog" / "._b.wav").write_bytes(b"\0\5\x16\7AppleDouble")
    (root / "dog" / "notes.txt").touch()
    (root / "dog" / ".hidden").mkdir()
    write(root / "dog" / ".hidden" / "h.wav", tone(0.1, 16_000))
    (root / "dog" / "folder.wav").mkdir()
    (root / "wind").symlink_to(elsewhere, target_is_directory=True)
    (root / "wind" / "back").symlink_to(root, target_is_directory=True)
    expected = [root / name for name in ("dog/b.wav", "dog/deeper/a.WAV", "rain/r.wav", "wind/c.flac")]
    assert sound_files(root) == expected
    assert options.sound_files([root, root / "dog" / "._b.wav"]) == [*expected, root / "dog" / "._b.wav"]
    assert list(Clips.from_directory(root).paths) == [str(path) for path in expected]


def test_a_folder_without_sounds_or_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no sound file in this folder; sound files end in \.\w+"):
        sound_files(tmp_path)
    with pytest.raises(ValueError, match="gone does not exist"):
        sound_files(tmp_path / "gone")


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "validation", "TEST"), ("training", "val")])
def test_parts_are_no_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        for label in ("dog", "rain"):
            write(tmp_path / name / label / f"{name}{label}.wav", tone(0.1, 16_000))
    with pytest.raises(ValueError, match=rf"'{names[0]}'.*sub-folders 'dog', 'rain'.*--test {tmp_path}/\w+;"):
        Clips.from_directory(tmp_path)
    assert Clips.from_directory(tmp_path, class_names=sorted(names)).counts() == dict.fromkeys(sorted(names), 2)
    (tmp_path / "bus").mkdir()
    write(tmp_path / "bus" / "b.wav", tone(0.1, 16_000))  # a train among vehicles, then
    assert len(Clips.from_directory(tmp_path).class_names) == len(names) + 1


def test_one_class_of_a_model(tmp_path: Path) -> None:
    write(tmp_path / "dog" / "a.wav", tone(0.1, 16_000))
    with pytest.raises(ValueError, match="holds one class, 'dog'"):
        Clips.from_directory(tmp_path)
    assert Clips.from_directory(tmp_path, class_names=["cat", "dog"]).counts() == {"cat": 0, "dog": 1}
