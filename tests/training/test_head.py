"""Heads on cached embeddings: learning, early stopping, weights, and checkpoints that lose nothing."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.helpers.training import examples, head
from tfaudiotl.classifiers.heads import dense_head, sequence_head
from tfaudiotl.training.checkpoint import first_as_good
from tfaudiotl.training.head import Examples, clip_scores, fit_head, new_head
from tfaudiotl.training.options import FitOptions, balanced_loss, balanced_weights


def rare_first_class(data: Examples) -> Examples:
    """With one clip of the first class."""
    first = data.targets[:, 0] == 1
    return data.take(np.concatenate([np.flatnonzero(first)[:1], np.flatnonzero(~first)]))


def accuracy(model: keras.Model, data: Examples) -> float:
    return float((clip_scores(model, data).argmax(axis=1) == data.targets.argmax(axis=1)).mean())


@pytest.mark.parametrize(
    "options",
    [
        {"class_weight": "balanced"},
        {"class_weight": None, "sampling": "balanced"},
        {"class_weight": "balanced", "loss": "focal"},
    ],
)
def test_remedies_for_imbalance_give_a_rare_class_back(options: dict[str, Any]) -> None:
    data, val = examples(150, spread=2.5), examples(150, seed=1, spread=2.5)
    rare = np.concatenate([np.flatnonzero(data.targets[:, 0])[:3], np.flatnonzero(data.targets[:, 0] == 0)])

    def recall(**chosen: Any) -> float:
        model = head(hidden=())
        fit_head(model, data.take(rare), None, FitOptions(epochs=30, learning_rate=0.01, **chosen))
        of_class = clip_scores(model, val)[val.targets[:, 0] == 1]
        return float((of_class.argmax(axis=1) == 0).mean())

    assert recall(**options) > recall(class_weight=None) + 0.1


def test_variants_are_examples_of_their_own() -> None:
    data = examples(6)
    more = data.with_variants([data.take(np.array([0, 1]))])
    assert len(more) == 8
    np.testing.assert_array_equal(more.take(np.array([6, 7])).vectors, data.take(np.array([0, 1])).vectors)


def test_options_for_imbalance_that_cannot_be() -> None:
    for options, message in [
        ({"sampling": "balanced", "class_weight": "balanced"}, "class_weight=None"),
        ({"sampling": "most", "class_weight": None}, "sampling='most'"),
        ({"loss": "hinge"}, "loss='hinge'"),
    ]:
        with pytest.raises(ValueError, match=message):
            FitOptions(**options)  # type: ignore[arg-type]


def test_examples_take_the_rows_of_clips() -> None:
    data = examples(7)
    taken = data.take(np.array([4, 1]))
    starts = np.cumsum(data.counts) - data.counts
    expected = [data.vectors[starts[i] : starts[i] + data.counts[i]] for i in (4, 1)]
    np.testing.assert_array_equal(taken.vectors, np.concatenate(expected))
    np.testing.assert_allclose(taken.mean_by_clip(taken.vectors), [rows.mean(axis=0) for rows in expected], rtol=1e-5)


def test_learns_and_stops_early_with_the_best_weights() -> None:
    model, data, val = head(), examples(), examples(30, seed=1)
    fitted = fit_head(model, data, val, FitOptions(epochs=200, learning_rate=0.02, patience=3))
    losses = fitted.history["val_loss"]
    assert len(losses) < 200
    assert fitted.best_epochs == 1 + int(np.argmin(losses)) == len(losses) - 3
    scores = clip_scores(model, val)
    loss = -np.log((scores * val.targets).sum(axis=1)).mean()
    assert loss == pytest.approx(min(losses), rel=1e-4)  # the weights of the best epoch, not the last
    assert accuracy(model, val) > 0.8
    assert fitted.history["val_accuracy"][fitted.best_epochs - 1] == pytest.approx(accuracy(model, val))


def test_the_first_epoch_as_good_as_the_best() -> None:
    losses = [0.9, 0.5, 0.41, 0.45, 0.4, 0.6]
    assert first_as_good({"val_loss": losses}) == 4
    assert first_as_good({"val_loss": losses, "val_loss_error": [9.0, 0.1, 0.1, 0, 0.02, 9.0]}) == 2
    assert first_as_good({"val_loss": losses, "val_loss_error": [0.0, 0.1, 0.1, 0, 0.2, 0.0]}) == 1


def test_what_is_out_of_the_bound_stays_out_when_the_error_grows() -> None:
    """Its weights are gone by then."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        history = {"val_loss": rng.uniform(0, 1, 20).tolist(), "val_loss_error": rng.uniform(0, 0.5, 20).tolist()}
        firsts = [first_as_good({name: values[:n] for name, values in history.items()}) for n in range(1, 21)]
        assert firsts == sorted(firsts)


