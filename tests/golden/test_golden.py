"""Files that older versions wrote open for ever, and give what they gave."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfaudiotl as tl
from tests.golden.make import CASES, clip, scores


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contents of all archives, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("golden")
    for archive in Path(__file__).parent.glob("*.zip"):
        shutil.unpack_archive(archive, folder / archive.stem)
    return folder


def expected_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CASES)
def test_models_of_older_versions_give_their_scores(name: str, golden: Path) -> None:
    found = {
        folder / file: wanted
        for folder in golden.iterdir()
        for file, wanted in expected_of(folder)["scores"].items()
        if file.startswith((f"{name}.", f"{name}_saved"))
    }
    assert f"{name}.keras" in [path.name for path in found]
    for path, wanted in found.items():
        np.testing.assert_allclose(scores(path, clip()), wanted, atol=1e-4, err_msg=str(path))


def test_a_store_of_an_older_version_is_read(golden: Path) -> None:
    folder = golden / "0.1.0-first"
    expected = expected_of(folder)["store"]
    rows, times = tl.EmbeddingStore(folder / "store").read(folder / "clip.wav", "layer2")
    assert list(rows.shape) == expected["shape"]
    assert float(rows.sum()) == pytest.approx(expected["sum"], rel=1e-6)
    assert float(times[-1, 1]) == pytest.approx(expected["end"])
