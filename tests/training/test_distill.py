"""Distillation: what the student learns of a backbone and of a classifier, and what is refused."""

from __future__ import annotations

import gc
import hashlib
import json
import weakref
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.sounds import KINDS, sound, write_folder
from tfaudiotl._threads import ignore
from tfaudiotl.backbones.assembly import fast_frontend
from tfaudiotl.backbones.embedding import embedding_layers
from tfaudiotl.backbones.scores import class_names_of
from tfaudiotl.backbones.weight_files import npz_bytes
from tfaudiotl.backbones.yamnet import YAMNetMini
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.errors import AudioErrors
from tfaudiotl.training.distill import (
    DistillOptions,
    Mixer,
    MixOptions,
    _batches,
    _softened,
    distill,
    listen,
    load_folders,
    open_teacher,
    synthetic,
)
from tfaudiotl.workflow import save_student


def folders(seed: int = 0) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [[(32_000 * sound(kind, rng)).astype(np.int16) for _ in range(6)] for kind in KINDS]


@pytest.mark.slow
def test_a_backbones_student(stand_in: Path, tmp_path: Path) -> None:
    stages: dict[str, int] = {}
    options = DistillOptions(patches=160, epochs=3, batch_size=8, learning_rate=5e-3, seed=1)
    result = distill(
        "yamnet",
        folders(),
        weights=str(stand_in),
        embedding=["layer8"],
        options=options,
        progress=lambda step: stages.update({step.stage: step.total - step.done}),
    )
    assert stages == {"Running the teacher": 0, "Training the student": 0}
    for name in ("scores_loss", "layer8_loss", "embedding_loss", "val_embedding_loss"):
        assert result.history[name][-1] < result.history[name][0]
    assert class_names_of(result.model)[520] == "Sound 520, made up"
    assert result.model(np.zeros((1, 23_280), np.float32)).shape == (1, 2, 521)

    files = {path.name: path for path in save_student(result, tmp_path / "student")}
    told = json.loads(files["distill.json"].read_text())
    assert told["sha256"] == hashlib.sha256(files["student.npz"].read_bytes()).hexdigest()
    assert (told["settings"]["seed"], told["settings"]["sounds"]) == (1, [6, 6, 6])
    loaded = YAMNetMini(weights=str(files["student.npz"]))
    waveform = folders(5)[0][0][None] / np.float32(32_768)
    np.testing.assert_allclose(loaded(waveform), result.model(waveform), atol=0.02)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_student() -> None:
    def run() -> bytes:
        options = DistillOptions(patches=100, epochs=1, batch_size=32, seed=2)
        return npz_bytes(distill("yamnet_mini", folders(), options=options).model)

    first = run()
    keras.random.normal((3,))  # numbers drawn in between change nothing
    assert run() == first


@pytest.mark.slow
def test_a_classifiers_student_agrees_with_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    waveforms = np.stack([sound(kind, rng) for kind in KINDS for _ in range(8)])
    targets = np.repeat(np.eye(3, dtype=np.float32), 8, axis=0)
    teacher = build_classifier("yamnet_mini", class_names=KINDS, hidden=(16,), learning_rate=1e-2, seed=0)
    teacher.fit(waveforms, targets, epochs=15, batch_size=8, verbose=0)
    options = DistillOptions(patches=400, epochs=2, batch_size=8, learning_rate=1e-3)
    student = distill(teacher, folders(), student_weights="audioset", options=options)
    heard = np.stack([sound(kind, rng) for kind in KINDS for _ in range(20)])
    theirs, ours = (np.asarray(model(heard)).argmax(axis=1) for model in (teacher, student.model))
    assert (theirs == ours).mean() >= 0.9
    files = save_student(student, tmp_path)
    assert [path.name for path in files] == ["model.keras", "labels.txt", "distill.json"]
    reloaded = keras.saving.load_model(files[0])
    assert class_names_of(reloaded) == KINDS
    np.testing.assert_array_equal(reloaded(heard[:3]), student.model(heard[:3]))


def test_temperature_divides_the_logits() -> None:
    logits = np.array([[4.0, 0.0, -4.0], [1.0, 1.0, 0.0]])
    for multi_label, activation in ((False, keras.activations.softmax), (True, keras.activations.sigmoid)):
        scores = np.asarray(activation(keras.ops.convert_to_tensor(logits))).astype(np.float16)
        softer = np.asarray(activation(keras.ops.convert_to_tensor(logits / 4)))
        np.testing.assert_allclose(_softened(scores, 4.0, multi_label), softer, atol=2e-3)
        assert _softened(scores, 1.0, multi_label) is scores
    with pytest.raises(ValueError, match="temperature=0: allowed are numbers above 0"):
        DistillOptions(temperature=0)


