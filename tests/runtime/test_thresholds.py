"""Thresholds of single classes and the background class: taken everywhere, and kept in and used from every file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.helpers.sounds import KINDS, sound, write_folder
from tfaudiotl.backbones.scores import ClassScores, class_thresholds, set_background, set_thresholds
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.classifiers.edit import replace_head
from tfaudiotl.cli.options import class_scores
from tfaudiotl.data.clips import Clips
from tfaudiotl.evaluation.measures import Threshold, choose_threshold, choose_thresholds, with_thresholds
from tfaudiotl.evaluation.metrics import evaluate_scores
from tfaudiotl.export.savedmodel import export_saved_model
from tfaudiotl.export.tflite import export_tflite
from tfaudiotl.runtime.evaluate import evaluate
from tfaudiotl.runtime.events import Event, EventOptions, EventTracker
from tfaudiotl.runtime.predictor import Predictor
from tfaudiotl.runtime.stream import StreamingClassifier
from tfaudiotl.tflite.metadata import Metadata, label_lines, read_metadata
from tfaudiotl.training.options import FitOptions
from tfaudiotl.training.train import train_classifier

CHOSEN = {"high": 0.2, "low": 0.3, "noise": 0.9}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One classifier in every form, with thresholds chosen on an evaluation and a background class."""
    keras.utils.set_random_seed(3)
    model = build_classifier(
        "yamnet_mini", class_names=KINDS, embedding="layer2", hidden=(), multi_label=True, background="low"
    )
    chosen = {name: Threshold(value, 1.0, 1.0, 1.0, 0.0) for name, value in CHOSEN.items()}
    set_thresholds(model, chosen)
    folder = tmp_path_factory.mktemp("forms")
    model.save(folder / "m.keras")
    return {
        "model": model,
        "keras": folder / "m.keras",
        "saved_model": export_saved_model(model, folder / "saved"),
        "tflite": export_tflite(model, folder / "m.tflite"),
        "patches": export_tflite(model, folder / "p.tflite", input="patches"),
    }


@pytest.mark.parametrize("form", ["model", "keras", "saved_model", "tflite", "patches"])
def test_every_file_keeps_them_and_gives_them_to_predictor_and_stream(form: str, files: dict[str, Any]) -> None:
    wave = np.concatenate([sound(kind, np.random.default_rng(1), seconds=2) for kind in KINDS])
    predictor = Predictor(files[form])
    begin, _ = predictor.options.scores(KINDS)
    np.testing.assert_allclose(begin, list(CHOSEN.values()))
    found = predictor.analyze(wave, sample_rate=16_000)
    heard = found.scores >= np.array(list(CHOSEN.values()))
    assert heard[:, 1].any()  # the background is there ...
    assert {event.label for event in found.events} == {
        name for column, name in enumerate(KINDS) if heard[:, column].any() and name != "low"
    }  # ... and no event
    live = StreamingClassifier(predictor)
    assert sorted(map(str, [*live.push(wave), *live.finish()])) == sorted(map(str, found.events))
    asked = Predictor(files[form], report_background=True).predict(wave, sample_rate=16_000)
    assert "low" in {event.label for event in asked}
    assert Predictor(files[form], threshold=0.7).options.scores(KINDS)[0].tolist() == [0.7] * 3


def test_other_names_for_the_outputs_keep_both(files: dict[str, Any]) -> None:
    predictor = Predictor(files["tflite"], class_names=["a", "b", "c"])
    assert predictor.options.background == "b"
    assert predictor.options.scores(["a", "b", "c"])[0].tolist() == list(CHOSEN.values())


def test_several_labels_are_decided_by_the_files_thresholds(files: dict[str, Any]) -> None:
    rng = np.random.default_rng(2)
    clips = Clips.from_arrays(
        [sound(kind, rng) for kind in KINDS], [[kind] for kind in KINDS], sample_rate=16_000, class_names=KINDS
    )
    assert evaluate(files["tflite"], clips).threshold == tuple(CHOSEN.values())


def test_a_new_head_has_no_old_thresholds_and_a_background_only_if_it_has_the_class(files: dict[str, Any]) -> None:
    def of(model: keras.Model) -> tuple[tuple[float, ...], str | None]:
        layer = model.get_layer("class_scores")
        return layer.thresholds, layer.background

    assert of(files["model"]) == (tuple(CHOSEN.values()), "low")
    assert of(replace_head(files["model"], ["x"], extend=True)) == ((), "low")
    assert of(replace_head(files["model"], ["x", "y"])) == ((), None)


def test_an_export_takes_thresholds_of_its_own(files: dict[str, Any], tmp_path: Path) -> None:
    path = export_tflite(files["model"], tmp_path / "m.tflite", thresholds={"noise": 0.25})
    found = read_metadata(path.read_bytes())
    assert found is not None
    assert (found.thresholds, found.background) == ([0.5, 0.5, 0.25], "low")
    one = export_tflite(files["model"], tmp_path / "n.tflite", metadata=Metadata(score_threshold=0.125))
    assert Predictor(one).threshold == 0.125
    with pytest.raises(ValueError, match="thresholds: no class is called 'cat'"):
        export_tflite(files["model"], tmp_path / "x.tflite", thresholds={"cat": 0.5})


