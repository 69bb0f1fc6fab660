"""Heads on the sequence of a clip's patches: order, padding, training on cached embeddings, saving, export."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from tests.helpers.commands import call
from tests.helpers.sounds import write_folder
from tfaudiotl.classifiers.anatomy import parts
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.classifiers.heads import AttentionPooling, Head, LastPatch, PatchStatistics, SequenceHead
from tfaudiotl.data.clips import Clips
from tfaudiotl.errors import choices
from tfaudiotl.export.tflite import export_tflite
from tfaudiotl.runtime.load import open_artifact
from tfaudiotl.training.head import Examples, clip_scores, fit_head, new_head
from tfaudiotl.training.options import FitOptions
from tfaudiotl.training.train import train_classifier

CLASSES = ["up", "down"]
ORDERED = ("gru", "lstm", "conv")  # heads that tell a sequence from its reverse


def classifier(head: str, stand_in: Path, **options: object) -> keras.Model:
    settings: dict[str, object] = {"embedding": "layer3", "hidden": (16,), "seed": 1, **options}
    return build_classifier("yamnet", class_names=CLASSES, head=head, weights=str(stand_in), **settings)  # type: ignore[arg-type]


def noise(seconds: float, clips: int = 1) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (clips, int(seconds * 16_000))).astype(np.float32)


def ramps(clips: int, seed: int) -> Examples:
    """Sequences that rise or fall; each vector alone says nothing of which."""
    rng = np.random.default_rng(seed)
    labels, counts = np.arange(clips) % 2, rng.integers(4, 9, clips)
    rows = [np.linspace(-1, 1, n) * (1 if label == 0 else -1) for label, n in zip(labels, counts, strict=True)]
    vectors = np.concatenate(rows)[:, None] * np.ones(128) + rng.normal(0, 0.1, (counts.sum(), 128))
    return Examples(vectors.astype(np.float32), counts, np.eye(2, dtype=np.float32)[labels], np.ones(clips, np.float32))


@pytest.mark.parametrize("head", choices(Head))
def test_padding_does_not_change_the_result(head: str, stand_in: Path) -> None:
    model = classifier(head, stand_in)
    waveform = noise(2.2, clips=2)
    np.testing.assert_allclose(model(waveform), model(np.pad(waveform, ((0, 0), (0, 50_000)))), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("head", choices(SequenceHead))
def test_a_saved_model_gives_the_same(head: str, stand_in: Path, tmp_path: Path) -> None:
    model = classifier(head, stand_in, multi_label=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(loaded(noise(3, clips=2)), model(noise(3, clips=2)), atol=1e-6)


@pytest.mark.parametrize("head", ORDERED)
def test_order_is_learned_from_cached_embeddings(head: str, stand_in: Path) -> None:
    network = new_head(parts(classifier(head, stand_in)).head)
    train, val = ramps(80, 0), ramps(40, 1)
    fit_head(network, train, val, FitOptions(epochs=30, learning_rate=0.01, patience=30))
    assert (clip_scores(network, val).argmax(axis=1) == val.targets.argmax(axis=1)).mean() > 0.9


def test_attention_finds_the_patch_that_matters(stand_in: Path) -> None:
    """One patch in twelve tells the class, and it alone is large in some numbers."""
    rng, clips = np.random.default_rng(0), 400
    labels, place = np.arange(clips) % 2, rng.integers(12, size=clips)
    vectors = rng.normal(0, 1, (clips, 12, 128))
    vectors[np.arange(clips), place, :8] = 6
    vectors[np.arange(clips), place, 8:16] += 3 * (1 - 2 * labels)[:, None]
    data = Examples(
        vectors.reshape(-1, 128).astype(np.float32),
        np.full(clips, 12),
        np.eye(2, dtype=np.float32)[labels],
        np.ones(clips, np.float32),
    )
    network = new_head(parts(classifier("attention", stand_in, hidden=())).head)
    train, val = data.take(np.arange(300)), data.take(np.arange(300, clips))
    fit_head(network, train, val, FitOptions(epochs=20, learning_rate=0.005, patience=20))
    assert (clip_scores(network, val).argmax(axis=1) == val.targets.argmax(axis=1)).mean() > 0.9
    pooling = network.get_layer("head_attention")
    _, judged, _ = keras.Model(network.inputs, pooling.input)(val.sequences(np.arange(len(val))))
    found = np.asarray(judged)[..., 0].argmax(axis=1)
    assert (found == place[300:]).mean() > 0.3  # chance is 0.08


def test_pooling_layers_by_hand() -> None:
    x = np.array([[[1.0, 2.0], [3.0, 4.0], [50.0, 60.0]]])
    valid = np.array([[1.0, 1.0, 0.0]])
    np.testing.assert_allclose(LastPatch()([x, valid]), [[3.0, 4.0]])
    judged = np.log(np.array([[[1.0], [3.0], [9.0]]]))
    np.testing.assert_allclose(AttentionPooling()([x, judged, valid]), [[2.5, 3.5]], rtol=1e-6)


def test_statistics_by_hand() -> None:
    x = np.array([[[1.0, -2.0], [3.0, -4.0], [50.0, 60.0]], [[7.0, -1.0], [9.0, 9.0], [9.0, 9.0]]])
    valid = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    found = PatchStatistics()([x, valid])
    np.testing.assert_allclose(found, [[2, -3, 1, 1, 3, -2], [7, -1, 0, 0, 7, -1]], rtol=1e-6)


def test_the_slope_of_a_deviation_of_nothing_is_a_number() -> None:
    x = tf.constant([[[7.0, -1.0], [0.0, 0.0]]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(PatchStatistics()([x, tf.constant([[1.0, 0.0]])]))
    np.testing.assert_allclose(tape.gradient(total, x), [[[2, 2], [0, 0]]])


def test_statistics_tell_what_the_mean_does_not(stand_in: Path) -> None:
    """Clips of two classes have the same mean, and differ in how much their patches differ."""
    rng, labels = np.random.default_rng(0), np.arange(200) % 2
    counts = rng.integers(4, 9, 200)
    vectors = rng.normal(0, 1 + np.repeat(labels, counts)[:, None], (counts.sum(), 128))
    data = Examples(vectors.astype(np.float32), counts, np.eye(2, dtype=np.float32)[labels], np.ones(200, np.float32))
    network = new_head(parts(classifier("statistics", stand_in, hidden=())).head)
    train, val = data.take(np.arange(150)), data.take(np.arange(150, 200))
    fit_head(network, train, val, FitOptions(epochs=20, learning_rate=0.005, patience=20))
    assert (clip_scores(network, val).argmax(axis=1) == val.targets.argmax(axis=1)).mean() > 0.9
    norm = network.get_layer("head_batch_norm")
    deviations = [part.std(axis=0) for part in np.split(train.vectors, np.cumsum(train.counts)[:-1])]
    np.testing.assert_allclose(norm.moving_mean[128:256], np.mean(deviations, axis=0), rtol=1e-4)


@pytest.mark.parametrize("head", choices(Head))
def test_the_recipe_trains_every_head(head: str, stand_in: Path, tmp_path: Path) -> None:
    clips = Clips.from_directory(write_folder(tmp_path / "sounds", per_class=6))
    fit = FitOptions(epochs=15, learning_rate=0.02)
    result = train_classifier(clips, fit=fit, embedding="layer3", hidden=(16,), weights=str(stand_in), head=head)
    assert result.evaluation.accuracy == 1.0
    for row in range(len(result.held_out)):  # the model in the result is the one that was measured
        scores = result.model(result.held_out.load(row)[None])
        np.testing.assert_allclose(scores[0], result.evaluation.scores[row], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("head", choices(SequenceHead))
def test_tflite_in_built_in_operators(head: str, stand_in: Path, tmp_path: Path) -> None:
    model = classifier(head, stand_in)
    path = export_tflite(model, tmp_path / "model.tflite", samples=40_000)
    waveform = 0.3 * noise(2.5)
    waveform[:, 30_000:] = 0  # the last patch is padding
    found = open_artifact(path).scores(waveform)
    np.testing.assert_allclose(found, model(waveform), atol=1e-4)


@pytest.mark.parametrize("head", ["attention", "statistics", "average"])
def test_a_files_window_is_a_whole_clip(head: str, stand_in: Path, tmp_path: Path) -> None:
    path = export_tflite(classifier(head, stand_in), tmp_path / "model.tflite")
    assert Interpreter(model_path=str(path)).get_input_details()[0]["shape"].tolist() == [1, 161_520]  # 20 patches


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "transformer"}, "head='transformer': allowed are dense, average"),
        ({"head": "gru", "hidden": ()}, "head='gru' needs at least one width"),
        ({"head": "lstm", "input": "patches"}, "cannot go with input='patches'"),
        ({"head": "conv", "aggregate": "embeddings"}, "cannot go with aggregate='embeddings'"),
    ],
)
def test_what_cannot_be_is_named(options: dict[str, object], message: str, stand_in: Path) -> None:
    with pytest.raises(ValueError, match=message):
        classifier(stand_in=stand_in, **options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_command_trains_and_exports_one(stand_in: Path, tmp_path: Path) -> None:
    sounds = write_folder(tmp_path / "sounds", per_class=4)
    options = ["--weights", stand_in, "--embedding", "layer3", "--head", "gru", "--hidden", "8", "--epochs", "15"]
    result = call("train", sounds, "-o", tmp_path / "out", *options, "--learning-rate", "0.02")
    assert "agreement with Keras 1.0000" in result.output
    wrong = call("train", sounds, "-o", tmp_path / "other", "--weights", stand_in, "--head", "mlp", code=2)
    assert "Invalid value for '--head'" in wrong.output
    assert "'mlp' is not one of 'dense'" in wrong.output
