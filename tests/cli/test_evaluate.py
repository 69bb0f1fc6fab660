"""``tfaudiotl evaluate``."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.commands import call


def test_evaluate(trained: tuple[Path, Path], tmp_path: Path) -> None:
    sounds, out = trained
    result = call("evaluate", out / "model.tflite", sounds, "-o", tmp_path / "report")
    assert "Accuracy" in result.output
    title = (tmp_path / "report" / "report.md").read_text().splitlines()[0]
    assert title == f"# Evaluation of {str(out / 'model.tflite').replace('_', chr(92) + '_')}"  # all are called so


def test_some_of_the_classes_and_others(trained: tuple[Path, Path], tmp_path: Path) -> None:
    sounds, out = trained
    some = tmp_path / "some"
    some.mkdir()
    (some / "low").symlink_to(sounds / "low", target_is_directory=True)
    result = call("evaluate", out / "model.tflite", some)
    assert "No clips of 2 of the 3 classes: high, noise." in result.output
    (some / "dog").symlink_to(sounds / "high", target_is_directory=True)
    result = call("evaluate", out / "model.tflite", some, code=1)
    model = out / "model.tflite"
    assert f"{some}: has the sub-folder 'dog', which is no class of {model} (high, low, noise)" in result.output
    result = call("evaluate", out / "model.tflite", some, "--label-pattern", r"\d-(\w)", code=1)
    assert "files of --label-pattern's 'h', 'l', which are no class of" in result.output
