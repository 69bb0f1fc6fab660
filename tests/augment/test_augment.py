from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.sounds import tone, write
from tfaudiotl.audio.waveform import COLOURS
from tfaudiotl.augment.chain import Chain, as_augmentation, augment_dataset, mild_augmentation
from tfaudiotl.augment.layers import (
    Augmentation,
    MixedLabels,
    MixUp,
    RandomCrop,
    RandomEqualizer,
    RandomGain,
    RandomNoise,
    RandomReverb,
    RandomShift,
    RandomSpeed,
    SpecAugment,
)
from tfaudiotl.data.clips import Clips

RATE, LENGTH = 16_000, 8_000  # the clips below: half a second of sound, then padding
WAVEFORM_LAYERS: dict[str, Callable[[], Augmentation]] = {
    "gain": lambda: RandomGain(seed=3),
    "shift": lambda: RandomShift(seed=3),
    "noise": lambda: RandomNoise(colours=list(COLOURS), seed=3),
    "equalizer": lambda: RandomEqualizer(high_pass=(50, 200), low_pass=(3_000, 7_000), seed=3),
    "speed": lambda: RandomSpeed((0.8, 1.2), seed=3),
    "reverb": lambda: RandomReverb(seed=3),
    "mild": lambda: mild_augmentation(seed=3),
    "sometimes": lambda: RandomGain((6, 6.1), probability=0.5, seed=3),
}


@pytest.fixture
def batch(rng: np.random.Generator) -> np.ndarray:
    sounds = 0.1 * rng.standard_normal((16, RATE)).astype(np.float32)
    sounds[:, LENGTH:] = 0
    return sounds


def rms(values: np.ndarray) -> np.ndarray:
    return np.sqrt((values.astype(np.float64) ** 2).mean(axis=-1))


@pytest.mark.parametrize("name", WAVEFORM_LAYERS)
def test_active_in_training_only_seeded_and_serialisable(name: str, batch: np.ndarray) -> None:
    make = WAVEFORM_LAYERS[name]
    layer, twin = make(), make()
    assert np.array_equal(layer(batch), batch)
    assert np.array_equal(layer(batch, training=False), batch)
    first, second = np.asarray(layer(batch, training=True)), np.asarray(layer(batch, training=True))
    assert first.dtype == np.float32
    assert first.shape == batch.shape
    assert np.isfinite(first).all()
    assert not np.array_equal(first, batch)
    assert not np.array_equal(first, second)
    assert np.array_equal(twin(batch, training=True), first)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(make()))
    assert np.array_equal(copy(batch, training=True), first)
    if name != "speed":  # which changes how long a sound is
        assert not first[:, LENGTH:].any(), "padding became sound"
        assert first[:, LENGTH - 4_000 : LENGTH].any(axis=1).all()


