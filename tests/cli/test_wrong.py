"""Wrong arguments: refused before any waiting, with what was typed and what is allowed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.helpers.sounds import write_folder
from tfaudiotl.cli import app

CASES = [
    ("train missing -o out", "missing does not exist; expected one sub-folder per class"),
    ("train empty -o out", "empty is empty; expected one sub-folder per class"),
    ("train file -o out", "file is not a directory; expected one sub-folder per class"),
    ("train texts -o out", "class folder 'a' has no sound file (1 other files)"),
    ("train sounds/high -o out", "but no sub-folders"),
    ("train sounds -o out --folds 1", "'--folds'"),
    ("train sounds -o out --backbone nope", "'nope': allowed are"),
    ("train sounds -o out --head nope", "'nope' is not one of 'dense'"),
    ("train sounds -o out --hidden x", "--hidden 'x': whole numbers with commas"),
    ("train sounds -o out --fold-pattern (", "'(' is not a regular expression"),
    ("train sounds -o out --fold-pattern x", "--fold-pattern x has no capture group"),
    ("train sounds -o out --learning-rate 0", "0.0 is not a number above 0"),
    ("train sounds -o out --gradual", "needs --fine-tune"),
    ("train sounds -o out --solver discriminant --epochs 3", "--epochs has no effect with --solver discriminant"),
    ("train sounds -o file", "--output file is a file; give a folder"),
    ("train sounds -o texts", "--output texts is not empty; --overwrite replaces what is in it"),
    ("train sounds -o file/out", "file is a file, not a folder"),
    ("predict missing.keras sounds", "missing.keras: no such file or folder"),
    ("predict file sounds", "file: a model is a .keras or .h5 or .tflite file"),
    ("predict model.tflite missing", "missing: no such file or folder"),
    ("predict model.tflite texts", "texts: no sound file in this folder"),
    ("evaluate model.tflite sounds -o texts", "--output texts is not empty"),
    ("events model.tflite sounds", "'predict --timeline' takes folders"),
    ("events model.tflite sound.wav -o x.xyz", "--output x.xyz: give --format, or a name that ends in .csv or .json"),
    ("events model.tflite sound.wav -o x.csv --format json", "--output x.csv: .csv is not the suffix of --format json"),
    ("events model.tflite sound.wav --plot x.xyz", "--plot x.xyz: the name of a picture ends in .png"),
    ("events model.tflite sound.wav --plot file", "--plot file is there already; --overwrite replaces it"),
    ("events model.tflite sound.wav -o texts", "--output texts is a folder; give the name of a file"),
    ("inspect sounds -o file --overwrite", "--output file is a file; give a folder"),
    ("export model.keras -o x.bin", "--output x.bin: a name that ends in .tflite"),
    ("export model.keras -o x --quantize dynamic", "for names that end in .tflite"),
    ("export model.keras -o x.tflite --quantize int8", "--quantize int8: give --calibrate"),
    ("export model.tflite -o x", "model.tflite: a .keras file is needed"),
    ("embed sounds -o file", "--output file is a file"),
    ("probe sounds --folds 100", "too few for 100 folds"),
    ("probe sounds --test-pattern (", "'(' is not a regular expression"),
    ("distill sounds -o out --teacher nope", "'nope': allowed are a .keras file, convnet,"),
    ("distill sounds -o out --teacher nope.keras", "nope.keras: no such file"),
    ("distill missing -o out", "missing: no such file or folder"),
    ("inspect missing", "missing cannot be read: No such file or directory"),
    ("bench file", "file is not a .tflite file"),
    ("bench nosuch.tflite", "nosuch.tflite: no such file"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("wrong")
    write_folder(base / "sounds", per_class=4)
    (base / "empty").mkdir()
    for name in ("file", "texts/a/x.txt", "texts/b/x.txt", "model.keras", "model.tflite"):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text("no sound")
    return base


@pytest.mark.parametrize(("typed", "message"), CASES)
def test_refused_before_any_waiting(typed: str, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded() -> None:
        raise AssertionError("TensorFlow was loaded first")

    for name, module in list(sys.modules.items()):
        if name.startswith("tfaudiotl.cli.") and hasattr(module, "load_tensorflow"):
            monkeypatch.setattr(module, "load_tensorflow", loaded)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 200)
    result = CliRunner().invoke(app, typed.split())
    assert result.exit_code in (1, 2)
    assert message in result.output
    assert not (folder / "out").exists()
