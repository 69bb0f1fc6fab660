"""Numbers that are none: named with their clip or their training, never dropped and never averaged over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf

from tests.helpers.training import examples, head
from tfaudiotl.backbones.convnet import ConvNet
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.classifiers.heads import compile_classifier
from tfaudiotl.data.clips import Clips
from tfaudiotl.embeddings.extract import embed
from tfaudiotl.errors import AudioErrors, DivergedError, WeightsError
from tfaudiotl.training.fine_tune import fine_tune
from tfaudiotl.training.head import fit_head
from tfaudiotl.training.options import FitOptions
from tfaudiotl.training.train import by_clip, evaluate_clips, train_classifier

WINDOW = 4_000
FIT = FitOptions(epochs=2)


class ByLoudness(tf.Module):
    """A network that divides by the loudness of its window: a silent one gives NaN."""

    @tf.function(input_signature=[tf.TensorSpec([None, WINDOW], tf.float32)])
    def __call__(self, sound: Any) -> Any:
        level = tf.reduce_mean(tf.abs(sound), axis=1, keepdims=True)
        parts = tf.reduce_mean(tf.abs(tf.reshape(sound, (-1, 8, WINDOW // 8))), axis=2)
        return parts / level


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("hub") / "by_loudness"
    tf.saved_model.save(ByLoudness(), str(folder))
    return {"backbone": f"hub:{folder}", "backbone_options": {"sample_rate": 16_000}, "hidden": ()}


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    """Sixteen clips of two windows; of two of them the first window is silence."""
    rng = np.random.default_rng(0)
    paths = []
    for row in range(16):
        wave = rng.uniform(-0.5, 0.5, 2 * WINDOW) * np.repeat([1, 1 if row % 2 else 0.1], WINDOW)
        if row in (3, 8):
            wave[:WINDOW] = 0
        soundfile.write(tmp_path / f"{row:02d}.wav", wave, 16_000)
        paths.append(str(tmp_path / f"{row:02d}.wav"))
    return Clips.from_files(paths, ["a", "b"] * 8, folds=["1", "1", "2", "2"] * 4)


def test_embeddings_that_are_none_name_the_clips(network: dict[str, Any], clips: Clips) -> None:
    with pytest.raises(AudioErrors, match=r"(?s)03\.wav.*NaN or infinite.*08\.wav"):
        train_classifier(clips, fit=FIT, **network)


def test_clips_whose_embeddings_are_none_are_listed_when_skipped(network: dict[str, Any], clips: Clips) -> None:
    result = train_classifier(clips, folds="given", fit=FIT, on_error="skip", **network)
    assert [Path(error.path).name for error in result.skipped] == ["03.wav", "08.wav"]
    assert len(result.held_out) == len(result.evaluation.scores) == 14
    assert np.isfinite(result.evaluation.scores).all()


def test_scores_that_are_none_name_the_clips(clips: Clips) -> None:
    scores = np.full((16, 2), 0.5)
    scores[5, 1] = np.nan
    with pytest.raises(ValueError, match=r"1 of 16 clips have scores that are not finite numbers: .*05\.wav"):
        evaluate_clips(clips, scores)


def test_a_head_that_diverges_says_so_and_keeps_nothing(tmp_path: Path) -> None:
    data = examples()
    spoilt = replace(data, targets=data.targets * np.float32(1e38))
    with pytest.raises(DivergedError, match=r"diverged: loss is (nan|inf) in epoch 1; a lower learning rate helps"):
        fit_head(head(), spoilt, None, FitOptions(epochs=3, learning_rate=1e30), checkpoint=tmp_path / "train.npz")
    assert not (tmp_path / "train.npz").exists()


def test_vectors_that_are_none_are_refused() -> None:
    data = examples()
    vectors = data.vectors.copy()
    vectors[4, 2] = np.inf
    with pytest.raises(ValueError, match="val has embeddings that are not finite"):
        fit_head(head(), data, replace(data, vectors=vectors), FIT)


def test_loss_scaling_goes_by_the_layers_not_by_the_session(tmp_path: Path) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    head().save(tmp_path / "half.keras")
    keras.config.set_dtype_policy("float32")
    loaded = keras.saving.load_model(tmp_path / "half.keras")
    compile_classifier(loaded, multi_label=False)
    assert isinstance(loaded.optimizer, keras.optimizers.LossScaleOptimizer)
    single = head()
    compile_classifier(single, multi_label=False)
    assert not isinstance(single.optimizer, keras.optimizers.LossScaleOptimizer)


def test_folds_may_be_called_anything(network: dict[str, Any], clips: Clips, tmp_path: Path) -> None:
    """Names alike but for blanks, case and underscores, and one with a slash: each has its own state."""
    names = np.array(["x y", "x_y", "X y", "site/A"])
    usable = clips[[row for row in range(16) if row not in (3, 8)]]
    table = replace(usable, fold=names[(np.arange(14) // 2) % 4])
    kept = train_classifier(table, folds="given", fit=FIT, workdir=tmp_path / "w", **network)
    free = train_classifier(table, folds="given", fit=FIT, **network)
    np.testing.assert_allclose(kept.evaluation.scores, free.evaluation.scores, atol=1e-6)
    assert {fold.name for fold in kept.folds} == set(names)


def test_a_store_names_the_clips_too(network: dict[str, Any], clips: Clips, tmp_path: Path) -> None:
    options = {"backbone_options": network["backbone_options"]}
    for store in (None, tmp_path / "store"):
        with pytest.raises(AudioErrors, match="2 of 16 sounds"):
            embed(network["backbone"], list(clips.paths), store=store, **options)


def test_only_the_mask_says_which_windows_were_scored() -> None:
    scores = np.array([[np.nan, 0.5], [0.25, 0.75], [0.0, 0.0]])
    rows, found = by_clip(scores, np.array([True, True, False]), np.array([0, 1, 2]), np.ones(3, int))
    assert rows.tolist() == [0, 1]
    assert np.isnan(found[0, 0])  # kept, for the evaluation to refuse


def test_a_fine_tuning_that_diverges_says_so(clips: Clips) -> None:
    model = build_classifier("yamnet_mini", class_names=clips.class_names, embedding="layer2", hidden=(), seed=0)
    bias = model.get_layer("head_logits").bias
    bias.assign(np.full(bias.shape, np.nan))
    with pytest.raises(DivergedError, match="head: the training diverged: loss is nan in epoch 1"):
        fine_tune(model, clips, trainable=0, head_epochs=2, verbose=False)


def test_weights_files_with_none_are_refused(tmp_path: Path) -> None:
    network = ConvNet(weights=None, include_top=False)
    variable = network.weights[0]
    variable.assign(np.full(variable.shape, np.nan))
    network.save_weights(tmp_path / "broken.weights.h5")
    with pytest.raises(WeightsError, match="not finite"):
        ConvNet(weights=str(tmp_path / "broken.weights.h5"), include_top=False)


@pytest.mark.parametrize("weight", [np.nan, np.inf, 1e39, -1.0])
def test_a_clip_weight_must_fit_a_float32(weight: float, clips: Clips) -> None:
    with pytest.raises(ValueError, match=r"weights\[1\]="):
        Clips.from_files(clips.paths[:2], ["a", "b"], weights=[1.0, weight])
