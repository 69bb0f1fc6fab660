"""embed, AudioEmbedding and the HEAR functions: sounds of every kind in, arrays out, or a clear no."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from tests.helpers.sounds import sound, write_folder
from tfaudiotl.backbones.embedding import embedding_layers, embedding_model
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.data.folders import sound_files
from tfaudiotl.embeddings import hear
from tfaudiotl.embeddings.extract import AudioEmbedding, EngineOptions, embed
from tfaudiotl.errors import AudioError, AudioErrors

KERAS = EngineOptions(runtime="keras")


def test_arrays_of_every_type(stand_in: Path, rng: np.random.Generator) -> None:
    wave = rng.uniform(-0.9, 0.9, 20_000).astype(np.float32)
    sixteen = np.round(wave * 32_768).astype(np.int16)
    waves: list[Any] = [wave, sixteen, np.stack([wave, wave], axis=1)]
    x = embed("yamnet", waves, embedding="layer3", weights=str(stand_in), engine=KERAS)
    assert x.shape == (3, 128)
    np.testing.assert_allclose(x[1], x[0], rtol=0.02, atol=0.01)
    np.testing.assert_allclose(x[2], x[0], rtol=1e-4, atol=1e-5)
    several = embed("yamnet", waves[:1], embedding=["layer3", "layer2"], weights=str(stand_in), engine=KERAS)
    np.testing.assert_allclose(several[0, :128], x[0], rtol=1e-4, atol=1e-5)
    patches = embed("yamnet", waves[:1], embedding="layer3", patch_pooling=None, weights=str(stand_in), engine=KERAS)
    assert [rows.shape for rows in patches] == [(2, 128)]
    np.testing.assert_allclose(patches[0].mean(axis=0), x[0], rtol=1e-4, atol=1e-5)


def test_bad_sounds(stand_in: Path, tmp_path: Path) -> None:
    wave = np.zeros(16_000, np.float32)
    broken = wave.copy()
    broken[5] = np.nan
    options = {"embedding": "layer1", "weights": str(stand_in), "engine": KERAS}
    with pytest.raises(AudioErrors, match=r"sounds\[1\]: 1 samples are NaN or infinite"):
        embed("yamnet", [wave, broken], **options)  # type: ignore[arg-type]
    skipped: list[AudioError] = []
    x = embed("yamnet", [broken, wave, tmp_path / "no.wav"], on_error="skip", skipped=skipped, **options)  # type: ignore[arg-type]
    assert x.shape == (1, 32)
    assert [error.path for error in skipped] == ["sounds[0]", str(tmp_path / "no.wav")]
    with pytest.raises(AudioErrors, match="they look like integers that were not scaled"):
        embed("yamnet", [1e4 * np.ones(16_000)], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sounds", "options", "message"),
    [
        ([], {}, "no sounds"),
        ("a.wav", {}, "a list of paths or arrays"),
        (["a.wav"], {"embedding": "layer99"}, "embedding='layer99': yamnet has the layers log_mel, layer1"),
        (["a.wav"], {"pooling": "mean"}, "pooling='mean'"),
        (["a.wav"], {"patch_pooling": "sum"}, "patch_pooling='sum'"),
        (["a.wav"], {"on_error": "ignore"}, "on_error='ignore'"),
    ],
)
def test_bad_arguments(sounds: list[str], options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        embed("yamnet", sounds, weights=None, **options)  # type: ignore[arg-type]


def test_the_transformer_in_a_grid_search(stand_in: Path, tmp_path: Path) -> None:
    files = sound_files(write_folder(tmp_path / "sounds", per_class=4))
    labels = [path.parent.name for path in files]
    step = AudioEmbedding(weights=str(stand_in), runtime="keras", store=str(tmp_path / "store"))
    assert clone(step).get_params() == step.get_params()
    pipeline = make_pipeline(step, StandardScaler(), SVC())
    search = GridSearchCV(pipeline, {"audioembedding__embedding": ["layer1", "layer3"]}, cv=2)
    search.fit([str(path) for path in files], labels)
    assert search.best_score_ >= 0.9
    assert search.predict([str(files[0])]) == [labels[0]]
    with pytest.raises(ValueError, match="yamnet has the layers"):
        AudioEmbedding(embedding="last").fit([])


def test_hear(stand_in: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "model.json").write_text(
        json.dumps({"weights": str(stand_in), "embedding": ["layer2", "layer4"]}), encoding="utf-8"
    )
    model = hear.load_model(tmp_path / "model.json", engine=KERAS)
    assert (model.sample_rate, model.scene_embedding_size, model.timestamp_embedding_size) == (16_000, 192, 192)
    audio = rng.uniform(-1, 1, (2, 32_000)).astype(np.float32)
    embeddings, stamps = hear.get_timestamp_embeddings(audio, model)
    assert embeddings.shape == (2, 5, 192)
    np.testing.assert_allclose(stamps, [[0, 480, 960, 1440, 1920]] * 2)
    # The stretch centred on 480 ms is the sound's first 0.96 s.
    reference = embedding_model("yamnet", embedding=["layer2", "layer4"], weights=str(stand_in))
    np.testing.assert_allclose(embeddings[:, 1], np.asarray(reference(audio))[:, 0], rtol=1e-3, atol=1e-4)
    scenes = hear.get_scene_embeddings(audio, model)
    np.testing.assert_allclose(scenes, np.asarray(reference(audio)).mean(axis=1), rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match=r"shape \(5,\)"):
        hear.get_scene_embeddings(np.zeros(5), model)


def test_embedding_layers_are_in_order_and_cost_more_and_more() -> None:
    layers = embedding_layers("yamnet")
    assert [layer.name for layer in layers][:2] == ["log_mel", "layer1"]
    shares = [layer.share for layer in layers]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    by_name = {layer.name: layer for layer in layers}
    assert by_name["layer8"].seconds_per_step == pytest.approx(0.96 / 6)
    assert by_name["embedding"].seconds_per_step == pytest.approx(0.48)
    assert 0.3 < by_name["layer8"].share < 0.6
    vggish = {layer.name: layer for layer in embedding_layers("vggish")}
    assert vggish["conv4_2"].width == 512
    assert vggish["conv1"].seconds_per_step == pytest.approx(0.01)


def test_the_multiply_adds_are_the_published_ones() -> None:
    from tfaudiotl.backbones.embedding import multiply_adds

    assert max(cost for cost, _ in multiply_adds("yamnet").values()) == 69_165_056
    assert multiply_adds("vggish")["embedding"][0] == pytest.approx(863.9e6, rel=1e-4)


def test_pooling_over_time(stand_in: Path, rng: np.random.Generator) -> None:
    waveform = rng.uniform(-1, 1, (1, 20_000)).astype(np.float32)
    over_time = np.asarray(
        embedding_model("yamnet", embedding="layer8", pooling="time", weights=str(stand_in))(waveform)
    )
    assert over_time.shape == (1, 2, 6, 512)
    averaged = np.asarray(embedding_model("yamnet", embedding="layer8", weights=str(stand_in))(waveform))
    np.testing.assert_allclose(over_time.mean(axis=2), averaged, rtol=1e-4, atol=1e-5)
    both = embedding_model("yamnet", embedding=["layer8", "layer9"], pooling="time", weights=str(stand_in))
    assert both(waveform).shape == (1, 2, 6, 1024)
    with pytest.raises(ValueError, match="different numbers of time steps per patch: layer2 48, layer8 6"):
        embedding_model("yamnet", embedding=["layer2", "layer8"], pooling="time", weights=None)
    with pytest.raises(ValueError, match="has no time axis left"):
        embedding_model("yamnet", pooling="time", weights=None)
    with pytest.raises(ValueError, match="pooling='time' is for embedding_model"):
        build_classifier("yamnet", class_names=["a", "b"], pooling="time", weights=None)


def test_sounds_of_one_kind_are_alike(stand_in: Path, rng: np.random.Generator) -> None:
    waves = [sound(kind, rng) for kind in ("high", "high", "noise")]
    x = embed("yamnet", waves, embedding="layer2", weights=str(stand_in), engine=KERAS)
    assert np.linalg.norm(x[0] - x[1]) < np.linalg.norm(x[0] - x[2])
