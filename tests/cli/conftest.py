"""A classifier that ``train`` made, for the commands that use one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.commands import FAST, call
from tests.helpers.sounds import write_folder


@pytest.fixture(scope="session")
def trained(stand_in: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of sounds and the folder that ``train`` made of it."""
    base = tmp_path_factory.mktemp("cli")
    sounds, out = write_folder(base / "sounds"), base / "out"
    result = call("train", sounds, "-o", out, "--weights", stand_in, "--fold-pattern", r"^(\d)-", *FAST)
    assert "Accuracy over folds" in result.output
    return sounds, out
