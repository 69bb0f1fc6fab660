"""``tfaudiotl bench``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.commands import call


def test_bench_compares_files_with_the_first(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """Files of the same name are told apart, and a ratio is that of the printed milliseconds."""
    files = [trained[1] / "model.tflite", tmp_path / "model.tflite"]
    shutil.copyfile(trained[1] / "model_float16.tflite", files[1])
    result = call("bench", *files, "--runs", 5)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in result.stdout.splitlines()[2:4]]
    assert [row[0] for row in rows] == [str(path) for path in files]
    for milliseconds, ratio in ((3, 5), (6, 8)):
        first, second = (float(row[milliseconds]) for row in rows)
        assert [row[ratio] for row in rows] == ["-", f"{second / first:.2f}"]


@pytest.mark.parametrize("damage", [0, 3_000, 20_000])
def test_a_damaged_file_is_named(damage: int, trained: tuple[Path, Path], tmp_path: Path) -> None:
    content = (trained[1] / "model.tflite").read_bytes()
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"no model" * 500 if not damage else content[:damage])
    output = call("bench", broken, code=1).output
    assert str(broken) in output
    assert "--verbose" not in output  # which a bare Python exception points to
