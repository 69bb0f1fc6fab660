"""A clip of any length has one score: Keras model, SavedModel, .tflite, stream, and a store's rows and the head."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tfaudiotl.audio.files import write_audio
from tfaudiotl.audio.waveform import cut
from tfaudiotl.backbones.assembly import grid_of_model
from tfaudiotl.classifiers.anatomy import parts
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.embeddings.engine import PatchNetwork
from tfaudiotl.export.check import Pieces
from tfaudiotl.export.savedmodel import export_saved_model
from tfaudiotl.export.tflite import export_tflite
from tfaudiotl.runtime.predictor import Predictor
from tfaudiotl.runtime.stream import StreamingClassifier
from tfaudiotl.training.head import Examples, norm_inputs

LENGTHS = (0.2, 0.975, 1.0, 9.99, 10.0, 10.01, 10.5, 20.3, 61.0)
CLASSES = ("a", "b", "c")
QUICK = {"yamnet_mini": {"backbone": "yamnet_mini", "embedding": "layer2"}}
SLOW: dict[str, dict[str, Any]] = {
    "yamnet": {"backbone": "yamnet", "embedding": "layer3"},
    "yamnet_whole": {"backbone": "yamnet", "weights": "stand_in"},
    "vggish": {"backbone": "vggish", "embedding": "conv1"},
    "rawnet2": {"backbone": "rawnet2", "embedding": "sinc", "backbone_options": {"window": 8_000}},
    "convnet": {"backbone": "convnet", "embedding": "spectrum"},
    "mobilenet": {"backbone": "mobilenet", "embedding": "conv_pw_1_relu", "backbone_options": {"size": 32}},
    "yamnet_mini_fixed": {"backbone": "yamnet_mini", "embedding": "layer2", "samples": 40_000},
    "statistics": {"backbone": "yamnet_mini", "embedding": "layer2", "head": "statistics"},
    "gru": {"backbone": "yamnet_mini", "embedding": "layer2", "head": "gru", "hidden": (8,)},
    "attention_convnet": {"backbone": "convnet", "embedding": "spectrum", "head": "attention"},
    "mean_convnet": {"backbone": "convnet", "embedding": "spectrum", "aggregate": "embeddings"},
    "frequencies": {"backbone": "yamnet", "embedding": ["layer2", "layer3"], "pooling": "freq"},
}


@dataclass
class Case:
    """A classifier whose scores differ from patch to patch, and its files."""

    model: keras.Model
    forms: dict[str, Predictor]
    rows: PatchNetwork
    stream: StreamingClassifier | None

    @property
    def rate(self) -> int:
        return self.forms["keras"].artifact.sample_rate


def sound(seconds: float, rate: int) -> np.ndarray:
    """Sweeps and noise by turns, with digital silence where pieces of 10 s end; the end sounds otherwise."""
    time = np.arange(round(seconds * rate)) / rate
    rng = np.random.default_rng(0)
    wave = 0.5 * np.sin(2 * np.pi * (200 + 150 * (time % 7)) * time) * (1 + np.sin(2 * np.pi * time / 3)) / 2
    wave += (time % 2 > 1) * rng.normal(0, 0.1, len(time))
    wave[(time > 8.9) & (time < 9.9)] = 0
    wave[(time > 9.95) & (time % 10 < 0.6)] = rng.normal(0, 0.3, int(((time > 9.95) & (time % 10 < 0.6)).sum()))
    wave[-1:] = 0.1
    return wave.astype(np.float32)


def lively(model: keras.Model) -> PatchNetwork:
    """Standardises the head on sound and makes its last layer strong, so that every patch has its own scores."""
    network = PatchNetwork(model, [model.get_layer("patch_embedding").output], runtime="keras")
    grid = grid_of_model(model)
    assert grid is not None
    ((rows,),) = network.run([sound(20, grid.sample_rate)])
    rows = rows[: len(rows) // 4 * 4]
    clips = Examples(rows, np.full(len(rows) // 4, 4), np.zeros((len(rows) // 4, 3)), np.ones(len(rows) // 4))
    given, _ = norm_inputs(parts(model).head, clips)
    norm = model.get_layer("head_batch_norm")
    norm.moving_mean.assign(given.mean(axis=0))
    norm.moving_variance.assign(given.var(axis=0) + 1e-3 * given.var() + 1e-9)
    kernel = model.get_layer("head_logits").kernel
    kernel.assign(4 * np.asarray(kernel))
    return network


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    options = {"hidden": (), "weights": None, "seed": 1, **{**QUICK, **SLOW}[request.param]}
    if options["weights"]:
        options["weights"] = str(request.getfixturevalue(options["weights"]))
    keras.utils.set_random_seed(3)
    model = build_classifier(class_names=CLASSES, **options)
    rows = lively(model)
    folder = tmp_path_factory.mktemp("forms")
    model.save(folder / "model.keras")
    forms = {
        "keras": Predictor(model),
        "file": Predictor(folder / "model.keras"),
        "saved_model": Predictor(export_saved_model(model, folder / "saved")),
        "tflite": Predictor(export_tflite(model, folder / "model.tflite"), num_threads=1),
    }
    return Case(model, forms, rows, stream_of(model))


def by_store(case: Case, wave: np.ndarray) -> np.ndarray:
    """The head on the embeddings of the clip's patches, as ``embed`` gives them."""
    artifact = case.forms["keras"].artifact
    ((rows,),) = case.rows.run([wave])
    head, scores, weights, first = parts(case.model).head, [], [], 0
    for piece in cut(len(wave), artifact.grid, artifact.samples):
        part = rows[first : first + piece.patches]
        if parts(case.model).sequence_head:
            found = head([part[None], np.ones((1, len(part)), np.float32)], training=False)
        else:
            found = head(part.mean(axis=0, keepdims=True) if parts(case.model).scores_clips else part, training=False)
        scores.append(np.asarray(found).mean(axis=0))
        weights.append(piece.patches)
        first += piece.patches
    assert first == len(rows)
    return np.average(scores, axis=0, weights=weights)


