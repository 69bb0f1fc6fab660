"""Models that are damaged: refused by name, with what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from tfaudiotl.backbones.scores import ClassScores
from tfaudiotl.backbones.weight_files import open_keras
from tfaudiotl.errors import WeightsError
from tfaudiotl.export.savedmodel import export_saved_model
from tfaudiotl.runtime.load import open_artifact


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small classifier as a .keras file, as a .h5 file and as a SavedModel."""
    folder = tmp_path_factory.mktemp("whole")
    x = keras.Input((16_000,), name="waveform")
    scores = ClassScores("softmax", class_names=("rooster", "rain"))
    model = keras.Model(x, scores(keras.layers.Dense(2)(x)))
    model.save(folder / "m.keras")
    model.save(folder / "m.h5")
    export_saved_model(model, folder / "saved")
    return {"keras": folder / "m.keras", "h5": folder / "m.h5", "saved": folder / "saved"}


def cut(content: bytes) -> bytes:
    return content[: len(content) // 3]


def noise(content: bytes) -> bytes:
    return np.random.default_rng(0).bytes(5_000)


def zeroed(content: bytes) -> bytes:
    half = len(content) // 2
    return content[:half] + bytes(400) + content[half + 400 :]


@pytest.mark.parametrize(
    ("kind", "damage"), [("keras", cut), ("keras", noise), ("keras", zeroed), ("h5", cut), ("h5", noise)]
)
def test_a_damaged_file(kind: str, damage: Callable[[bytes], bytes], files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / files[kind].name
    path.write_bytes(damage(files[kind].read_bytes()))
    with pytest.raises(WeightsError, match=rf"^model={str(path)!r}: ") as raised:
        open_artifact(path)
    assert "File not found" not in str(raised.value)  # it is there
    with pytest.raises(WeightsError, match=rf"^weights={str(path)!r}: "):
        open_keras(path)


@pytest.mark.parametrize(
    ("part", "damage", "message"),
    [
        ("variables/variables.data-00000-of-00001", cut, "damaged or cut off"),
        ("variables/variables.index", cut, "damaged or cut off"),
        ("saved_model.pb", cut, "damaged or cut off"),
        ("saved_model.pb", noise, "damaged or cut off"),
        ("assets/frontend.json", cut, "in its assets is damaged"),
        ("assets/sample_rate.txt", noise, "in its assets is damaged"),
        ("assets/labels.txt", noise, "in its assets is damaged"),
    ],
)
def test_a_damaged_saved_model(
    part: str, damage: Callable[[bytes], bytes], message: str, files: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    for source in files["saved"].rglob("*"):
        if source.is_file():
            target = folder / source.relative_to(files["saved"])
            target.parent.mkdir(parents=True, exist_ok=True)
            content = source.read_bytes()
            target.write_bytes(damage(content) if target == folder / part else content)
    with pytest.raises(WeightsError, match=rf"^model={re.escape(repr(str(folder)))}: .*{message}"):
        open_artifact(folder)
