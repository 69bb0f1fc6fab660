"""``tfaudiotl export``."""

from __future__ import annotations

from pathlib import Path

from tests.cli.calling import call


def test_export(trained: tuple[Path, Path], tmp_path: Path) -> None:
    sounds, out = trained
    small = tmp_path / "small.tflite"
    result = call("export", out / "model.keras", "-o", small, "--quantize", "float16", "--verify", sounds)
    assert "1.0000" in result.output
    assert small.with_suffix(".txt").read_text() == "high\nlow\nnoise\n"
    call("export", out / "model.keras", "-o", tmp_path / "saved")
    assert (tmp_path / "saved" / "saved_model.pb").is_file()
    assert "is there already" in call("export", out / "model.keras", "-o", small, code=1).output
    call("export", out / "model.keras", "-o", small, "--overwrite")
    assert "for names that end in .tflite" in call(
        "export", out / "model.keras", "-o", tmp_path / "x", "--quantize", "float16", code=1
    ).output.replace("\n", " ")
