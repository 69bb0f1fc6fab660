"""Strategies side by side, and advice that rests on what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.test_fine_tune import clips
from tfaudiotl.embeddings.probe import ProbeRow, ProbeTable
from tfaudiotl.training.advise import advice_of, advise
from tfaudiotl.training.compare import Comparison, Run, compare_strategies, strategies, window_scores


@pytest.fixture(scope="module")
def comparison(stand_in: Path) -> Comparison:
    return compare_strategies(
        clips(8),
        clips(4, 1),
        weights=str(stand_in),
        blocks=1,
        seeds=(0, 1),
        classifier={"embedding": "layer3", "hidden": (8,)},
        head_epochs=2,
        epochs=1,
        batch_size=6,
    )


def test_one_row_per_strategy_with_spread(comparison: Comparison, tmp_path: Path) -> None:
    assert comparison.names == ["from scratch", "head only", "last 1 blocks", "everything"]
    assert len(comparison.runs) == 8
    trainable = [next(run.trainable for run in comparison.runs if run.strategy == name) for name in comparison.names]
    assert trainable[1] < trainable[2] < trainable[3] < trainable[0]  # from scratch batch norm learns as well
    table = comparison.to_markdown()
    accuracy = comparison.values("head only")
    row = next(line for line in table.splitlines() if "head only" in line)
    assert f"{accuracy.mean():.4f} ± {accuracy.std():.4f}" in row
    assert "Budget of each training: 1 epochs" in table
    comparison.plot(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5_000


def test_folds_of_a_seed_are_averaged_before_the_spread() -> None:
    def fold(low: float, high: float) -> Comparison:
        return Comparison([Run("a", 0, low, low, 1.0, 5), Run("a", 1, high, high, 1.0, 5)], "")

    np.testing.assert_allclose((fold(0.2, 0.4) + fold(0.4, 0.8)).values("a"), [0.3, 0.6])
    with pytest.raises(ValueError, match="strategy='b': there are a"):
        fold(0, 1).values("b")


def test_seconds_end_a_training_after_the_epoch_they_are_spent_in(stand_in: Path) -> None:
    way = strategies(1)[1]
    lines: list[str] = []
    found = compare_strategies(
        clips(3), clips(2, 1), weights=str(stand_in), which=[way], seeds=[0], seconds=1e-3,
        classifier={"embedding": "layer1"}, head_epochs=50, say=lines.append,
    )  # fmt: skip
    assert found.budget == "0.001 s"
    assert lines[0].startswith("head only, seed 0: accuracy")
    with pytest.raises(ValueError, match="seconds=5: a second training"):
        compare_strategies(clips(3), clips(2, 1), weights=str(stand_in), seconds=5, refit=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": -1}, "seconds=-1: a positive number, or None"),
        ({"seeds": ()}, "seeds=\\(\\): at least one"),
        ({"blocks": "layer99"}, "trainable='layer99': allowed are"),
    ],
)
def test_a_mistake_is_told_before_the_first_training(options: dict[str, Any], message: str, stand_in: Path) -> None:
    lines: list[str] = []
    with pytest.raises(ValueError, match=message):
        compare_strategies(clips(3), clips(2, 1), weights=str(stand_in), say=lines.append, **options)
    assert not lines


def test_clips_of_other_classes_are_refused(stand_in: Path) -> None:
    other = clips(2, 1)
    other = other.relabel({name: f"other {name}" for name in other.class_names})
    with pytest.raises(ValueError, match=r"val has the classes .*, train"):
        compare_strategies(clips(3), other, weights=str(stand_in))


def test_long_clips_score_the_same_whatever_the_windows(stand_in: Path) -> None:
    from tests.training.test_fine_tune import classifier

    model, table = classifier(stand_in), clips(1, seconds=(2.0, 2.0))
    scores = window_scores(model, table, 1.0)
    waveform = table.load(1)
    np.testing.assert_allclose(scores[1], np.asarray(model(waveform[None]))[0], rtol=1e-4)


def table(**accuracies: float) -> ProbeTable:
    rows = [ProbeRow(name, 10, share, value, 0.0) for share, (name, value) in enumerate(accuracies.items())]
    best = max(rows, key=lambda row: row.accuracy)
    return ProbeTable("yamnet", rows, best.layer, "", "", 300)


NEAR = table(layer8=0.95, layer13=0.97, embedding=0.965)
FAR = table(layer3=0.8, layer8=0.99, layer13=0.91, embedding=0.84)
VERY_FAR = table(layer1=0.99, layer8=0.7, embedding=0.5)


@pytest.mark.parametrize(
    ("probe", "rarest", "case", "strategy", "embedding", "blocks"),
    [
        (NEAR, 30, "small and near", "head only", "embedding", 0),
        (FAR, 30, "small and far", "head on a lower layer", "layer8", 0),
        (NEAR, 300, "large and near", "last blocks", "embedding", 2),
        (FAR, 300, "large and far", "last blocks", "embedding", "layer8"),
        (VERY_FAR, 300, "large and far", "everything", "embedding", "all"),
    ],
)
def test_the_four_cases(
    probe: ProbeTable, rarest: int, case: str, strategy: str, embedding: str, blocks: int | str
) -> None:
    advice = advice_of(probe, rarest, "embedding")
    assert (advice.case, advice.strategy, advice.embedding, advice.blocks) == (case, strategy, embedding, blocks)
    assert any(str(rarest) in reason for reason in advice.reasons)
    assert f"blocks={blocks!r}" in advice.to_markdown()


@pytest.mark.parametrize(("errors", "nearness"), [(0, "near"), (2, "near"), (4, "near"), (6, "far")])
def test_few_errors_more_than_none_say_nothing(errors: int, nearness: str) -> None:
    advice = advice_of(table(layer8=1.0, embedding=1 - errors / 300), 30, "embedding")
    assert advice.case == f"small and {nearness}"
    assert f"{errors} errors against 0" in advice.reasons[1]


def test_advice_compiles_as_code(stand_in: Path) -> None:
    found = advise(clips(6), weights=str(stand_in), cv=2)
    code = found.to_markdown().split("```python\n")[1].split("```")[0]
    compile(code, "advice", "exec")
    assert {row.layer for row in found.probe.rows} >= {"layer1", "layer14", "embedding"}


@pytest.mark.slow
@pytest.mark.parametrize(("data", "nearness"), [("esc10", "near"), ("fsdd", "far")])
def test_real_recordings(data: str, nearness: str, shared: Path, hub_yamnet: str) -> None:
    import tfaudiotl as tl

    paths = sorted((shared / "data" / data).rglob("*.wav" if data == "fsdd" else "*.ogg"))[::4]
    labels = [path.name[0] if data == "fsdd" else path.parent.name for path in paths]
    advice = advise(tl.Clips.from_files(paths, labels), weights=hub_yamnet, cv=3)
    assert advice.case == f"small and {nearness}"
