"""Plain fit on what was computed once: the same training, of the classifier itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tfaudiotl as tl
from tests.helpers.sounds import tone, write
from tfaudiotl.errors import AudioError, AudioErrors
from tfaudiotl.training.activation_cache import whole_model

CLASSES = ["high", "low"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tl.Clips:
    """Six of each class, of 0.4 to 1.9 s, so that some are padded."""
    folder, rng = tmp_path_factory.mktemp("embedded"), np.random.default_rng(0)
    for name, frequency in (("low", 300.0), ("high", 2_000.0)):
        for number in range(6):
            sound = tone(0.4 + 0.3 * number, 16_000, frequency=frequency)
            write(folder / name / f"{number}.wav", sound + 0.05 * rng.normal(size=len(sound)).astype(np.float32))
    return tl.Clips.from_directory(folder)


def build(**options: Any) -> keras.Model:
    options = {"embedding": "layer3", **options}
    return tl.build_classifier("yamnet_mini", class_names=CLASSES, seed=3, weights="audioset", **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"head": "average"},
        {"head": "gru", "hidden": (8,)},
        {"embedding": ["layer2", "layer4"], "multi_label": True},
    ],
    ids=str,
)
def test_fitting_the_head_is_fitting_the_model(clips: tl.Clips, options: dict[str, Any]) -> None:
    model = build(**options)
    whole = whole_model(build(**options))  # padding counts in no statistics, as in the head
    whole.compile_from_config(model.get_compile_config())
    order: dict[str, Any] = {"batch_size": 5, "shuffle": True, "seed": 1}
    expected = whole.fit(clips.dataset(**order), epochs=2, verbose=0).history
    head = tl.head_model(model)
    found = head.fit(tl.embedded(model, clips, **order), epochs=2, verbose=0).history
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=2e-3)
    waveforms = next(iter(clips.dataset(batch_size=12)))[0]
    np.testing.assert_allclose(model(waveforms), whole(waveforms), atol=2e-3)  # model itself was trained
    (vectors, valid), targets = next(iter(tl.embedded(model, clips, batch_size=12)))
    np.testing.assert_allclose(head([vectors, valid]), model(waveforms), atol=1e-4)
    np.testing.assert_array_equal(targets, clips.targets)
    assert {id(variable) for variable in head.variables} <= {id(variable) for variable in model.variables}
    assert model.evaluate(clips.dataset(), verbose=0) == pytest.approx(
        head.evaluate(tl.embedded(model, clips), verbose=0), abs=1e-3
    )


def test_fitting_the_head_is_plain_fit_where_nothing_is_padded(clips: tl.Clips) -> None:
    whole, model = build(), build()
    order: dict[str, Any] = {"batch_size": 8, "shuffle": True, "seed": 1, "window_seconds": 0.4}
    expected = whole.fit(clips.dataset(**order), epochs=2, verbose=0).history
    found = tl.head_model(model).fit(tl.embedded(model, clips, **order), epochs=2, verbose=0).history
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=2e-3)


def test_the_head_is_compiled_as_the_model_is() -> None:
    model = build(multi_label=True)
    model.compile(keras.optimizers.SGD(0.125), "mse", metrics=["mae"])
    head = tl.head_model(model)
    assert isinstance(head.optimizer, keras.optimizers.SGD)
    assert head.optimizer is not model.optimizer
    assert float(head.optimizer.learning_rate) == 0.125
    assert head.loss == "mse"


def test_weights_and_windows_are_those_of_the_dataset(clips: tl.Clips) -> None:
    model = build()
    table = tl.Clips.from_files(clips.paths, [label[0] for label in clips.labels], weights=list(map(float, range(12))))
    rows = list(tl.embedded(model, table, window_seconds=0.5, batch_size=7, drop_remainder=True))
    expected = list(table.dataset(window_seconds=0.5, batch_size=7, drop_remainder=True))
    assert len(rows) == len(expected) > 2
    for (_, targets, weights), (_, other_targets, other_weights) in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(targets, other_targets)
        np.testing.assert_array_equal(weights, other_weights)


@pytest.mark.parametrize("trainable", [1, "all"])
def test_a_network_that_trains_is_refused(clips: tl.Clips, trainable: int | str) -> None:
    model = build(trainable=trainable)
    for make in (lambda: tl.head_model(model), lambda: tl.embedded(model, clips)):
        with pytest.raises(ValueError, match=r"its network trains from layer .* use fine_tune\(model, \.\.\.\)"):
            make()


def test_what_is_no_classifier_of_these_clips_is_refused(clips: tl.Clips) -> None:
    for model in (tl.YAMNetMini(), build(input="patches")):
        with pytest.raises(ValueError, match=r"is no classifier of build_classifier|takes no waveforms"):
            tl.head_model(model)
    other = tl.build_classifier("yamnet_mini", class_names=["low", "high"], weights="audioset")
    with pytest.raises(ValueError, match=r"clips has the classes \['high', 'low'\], the model \['low', 'high'\]"):
        tl.embedded(other, clips)
    with pytest.raises(ValueError, match="batch_size=0"):
        tl.embedded(build(), clips, batch_size=0)


def test_unusable_sounds_are_raised_or_left_out(clips: tl.Clips, tmp_path: Path) -> None:
    broken = np.full(1_000, np.nan, np.float32)
    path = write(tmp_path / "nan.wav", broken, 16_000, "FLOAT")
    table = tl.Clips.from_files([*clips.paths, path], [*(label[0] for label in clips.labels), "low"])
    with pytest.raises(AudioErrors):
        tl.embedded(build(), table)
    log: list[AudioError] = []
    rows = sum(len(targets) for _, targets in tl.embedded(build(), table, on_error="skip", log=log))
    assert (rows, [error.path for error in log]) == (12, [str(path)])
