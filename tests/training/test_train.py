"""The main recipe on made-up recordings: folds, hold-out, windows, bad sounds, restarts."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.helpers.sounds import make_folder, sound, write_folder
from tests.helpers.training import turned_fold
from tfaudiotl._threads import Progress
from tfaudiotl.audio.files import write_audio
from tfaudiotl.augment.layers import MixUp, RandomGain
from tfaudiotl.data.clips import Clips
from tfaudiotl.embeddings.probe import probe_layers
from tfaudiotl.errors import AudioErrors
from tfaudiotl.training.batches import CachedInputs, Sounds
from tfaudiotl.training.head import Examples, fit_head
from tfaudiotl.training.options import FineTuneOptions, FitOptions
from tfaudiotl.training.train import TrainingResult, check_splits, evaluate_clips, held_out_parts, train_classifier
from tfaudiotl.training.tune import tune

FIT = FitOptions(epochs=15, learning_rate=0.02)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "sounds", rate=22_050)


def train(clips: Clips, stand_in: Path, **options: Any) -> TrainingResult:
    settings = {"fit": FIT, "embedding": "layer3", "hidden": (), "weights": str(stand_in), **options}
    return train_classifier(clips, **settings)


def test_hold_out(folder: Path, stand_in: Path) -> None:
    result = train(Clips.from_directory(folder), stand_in, test=0.25)
    assert len(result.held_out) == len(result.evaluation.scores) == 6
    assert result.evaluation.accuracy == 1.0
    assert list(result.histories) == ["train"]
    assert result.epochs == 1 + int(np.argmin(result.histories["train"]["val_loss"]))
    # The model in the result is the one that was measured.
    for row in range(6):
        scores = result.model(result.held_out.load(row)[None])
        np.testing.assert_allclose(scores[0], result.evaluation.scores[row], rtol=1e-3, atol=1e-4)


def test_given_folds(folder: Path, stand_in: Path) -> None:
    clips = Clips.from_directory(folder, fold_pattern=r"^(\d)-")
    result = train(clips, stand_in, folds="given")
    assert [(fold.name, fold.clips) for fold in result.folds] == [(str(n), 6) for n in range(1, 5)]
    assert np.mean([fold.accuracy for fold in result.folds]) == pytest.approx(result.evaluation.accuracy)
    assert result.evaluation.accuracy > 0.95
    assert list(result.evaluation.names) == list(clips.paths)  # every clip, held out once
    assert result.epochs == int(np.median([fold.epochs for fold in result.folds]))


def test_a_fold_is_never_seen_before_it_is_scored(folder: Path, stand_in: Path) -> None:
    """Labels of one fold turned around: its own accuracy is lost, while the others' heads would learn them."""
    result = train(turned_fold(folder), stand_in, folds="given")
    assert {fold.name: fold.accuracy for fold in result.folds}["2"] == 0


def test_drawn_folds_and_groups(folder: Path, stand_in: Path) -> None:
    result = train(Clips.from_directory(folder, group_pattern=r"^(\d)-"), stand_in, folds=2)
    assert [fold.clips for fold in result.folds] == [12, 12]


def test_a_class_with_fewer_clips_than_folds_is_named(folder: Path, stand_in: Path) -> None:
    for path in sorted((folder / "noise").iterdir())[2:]:
        path.unlink()
    with pytest.raises(ValueError, match="noise"):
        train(Clips.from_directory(folder), stand_in, folds=4)


