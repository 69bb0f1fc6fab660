"""Every backbone with every ``quantize=``: a file that works, or an error that says which ones this network takes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.backbones.test_registry import HEAVY, NAMES, SMALL
from tfaudiotl.backbones.frontend import WindowSpec
from tfaudiotl.errors import ExportError
from tfaudiotl.export import tflite
from tfaudiotl.export.graph import Graph
from tfaudiotl.export.load import open_artifact
from tfaudiotl.export.prepare import float_content, frontend_spec
from tfaudiotl.models.builder import build_classifier

# Early layers: the same operators as the whole network's, in a fraction of the time.
EARLY = {
    "convnet": "conv2", "efficientnetv2b0": "block2b_add", "inceptionv3": "mixed0", "mobilenet": "conv_pw_3_relu",
    "mobilenetv2": "block_2_project_BN", "rawnet2": "block1", "vggish": "conv2", "yamnet": "layer3",
    "yamnet_mini": "layer3",
}  # fmt: skip


@cache
def network(name: str) -> keras.Model:
    options: dict[str, Any] = SMALL.get(name, {})
    keras.utils.set_random_seed(1)
    model = build_classifier(
        name, classes=["a", "b", "c"], weights=None, hidden=(), seed=1, embedding=EARLY[name], **options
    )
    if not isinstance(frontend_spec(model), WindowSpec):  # an untrained network lets the sound fade from layer to layer
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.moving_variance.assign(np.full(layer.moving_variance.shape, 0.3))
        (head,) = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)][-1:]
        head.kernel.assign((1 if name in HEAVY else 50) * head.kernel)
    return model


@cache
def floats(name: str, input: str) -> bytes:
    return float_content(network(name), input=input, samples=None)


def sounds(name: str) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    spec = frontend_spec(network(name))
    time = np.arange(spec.min_samples) / spec.sample_rate
    tones = [np.sin(2 * np.pi * pitch * time) for pitch in np.geomspace(200, 4_000, 10)]
    return [(0.3 * tone + rng.normal(0, 0.02, len(time))).astype(np.float32) for tone in tones]


@pytest.mark.parametrize("quantize", tflite.QUANTIZE)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in NAMES]
)
def test_a_file_that_works_or_what_this_network_takes(
    name: str, quantize: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    input = "patches" if quantize == "int8_io" else "waveform"
    monkeypatch.setattr(tflite, "float_content", lambda model, *, input, **_: floats(name, input))
    model, clips, path = network(name), sounds(name), tmp_path / "m.tflite"

    def export() -> Path:
        return tflite.export_tflite(model, path, quantize=quantize, input=input, calibrate=clips)

    if quantize == "int8_io" and isinstance(frontend_spec(model), WindowSpec):
        with pytest.raises(ExportError, match=r"takes None, 'float16', 'dynamic', 'int8': it has no front-end"):
            export()
        assert not list(tmp_path.iterdir())
        return
    waves = np.stack(clips)
    wanted = open_artifact(model).scores(waves)
    found = open_artifact(export()).scores(waves)
    np.testing.assert_allclose(found, wanted, atol=1e-3 if quantize is None else 0.2)
    assert np.abs(found - wanted).mean() < 0.03


def test_the_networks_of_these_tests_tell_sounds_apart() -> None:
    """Else any file would agree with them."""
    for name in set(NAMES) - set(HEAVY):
        scores = open_artifact(network(name)).scores(np.stack(sounds(name)))
        assert np.ptp(scores, axis=0).max() > 0.005, (name, scores)


def test_operators_without_an_integer_form_are_named_before_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tflite, "without_integers", lambda graph: ["MINIMUM"])
    monkeypatch.setattr(tflite, "calibration_windows", lambda *_, **__: pytest.fail("calibration began"))
    with pytest.raises(ExportError, match=r"takes None, .*'int8': there is no integer form of MINIMUM"):
        tflite.export_tflite(
            network("yamnet_mini"),
            tmp_path / "m.tflite",
            quantize="int8_io",
            input="patches",
            calibrate=sounds("yamnet_mini"),
        )


def test_dynamic_quantisation_reads_the_file_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from tfaudiotl.export import plan

    parsed = []

    def parse(content: bytes) -> Graph:
        parsed.append(content)
        return Graph(content)

    monkeypatch.setattr(plan, "Graph", parse)
    plan.quantize_dynamic(floats("yamnet_mini", "waveform"))
    assert len(parsed) == 1
