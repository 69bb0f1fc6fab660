"""Fine-tuning: what learns, how fast, when it stops; the cache changes nothing, and a kill loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tfaudiotl as tl
from tests.helpers.sounds import KINDS, sound
from tests.helpers.training import QUICK, Steps, classifier, clips, examples, head
from tfaudiotl.augment.layers import MixUp
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.classifiers.edit import set_blocks
from tfaudiotl.data.clips import Clips
from tfaudiotl.errors import AudioErrors
from tfaudiotl.training.activation_cache import whole_model
from tfaudiotl.training.batches import checked_augment
from tfaudiotl.training.fine_tune import FineTuned, fine_tune
from tfaudiotl.training.head import fit_head
from tfaudiotl.training.optimizers import BlockAdam, block_factors, cosine
from tfaudiotl.training.options import FineTuneOptions, FitOptions, loss_of


def test_head_then_blocks_and_an_ordinary_model_again(stand_in: Path, tmp_path: Path) -> None:
    model, train, val = classifier(stand_in), clips(10), clips(5, 1)
    before = {v.path: np.array(v) for v in model.variables}
    done = fine_tune(model, train, val, **{**QUICK, "head_epochs": 10, "epochs": 10, "learning_rate": 2e-3})
    assert list(done.histories) == ["head", "blocks"]
    assert done.histories["blocks"]["val_loss"][-1] < done.histories["head"]["val_loss"][0]
    assert tl.evaluate(model, val).accuracy > 0.8
    changed = {v.path.split("/")[0] for v in model.variables if not np.array_equal(before[v.path], v)}
    assert {"layer3_depthwise_conv", "layer3_pointwise_conv", "head_dense_1", "head_logits"} <= changed
    assert not [name for name in changed if name.startswith(("layer1", "layer2")) or name.endswith("_bn")]
    model.fit(train.dataset(batch_size=6), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = train.load(0)[None]
    np.testing.assert_allclose(loaded(x), model(x), rtol=1e-5)


def test_a_head_on_frequencies_learns_through_the_cache(stand_in: Path) -> None:
    model, train, val = classifier(stand_in, pooling="freq", hidden=()), clips(10), clips(5, 1)
    done = fine_tune(model, train, val, **{**QUICK, "head_epochs": 10, "learning_rate": 1e-3})
    assert np.isfinite(done.histories["blocks"]["val_loss"]).all()
    assert all(np.isfinite(np.array(variable)).all() for variable in model.variables)
    assert tl.evaluate(model, val).accuracy > 0.9


def test_a_trained_head_is_not_made_worse(stand_in: Path) -> None:
    model, val = classifier(stand_in), clips(5, 1)
    fine_tune(model, clips(10), val, **QUICK)
    before = tl.evaluate(model, val).scores
    fine_tune(model, clips(3, 2), val, **{**QUICK, "head_learning_rate": 1e-9, "learning_rate": 1e-9})
    np.testing.assert_allclose(tl.evaluate(model, val).scores, before, atol=1e-6)


@pytest.mark.parametrize(("backbone", "more"), [("rawnet2", {"window": 2_600}), ("convnet", {}), ("mobilenetv2", {})])
def test_other_backbones_with_their_own_dropout(backbone: str, more: dict[str, Any]) -> None:
    """A new head is standardised by what it hears, wherever the frozen part is cut off."""
    train = clips(2, seconds=(0.3, 0.4))
    model = build_classifier(
        backbone, class_names=train.class_names, weights=None, trainable=0, hidden=(), backbone_options=more
    )
    fine_tune(model, train, **{**QUICK, "trainable": 0, "head_epochs": 1})
    norm = model.get_layer("head_batch_norm")
    embed, rate = keras.Model(model.input, norm.input), get_backbone(backbone).frontend.sample_rate
    rows = np.concatenate([embed(train.load(row, sample_rate=rate)[None]) for row in range(len(train))])
    np.testing.assert_allclose(norm.moving_mean, rows.mean(axis=0), rtol=1e-3, atol=1e-3 * np.abs(rows).max())


@pytest.mark.parametrize("options", [{}, {"aggregate": "embeddings"}, {"head": "statistics"}])
def test_the_cache_changes_no_step(options: dict[str, Any], stand_in: Path) -> None:
    losses: dict[bool, list[float]] = {}
    weights: dict[bool, list[np.ndarray]] = {}
    for cache in (True, False):
        model, steps = classifier(stand_in, **options), Steps()
        fine_tune(model, clips(), clips(2, 1), cache=cache, callbacks=[steps], **{**QUICK, "epochs": 5, "patience": 9})
        losses[cache], weights[cache] = steps.losses, model.get_weights()
    assert len(losses[True]) == 3 * (2 + 5)
    np.testing.assert_allclose(losses[True], losses[False], atol=1e-4)
    for ours, theirs in zip(weights[True], weights[False], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


def with_a_long_one() -> Clips:
    rng = np.random.default_rng(3)
    waveforms = [sound(kind, rng, seconds=0.975) for kind in KINDS * 3]
    waveforms[4] = sound(KINDS[1], rng, seconds=6.0)  # the others are padded to its length
    return Clips.from_arrays(waveforms, KINDS * 3, sample_rate=16_000)


@pytest.mark.parametrize("options", [{}, {"head": "gru"}, {"head": "statistics"}])
def test_padding_is_in_no_statistics(options: dict[str, Any], stand_in: Path) -> None:
    """Cached, a short clip's padding is zeros; not cached it is the front-end's silence. Neither counts."""
    losses, norms, train = [], [], with_a_long_one()
    tuning = {**QUICK, "head_epochs": 0, "batch_size": 5, "batch_norm": "train", "trainable": 2}
    tuning["learning_rate"] = 1e-9  # Adam's steps are as long where gradients are rounding alone
    for cache in (True, False):
        model, steps = classifier(stand_in, **options), Steps()
        fine_tune(model, train, cache=cache, callbacks=[steps], **tuning)
        losses.append(steps.losses)
        norms.append([np.asarray(v) for v in model.variables if "moving" in v.path])
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-6)
    for ours, theirs in zip(*norms, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_statistics_are_those_of_the_patches_of_sound(stand_in: Path) -> None:
    train = with_a_long_one()
    model = classifier(stand_in)
    set_blocks(model, 2, batch_norm="train")
    norm = model.get_layer("layer2_depthwise_conv_bn")
    below = keras.Model(model.input, norm.input)
    expected = np.concatenate([below(train.load(row)[None]) for row in range(len(train))]).var(axis=(0, 1, 2))
    norm.momentum = 0.0  # the batch's own
    whole = whole_model(model)
    whole.compile("sgd", "categorical_crossentropy")
    whole.fit(next(iter(train.dataset(batch_size=9)))[0], train.targets, batch_size=9, epochs=1, verbose=0)
    np.testing.assert_allclose(norm.moving_variance, expected, rtol=1e-3)


def test_changed_sounds_may_be_shorter_and_are_changed_without_their_padding(stand_in: Path) -> None:
    train, given = clips(2), []

    def shorten(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        given.append(len(waveform))
        return waveform[: len(waveform) // 2]

    fine_tune(classifier(stand_in), train, augment=shorten, **{**QUICK, "cache": False, "epochs": 1})
    assert sorted(given) == sorted(len(train.load(row)) for row in range(len(train)))


def test_the_mild_augmentation_is_made_for_the_networks_sample_rate() -> None:
    rates = [checked_augment(True, sample_rate=rate).get_config() for rate in (16_000, 22_050)]
    assert rates[0] != rates[1]
    train = clips(1, seconds=(0.3, 0.4))
    model = build_classifier("convnet", class_names=train.class_names, weights=None, hidden=())
    asked: list[int] = []

    def noted(augment: Any, *, sample_rate: int) -> Any:
        asked.append(sample_rate)
        return checked_augment(augment, sample_rate=sample_rate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfaudiotl.training.fine_tune.checked_augment", noted)
        fine_tune(model, train, augment=True, **{**QUICK, "trainable": 0, "head_epochs": 1, "copies": 1})
    assert set(asked) == {22_050}


def test_weights_from_before_a_stage_stay_when_it_makes_nothing_better(stand_in: Path) -> None:
    model, train, val = classifier(stand_in), clips(), clips(2, 1)
    done = fine_tune(model, train, val, **{**QUICK, "learning_rate": 3.0, "warmup": 0.0, "epochs": 3})
    assert done.best_epochs["blocks"] == 0
    kernel = model.get_layer("layer3_pointwise_conv").kernel
    np.testing.assert_array_equal(kernel, classifier(stand_in).get_layer("layer3_pointwise_conv").kernel)


class Epochs(keras.callbacks.Callback):
    """How many epochs each training took."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[int] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.counts.append(0)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.counts[-1] += 1


