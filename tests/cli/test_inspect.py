from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.image import imread

from tests.helpers.commands import call
from tests.helpers.sounds import make_folder, write


def test_a_folder(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "sounds", {"cat": 3, "dog": 2})
    (folder / "dog" / "broken.wav").write_bytes(b"hello")
    result = call("inspect", folder, "-o", tmp_path / "out")
    assert "5 in 5 files" in result.stdout
    assert "broken.wav" in result.stdout
    assert "not a sound file" in (tmp_path / "out" / "description.md").read_text(encoding="utf-8")
    assert imread(tmp_path / "out" / "spectrograms.png").std() > 0.05


def test_a_table(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "sounds", {"cat": 2, "dog": 2})
    table = tmp_path / "table.csv"
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in sorted(folder.rglob("*.wav"))]
    table.write_text("\n".join(["file,kind", *rows]), encoding="utf-8")
    result = call("inspect", table, "--path", "file", "--label", "kind")
    assert "4 in 4 files" in result.stdout
    call("inspect", table, code=1)


def test_recordings_that_nothing_can_be_trained_on(tmp_path: Path) -> None:
    one = make_folder(tmp_path / "one", {"cat": 2})
    result = call("inspect", one, "-o", tmp_path / "out")
    assert "2 in 2 files" in result.stdout
    assert "a classifier needs two" in result.stdout
    assert "| cat " in result.stdout
    loose = call("inspect", one / "cat").stdout
    assert "2 in 2 files" in loose
    few = call("inspect", make_folder(tmp_path / "few", {"cat": 1, "dog": 2})).stdout
    assert "No problems" not in few
    assert "one recording" in few


def test_every_kind_of_broken_file_is_counted_alike(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "sounds", {"cat": 3, "dog": 2})
    write(folder / "dog" / "empty.wav", np.zeros(0, np.float32))
    write(folder / "dog" / "nan.wav", np.full(1_600, np.nan, np.float32), subtype="FLOAT")
    text = call("inspect", folder).stdout
    assert "5 in 5 files" in text
    assert "empty.wav" in text
    assert "nan.wav" in text
    assert "WAV PCM_16 (5)" in text