def test_with_a_rare_class_training_ends_as_soon_as_it_is_as_good() -> None:
    data, val = examples(150, spread=2.5), examples(150, seed=1, spread=2.5)
    for held, weighted in ((val, False), (rare_first_class(val), True)):
        model = head()
        fitted = fit_head(model, data, held, FitOptions(learning_rate=0.01))
        errors, losses = fitted.history["val_loss_error"], fitted.history["val_loss"]
        assert (max(errors) > 0.05) if weighted else (max(errors) < 1e-6)
        assert (fitted.best_epochs < 1 + int(np.argmin(losses))) == weighted
        scores = clip_scores(model, held)  # the weights are that epoch's
        assert fitted.history["val_accuracy"][fitted.best_epochs - 1] == pytest.approx(accuracy(model, held))
        weights = balanced_weights(held.targets) if weighted else None
        loss = np.average(-np.log((scores * held.targets).sum(axis=1)), weights=weights)
        assert loss == pytest.approx(losses[fitted.best_epochs - 1], rel=1e-3)


def test_each_epoch_hears_each_clip_once_as_it_is_or_changed() -> None:
    data, val = examples(60), examples(30, seed=1)
    deaf = replace(data, vectors=np.zeros_like(data.vectors))
    steps: list[int] = []
    for variants in ([], [data, data]):
        model, options = head(), FitOptions(epochs=60, learning_rate=0.02, batch_size=20)
        fit_head(model, deaf, None, options, variants=variants)
        steps.append(int(model.optimizer.iterations))
        assert (accuracy(model, val) > 0.6) == bool(variants)
    assert steps == [180, 180]


def test_without_validation_all_epochs_run() -> None:
    fitted = fit_head(head(), examples(), None, FitOptions(), epochs=4)
    assert len(fitted.history["loss"]) == fitted.best_epochs == 4


def test_standardises_exactly() -> None:
    model, data = head(), examples()
    fit_head(model, data, None, FitOptions(), epochs=1)
    norm = model.get_layer("head_batch_norm")
    np.testing.assert_allclose(norm.moving_mean, data.vectors.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, data.vectors.var(axis=0), rtol=1e-4)


def test_same_seed_same_weights() -> None:
    data, runs = examples(), []
    for seed in (5, 5, 6):
        model = new_head(head(seed=seed))
        fit_head(model, data, None, FitOptions(seed=seed), epochs=2)
        runs.append(model.get_weights())
    assert all(np.array_equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(runs[0], runs[2], strict=True))


def test_balanced_weights_are_sklearns() -> None:
    from sklearn.utils.class_weight import compute_sample_weight

    labels = np.array([0, 0, 0, 0, 0, 1, 2, 2])
    targets = np.eye(4)[labels]  # the fourth class has no clip
    np.testing.assert_allclose(balanced_weights(targets), compute_sample_weight("balanced", labels))