def test_layers_of_a_classifier_have_their_short_names() -> None:
    teacher = build_classifier("yamnet_mini", class_names=["a", "b"])
    cut = open_teacher(teacher, ["layer4"], None)
    assert cut.embeddings == ("layer4", "patch_embedding")
    waveform = np.random.default_rng(0).uniform(-1, 1, 15_600).astype(np.float32)
    scores, layer4, embedding = next(cut.network.run([waveform]))
    assert (layer4.shape, embedding.shape) == ((1, 128), (1, 256))
    np.testing.assert_allclose(scores, teacher(waveform[None]), atol=1e-4)
    with pytest.raises(
        ValueError, match="embedding='layer99': the teacher 'yamnet_mini_classifier' has log_mel, "
    ) as caught:
        open_teacher(teacher, ["layer99"], None)
    named = str(caught.value).rpartition(" has ")[2].split(", ")
    assert named == [layer.name for layer in embedding_layers("yamnet_mini") if layer.name not in ("logits", "scores")]


def test_a_teacher_whose_head_takes_frequencies() -> None:
    teacher = build_classifier("yamnet_mini", class_names=["a", "b"], embedding="layer4", pooling="freq")
    waveform = np.random.default_rng(0).uniform(-1, 1, 15_600).astype(np.float32)
    scores, embedding = next(open_teacher(teacher, [], None).network.run([waveform]))
    assert embedding.shape == (1, 16 * 128)
    np.testing.assert_allclose(scores, teacher(waveform[None]), atol=1e-4)


def test_other_models_are_no_teachers() -> None:
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match="no classifier of waveforms"):
        distill(keras.Model(inputs, keras.layers.Dense(2)(inputs), name="other"), folders())
    with pytest.raises(ValueError, match="at least one folder"):
        distill("yamnet_mini", [])


def test_the_student_learns_what_it_will_get() -> None:
    """VGGish's pictures have another floor; the student's are those of its own front-end, of the same sounds."""
    options: dict[str, Any] = {"weights": None, "embedding": "conv1", "hidden": ()}
    cut = open_teacher(build_classifier("vggish", class_names=["a", "b"], **options), (), None)
    mini = build_classifier("yamnet_mini", class_names=["a", "b"])
    mixer = Mixer(folders(), 15_600, MixOptions(), seed=1)
    pictures, (scores, embedding) = listen(cut, mixer, fast_frontend(mini), 2, ignore)
    assert (scores.shape, embedding.shape) == ((2, 2), (2, 64))
    waveforms = np.stack([mixer(0), mixer(1)])
    own = keras.Model(mini.input, mini.get_layer("log_mel").output)(waveforms)
    np.testing.assert_allclose(pictures, np.asarray(own)[:, 0], atol=5e-3)  # float16


def test_what_cannot_learn_from_each_other_is_refused_before_any_sound_is_read(tmp_path: Path) -> None:
    gru = build_classifier("yamnet_mini", class_names=["a", "b"], head="gru", name="mine")
    patches = build_classifier("yamnet_mini", class_names=["a", "b"], input="patches", name="mine")
    for teacher, student, message in [
        ("rawnet2", "yamnet_mini", "teacher='rawnet2': takes windows of sound itself"),
        ("yamnet", "rawnet2", "student='rawnet2': takes sound itself"),
        (gru, "yamnet_mini", "teacher='mine': its head scores the sequence"),
        (patches, "yamnet_mini", "teacher='mine': takes patches"),
    ]:
        with pytest.raises(ValueError, match=message):
            distill(teacher, [tmp_path / "none"], student=student, weights=None)
    with pytest.raises(ValueError, match=r"batch_size=128: at most 98, .* patches=100"):
        DistillOptions(patches=100, batch_size=128)


def test_the_examples_are_held_once() -> None:
    pictures, scores = np.zeros((50, 96, 64), np.float16), np.zeros((50, 3), np.float16)
    kept = weakref.ref(pictures)
    with _batches(pictures, [scores], np.arange(20, 50), DistillOptions(), 2) as training:
        assert sum(isinstance(found, tf.Tensor) and found.shape[:1] == (50,) for found in gc.get_objects()) == 0
        batches = list(training)
    assert len(batches) == 2
    assert batches[0][0].shape == (16, 96, 64)
    del pictures, batches
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize(
    ("option", "value"), [("patches", 10), ("epochs", 0), ("batch_size", 1.5), ("learning_rate", 0.0)]
)
def test_wrong_options_are_named(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{option}="):
        DistillOptions(**{option: value})  # type: ignore[arg-type]


# Unlabelled sound for distillation: seeded, in range, and varied as the options say.

PLAIN = {
    "mix": 0.0,
    "synthetic": 0.0,
    "gain_db": (0.0, 0.0),
    "speed": (1.0, 1.0),
    "short": 0.0,
    "noise": 0.0,
    "narrow": 0.0,
}
SAMPLES = 15_600


def tone(hertz: float, seconds: float = 2.0) -> np.ndarray:
    time = np.arange(int(seconds * 16_000)) / 16_000
    return (16_384 * np.sin(2 * np.pi * hertz * time)).astype(np.int16)


def mixer(sounds: list[list[np.ndarray]], seed: int = 0, **options: Any) -> Mixer:
    return Mixer(sounds, SAMPLES, MixOptions(**{**PLAIN, **options}), seed)


def peak_hertz(wave: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(wave)).argmax() * 16_000 / len(wave))


