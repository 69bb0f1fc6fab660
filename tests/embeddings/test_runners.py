"""LiteRT and Keras give the same; what disagrees is not used."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from tfaudiotl.embeddings import runners
from tfaudiotl.embeddings.extract import EngineOptions, Extractor
from tfaudiotl.embeddings.runners import KerasRunner, LiteRTRunner, ParityError, Quantize, cosines, make_runner


@pytest.fixture(scope="module")
def network() -> keras.Model:
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
def test_litert_gives_what_keras_gives(quantize: Quantize | None, network: keras.Model, sample: np.ndarray) -> None:
    if quantize:
        pytest.importorskip("ai_edge_quantizer")
    runner = make_runner(network, sample, runtime="litert", quantize=quantize)
    assert isinstance(runner, LiteRTRunner)
    wanted = KerasRunner(network, 4)(sample)
    for found, expected in zip(runner(sample), wanted, strict=True):
        np.testing.assert_allclose(found, expected, atol=0.05 if quantize else 1e-5)
        assert cosines(found, expected).min() > (0.995 if quantize else 0.999999)


def test_a_network_that_disagrees_is_not_used(
    network: keras.Model, sample: np.ndarray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = keras.Model(network.inputs, [-output for output in network.outputs])
    content = runners.to_litert(other, 4)
    monkeypatch.setattr(runners, "to_litert", lambda *args: content)
    with pytest.raises(ParityError, match="output 0 of the converted network has a cosine of -1"):
        make_runner(network, sample, runtime="litert")
    assert isinstance(make_runner(network, sample), KerasRunner)
    assert "LiteRT is not used" in caplog.text


def test_what_has_no_form_in_builtin_operators_stays_in_keras(sample: np.ndarray) -> None:
    inputs = keras.Input((16, 8, 1))
    x = keras.layers.Flatten()(inputs)
    network = keras.Model(inputs, keras.ops.cast(keras.ops.erf(keras.ops.cast(x, "float64")), "float32"))
    with pytest.raises(ValueError, match="no form in built-in operators"):
        make_runner(network, sample, runtime="litert")
    assert isinstance(make_runner(network, sample), KerasRunner)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "tflite"}, "runtime='tflite'"),
        ({"quantize": "int4"}, "quantize='int4'"),
        ({"runtime": "keras", "quantize": "int8"}, "needs runtime='litert'"),
    ],
)
def test_bad_options(options: dict[str, str], message: str, network: keras.Model, sample: np.ndarray) -> None:
    with pytest.raises(ValueError, match=message):
        make_runner(network, sample, **options)  # type: ignore[arg-type]


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