def test_refit_learns_what_told_when_to_stop_for_as_many_epochs(stand_in: Path, tmp_path: Path) -> None:
    train, val = clips(4), clips(8, 1)
    options = {**QUICK, "head_epochs": 10, "epochs": 4, "learning_rate": 1e-3}
    losses = []
    for refit in (False, True):
        model, epochs = classifier(stand_in), Epochs()
        workdir = tmp_path / str(refit)
        done = fine_tune(model, train, val, refit=refit, callbacks=[epochs], workdir=workdir, **options)
        losses.append(model.evaluate(val.dataset(batch_size=8), verbose=0))
        best = [count for count in done.best_epochs.values() if count]
        assert epochs.counts[2:] == (best if refit else [])
        again = classifier(stand_in)  # what is done already is taken from the folder, and nothing runs
        fine_tune(again, train, val, refit=refit, callbacks=[epochs], workdir=workdir, **options)
        for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert len(epochs.counts) == 2 + len(best) * refit
    assert losses[1][0] < losses[0][0]


@pytest.mark.slow
def test_from_scratch_what_is_learned_is_seen_at_once(stand_in: Path) -> None:
    model = build_classifier("yamnet", class_names=sorted(KINDS), embedding="layer4", weights=None, hidden=(), seed=1)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = [norm.momentum for norm in norms]
    options = {"trainable": "all", "head_epochs": 0, "epochs": 16, "patience": 16, "batch_norm": "train"}
    done = fine_tune(model, clips(20), clips(10, 1), **{**QUICK, **options, "learning_rate": 2e-3})
    assert done.histories["blocks"]["accuracy"][-1] > 0.8
    assert done.histories["blocks"]["val_accuracy"][-1] > 0.8
    assert [norm.momentum for norm in norms] == before


