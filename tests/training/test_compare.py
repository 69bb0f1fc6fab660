"""Strategies side by side, and advice that rests on what was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.training import classifier, clips
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.classifiers.edit import set_blocks
from tfaudiotl.embeddings.probe import ProbeRow, ProbeTable
from tfaudiotl.training.compare import (
    Comparison,
    Run,
    Strategy,
    _budget,
    _with_budget,
    advice_of,
    advise,
    block_of_embedding,
    compare_strategies,
    strategies,
    window_scores,
)
from tfaudiotl.training.options import FineTuneOptions


@pytest.fixture(scope="module")
def comparison(stand_in: Path) -> Comparison:
    return compare_strategies(
        clips(8),
        clips(4, 1),
        weights=str(stand_in),
        trainable=1,
        seeds=(0, 1),
        classifier={"embedding": "layer3", "hidden": (8,)},
        head_epochs=2,
        epochs=1,
        batch_size=6,
    )


@pytest.mark.slow
def test_one_row_per_strategy_with_spread(comparison: Comparison, tmp_path: Path) -> None:
    assert comparison.names == ["from scratch", "head only", "last 1 blocks", "everything"]
    assert len(comparison.runs) == 8
    trainable = [next(run.trainable for run in comparison.runs if run.strategy == name) for name in comparison.names]
    assert trainable[1] < trainable[2] < trainable[3] < trainable[0]  # from scratch batch norm learns as well
    table = comparison.to_markdown()
    accuracy = comparison.values("head only")
    row = next(line for line in table.splitlines() if "head only" in line)
    assert f"{accuracy.mean():.4f} ± {accuracy.std():.4f}" in row
    assert "Budget of each training: at most 3 epochs (with blocks: 2 of the head, then 1 with them)." in table
    comparison.plot(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5_000


def test_every_strategy_has_the_same_number_of_epochs() -> None:
    for given, total in (({}, 50), ({"epochs": 2}, 32), ({"epochs": 1, "head_epochs": 2}, 3)):
        tuning = {way.name: _with_budget(way, given) for way in strategies(2)}
        spent = []
        for options in tuning.values():
            chosen = FineTuneOptions(**options)
            spent.append(chosen.head_epochs + (chosen.epochs if chosen.trainable else 0))
        assert spent == [total] * 4
        assert _budget(tuning).startswith(f"at most {total} epochs (with blocks:")
    own = (*strategies(2)[:2], Strategy("long", options={"epochs": 200}))
    assert "long at most 230 epochs" in _budget({way.name: _with_budget(way, {}) for way in own})


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
    assert found.budget == "at most 70 epochs, and 0.001 s"
    assert lines[0].startswith("head only, seed 0: accuracy")
    with pytest.raises(ValueError, match="seconds=5: a second training"):
        compare_strategies(clips(3), clips(2, 1), weights=str(stand_in), seconds=5, refit=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": -1}, "seconds=-1: allowed are numbers above 0"),
        ({"seeds": ()}, "seeds=\\(\\): at least one"),
        ({"trainable": "layer99"}, "^trainable='layer99': allowed are"),
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
    with pytest.raises(ValueError, match=r"test has the classes .*, train"):
        compare_strategies(clips(3), other, weights=str(stand_in))


def test_long_clips_score_the_same_whatever_the_windows(stand_in: Path) -> None:
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
    assert (advice.case, advice.strategy, advice.embedding, advice.trainable) == (case, strategy, embedding, blocks)
    assert any(str(rarest) in reason for reason in advice.reasons)
    assert f"trainable={blocks!r}" in advice.to_markdown()


@pytest.mark.parametrize(("errors", "nearness"), [(0, "near"), (2, "near"), (4, "near"), (6, "far")])
def test_few_errors_more_than_none_say_nothing(errors: int, nearness: str) -> None:
    advice = advice_of(table(layer8=1.0, embedding=1 - errors / 300), 30, "embedding")
    assert advice.case == f"small and {nearness}"
    assert f"{errors} errors against 0" in advice.reasons[1]


@pytest.mark.parametrize(
    ("own", "best", "clips", "nearness"),
    [
        (0.150, 0.390, 300, "far"),  # the best layer errs on more than half
        (0.150, 0.390, 60, "far"),
        (0.150, 0.390, 10, "near"),  # two clips more
        (0.370, 0.390, 3_000, "near"),
        (0.05, 0.10, 3_000, "far"),
        (0.965, 0.970, 300, "near"),
        (0.80, 0.95, 400, "far"),
        (0.90, 0.94, 3_000, "near"),  # 1.7 times the odds
        (0.98, 1.00, 3_000, "far"),
        (0.0, 0.0, 300, "near"),
        (1.0, 1.0, 300, "near"),
    ],
)
def test_far_can_be_met_whatever_the_best_layer_reaches(own: float, best: float, clips: int, nearness: str) -> None:
    probe = replace(table(layer8=best, embedding=own), clips=clips)
    assert advice_of(probe, 30, "embedding").case == f"small and {nearness}"


@pytest.mark.parametrize(
    ("backbone", "layer", "block"),
    [
        ("yamnet", "layer8", "layer8"),
        ("yamnet_mini", "layer4", "layer4"),
        ("rawnet2", "block3", "layer4"),
        ("convnet", "", ""),
        ("mobilenetv2", "", ""),
        pytest.param("efficientnetv2b0", "", "", marks=pytest.mark.slow),
        pytest.param("vggish", "conv4_2", "conv4", marks=pytest.mark.slow),
    ],
)
def test_advised_blocks_are_the_backbones(backbone: str, layer: str, block: str) -> None:
    spec = get_backbone(backbone)
    model = build_classifier(backbone, class_names=["a", "b"], weights=None, hidden=())
    layers = [each.name for each in spec.layers if each.name not in spec.top]
    assert not layer or block_of_embedding(backbone, layer) == block
    middle = layers[len(layers) // 2]
    probe = table(**{name: 0.99 if name == middle else 0.6 for name in layers})
    advice = advice_of(replace(probe, backbone=backbone), 300, spec.default_embedding)
    assert advice.case == "large and far"
    set_blocks(model, advice.trainable)


def test_advice_compiles_as_code(stand_in: Path) -> None:
    found = advise(clips(6), weights=str(stand_in), folds=2)
    code = found.to_markdown().split("```python\n")[1].split("```")[0]
    compile(code, "advice", "exec")
    assert {row.layer for row in found.probe.rows} >= {"layer1", "layer14", "embedding"}


@pytest.mark.slow
@pytest.mark.parametrize(("data", "nearness"), [("esc10", "near"), ("fsdd", "far")])
def test_real_recordings(data: str, nearness: str, shared: Path, hub_yamnet: str) -> None:
    import tfaudiotl as tl

    paths = sorted((shared / "data" / data).rglob("*.wav" if data == "fsdd" else "*.ogg"))[::4]
    labels = [path.name[0] if data == "fsdd" else path.parent.name for path in paths]
    advice = advise(tl.Clips.from_files(paths, labels), weights=hub_yamnet, folds=3)
    assert advice.case == f"small and {nearness}"