@pytest.mark.parametrize("folds", [None, "given"])
def test_every_clip_is_decoded_and_embedded_once_and_again_for_the_check(
    folds: str | None, folder: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: Counter[int] = Counter()
    original = Clips.load

    def load(clips: Clips, row: int, **options: Any) -> np.ndarray:
        decoded[row] += 1
        return original(clips, row, **options)

    monkeypatch.setattr(Clips, "load", load)
    result = train(Clips.from_directory(folder, fold_pattern=r"^(\d)-"), stand_in, folds=folds)
    assert decoded.total() == 24 + len(result.kept)
    assert set(decoded) == set(range(24))
    assert result.patches == 24 * 2  # 1.2 s each
    assert len(result.kept_waveforms) == len(result.kept) == (24 if folds else len(result.held_out))


def test_long_clips_become_windows_and_one_score(tmp_path: Path, stand_in: Path) -> None:
    rng = np.random.default_rng(0)
    for kind in ("high", "low"):
        (tmp_path / kind).mkdir()
        for number in range(6):
            write_audio(tmp_path / kind / f"{number}.wav", sound(kind, rng, seconds=5))
    clips = Clips.from_directory(tmp_path)
    result = train(clips, stand_in, window_seconds=2.0, test=0.34)
    assert len(result.evaluation.scores) == len(result.held_out) == 4
    assert result.evaluation.accuracy == 1.0


def test_short_windows_change_no_count(tmp_path: Path, stand_in: Path, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    lengths = {"high": (1, 1, 1, 1, 1, 6), "low": (1, 2, 3, 4, 5, 6)}
    for kind, seconds in lengths.items():
        (tmp_path / kind).mkdir()
        for number, length in enumerate(seconds):
            write_audio(tmp_path / kind / f"{number}.wav", sound(kind, rng, seconds=length))
    clips = Clips.from_directory(tmp_path)
    whole, cut = (train(clips, stand_in, window_seconds=length) for length in (10.0, 0.01))
    assert cut.held_out.paths == whole.held_out.paths
    assert f"{len(cut.held_out)} of 12 clips are reported" in caplog.text
    assert f"On {len(cut.held_out)} clips" in cut.how_measured()
    assert "window_seconds=0.01: the network takes 0.975 s at least" in caplog.text
    assert "window_seconds=10" not in caplog.text


def test_aggregating_embeddings_trains_on_clips(folder: Path, stand_in: Path) -> None:
    result = train(Clips.from_directory(folder), stand_in, aggregate="embeddings")
    assert result.evaluation.accuracy > 0.6
    scores = result.model(result.held_out.load(0)[None])
    np.testing.assert_allclose(scores[0], result.evaluation.scores[0], rtol=1e-3, atol=1e-4)


def test_multi_label_clips(folder: Path, stand_in: Path) -> None:
    paths = sorted(str(path) for path in folder.rglob("*.wav"))
    labels = [["tone", kind] if (kind := Path(path).parent.name) != "noise" else ["noise"] for path in paths]
    result = train(Clips.from_files(paths, labels), stand_in)
    assert result.evaluation.multi_label
    assert result.evaluation.mean_average_precision > 0.9


def test_bad_sounds_stop_the_training_or_are_listed(folder: Path, stand_in: Path) -> None:
    write_audio(folder / "low" / "9-silent.wav", np.zeros(16_000))
    clips = Clips.from_directory(folder)
    (folder / "high" / "1-high00.wav").write_bytes(b"RIFF")  # broken behind our back
    with pytest.raises(AudioErrors) as caught:
        train(clips, stand_in)
    assert "2 of 25" in str(caught.value)
    assert "silent: every sample is zero" in str(caught.value)
    soundfile.write(folder / "low" / "9-silent.wav", np.full((16_000, 2), [0.5, -0.5]), 16_000)
    with pytest.raises(AudioErrors, match="channels cancel each other out"):
        train(clips, stand_in)
    result = train(clips, stand_in, on_error="skip")
    assert sorted(Path(error.path).name for error in result.skipped) == ["1-high00.wav", "9-silent.wav"]
    assert len(result.clips) == 23
    kept = train(clips, stand_in, on_error="skip", allow_silence=True)
    assert len(kept.clips) == 24


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "run",
    ["fold 1", pytest.param("fold 2, refit", marks=pytest.mark.slow), pytest.param("final", marks=pytest.mark.slow)],
)
def test_a_killed_run_goes_on_and_ends_the_same(run: str, folder: Path, stand_in: Path, tmp_path: Path) -> None:
    clips = Clips.from_directory(folder, fold_pattern=r"^(\d)-")
    expected = train(clips, stand_in, folds="given")
    work = tmp_path / "work"

    def kill(progress: Progress) -> None:
        if (progress.stage, progress.done) == (f"Training: {run}", 2):
            raise Killed

    with pytest.raises(Killed):
        train(clips, stand_in, folds="given", workdir=work, progress=kill)
    seen: list[Progress] = []
    result = train(clips, stand_in, folds="given", workdir=work, progress=seen.append)
    assert (seen[0].stage, seen[0].done) == (f"Training: {run}", 3)  # nothing was decoded again
    for ours, theirs in zip(result.kept_waveforms, expected.kept_waveforms, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(result.evaluation.scores, expected.evaluation.scores, atol=1e-6)
    for ours, theirs in zip(result.model.get_weights(), expected.model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_saved_embeddings_are_not_used_for_other_sound(folder: Path, stand_in: Path, tmp_path: Path) -> None:
    train(Clips.from_directory(folder), stand_in, workdir=tmp_path / "work")
    write_audio(folder / "low" / "1-low00.wav", sound("low", np.random.default_rng(9), seconds=2))
    seen: list[Progress] = []
    for path in (tmp_path / "work").glob("train.npz"):
        path.unlink()
    train(Clips.from_directory(folder), stand_in, workdir=tmp_path / "work", progress=seen.append)
    assert [step.done for step in seen if step.stage == "Computing frozen layers"] == list(range(1, 25))


def loud_noise(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(-0.9, 0.9, len(waveform)).astype(np.float32)


def test_augmentation_reaches_the_head_in_training_only(
    folder: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every copy only the changed sound is learned, and what stops the training or is scored is as it was."""
    seen: list[tuple[Examples, Examples | None, Sequence[Examples]]] = []

    def noted(head: Any, learn: Examples, stop: Examples | None, *arguments: Any, **options: Any) -> Any:
        seen.append((learn, stop, options["variants"]))
        return fit_head(head, learn, stop, *arguments, **options)

    monkeypatch.setattr("tfaudiotl.training.train.fit_head", noted)
    clips = Clips.from_directory(folder, fold_pattern=r"^(\d)-")
    options = {"folds": "given", "fit": dataclasses.replace(FIT, epochs=1, copies=2)}
    plain = train(clips, stand_in, **options)
    before, seen[:] = list(seen), []
    spoilt = train(clips, stand_in, augment=loud_noise, **options)
    assert len(seen) == len(before) == 4 * 2 + 1
    for (learn, stop, variants), (plain_learn, plain_stop, none) in zip(seen, before, strict=True):
        np.testing.assert_array_equal(learn.vectors, plain_learn.vectors)
        if stop is not None:
            np.testing.assert_array_equal(stop.vectors, plain_stop.vectors)  # type: ignore[union-attr]
        assert (len(variants), len(none)) == (2, 0)
        assert not np.array_equal(variants[0].vectors, variants[1].vectors)
        for changed in variants:  # all are the same noise, more alike than the sounds are
            assert changed.vectors.std(axis=0).mean() < 0.5 * learn.vectors.std(axis=0).mean()
    assert spoilt.patches == plain.patches


def test_augmentation_spoils_what_is_learned_and_not_what_is_scored(folder: Path, stand_in: Path) -> None:
    """Versions that are silent teach that silence is of every class, and held-out clips are scored as they are."""
    clips = Clips.from_directory(folder, fold_pattern=r"^(\d)-")
    few = dataclasses.replace(FIT, copies=2)
    plain, spoilt = (train(clips, stand_in, fit=few, augment=layers) for layers in (False, [RandomGain((-200, -200))]))
    assert list(spoilt.held_out.paths) == list(plain.held_out.paths)
    (learned,), (disturbed,) = plain.histories.values(), spoilt.histories.values()
    assert min(disturbed["loss"]) > 2 * min(learned["loss"])
    held = np.stack([spoilt.held_out.load(row) for row in range(len(spoilt.held_out))])
    np.testing.assert_allclose(spoilt.evaluation.scores, spoilt.model(held), rtol=1e-3, atol=1e-4)
    assert np.ptp(spoilt.evaluation.scores, axis=0).min() > 0.1  # which silence would not be


@pytest.mark.parametrize("fine_tune", [False, True])
def test_augmentation_that_cannot_be_is_refused(fine_tune: bool, folder: Path, stand_in: Path) -> None:
    clips = Clips.from_directory(folder)
    for augment, copies, message in (([MixUp()], 4, "MixUp mixes clips"), (True, 0, "copies=0")):
        how: dict[str, Any] = {"fit": FitOptions(copies=copies)}
        if fine_tune:
            how = {"fine_tune": FineTuneOptions(copies=copies)}
        with pytest.raises(ValueError, match=message):
            train_classifier(clips, embedding="layer3", weights=str(stand_in), augment=augment, **how)


def test_what_auto_means_is_what_is_recorded() -> None:
    for options in (FitOptions(), FineTuneOptions()):
        assert options.applied(multi_label=False).class_weight == "balanced"
        assert options.applied(multi_label=True).class_weight is None
    assert FitOptions(sampling="balanced").applied(multi_label=False).class_weight is None
    assert FineTuneOptions(class_weight="balanced").applied(multi_label=True).class_weight == "balanced"


def test_classes_too_small_for_folds_are_told_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = Clips.from_directory(make_folder(tmp_path, {"a": 5, "b": 5, "c": 3}))
    monkeypatch.setattr(Clips, "load", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=r"folds: .*fold '\d'.*'c' has 1 clips in 1 groups"):
        train_classifier(clips, folds=2)
    with pytest.raises(ValueError, match=r"folds: .*fold '\d'.*'c' has 1 clips in 1 groups"):
        train_classifier(clips, fine_tune=FineTuneOptions(), folds=2)
    with pytest.raises(ValueError, match="too few for 4 folds"):
        probe_layers("yamnet_mini", clips, folds=4)
    with pytest.raises(ValueError, match="a split, which needs at least 2"):
        train_classifier(clips[:11])


def test_classes_too_small_for_a_search_are_told_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("keras_tuner")
    clips = Clips.from_directory(make_folder(tmp_path, {"a": 5, "b": 5, "c": 3}))
    monkeypatch.setattr(Clips, "load", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="'c' has 1 clips in 1 groups"):
        tune(clips, tmp_path / "search", backbone="yamnet_mini", folds=2, trials=1)


def test_a_division_of_the_data_sets_own(folder: Path, stand_in: Path) -> None:
    given = Clips.from_directory(folder, fold_pattern=r"^(\d)-")
    assert given.fold is not None
    names = np.array(["train", "train", "val", "test"])[given.fold.astype(int) - 1]
    clips = dataclasses.replace(given, part=names, fold=None)
    result = train(clips, stand_in)
    assert result.held_out.paths == clips.parts()["test"].paths
    assert len(result.evaluation.scores) == 6
    assert len(result.clips) == 24
    for rows, stop, test in [
        (names != "val", 0.25, "test"),  # a share of "train" stops
        (names != "test", 1 / 3, "val"),  # what stops is reported
        (names != "", 1 / 4, "test"),
    ]:
        parts = held_out_parts(clips[rows], val=0.25, seed=0)
        assert set(parts[2].part.tolist()) == {test}  # type: ignore[union-attr]
        assert parts[1] is not None
        assert len(parts[1]) == round(stop * (rows.sum() if test == "val" or rows.all() else 12))
        assert set(parts[0].part.tolist()) == {"train"}  # type: ignore[union-attr]
        assert not set(parts[0].paths) & {*parts[1].paths, *parts[2].paths}
    lost = clips[(names != "train") | (clips.label_ids != 0)]
    with pytest.raises(ValueError, match="part 'train' has none of 'high', which other parts have"):
        train(lost, stand_in)
    with pytest.raises(ValueError, match="folds would mix the clips' own parts"):
        train(clips, stand_in, folds=2)


def test_few_clips_that_are_reported_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips = Clips.from_directory(make_folder(tmp_path, {"a": 8, "b": 7}))
    check_splits(clips, None, seed=0)
    assert "3 of 15 clips are reported: each is 33 % of the accuracy" in caplog.text
    caplog.clear()
    check_splits(clips, 3, seed=0)
    assert not caplog.text


@pytest.mark.parametrize("options", [{}, {"fine_tune": FineTuneOptions()}])
def test_a_layer_chosen_on_the_reported_clips_is_refused(options: dict[str, Any]) -> None:
    sounds = [np.full(16_000, 0.1 * n, np.float32) for n in range(1, 9)]
    clips = Clips.from_arrays(sounds, list("abababab"), sample_rate=16_000)
    with pytest.raises(ValueError, match="embedding='auto': would choose the layer on clips that the evaluation"):
        train_classifier(clips, embedding="auto", probe_clips=clips, **options)


def test_the_interval_draws_whole_groups(folder: Path) -> None:
    clips = Clips.from_directory(folder, group_pattern=r"^(\d)-")
    measured = evaluate_clips(clips, clips.targets)
    assert measured.groups is not None
    assert len(set(measured.groups)) == 4
    assert evaluate_clips(Clips.from_directory(folder), clips.targets).groups is None


# With fine-tuning

FAST = FineTuneOptions(trainable=1, head_epochs=6, epochs=2, batch_size=8, head_learning_rate=0.02)


def tuned(clips: Clips, stand_in: Path, workdir: Path | None = None, **options: Any) -> TrainingResult:
    options = {"fine_tune": FAST, "embedding": "layer3", "hidden": (), **options}
    return train_classifier(clips, workdir=workdir, weights=str(stand_in), **options)


def test_fine_tuning_holds_out_and_scores_as_the_model_does(folder: Path, stand_in: Path, tmp_path: Path) -> None:
    write_audio(folder / "low" / "9-silent.wav", np.zeros(16_000))
    clips = Clips.from_directory(folder)
    with pytest.raises(AudioErrors, match="silent: every sample is zero"):
        tuned(clips, stand_in, tmp_path / "work")
    result = tuned(clips, stand_in, tmp_path / "work", on_error="skip")
    assert [Path(error.path).name for error in result.skipped] == ["9-silent.wav"]
    assert list(result.histories) == ["train"]  # the stages are one curve
    assert list(result.best_epochs) == ["head", "blocks"]
    assert result.evaluation.accuracy > 0.6
    scores = result.model(result.held_out.load(0)[None])
    np.testing.assert_allclose(scores[0], result.evaluation.scores[0], rtol=1e-3, atol=1e-4)
    assert {v.path.split("_")[0] for v in result.model.trainable_variables} == {"layer3", "head"}
    assert result.patches == 24 * 2
    assert len(result.kept_waveforms) == len(result.held_out)


@pytest.mark.slow
def test_folds_of_fine_tuning_never_see_what_they_are_scored_on(folder: Path, stand_in: Path, tmp_path: Path) -> None:
    clips = Clips.from_directory(folder, fold_pattern=r"^(\d)-")
    runs: set[str] = set()
    result = tuned(
        clips, stand_in, tmp_path / "right", folds="given", progress=lambda progress: runs.add(progress.stage)
    )
    expected = {f"Training: {run}" for run in ("fold 1, head", "fold 1, refit, head", "final, head")}
    assert expected <= runs  # on all clips in the end
    assert np.mean([fold.accuracy for fold in result.folds]) > 0.8
    assert len(result.held_out) == 24
    # In fold 2 the labels are turned round: a classifier trained on the others cannot know.
    result = tuned(turned_fold(folder), stand_in, tmp_path / "turned", folds="given")
    assert {fold.name: fold.accuracy for fold in result.folds}["2"] <= 0.34


def test_a_killed_fine_tuning_goes_on_and_ends_the_same(folder: Path, stand_in: Path, tmp_path: Path) -> None:
    clips = Clips.from_directory(folder)
    expected = tuned(clips, stand_in, tmp_path / "whole")

    def kill(progress: Progress) -> None:
        if (progress.stage, progress.done) == ("Training: train, blocks", 1):
            raise Killed

    with pytest.raises(Killed):
        tuned(clips, stand_in, tmp_path / "work", progress=kill)
    seen: list[str] = []
    result = tuned(clips, stand_in, tmp_path / "work", progress=lambda progress: seen.append(progress.stage))
    assert "Computing frozen layers" not in seen  # nothing was decoded again
    np.testing.assert_allclose(result.evaluation.scores, expected.evaluation.scores, atol=1e-6)


@pytest.mark.slow
def test_augmentation_reaches_the_blocks_in_training_only(
    folder: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows behind the sounds themselves are changed copies: they are drawn in training, never for validation."""
    drawn: dict[bool, set[bool]] = {True: set(), False: set()}
    original = CachedInputs.batch

    def batch(inputs: CachedInputs, rows: np.ndarray, draw: Any = None) -> tuple[np.ndarray, ...]:
        drawn[draw is not None].update((rows >= 24).tolist())
        return original(inputs, rows, draw)

    monkeypatch.setattr(CachedInputs, "batch", batch)
    clips = Clips.from_directory(folder, fold_pattern=r"^(\d)-")
    few = dataclasses.replace(FAST, copies=2, head_epochs=2, epochs=1)
    plain = tuned(clips, stand_in, fine_tune=few, folds=2)
    assert drawn == {True: {False}, False: {False}}
    changed = tuned(clips, stand_in, fine_tune=few, folds=2, augment=loud_noise)
    assert drawn == {True: {True, False}, False: {False}}
    assert changed.patches == plain.patches
    assert not np.array_equal(changed.evaluation.scores, plain.evaluation.scores)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050])
def test_copies_are_at_the_rate_asked_for_and_as_long_as_the_clip(rate: int, folder: Path) -> None:
    clips = Clips.from_directory(folder)
    sounds = Sounds.of([clips], sample_rate=rate)
    rows = np.array([1, 3])
    more = sounds.changed(RandomGain((6, 6)), copies=2, rows=rows, seed=0)
    assert more.variants is not None
    assert more.variants.tolist()[1:] == [[0, 24, 2, 25, *range(4, 24)], [0, 26, 2, 27, *range(4, 24)]]
    assert list(more.paths[24:]) == [clips.paths[1], clips.paths[3]] * 2
    for job, row in zip(more.jobs[24:], (1, 3, 1, 3), strict=True):
        waveform = clips.load(row, sample_rate=rate)
        np.testing.assert_allclose(job(), waveform * 10 ** (6 / 20), rtol=1e-3, atol=1e-5)
    other = sounds.changed(RandomGain((6, 6)), copies=2, rows=rows, seed=1)
    assert len({each.digest for each in (sounds, more, other)}) == 3