def test_gradual_unfreezing_takes_one_block_more_each_time(stand_in: Path) -> None:
    done = fine_tune(classifier(stand_in), clips(), **{**QUICK, "trainable": 2, "epochs": 4, "gradual": True})
    assert list(done.histories) == ["head", "blocks 1", "blocks 2"]
    assert [len(history["loss"]) for history in done.histories.values()] == [2, 2, 2]


def test_everything_and_the_head_alone(stand_in: Path) -> None:
    model = classifier(stand_in)
    done = fine_tune(model, clips(), **{**QUICK, "trainable": "all", "head_epochs": 0, "batch_norm": "train"})
    assert list(done.histories) == ["blocks"]
    assert model.get_layer("layer1_conv_bn").trainable
    assert list(fine_tune(classifier(stand_in), clips(), **{**QUICK, "trainable": 0}).histories) == ["head"]


@pytest.mark.parametrize("cache", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_augmented_copies_are_drawn_and_validation_stays_clean(cache: bool, stand_in: Path) -> None:
    seen: list[int] = []

    def louder(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        seen.append(len(waveform))
        return waveform * rng.uniform(0.5, 2)

    histories = []
    for _ in range(2):
        options = {**QUICK, "cache": cache, "copies": 2}
        done = fine_tune(classifier(stand_in), clips(), clips(2, 1), augment=louder, **options)
        histories.append(done.histories)
    assert histories[0] == histories[1]
    # Cached: two copies of each of the 18; fresh: each of the 18 in both epochs with blocks.
    assert len(seen) == 2 * 2 * 18
    plain = fine_tune(classifier(stand_in), clips(), clips(2, 1), **{**QUICK, "cache": cache})
    assert plain.histories["blocks"]["loss"] != histories[0]["blocks"]["loss"]
    mild = fine_tune(classifier(stand_in), clips(), clips(2, 1), augment=True, **options)
    assert mild.histories["blocks"]["loss"] != plain.histories["blocks"]["loss"]


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("stage", "epoch"),
    [
        pytest.param("head", 0, marks=pytest.mark.slow),
        ("head", 1),
        ("blocks", 1),
        pytest.param("blocks", 3, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_training_goes_on_bit_for_bit(stage: str, epoch: int, stand_in: Path, tmp_path: Path) -> None:
    options = {**QUICK, "epochs": 4}
    whole = classifier(stand_in)
    expected = fine_tune(whole, clips(), clips(2, 1), workdir=tmp_path / "whole", **options)

    class Kill(keras.callbacks.Callback):
        """Stops in the middle of an epoch of a stage."""

        def __init__(self) -> None:
            super().__init__()
            self.stage, self.epoch = -1, 0

        def on_train_begin(self, logs: Any = None) -> None:
            self.stage += 1

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch = epoch

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if (["head", "blocks"][self.stage], self.epoch, batch) == (stage, epoch, 1):
                raise Killed

    with pytest.raises(Killed):
        fine_tune(classifier(stand_in), clips(), clips(2, 1), workdir=tmp_path / "w", callbacks=[Kill()], **options)
    again = classifier(stand_in)
    done = fine_tune(again, clips(), clips(2, 1), workdir=tmp_path / "w", **options)
    for name, history in expected.histories.items():
        for metric, values in history.items():
            assert done.histories[name][metric] == pytest.approx(values, abs=1e-6)
    for ours, theirs in zip(again.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_finished_training_is_not_run_again_and_another_is_refused(stand_in: Path, tmp_path: Path) -> None:
    first = classifier(stand_in)
    fine_tune(first, clips(), clips(2, 1), workdir=tmp_path, **QUICK)
    second, steps = classifier(stand_in), Steps()
    fine_tune(second, clips(), clips(2, 1), workdir=tmp_path, callbacks=[steps], **QUICK)
    assert steps.losses == []
    for ours, theirs in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match="another training \\(epochs: 2 then, 3 now\\)"):
        fine_tune(classifier(stand_in), clips(), clips(2, 1), workdir=tmp_path, **{**QUICK, "epochs": 3})


def test_a_line_per_epoch_and_tensorboard(stand_in: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard")
    fine_tune(classifier(stand_in), clips(), clips(2, 1), tensorboard=tmp_path, **{**QUICK, "verbose": True})
    lines = [line for line in capsys.readouterr().out.splitlines() if "left" in line]
    assert [line.split()[:2] for line in lines] == [
        ["head", "1/2"],
        ["head", "2/2"],
        ["blocks", "1/2"],
        ["blocks", "2/2"],
    ]
    assert "val_accuracy" in lines[0]
    assert list((tmp_path / "blocks").rglob("events*"))


def test_block_rates_scale_the_steps_of_their_layers(stand_in: Path) -> None:
    model = classifier(stand_in, trainable="all")
    factors = block_factors(model, 0.5)
    assert factors["layer3_pointwise_conv"] == 0.5
    assert factors["layer2_depthwise_conv"] == 0.25
    assert factors["layer1_conv"] == 0.125
    assert "head_logits" not in factors
    model.compile(BlockAdam(1e-3, factors=factors), "categorical_crossentropy")
    before = {v.path: np.array(v) for v in model.trainable_variables}
    x = np.random.default_rng(0).uniform(-1, 1, (6, 15_600)).astype(np.float32)
    model.fit(x, np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]], verbose=0)
    for layer, step in {"head_logits": 1e-3, "layer3_pointwise_conv": 5e-4, "layer1_conv": 1.25e-4}.items():
        moved = np.abs(np.asarray(model.get_layer(layer).kernel) - before[f"{layer}/kernel"])
        assert moved.max() == pytest.approx(step, rel=0.02)  # Adam's first step is the rate
    config = BlockAdam.from_config(BlockAdam(1e-3, factors=factors).get_config())
    assert config.factors == factors


def test_cosine_rises_and_falls() -> None:
    rate = cosine(1e-3, steps=100, warmup=0.1)
    values = [float(rate(step)) for step in range(101)]
    assert int(np.argmax(values)) == 10
    assert max(values) == pytest.approx(1e-3)
    assert values[0] == values[100] == pytest.approx(0, abs=1e-9)
    assert float(cosine(1e-3, steps=100, warmup=0.0)(0)) == pytest.approx(1e-3)


def test_losses_are_keras_own() -> None:
    y = np.array([[0.0, 1.0, 0.0]], np.float32)
    p = np.array([[0.2, 0.7, 0.1]], np.float32)
    assert float(loss_of(FineTuneOptions(), multi_label=False)(y, p)) == pytest.approx(-np.log(0.7), rel=1e-4)
    model, data = head(), examples(6)
    fit_head(model, data, None, FitOptions(epochs=1, loss="focal"))
    for focal in (loss_of(FineTuneOptions(loss="focal"), multi_label=False), model.loss):  # the same for both trainers
        assert float(focal(y, p)) == pytest.approx(-(0.3**2) * np.log(0.7), rel=1e-4)
    smooth = loss_of(FineTuneOptions(label_smoothing=0.3), multi_label=False)
    assert float(smooth(y, p)) == pytest.approx(-(0.8 * np.log(0.7) + 0.1 * np.log(0.2) + 0.1 * np.log(0.1)), rel=1e-4)
    binary = loss_of(FineTuneOptions(loss="focal"), multi_label=True)
    assert float(binary(y, y)) == pytest.approx(0, abs=1e-4)


def test_multi_label_classifiers(stand_in: Path) -> None:
    rng = np.random.default_rng(0)
    waveforms = [sound(kind, rng, seconds=1) for kind in KINDS * 4]
    table = Clips.from_arrays(
        waveforms, [["tone", kind] if kind != "noise" else [kind] for kind in KINDS * 4], sample_rate=16_000
    )
    model = build_classifier(
        "yamnet", class_names=table.class_names, embedding="layer3", weights=str(stand_in), multi_label=True, hidden=()
    )
    done = fine_tune(model, table, table, **{**QUICK, "head_epochs": 6, "head_learning_rate": 0.02})
    assert done.histories["head"]["val_accuracy"][-1] > 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainable": 9}, "^trainable=9: allowed are 0 to 3"),
        ({"trainable": "layer99"}, "^trainable='layer99': allowed are .*layer1, layer2, layer3"),
        ({"epochs": 0}, "epochs=0: allowed are whole numbers of at least 1"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0: allowed are numbers above 0"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0: allowed are numbers from 0 and below 1"),
        ({"augment": lambda x, rng: x, "copies": 0}, "copies=0: augment= needs"),
        ({"augment": True, "copies": 0}, "copies=0: augment= needs"),
        ({"augment": "mild"}, "augment='mild': expected True"),
        ({"augment": MixUp()}, "MixUp mixes clips"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str, stand_in: Path) -> None:
    with pytest.raises(ValueError, match=message):
        fine_tune(classifier(stand_in), clips(), **{**QUICK, **options})


def test_clips_of_other_classes_and_broken_ones_are_refused(stand_in: Path, tmp_path: Path) -> None:
    other = Clips.from_arrays([np.ones(16_000)] * 2, ["x", "y"], sample_rate=16_000)
    with pytest.raises(ValueError, match="val has the classes"):
        fine_tune(classifier(stand_in), clips(), other, **QUICK)
    patches = classifier(stand_in, input="patches")
    with pytest.raises(ValueError, match="takes no waveforms"):
        fine_tune(patches, clips(), **QUICK)
    paths = [tmp_path / f"{n}.wav" for n in range(3)]
    for path in paths:
        tl.write_audio(path, np.full(16_000, 0.1))
    table = Clips.from_files(paths, sorted(KINDS))
    paths[1].write_bytes(b"RIFF")
    with pytest.raises(AudioErrors, match=r"1\.wav"):
        fine_tune(classifier(stand_in), table, **QUICK)


KILL_DRIVER = """
import sys, json
from pathlib import Path
import numpy as np
from tests.helpers.training import QUICK, classifier, clips
from tfaudiotl.training.fine_tune import fine_tune
import keras, os, signal
work, stand_in, kill = sys.argv[1:]

class Kill(keras.callbacks.Callback):
    steps = 0
    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.steps == int(kill):
            os.kill(os.getpid(), signal.SIGKILL)

model = classifier(Path(stand_in))
done = fine_tune(model, clips(), clips(2, 1), workdir=work, callbacks=[Kill()], **{**QUICK, "epochs": 4})
np.savez(Path(work) / "end.npz", *model.get_weights(), metrics=json.dumps(done.histories))
"""


@pytest.mark.slow
def test_kill_9_in_the_middle_of_an_epoch(stand_in: Path, tmp_path: Path) -> None:
    def run(work: Path, kill: int) -> int:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        arguments = [str(work), str(stand_in), str(kill)]
        return subprocess.run([sys.executable, "-c", KILL_DRIVER, *arguments], env=environment, check=False).returncode

    assert run(tmp_path / "whole", 0) == 0
    assert run(tmp_path / "killed", 11) == -signal.SIGKILL  # the 2nd of the 3 steps of the blocks' 2nd epoch
    assert run(tmp_path / "killed", 0) == 0
    with np.load(tmp_path / "whole" / "end.npz") as whole, np.load(tmp_path / "killed" / "end.npz") as killed:
        assert str(whole["metrics"]) == str(killed["metrics"])
        for name in whole.files[:-1]:
            if name != "metrics":
                np.testing.assert_allclose(killed[name], whole[name], atol=1e-6)


def test_what_is_returned_says_what_it_cost(stand_in: Path) -> None:
    done = fine_tune(classifier(stand_in), clips(), **QUICK)
    assert isinstance(done, FineTuned)
    assert set(done.seconds) == {"cache", "head", "blocks"}
    assert done.cached_bytes > 0