@pytest.mark.parametrize(
    ("options", "weighted"),
    [
        ({"class_weight": "balanced"}, True),
        ({"class_weight": None, "sampling": "balanced"}, True),
        ({"class_weight": None}, False),
    ],
)
def test_held_out_clips_weigh_what_they_do_in_training(options: dict[str, Any], weighted: bool) -> None:
    from sklearn.utils.class_weight import compute_sample_weight

    data = examples(200)
    labels = data.targets.argmax(axis=1)
    rare = data.take(np.concatenate([np.flatnonzero(labels == 0)[:3], np.flatnonzero(labels > 0)]))
    model = head()
    fitted = fit_head(model, data, rare, FitOptions(**options), epochs=1)
    losses = -np.log((clip_scores(model, rare) * rare.targets).sum(axis=1))
    weights = compute_sample_weight("balanced", rare.targets.argmax(axis=1)) if weighted else None
    assert fitted.history["val_loss"][0] == pytest.approx(np.average(losses, weights=weights), rel=1e-4)


def test_class_weights_give_rare_classes_their_say() -> None:
    data = examples(300, spread=2.0)
    labels = data.targets.argmax(axis=1)
    rare = data.take(np.concatenate([np.flatnonzero(labels == 0)[:6], np.flatnonzero(labels > 0)]))
    recalls = {}
    for class_weight in ("balanced", None):
        model = head(hidden=())
        fit_head(model, rare, None, FitOptions(class_weight=class_weight, learning_rate=0.02), epochs=20)
        test = examples(300, seed=7, spread=2.0)
        of_class = test.targets[:, 0] == 1
        recalls[class_weight] = (clip_scores(model, test)[of_class].argmax(axis=1) == 0).mean()
    assert recalls["balanced"] > recalls[None] + 0.1


def test_multi_label_head_learns_independent_classes() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, (80, 3)).astype(np.float32)
    vectors = np.concatenate([targets * 2 - 1, rng.normal(size=(80, 5))], axis=1).astype(np.float32)
    data = Examples(vectors, np.ones(80, int), targets, np.ones(80, np.float32))
    model = head(multi_label=True)
    fitted = fit_head(model, data, data, FitOptions(class_weight=None, learning_rate=0.02, epochs=40))
    assert fitted.history["val_accuracy"][-1] > 0.98
    np.testing.assert_array_equal(clip_scores(model, data) > 0.5, targets > 0.5)


class Killed(Exception):
    pass