def test_layers_without_either_keep_the_configuration_that_earlier_versions_read() -> None:
    assert set(ClassScores(class_names=("a",)).get_config()) == {
        "name", "trainable", "dtype", "activation", "class_names"
    }  # fmt: skip


def test_each_class_has_its_own_threshold_and_release() -> None:
    rows = np.array([[0.35, 0.35], [0.25, 0.25], [0.15, 0.15]])

    def track(**options: Any) -> list[Event]:
        tracker = EventTracker(["a", "b"], EventOptions(**options), hop=1, window=1)
        return [event for row in rows for event in tracker.push(row)] + tracker.finish(3)

    assert track(threshold={"a": 0.3, "b": 0.9}) == [Event(0, 1, "a", 0.35)]
    assert track(threshold=[0.9, 0.3]) == [Event(0, 1, "b", 0.35)]
    assert track(threshold=0.3, release={"b": 0.2}) == [Event(0, 1, "a", 0.35), Event(0, 2, "b", 0.35)]
    assert track(threshold=0.3, background="a") == [Event(0, 1, "b", 0.35)]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"c": 0.5}, "no class is called 'c'"),
        ([0.5], "1 thresholds for 2 classes"),
        ({"a": float("nan")}, r"threshold\['a'\]=nan: allowed is 0 to 1"),
        ([0.5, 1.0000000000000002], r"threshold\['b'\]=1.0000000000000002"),
        ({"a": "much"}, r"threshold\['a'\]='much'"),
        (None, "threshold=None"),
    ],
)
def test_thresholds_of_nothing_are_refused(given: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        class_thresholds(given, ("a", "b"))


def test_a_release_above_its_class_and_a_background_of_no_class_are_refused(files: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"release=0.5: allowed is 0 to threshold=0.3 of class 'low'"):
        Predictor(files["tflite"], release={"low": 0.5})
    with pytest.raises(ValueError, match="background='silence': the classes are 'high', 'low', 'noise'"):
        Predictor(files["tflite"], background="silence")
    with pytest.raises(ValueError, match="background='x'"):
        set_background(files["model"], "x")
    with pytest.raises(ValueError, match="is no classifier"):
        set_thresholds(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), 0.5)


def test_no_threshold_above_1_is_chosen() -> None:
    scores, truth = np.array([1.0, 1.0, 0.4, 0.2]), np.array([1, 0, 1, 0])
    for goal, value in (("f1", None), ("precision", 0.9), ("recall", 1.0), ("false_alarms", 0.0)):
        chosen = choose_threshold(scores, truth, goal=goal, value=value)  # type: ignore[arg-type]
        assert chosen.value <= 1
        assert chosen.reached == (goal in ("f1", "recall"))  # the others would need one above every score


def test_thresholds_of_an_evaluation_are_numbers() -> None:
    found = evaluate_scores(
        [[0.9, 0.2], [0.1, 0.8]],
        [[1, 0], [0, 1]],
        class_names=["a", "b"],
        multi_label=True,
        threshold=np.array([0.5, 0.3]),
    )
    assert found.threshold == (0.5, 0.3)
    assert with_thresholds(found, choose_thresholds(found)).accuracy == 1
    with pytest.raises(ValueError, match="allowed are finite numbers"):
        with_thresholds(found, {"a": float("nan"), "b": 0.5})


def test_clips_remember_a_declared_background(tmp_path: Path) -> None:
    write_folder(tmp_path, per_class=1)
    wave = tmp_path / "low" / "1-low00.wav"
    wave.with_suffix(".txt").write_text("0.1\t0.5\tdog\n")
    clips = Clips.from_annotations(wave.parent, background="quiet", background_seconds=0.1)
    assert clips.background == clips[[1, 0]].background == "quiet"
    assert clips.relabel({"quiet": "rest"}).background == "rest"
    assert clips.filter(labels="dog").background is None
    assert clips.filter(labels="dog").merge(clips).background == "quiet"
    clips.save(tmp_path / "t.json")
    assert Clips.from_saved(tmp_path / "t.json").background == "quiet"


def test_training_remembers_the_background_of_its_clips() -> None:
    rng = np.random.default_rng(4)
    labels = [kind for kind in KINDS for _ in range(4)]
    clips = Clips.from_arrays([sound(kind, rng) for kind in labels], labels, sample_rate=16_000)
    trained = train_classifier(
        replace(clips, background="noise"),
        backbone="yamnet_mini",
        embedding="layer2",
        hidden=(),
        fit=FitOptions(epochs=1),
    )
    assert Predictor(trained.model).options.background == "noise"


def test_the_command_line_takes_a_score_for_each_class(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps({"a": 0.5}))
    assert class_scores("0.4") == 0.4
    assert class_scores("a=b=0.4, c=1") == {"a=b": 0.4, "c": 1.0}
    assert class_scores(str(tmp_path / "t.json")) == {"a": 0.5}
    import typer

    for wrong in ("1.5", "nan", "a=2", "loud", str(tmp_path / "none.json")):
        with pytest.raises(typer.BadParameter):
            class_scores(wrong)


def test_only_line_feeds_part_class_names() -> None:
    assert label_lines("a\u2028b\nc\x85\x0cd\ne".encode()) == ("a\u2028b", "c\x85\x0cd", "e")
    assert label_lines(b"a\r\nb\r\n") == ("a", "b")
    assert label_lines(b"") == ()
