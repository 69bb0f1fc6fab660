"""``tfaudiotl distill``, and which network commands take when none is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.commands import FAST, call
from tests.helpers.sounds import write_folder
from tfaudiotl.cli.options import pretrained


@pytest.mark.slow
def test_your_own_classifier_shrinks_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "empty"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    sounds = write_folder(tmp_path / "sounds", per_class=4)
    call("train", sounds, "-o", tmp_path / "big", *FAST)
    assert json.loads((tmp_path / "big" / "metrics.json").read_text())["settings"]["backbone"] == "yamnet_mini"
    arguments = ["distill", sounds, "-o", tmp_path / "small", "--teacher", tmp_path / "big" / "model.keras"]
    result = call(*arguments, "--patches", 100, "--epochs", 1, "--batch-size", 16)
    assert "On held-out examples" in result.output
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == ["distill.json", "labels.txt", "model.keras"]
    assert "high" in call("predict", tmp_path / "small" / "model.keras", sounds / "high" / "1-high00.wav").output
    assert "is not empty" in call(*arguments, code=1).output


def test_the_embedded_network_is_the_default() -> None:
    assert pretrained(None, None) == ("yamnet_mini", "audioset")
    assert pretrained("yamnet", None) == ("yamnet", "audioset")
    assert pretrained(None, "some/folder") == ("yamnet", "some/folder")
    assert pretrained("vggish", "some/folder") == ("vggish", "some/folder")
