"""probe_layers: honest splits, few shots, and a recommendation that weighs accuracy and cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.sounds import write_folder
from tfaudiotl.classifiers import build
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.data.clips import Clips
from tfaudiotl.embeddings.extract import EngineOptions
from tfaudiotl.embeddings.probe import ProbeRow, ProbeTable, _splits, probe_layers, recommend

KERAS = EngineOptions(runtime="keras")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    folder = write_folder(tmp_path_factory.mktemp("probe") / "sounds", per_class=8)
    return Clips.from_directory(folder, fold_pattern=r"^(\d)-")


def test_a_table_of_layers_and_pairs(clips: Clips, stand_in: Path, tmp_path: Path) -> None:
    table = probe_layers(
        "yamnet",
        clips,
        folds="given",
        embedding=["log_mel", "layer1", "layer3"],
        pairs=[("layer1", "layer4")],
        few_shot=2,
        repeats=3,
        weights=str(stand_in),
        engine=KERAS,
    )
    assert [row.layer for row in table.rows] == ["log_mel", "layer1", "layer3", "layer1+layer4"]
    assert [row.width for row in table.rows] == [64, 32, 128, 160]
    assert table.row("log_mel").accuracy >= 0.9
    assert all(row.few_shot is not None for row in table.rows)
    assert table.splits == "4 given folds, 24 clips"
    text = table.to_markdown()
    assert f"**{table.recommended}**" in text
    assert "| 2 clips a class |" in text
    table.plot(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5_000
    with pytest.raises(ValueError, match="layer='layer9'"):
        table.row("layer9")


def test_a_given_split_and_drawn_folds(clips: Clips, stand_in: Path) -> None:
    rows = np.arange(len(clips))
    options = {"embedding": ["layer2"], "weights": str(stand_in), "engine": KERAS}
    table = probe_layers("yamnet", clips, folds=[(rows[rows % 2 == 0], rows[rows % 2 == 1])], **options)  # type: ignore[arg-type]
    assert table.splits == "12 clips to train on, 12 to test on"
    assert probe_layers("yamnet", clips, folds=2, **options).splits == "2 drawn folds, 24 clips"  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["windows", "balanced", "indexed"])
@pytest.mark.parametrize("folds", [3, "given"])
def test_every_row_of_a_table_is_tested_once_and_no_recording_lies_on_both_sides(
    clips: Clips, kind: str, folds: int | str
) -> None:
    if kind == "windows":
        table = clips.windows(0.5)
    else:  # classes of 8, 8 and 4 clips; or clips of which one comes three times
        table = clips[:20].balance() if kind == "balanced" else clips[np.array([*range(23, -1, -1), 3, 3])]
    kept = np.flatnonzero(np.arange(len(table)) % 7 != 3)  # some could not be used
    used = table[kept]
    splits, _ = _splits(table, kept, folds, seed=0)
    assert np.array_equal(np.sort(np.concatenate([test for _, test in splits])), np.arange(len(used)))
    for train, test in splits:
        assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(len(used)))
        assert not {used.paths[row] for row in train} & {used.paths[row] for row in test}


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([([0, 2], [1, 3])], r"folds\[0\]: .* is on both sides, in 2 of 2 rows"),
        ([([0, 1], [2, 48])], r"folds\[0\]: row 48 is none of the 48 clips, 0 to 47"),
        ([([0, 1], [-1])], r"row -1"),
    ],
)
def test_given_pairs_are_checked(clips: Clips, pairs: list[tuple[list[int], list[int]]], message: str) -> None:
    windows = clips.windows(0.6)
    assert len(windows) == 48
    with pytest.raises(ValueError, match=message):
        _splits(windows, np.arange(48), pairs, seed=0)  # type: ignore[arg-type]


def test_unusable_sounds_are_raised_or_left_out(tmp_path: Path, stand_in: Path) -> None:
    clips = Clips.from_directory(write_folder(tmp_path / "sounds", per_class=4), fold_pattern=r"^(\d)-")
    Path(clips.paths[3]).write_bytes(b"broken")
    options = {"embedding": ["layer1"], "weights": str(stand_in), "engine": KERAS}
    with pytest.raises(ValueError, match="1 of 12 sounds cannot be used"):
        probe_layers("yamnet", clips, folds=2, **options)  # type: ignore[arg-type]
    table = probe_layers("yamnet", clips, folds=2, on_error="skip", **options)  # type: ignore[arg-type]
    assert (table.clips, len(table.skipped)) == (11, 1)


def test_an_earlier_layer_within_noise_wins() -> None:
    rows = [ProbeRow("a", 8, 0.1, 0.80, 0.0), ProbeRow("b", 8, 0.4, 0.955, 0.0), ProbeRow("c", 8, 1.0, 0.96, 0.0)]
    layer, reason = recommend(rows, 400)
    assert layer == "b"
    assert "within the noise" in reason
    assert "the best, c with 0.960" in reason
    assert recommend(rows, 1_000_000)[0] == "c"
    perfect = [ProbeRow("a", 8, 0.1, 0.99, 0.0), ProbeRow("b", 8, 0.4, 1.0, 0.0)]
    assert recommend(perfect, 300)[0] == "b"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "^folds=1: allowed are whole numbers of at least 2"),
        ({"folds": "official"}, "folds='official'"),
        ({"few_shot": 0}, "few_shot=0"),
        ({"few_shot": 50, "folds": 2}, "few_shot=50: '.*' has 4 clips to train on"),
        ({"embedding": ["top"]}, "embedding='top'"),
    ],
)
def test_bad_arguments(options: dict[str, object], message: str, clips: Clips, stand_in: Path) -> None:
    options = {"embedding": ["layer1"], **options}
    with pytest.raises(ValueError, match=message):
        probe_layers("yamnet", clips, weights=str(stand_in), engine=KERAS, **options)  # type: ignore[arg-type]


def test_a_classifier_on_the_layer_that_fits(clips: Clips, stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def quick(backbone: str, clips: Clips, **options: object) -> ProbeTable:
        return probe_layers(backbone, clips, folds=2, embedding=["layer3"], engine=KERAS, weights=str(stand_in))

    monkeypatch.setattr(build, "probe_layers", quick)
    model = build_classifier(
        "yamnet", class_names=clips.class_names, embedding="auto", probe_clips=clips, weights=str(stand_in)
    )
    assert model.get_layer("patch_embedding").output.shape[-1] == 128
    with pytest.raises(ValueError, match="needs probe_clips="):
        build_classifier("yamnet", class_names=["a", "b"], embedding="auto", weights=None)
