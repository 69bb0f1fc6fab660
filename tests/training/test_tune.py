"""The search: every setting is tried by cross-validation, a kill loses no trial, nothing leaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.training import clips
from tfaudiotl.data.clips import Clips
from tfaudiotl.training import tune as tune_module
from tfaudiotl.training.tune import SearchSpace, tune

pytest.importorskip("keras_tuner")

SPACE = SearchSpace(embedding=("layer1", "layer2"), hidden=((), (4,)), trainable=(0, 1, "layer1"))
QUICK: dict[str, Any] = {"space": SPACE, "trials": 3, "folds": 2, "head_epochs": 1, "epochs": 1, "batch_size": 6}


@pytest.mark.slow
def test_finds_settings_and_goes_on_after_a_kill(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    trained: list[tuple[Clips, Clips]] = []
    original = tune_module.fine_tune

    def counted(model: Any, learn: Clips, stop: Clips, **options: Any) -> Any:
        if len(trained) == 3:
            trained.clear()
            monkeypatch.setattr(tune_module, "fine_tune", original)
            raise Killed
        trained.append((learn, stop))
        return original(model, learn, stop, **options)

    monkeypatch.setattr(tune_module, "fine_tune", counted)
    table = clips(5)
    lines: list[str] = []
    with pytest.raises(Killed):
        tune(table, tmp_path, weights=str(stand_in), **QUICK)  # the second trial's second fold
    found = tune(table, tmp_path, weights=str(stand_in), say=lines.append, **QUICK)
    assert len(found.trials) == 3
    assert len(lines) == 2  # the first trial was there
    assert found.folds == 2
    assert found.trials[0].score == max(trial.score for trial in found.trials)
    assert set(found.best["build_classifier"]) == {"embedding", "hidden", "dropout"}
    assert found.best["build_classifier"]["embedding"] in SPACE.embedding
    assert found.best["fine_tune"]["trainable"] in SPACE.trainable
    assert "Accuracy" in found.to_markdown()
    with pytest.raises(ValueError, match=r"another search \(seed: 0 then, 1 now"):
        tune(table, tmp_path, weights=str(stand_in), seed=1, **QUICK)
    with pytest.raises(ValueError, match=r"another search \(backbone.*backbone: weights"):
        tune(table, tmp_path, backbone="yamnet_mini", **QUICK)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"trials": 0}, ValueError, "trials=0: allowed are whole numbers of at least 1"),
        ({"epocs": 3}, TypeError, "epocs=3: tune\\(\\) takes besides its own .*epochs"),
        ({"trainable": 3}, TypeError, "trainable=3: tune"),
        ({"epochs": 0}, ValueError, "epochs=0: allowed are whole numbers of at least 1"),
        ({"backbone": "yamnt"}, ValueError, "yamnt"),
        ({"space": SearchSpace(embedding=("layer99",))}, ValueError, "embedding='layer99': yamnet has the layers"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(
    options: dict[str, Any], error: type[Exception], message: str, stand_in: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        tune(clips(5), tmp_path / "search", weights=str(stand_in), **{**QUICK, **options})
    assert not (tmp_path / "search").exists()


def test_a_folds_clips_decide_nothing(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    scored: list[set[str]] = []
    original, measure = tune_module.fine_tune, tune_module.window_scores

    def training(model: Any, learn: Clips, stop: Clips, **options: Any) -> Any:
        seen.append({*learn.paths, *stop.paths})
        assert not {*learn.paths} & {*stop.paths}
        return original(model, learn, stop, **options)

    def measuring(model: Any, test: Clips, window_seconds: float) -> Any:
        scored.append({*test.paths})
        return measure(model, test, window_seconds)

    monkeypatch.setattr(tune_module, "fine_tune", training)
    monkeypatch.setattr(tune_module, "window_scores", measuring)
    tune(clips(5), tmp_path, weights=str(stand_in), method="random", **{**QUICK, "trials": 1})
    assert len(seen) == len(scored) == 2
    assert all(not train & test for train, test in zip(seen, scored, strict=True))


def test_bad_arguments_are_named(stand_in: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="method='grid': allowed are 'bayesian' and 'random'"):
        tune(clips(5), tmp_path, weights=str(stand_in), method="grid")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"copies=\[0, 3\]: needs augment="):
        tune(clips(5), tmp_path, weights=str(stand_in), space=SearchSpace(copies=[0, 3]))
