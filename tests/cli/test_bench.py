"""``tfaudiotl bench``."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.commands import call


def test_bench_compares_files(trained: tuple[Path, Path]) -> None:
    out = trained[1]
    result = call("bench", out / "model.tflite", out / "model_float16.tflite")
    assert "model_float16.tflite" in result.stdout