def stream_of(model: keras.Model) -> StreamingClassifier | None:
    """A stream whose windows hold each patch once; None where the model's window is not of whole patches."""
    predictor = Predictor(model)
    artifact, grid = predictor.artifact, predictor.artifact.grid
    more, rest = divmod(artifact.window - grid.min_samples, grid.patch_hop_samples)
    hop = (1 + more) * grid.patch_hop_samples / artifact.sample_rate
    return None if rest else StreamingClassifier(Predictor(model, hop_seconds=hop), sample_rate=artifact.sample_rate)


def streamed(stream: StreamingClassifier, wave: np.ndarray) -> np.ndarray:
    for start in range(0, len(wave), 7_001):
        stream.push(wave[start : start + 7_001])
    stream.finish()
    assert stream.clip_scores is not None
    return stream.clip_scores


def check(case: Case, lengths: tuple[float, ...]) -> None:
    spread = 0.0
    for seconds in lengths:
        wave = sound(seconds, case.rate)
        wanted = case.forms["keras"].scores(wave, sample_rate=case.rate)
        spread = max(spread, float(np.abs(wanted - 1 / 3).max()))
        for name, form in case.forms.items():
            found = form.scores(wave, sample_rate=case.rate)
            np.testing.assert_allclose(found, wanted, atol=1e-3, err_msg=f"{name}, {seconds} s")
            if seconds > 11:
                continue  # what follows takes as long again and is the same code
            pieces = Pieces(form.artifact, [wave])  # what verification compares on
            checked = pieces.clip_scores(pieces.run(case.forms["keras"].artifact.scores)[0])[0]
            np.testing.assert_allclose(checked, wanted, atol=1e-3, err_msg=f"check of {name}, {seconds} s")
            padded = form.scores(np.pad(wave, (0, 3 * case.rate)), sample_rate=case.rate)
            np.testing.assert_allclose(padded, wanted, atol=1e-3, err_msg=f"{name}, {seconds} s and padding")
        if case.stream:
            np.testing.assert_allclose(streamed(case.stream, wave), wanted, atol=1e-3, err_msg=f"stream, {seconds} s")
        np.testing.assert_allclose(by_store(case, wave), wanted, atol=1e-3, err_msg=f"store, {seconds} s")
    assert spread > 0.05  # the scores say something


@pytest.mark.parametrize("case", QUICK, indirect=True)
def test_every_form_scores_a_clip_alike(case: Case) -> None:
    check(case, LENGTHS[:-1])


@pytest.mark.slow
@pytest.mark.parametrize("case", [*QUICK, *SLOW], indirect=True)
def test_every_backbone_and_head(case: Case) -> None:
    check(case, LENGTHS)


@pytest.mark.parametrize("case", QUICK, indirect=True)
def test_a_files_bytes_and_its_padding(case: Case, tmp_path: Path) -> None:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(case.forms["saved_model"].artifact.path))
    for seconds in (0.3, 10.5, 20.3):
        wave = np.pad(sound(seconds, case.rate), (0, 9_000))
        write_audio(tmp_path / "a.wav", wave, sample_rate=case.rate)
        content = tf.constant([(tmp_path / "a.wav").read_bytes()])
        found = loaded.signatures["classify_file_bytes"](wav=content)["scores"].numpy()[0]
        wanted = case.forms["keras"].scores_of_file(tmp_path / "a.wav")
        np.testing.assert_allclose(found, wanted, atol=1e-3)
