"""The studies run from beginning to end, on small data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.sounds import write_folder

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_svm_dense_head_and_fine_tuning(stand_in: Path, tmp_path: Path) -> None:
    sounds = write_folder(tmp_path / "sounds", per_class=15)
    options = ["--backbone", "yamnet", "--weights", str(stand_in), "--embedding", "layer3", "--folds", "2"]
    result = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "study_svm.py"), str(sounds), *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    lines = result.stdout.strip().splitlines()[-3:]
    assert [line.split(" | ")[0] for line in lines] == ["| layer3 + SVM", "| dense head", "| last 2 blocks fine-tuned"]
    assert float(lines[0].split(" | ")[1].split()[0]) > 0.9
