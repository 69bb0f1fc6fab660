"""``tfaudiotl export`` and ``bench``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.commands import call
from tests.helpers.sounds import tone, write
from tfaudiotl.cli.export import _calibration
from tfaudiotl.runtime.load import open_artifact


def test_export(trained: tuple[Path, Path], tmp_path: Path) -> None:
    sounds, out = trained
    small = tmp_path / "small.tflite"
    result = call(
        "export",
        out / "model.keras",
        "-o",
        small,
        "--quantize",
        "float16",
        "--verify",
        sounds,
        "--threshold",
        "low=0.25",
    )
    assert open_artifact(small).score_threshold == (0.5, 0.25, 0.5)
    assert "1.0000" in result.output
    assert small.with_suffix(".txt").read_text() == "high\nlow\nnoise\n"
    assert "Clips that differ most" in (tmp_path / "small.report.md").read_text()
    call("export", out / "model.keras", "-o", tmp_path / "saved", "--verify", sounds)
    assert (tmp_path / "saved" / "saved_model.pb").is_file()
    assert "| saved |" in (tmp_path / "saved.report.md").read_text()
    (tmp_path / "other.txt").write_text("mine")
    refused = call("export", out / "model.keras", "-o", tmp_path / "other.tflite", code=1).output
    assert "other.txt is there already" in refused.replace("\n", "")
    assert (tmp_path / "other.txt").read_text() == "mine"
    assert "is there already" in call("export", out / "model.keras", "-o", small, code=1).output
    call("export", out / "model.keras", "-o", small, "--overwrite")
    assert "for names that end in .tflite" in call(
        "export", out / "model.keras", "-o", tmp_path / "x", "--quantize", "float16", code=1
    ).output.replace("\n", " ")


@pytest.mark.parametrize("place", ["", "2025-11-03", "deep/er"])
def test_sounds_to_calibrate_on_need_no_classes(tmp_path: Path, place: str) -> None:
    for number in range(2):
        write(tmp_path / "s" / place / f"{number}.wav", tone(0.1, 16_000))
    (tmp_path / "s" / "._0.wav").write_bytes(b"\0\5\x16\7")
    found = _calibration(tmp_path / "s", ["dog", "rain"], 8_000)
    assert [len(waveform) for waveform in found] == [800, 800]


def test_classes_to_calibrate_on_must_be_the_models(tmp_path: Path) -> None:
    for name in ("dog", "cat"):
        write(tmp_path / name / "0.wav", tone(0.1, 16_000))
    assert _calibration(tmp_path, ["cat", "dog", "rain"], 16_000).counts() == {"cat": 1, "dog": 1, "rain": 0}
    with pytest.raises(ValueError, match="sub-folder 'cat', which is no class of the model"):
        _calibration(tmp_path, ["dog", "rain"], 16_000)


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
