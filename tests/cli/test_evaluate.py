"""``tfaudiotl evaluate``."""

from __future__ import annotations

from pathlib import Path

from tests.cli.calling import call


def test_evaluate(trained: tuple[Path, Path], tmp_path: Path) -> None:
    sounds, out = trained
    result = call("evaluate", out / "model.tflite", sounds, "-o", tmp_path / "report")
    assert "Accuracy" in result.output
    assert (tmp_path / "report" / "report.md").is_file()
