"""What the model card says of a training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.card import _model
from tfaudiotl.classifiers.build import build_classifier


@pytest.mark.parametrize(
    ("best", "said"),
    [
        ({"head": 3, "blocks": 2}, "backbone fine-tuned (layer6)"),
        ({"head": 3, "blocks": 0}, "backbone as it came (fine-tuning it made nothing better"),
        ({"head": 3, "blocks 1": 2, "blocks 2": 0}, "backbone fine-tuned (layer6)"),
    ],
)
def test_a_fine_tuning_that_was_taken_back_is_called_so(best: dict[str, int], said: str) -> None:
    model = build_classifier("yamnet_mini", class_names=["a", "b"], weights=None, trainable=1, hidden=())
    result: Any = SimpleNamespace(model=model, best_epochs=best, how_trained=lambda: "some epochs")
    options = {"weights": None, "embedding": None, "head": "dense", "hidden": (), "dropout": 0.2}
    assert said in _model(result, get_backbone("yamnet_mini"), options, "1.0")
