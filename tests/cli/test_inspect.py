from __future__ import annotations

from pathlib import Path

from matplotlib.image import imread

from tests.helpers.commands import call
from tests.helpers.sounds import make_folder


def test_a_folder(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "sounds", {"cat": 3, "dog": 2})
    (folder / "dog" / "broken.wav").write_bytes(b"hello")
    result = call("inspect", folder, "-o", tmp_path / "out")
    assert "5 in 5 files" in result.stdout
    assert "broken.wav" in result.stdout
    assert "not a sound file" in (tmp_path / "out" / "description.md").read_text(encoding="utf-8")
    assert imread(tmp_path / "out" / "spectrograms.png").std() > 0.05


def test_a_table(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "sounds", {"cat": 2, "dog": 2})
    table = tmp_path / "table.csv"
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in sorted(folder.rglob("*.wav"))]
    table.write_text("\n".join(["file,kind", *rows]), encoding="utf-8")
    result = call("inspect", table, "--path", "file", "--label", "kind")
    assert "4 in 4 files" in result.stdout
    call("inspect", table, code=1)
