"""``tfaudiotl embed`` and ``tfaudiotl probe``."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from tests.helpers.sounds import write_folder
from tfaudiotl.cli import app
from tfaudiotl.embeddings.store import EmbeddingStore

runner = CliRunner()


def test_embed_then_again(tmp_path: Path, stand_in: Path) -> None:
    folder = write_folder(tmp_path / "sounds", per_class=2)
    command = ["embed", str(folder), "-o", str(tmp_path / "store"), "--weights", str(stand_in)]
    command += ["--embedding", "layer2", "--runtime", "keras"]
    first = runner.invoke(app, command)
    assert first.exit_code == 0, first.output
    assert "6 recordings or pieces computed (12 rows), 0 found there" in first.output
    assert "0 recordings or pieces computed (0 rows), 6 found there" in runner.invoke(app, command).output
    assert EmbeddingStore(tmp_path / "store").layers == ["layer2"]
    (folder / "low" / "broken.wav").write_bytes(b"RIFF")
    assert runner.invoke(app, command).exit_code == 1
    again = runner.invoke(app, [*command, "--on-error", "skip"])
    assert again.exit_code == 0
    assert "1 skipped" in again.output
    (tmp_path / "empty").mkdir()
    assert runner.invoke(app, ["embed", str(tmp_path / "empty"), "-o", str(tmp_path / "x")]).exit_code == 1


def test_probe_writes_table_and_plot(tmp_path: Path, stand_in: Path) -> None:
    folder = write_folder(tmp_path / "sounds", per_class=4)
    command = ["probe", str(folder), "-o", str(tmp_path / "out"), "--weights", str(stand_in)]
    command += ["--embedding", "log_mel,layer1", "--few-shot", "1", "--repeats", "2"]
    result = runner.invoke(app, [*command, "--fold-pattern", r"^(\d)-", "--pairs", "log_mel+layer2"])
    assert result.exit_code == 0, result.output
    assert "Recommended: log_mel" in result.output
    assert "log_mel+layer2" in (tmp_path / "out" / "probe.md").read_text()
    assert (tmp_path / "out" / "probe.png").is_file()
    named = runner.invoke(app, [*command, "--overwrite", "--label-pattern", "-([a-z]+)", "--test-pattern", "^[12]-"])
    assert named.exit_code == 0, named.output
    assert "6 clips to train on, 6 to test on" in named.output
    assert "is not empty" in runner.invoke(app, command).output
    nothing = runner.invoke(app, [*command, "--overwrite", "--test-pattern", "nothing"])
    assert "matches 0 of 12 files" in nothing.output
    assert nothing.exit_code == 1