@pytest.mark.parametrize("killed_after", [1, 4, 7])
@pytest.mark.parametrize("with_val", [True, False])
def test_a_killed_training_goes_on_bit_for_bit(killed_after: int, with_val: bool, tmp_path: Path) -> None:
    template, data = head(), examples()
    val = rare_first_class(examples(30, seed=1)) if with_val else None
    options = FitOptions(epochs=10, learning_rate=0.05, patience=4)
    whole = new_head(template)
    expected = fit_head(whole, data, val, options)

    def kill(epoch: int, logs: dict[str, float]) -> None:
        if epoch == killed_after:
            raise Killed

    path = tmp_path / "state.npz"
    if killed_after < len(expected.history["loss"]):
        with pytest.raises(Killed):
            fit_head(new_head(template), data, val, options, checkpoint=path, on_epoch=kill)
    again = new_head(template)
    epochs_run: list[int] = []
    fitted = fit_head(again, data, val, options, checkpoint=path, on_epoch=lambda e, logs: epochs_run.append(e))
    assert epochs_run[0] == (killed_after + 1 if killed_after < len(expected.history["loss"]) else 1)
    assert fitted.history.keys() == expected.history.keys()
    for name, values in expected.history.items():
        assert fitted.history[name] == pytest.approx(values, rel=1e-6)
    for ours, theirs in zip(again.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_finished_training_is_not_run_again(tmp_path: Path) -> None:
    template, data, val = head(), examples(), rare_first_class(examples(30, seed=1))
    options = FitOptions(epochs=30, learning_rate=0.05, patience=3)
    first, path = new_head(template), tmp_path / "state.npz"
    fit_head(first, data, val, options, checkpoint=path)
    second = new_head(template)

    def never(epoch: int, logs: dict[str, float]) -> None:
        raise AssertionError(f"epoch {epoch} ran again")

    fit_head(second, data, val, options, checkpoint=path, on_epoch=never)
    for ours, theirs in zip(second.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 1.5}, "batch_size=1.5"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"patience": 0}, "patience=0"),
        ({"seed": -1}, "seed=-1"),
        ({"class_weight": "most"}, "class_weight='most': allowed are 'auto', 'balanced' and None"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FitOptions(**options)


@pytest.mark.parametrize("sequence", [False, True])
def test_a_finished_training_keeps_neither_its_data_nor_its_graphs(sequence: bool) -> None:
    """TensorFlow holds what feeds a dataset, and Keras's optimizers the graph of a step, until the process ends."""
    from tensorflow.python.framework.func_graph import FuncGraph

    def graphs() -> int:
        gc.collect()
        return sum(isinstance(found, FuncGraph) for found in gc.get_objects())

    def train() -> list[weakref.ref[Any]]:
        inputs, classes = keras.Input((None, 8)) if sequence else keras.Input((8,)), ["a", "b", "c"]
        if sequence:
            valid = keras.Input((None,))
            scores = sequence_head("gru", inputs, valid, classes, hidden=(4,), seed=0)
            model = keras.Model([inputs, valid], scores)
        else:
            model = keras.Model(inputs, dense_head(inputs, classes, hidden=(4,), seed=0))
        data, variant = examples(), examples(seed=3)
        fit_head(model, data, examples(30, seed=1), FitOptions(epochs=2), variants=[variant])
        return [weakref.ref(held) for held in (data, data.vectors, variant.vectors, model)]

    before = graphs()
    held = train()
    assert graphs() == before
    assert [found() for found in held] == [None] * 4


def test_class_weights_of_independent_classes_give_the_rare_one_its_say() -> None:
    """The loss weighs the yes and the no of each class alike, as scikit-learn's weights of two classes do."""
    from sklearn.utils.class_weight import compute_sample_weight

    rng = np.random.default_rng(1)
    targets = (rng.random((400, 3)) < [0.03, 0.5, 0.3]).astype(np.float32)
    scores = rng.uniform(0.05, 0.95, (400, 3)).astype(np.float32)
    each = -(targets * np.log(scores) + (1 - targets) * np.log(1 - scores))
    weights = np.stack([compute_sample_weight("balanced", column) for column in targets.T], axis=1)
    loss = balanced_loss(keras.losses.BinaryCrossentropy(), targets)
    np.testing.assert_allclose(loss(targets, scores), (each * weights).mean(), rtol=1e-4)

    vectors = np.concatenate([targets + rng.normal(0, 0.7, (400, 3)), rng.normal(size=(400, 5))], axis=1)
    data = Examples(vectors.astype(np.float32), np.ones(400, int), targets, np.ones(400, np.float32))
    recalls = {}
    for class_weight in ("balanced", "auto", None):
        model = head(multi_label=True, hidden=())
        fit_head(model, data, data, FitOptions(class_weight=class_weight, batch_size=100, learning_rate=0.1), epochs=5)
        recalls[class_weight] = (clip_scores(model, data)[targets[:, 0] == 1, 0] > 0.5).mean()
    assert recalls["balanced"] > recalls[None] + 0.3
    assert recalls["auto"] == recalls[None]


def test_clips_of_several_classes_weigh_what_they_are_drawn_for() -> None:
    targets = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0]], np.float32)
    np.testing.assert_allclose(balanced_weights(targets), 7 / 4 / np.array([3, 3, 3, 1, 2, 2, 1]))


def test_clips_held_out_that_all_weigh_nothing_are_refused() -> None:
    data = examples(6)
    with pytest.raises(ValueError, match="weights: every clip that is held out weighs 0"):
        fit_head(head(), data, replace(data, weights=np.zeros(6, np.float32)), FitOptions(epochs=1))
