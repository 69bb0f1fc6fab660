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

ARCHIVE = Path(__file__).with_name("0.1.0-first.zip")


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    shutil.unpack_archive(ARCHIVE, folder)
    return folder


@pytest.fixture(scope="session")
def expected(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CASES)
def test_models_of_older_versions_give_their_scores(name: str, golden: Path, expected: dict[str, Any]) -> None:
    files = [file for file in expected["scores"] if file.startswith((f"{name}.", f"{name}_saved"))]
    assert f"{name}.keras" in files
    for file in files:
        found = scores(golden / file, clip())
        np.testing.assert_allclose(found, expected["scores"][file], atol=1e-4, err_msg=file)


def test_a_store_of_an_older_version_is_read(golden: Path, expected: dict[str, Any]) -> None:
    rows, times = tl.EmbeddingStore(golden / "store").read(golden / "clip.wav", "layer2")
    assert list(rows.shape) == expected["store"]["shape"]
    assert float(rows.sum()) == pytest.approx(expected["store"]["sum"], rel=1e-6)
    assert float(times[-1, 1]) == pytest.approx(expected["store"]["end"])