def test_in_a_model_that_is_saved(tmp_path: Path, batch: np.ndarray) -> None:
    inputs = keras.Input((RATE,))
    x = mild_augmentation()(inputs)
    x = RandomReverb()(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(RandomCrop(0.25)(x)))
    model.compile("sgd", "mse")
    model.fit(batch, np.zeros((16, 2)), epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    assert np.array_equal(
        keras.saving.load_model(tmp_path / "model.keras").predict(batch, verbose=0), model.predict(batch, verbose=0)
    )


def test_half_precision_policies_change_nothing(batch: np.ndarray) -> None:
    expected = np.asarray(mild_augmentation(seed=3)(batch, training=True))
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        result = mild_augmentation(seed=3)(batch, training=True)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert np.array_equal(result, expected)


def test_gain_is_within_its_range(batch: np.ndarray) -> None:
    decibels = 20 * np.log10(rms(np.asarray(RandomGain((-12, 3), seed=1)(batch, training=True))) / rms(batch))
    assert -12 <= decibels.min() < -6
    assert 0 < decibels.max() <= 3


def test_shift_keeps_every_sample(batch: np.ndarray) -> None:
    result = np.asarray(RandomShift(1.0, seed=1)(batch, training=True))
    assert np.array_equal(np.sort(result), np.sort(batch))
    for before, after in zip(batch[:, :LENGTH], result[:, :LENGTH], strict=True):
        moved = int(np.flatnonzero(after == before[0])[0])
        assert np.array_equal(np.roll(before, moved), after)


def test_noise_has_the_ratio_asked_for(batch: np.ndarray, tmp_path: Path) -> None:
    hum = write(tmp_path / "hum.wav", tone(0.2, RATE, frequency=100), RATE)
    for layer in (RandomNoise((10, 10), seed=1), RandomNoise((10, 10), files=[hum], seed=1)):
        result = np.asarray(layer(batch, training=True))
        noise = (result - batch)[:, :LENGTH]
        assert 20 * np.log10(rms(batch[:, :LENGTH]) / rms(noise)) == pytest.approx(np.full(16, 10), abs=1e-3)
    assert np.abs(np.fft.rfft(noise[0])).argmax() == 50  # the file's 100 Hz in half a second
    assert not np.asarray(RandomNoise(seed=1)(np.zeros_like(batch), training=True)).any()


def test_the_equalizer_filters() -> None:
    impulse = np.zeros((8, 4_096), np.float32)
    impulse[:, 1_000], impulse[:, -1] = 1, 1e-9
    spectrum = 20 * np.log10(np.abs(np.fft.rfft(np.asarray(RandomEqualizer(6.0, seed=2)(impulse, training=True)))))
    assert -6.5 < spectrum[:, 40:2_000].min() < -2
    assert 2 < spectrum[:, 40:2_000].max() < 6.5
    cut = RandomEqualizer(0.0, high_pass=(500, 500), low_pass=(2_000, 2_000))
    spectrum = 20 * np.log10(np.abs(np.fft.rfft(np.asarray(cut(impulse, training=True)[0]))) + 1e-9)
    hertz = np.fft.rfftfreq(4_096, 1 / RATE)
    for frequency, expected in [(125, -48), (500, -3), (1_000, 0), (2_000, -3), (4_000, -24)]:
        assert spectrum[np.abs(hertz - frequency).argmin()] == pytest.approx(expected, abs=1.0), frequency
    assert np.argmax(np.abs(np.asarray(cut(impulse, training=True)[0]))) == 1_000  # no delay


def test_speed_changes_pitch_and_length() -> None:
    sound = np.zeros((1, 2 * RATE), np.float32)
    sound[0, :RATE] = tone(1.0, RATE, frequency=1_000)
    for factor in (0.8, 1.25):
        result = np.asarray(RandomSpeed((factor, factor))(sound, training=True))[0]
        assert np.flatnonzero(result)[-1] == pytest.approx(RATE / factor, abs=3)
        expected = tone(1.0 / factor, RATE, frequency=1_000 * factor)
        assert np.abs(result[: len(expected)] - expected)[2:-4].max() < 5e-3


def test_reverb_is_that_of_the_file(tmp_path: Path) -> None:
    response = np.zeros(2_000, np.float32)
    response[[300, 900]] = 0.8, 0.4
    path = write(tmp_path / "room.wav", response, RATE, "FLOAT")
    sound = np.zeros((1, RATE), np.float32)
    sound[0, 100], sound[0, 9_999] = 0.5, 1e-6
    result = np.asarray(RandomReverb((1, 1), files=[path])(sound, training=True))[0]
    assert np.flatnonzero(np.abs(result) > 0.01).tolist() == [100, 700]
    assert result[700] / result[100] == pytest.approx(0.5, abs=1e-4)
    assert rms(result) == pytest.approx(rms(sound[0]), rel=1e-3)


def test_crops_come_from_within(batch: np.ndarray) -> None:
    layer = RandomCrop(0.25, seed=4)
    result = np.asarray(layer(batch, training=True))
    assert result.shape == (16, 4_000)
    starts = [int(np.flatnonzero(row == part[0])[0]) for row, part in zip(batch, result, strict=True)]
    assert len(set(starts)) > 8
    assert max(starts) <= 4_000
    assert np.array_equal(layer(batch), batch[:, 2_000:6_000])  # the middle of the sound
    with pytest.raises(ValueError, match="fewer than that"):
        RandomCrop(2.0)(batch)


@pytest.mark.parametrize("labels", ["mix", "union"])
def test_mixup_mixes_labels_as_sounds(labels: MixedLabels, batch: np.ndarray) -> None:
    targets = np.eye(16, dtype=np.float32)
    layer = MixUp(1.0, labels=labels, seed=5)
    assert all(
        np.array_equal(a, b) for a, b in zip(layer([batch, targets], training=False), [batch, targets], strict=True)
    )
    mixed, changed = (np.asarray(part) for part in layer([batch, targets], training=True))
    assert ((changed > 0).sum(axis=1) == 2).all()
    assert (changed.argmax(axis=1) == np.arange(16)).all() or labels == "union"
    if labels == "mix":
        assert changed.sum(axis=1) == pytest.approx(np.ones(16), abs=1e-6)
        assert np.abs(mixed - changed @ batch).max() < 1e-5
    else:
        assert set(np.unique(changed)) == {0.0, 1.0}


def test_masks_cover_stripes(rng: np.random.Generator) -> None:
    pictures = rng.standard_normal((8, 96, 64, 1)).astype(np.float32)
    layer = SpecAugment(time_masks=1, max_frames=20, band_masks=1, max_bands=10, seed=1)
    assert np.array_equal(layer(pictures), pictures)
    result = np.asarray(layer(pictures, training=True))
    covered = (result != pictures)[..., 0]
    assert covered.any(axis=(1, 2)).sum() >= 7
    assert (covered.all(axis=2).sum(axis=1) <= 20).all()
    assert (covered.all(axis=1).sum(axis=1) <= 10).all()
    stripes = covered.all(axis=2)[:, :, None] | covered.all(axis=1)[:, None]
    assert np.array_equal(stripes, covered)
    means = np.broadcast_to(pictures.mean(axis=(1, 2, 3))[:, None, None], covered.shape)
    assert np.allclose(result[..., 0][covered], means[covered], atol=1e-6)


def test_datasets_are_new_every_epoch_and_the_same_every_run(batch: np.ndarray) -> None:
    clips = Clips.from_arrays(list(batch), ["a", "b"] * 8, sample_rate=RATE)

    def epochs(seed: int) -> list[np.ndarray]:
        dataset = clips.dataset(batch_size=6, shuffle=True, cache=True, augment=True, seed=seed)
        assert dataset.element_spec[0].shape.as_list() == [None, RATE]
        return [np.concatenate([x for x, _ in dataset.as_numpy_iterator()]) for _ in range(2)]

    first, again, other = epochs(7), epochs(7), epochs(8)
    assert np.array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], other[0])
    assert int(clips.dataset(batch_size=6, augment=[RandomGain()]).cardinality()) == 3