def test_an_example_depends_on_seed_and_number_alone() -> None:
    sounds = [[tone(500), tone(900)], [tone(2_000)]]
    one, other = Mixer(sounds, SAMPLES, MixOptions(), 3), Mixer(sounds, SAMPLES, MixOptions(), 3)
    first = [one(number) for number in range(20)]
    for number in reversed(range(20)):
        np.testing.assert_array_equal(other(number), first[number])
    assert not np.array_equal(Mixer(sounds, SAMPLES, MixOptions(), 4)(0), first[0])


def test_examples_are_waveforms() -> None:
    draw = Mixer([[tone(500), np.zeros(100, np.int16)]], SAMPLES, MixOptions(), 0)
    for number in range(200):
        wave = draw(number)
        assert wave.shape == (SAMPLES,)
        assert wave.dtype == np.float32
        assert np.abs(wave).max() <= 1


def test_plain_examples_are_the_recording() -> None:
    wave = mixer([[tone(500)]])(0)
    assert peak_hertz(wave) == pytest.approx(500, abs=2)
    assert np.abs(wave).max() == pytest.approx(0.5, abs=0.01)


def test_gain_speed_and_mixing() -> None:
    assert np.abs(mixer([[tone(500)]], gain_db=(-6.02, -6.02))(0)).max() == pytest.approx(0.25, abs=0.01)
    assert peak_hertz(mixer([[tone(500)]], speed=(1.2, 1.2))(0)) == pytest.approx(600, abs=2)
    draw = mixer([[tone(500), tone(2_000)]], mix=1.0)
    both = 0
    for number in range(60):  # half of the pairs are of two sounds
        spectrum = np.abs(np.fft.rfft(draw(number)))
        both += all(spectrum[hertz * SAMPLES // 16_000 - 3 :][:7].max() > 100 for hertz in (500, 2_000))
    assert both == pytest.approx(30, abs=14)


def test_narrow_examples_lack_the_highs(rng: np.random.Generator) -> None:
    noise = (8_000 * rng.standard_normal(40_000)).clip(-32_000, 32_000).astype(np.int16)
    power = np.abs(np.fft.rfft(mixer([[noise]], narrow=1.0)(1))) ** 2
    assert power[-1_500:].sum() < 1e-3 * power[:1_500].sum()


def test_short_sounds_lie_in_silence() -> None:
    for draw in (mixer([[tone(500)]], short=1.0), mixer([[tone(500, seconds=0.5)]])):
        assert 0.02 < (draw(4) == 0).mean() < 0.85


def test_big_folders_do_not_drown_small_ones() -> None:
    draw = mixer([[tone(500)] * 100, [tone(2_000)] * 4])
    share = np.mean([peak_hertz(draw(number)) > 1_000 for number in range(300)])
    assert share == pytest.approx(2 / 12, abs=0.07)


def test_synthetic_sounds_are_finite_and_heard(rng: np.random.Generator) -> None:
    for _ in range(100):
        wave = synthetic(SAMPLES, rng)
        assert wave.shape == (SAMPLES,)
        assert np.isfinite(wave).all()
        assert np.abs(wave).max() > 0.001


def test_folders(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", per_class=4)
    sounds, skipped = load_folders([tmp_path / "a" / "low", tmp_path / "a"], exclude="/2-")
    assert [len(folder) for folder in sounds] == [3, 9]
    assert sounds[0][0].dtype == np.int16
    assert not skipped
    (tmp_path / "a" / "low" / "bad.wav").write_bytes(b"no sound")
    with pytest.raises(AudioErrors, match=r"bad\.wav"):
        load_folders([tmp_path / "a"])
    sounds, skipped = load_folders([tmp_path / "a"], on_error="skip")
    assert ([len(folder) for folder in sounds], len(skipped)) == ([12], 1)
    with pytest.raises(ValueError, match="leaves no sound"):
        load_folders([tmp_path / "a" / "high"], exclude="wav$")
    with pytest.raises(ValueError, match="at least one folder"):
        load_folders([])


@pytest.mark.parametrize(("option", "value"), [("mix", 1.5), ("short", -0.1), ("gain_db", (6, -6)), ("speed", (0, 1))])
def test_wrong_options_of_mixing_are_named(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{option}="):
        MixOptions(**{option: value})
