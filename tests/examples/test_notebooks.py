"""The Colab notebooks run from beginning to end, on the CPU with small data."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.helpers.sounds import write_folder

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fine_tune_gpu", "fine_tune_tpu"])
def test_notebook_runs(name: str, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("SOUNDS", str(write_folder(tmp_path / "sounds", per_class=10)))
    monkeypatch.setenv("WEIGHTS", str(stand_in))
    monkeypatch.setenv("EPOCHS", "2")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLES.parent), *sys.path]))
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert (tmp_path / "classifier.keras").is_file()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("Accuracy" in str(output) for output in outputs)