def test_datasets_with_labels_and_weights(batch: np.ndarray) -> None:
    targets, weights = np.eye(16, dtype=np.float32), np.linspace(0, 1, 16).astype(np.float32)
    dataset = tf.data.Dataset.from_tensor_slices((batch, targets, weights)).batch(16)
    changed = next(iter(augment_dataset(dataset, Chain([RandomGain(), MixUp(1.0)]))))
    assert [part.shape for part in changed] == [(16, RATE), (16, 16), (16,)]
    assert np.allclose(changed[2], np.asarray(changed[1]) @ weights, atol=1e-6)


def test_options_out_of_range() -> None:
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: RandomGain((3, -3)), r"decibels=\(3, -3\)"),
        (lambda: RandomGain(probability=2), "probability=2"),
        (lambda: RandomShift(1.5), "fraction=1.5"),
        (lambda: RandomNoise(colours=["grey"]), "grey.*white, pink"),  # type: ignore[list-item]
        (lambda: RandomSpeed((0, 1)), "factors"),
        (lambda: RandomCrop(0), "seconds=0"),
        (lambda: MixUp(0), "alpha=0"),
        (lambda: MixUp(labels="both"), "labels='both'"),  # type: ignore[arg-type]
        (lambda: MixUp()(np.zeros((2, 2)), training=True), r"\[waveforms, targets\]"),
        (lambda: SpecAugment(time_masks=-1), "time_masks=-1"),
        (lambda: Chain([]), "at least one"),
        (lambda: Chain(["gain"]), "at least one"),  # type: ignore[list-item]
        (lambda: as_augmentation("much", sample_rate=16_000), "augment='much'"),
        (lambda: as_augmentation(True, sample_rate=None), "augment=True: needs sample_rate="),
        (
            lambda: as_augmentation([RandomGain(), Chain([RandomEqualizer()])], sample_rate=44_100),
            "augment: RandomEqualizer has sample_rate=16000, the waveforms have 44100 Hz",
        ),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
