"""The engine gives what the Keras model gives, whatever the lengths, the batch size and what runs the network."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from threadpoolctl import threadpool_info

from tests.helpers.sounds import write_folder
from tfaudiotl._threads import map_ahead
from tfaudiotl.audio.waveform import trim_padding
from tfaudiotl.backbones.embedding import embedding_model
from tfaudiotl.data.clips import Clips
from tfaudiotl.embeddings import engine
from tfaudiotl.embeddings.engine import (
    KerasRunner,
    LiteRTRunner,
    ParityError,
    PatchNetwork,
    Quantize,
    cosines,
    embed_clips,
    make_runner,
)
from tfaudiotl.embeddings.extract import EngineOptions, Extractor
from tfaudiotl.errors import AudioError, AudioErrors


@pytest.mark.parametrize("batch_size", [1, 5, 32])
def test_equals_the_model_clip_by_clip(batch_size: int, stand_in: Path, rng: np.random.Generator) -> None:
    model = embedding_model("yamnet", embedding=["layer4", "layer6"], weights=str(stand_in))
    outputs = [model.get_layer("layer4_avg").output, model.get_layer("layer6_avg").output]
    network = PatchNetwork(model, outputs, batch_size=batch_size)
    waveforms = [rng.uniform(-1, 1, n).astype(np.float32) for n in (1, 15_600, 80_000, 15_601, 40_000, 300_000)]
    found = list(network.run(iter(waveforms)))
    assert len(found) == len(waveforms)
    for waveform, (fourth, sixth) in zip(waveforms, found, strict=True):
        expected = np.asarray(model(waveform[None]))[0]
        np.testing.assert_allclose(np.concatenate([fourth, sixth], axis=1), expected, rtol=1e-3, atol=1e-4)


def test_no_waveforms_give_nothing(stand_in: Path) -> None:
    model = embedding_model("yamnet", embedding="layer1", weights=str(stand_in))
    assert list(PatchNetwork(model, [model.get_layer("layer1_avg").output]).run([])) == []


@pytest.mark.parametrize(
    ("waveform", "expected"),
    [([1, 0, 2, 0, 0], [1, 0, 2]), ([0, 0, 0], [0]), ([0, 0, 3], [0, 0, 3]), ([], [])],
)
def test_trim_padding(waveform: list[float], expected: list[float]) -> None:
    np.testing.assert_array_equal(trim_padding(np.array(waveform, np.float32)), expected)


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    return Clips.from_directory(write_folder(tmp_path / "sounds", per_class=2))


@pytest.fixture
def network(stand_in: Path) -> PatchNetwork:
    model = embedding_model("yamnet", embedding="layer2", weights=str(stand_in))
    return PatchNetwork(model, [model.get_layer("layer2_avg").output])


def test_every_clip_is_loaded_once(network: PatchNetwork, clips: Clips) -> None:
    loaded: list[int] = []
    embedded = embed_clips(network, clips, check=lambda row, path, waveform: loaded.append(row))
    assert sorted(loaded) == list(range(6))
    np.testing.assert_array_equal(embedded.counts, [2] * 6)  # 1.2 s each
    assert embedded.vectors.shape == (12, 64)


def test_bad_sounds_are_raised_together_or_listed(network: PatchNetwork, clips: Clips) -> None:
    Path(clips.paths[1]).write_bytes(b"RIFF")  # broken after the table was made
    Path(clips.paths[4]).unlink()
    with pytest.raises(AudioErrors) as caught:
        embed_clips(network, clips)
    assert [error.path for error in caught.value.errors] == [clips.paths[1], clips.paths[4]]
    assert "2 of 6 sounds cannot be used" in str(caught.value)
    assert "on_error='skip'" in str(caught.value)
    embedded = embed_clips(network, clips, on_error="skip")
    np.testing.assert_array_equal(embedded.kept, [0, 2, 3, 5])
    assert [error.path for error in embedded.skipped] == [clips.paths[1], clips.paths[4]]
    with pytest.raises(ValueError, match="on_error='ignore'"):
        embed_clips(network, clips, on_error="ignore")  # type: ignore[arg-type]


def test_map_ahead_keeps_the_order_and_a_bounded_lead() -> None:
    running, lock, most = 0, threading.Lock(), 0

    def work(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item * item

    def items() -> object:
        nonlocal running, most
        for item in range(50):
            with lock:
                running += 1
                most = max(most, running)
            yield item

    results = []
    for result in map_ahead(work, items(), workers=3, ahead=8):  # type: ignore[arg-type]
        results.append(result)
        running -= 1
    assert results == [item * item for item in range(50)]
    assert most <= 9


def test_map_ahead_passes_errors_on() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise AudioError("x.wav", "broken")
        return item

    with pytest.raises(AudioError, match=r"x.wav: broken"):
        list(map_ahead(work, range(10)))


def test_passes_that_overlap_leave_the_linear_algebra_its_threads(network: PatchNetwork) -> None:
    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    before = threads()
    waveforms = [np.full(16_000, 0.1, np.float32)] * 3
    first, second = network.run(waveforms), network.run(waveforms)
    next(first), next(second)
    assert set(threads()) == {1}
    first.close()  # type: ignore[attr-defined]
    assert set(threads()) == {1}
    list(second)
    assert threads() == before


@pytest.fixture(scope="module")
def small_network() -> keras.Model:
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((16, 8, 1))
    first = keras.layers.Conv2D(32, 3, activation="relu", name="first_conv")(x)
    second = keras.layers.Conv2D(32, 1, name="second_pointwise_conv")(first)
    pool = keras.layers.GlobalAveragePooling2D
    return keras.Model(inputs, [pool()(first), pool()(second)])


@pytest.fixture
def sample(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(4, 16, 8, 1)).astype(np.float32)


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_litert_gives_what_keras_gives(
    quantize: Quantize | None, small_network: keras.Model, sample: np.ndarray
) -> None:
    if quantize:
        pytest.importorskip("ai_edge_quantizer")
    runner = make_runner(small_network, sample, runtime="litert", quantize=quantize)
    assert isinstance(runner, LiteRTRunner)
    wanted = KerasRunner(small_network, 4)(sample)
    for found, expected in zip(runner(sample), wanted, strict=True):
        np.testing.assert_allclose(found, expected, atol=0.05 if quantize else 1e-5)
        assert cosines(found, expected).min() > (0.995 if quantize else 0.999999)


def test_a_network_that_disagrees_is_not_used(
    small_network: keras.Model, sample: np.ndarray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = keras.Model(small_network.inputs, [-output for output in small_network.outputs])
    content = engine.to_litert(other, 4)
    monkeypatch.setattr(engine, "to_litert", lambda *args: content)
    with pytest.raises(ParityError, match="output 0 of the converted network has a cosine of -1"):
        make_runner(small_network, sample, runtime="litert")
    assert isinstance(make_runner(small_network, sample), KerasRunner)
    assert "LiteRT is not used" in caplog.text


def test_what_has_no_form_in_builtin_operators_stays_in_keras(sample: np.ndarray) -> None:
    inputs = keras.Input((16, 8, 1))
    x = keras.layers.Flatten()(inputs)
    small_network = keras.Model(inputs, keras.ops.cast(keras.ops.erf(keras.ops.cast(x, "float64")), "float32"))
    with pytest.raises(ValueError, match="no form in built-in operators"):
        make_runner(small_network, sample, runtime="litert")
    assert isinstance(make_runner(small_network, sample), KerasRunner)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "tflite"}, "runtime='tflite'"),
        ({"quantize": "int4"}, "quantize='int4'"),
        ({"runtime": "keras", "quantize": "int8"}, "needs runtime='litert'"),
    ],
)
def test_bad_options(options: dict[str, str], message: str, small_network: keras.Model, sample: np.ndarray) -> None:
    with pytest.raises(ValueError, match=message):
        make_runner(small_network, sample, **options)  # type: ignore[arg-type]


def test_all_layers_by_litert_equal_the_hub_graph(hub_yamnet: str, shared: Path) -> None:
    import tensorflow_hub

    from tfaudiotl.audio.files import load_audio

    hub = tensorflow_hub.load(hub_yamnet)
    engine = EngineOptions(runtime="litert")
    extractor = Extractor("yamnet", ["layer2", "layer8", "embedding"], weights=hub_yamnet, engine=engine)
    waveforms = [load_audio(path) for path in sorted((shared / "data" / "esc10").rglob("*.ogg"))[::40]]
    for waveform, rows in zip(waveforms, extractor.network.run(waveforms, trim=False), strict=True):
        expected = hub(waveform)[1].numpy()
        assert [row.shape for row in rows] == [(len(expected), width) for width in (64, 512, 1024)]
        assert cosines(rows[2], expected).min() > 0.9999
        np.testing.assert_allclose(rows[2], expected, atol=1e-3)
