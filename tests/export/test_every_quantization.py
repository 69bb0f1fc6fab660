"""Every backbone with every ``quantize=``: a file that works, or an error that says which ones this network takes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.backbones import HEAVY, NAMES, network, sounds
from tfaudiotl.backbones.frontend import WindowSpec
from tfaudiotl.errors import ExportError
from tfaudiotl.export import tflite
from tfaudiotl.export.prepare import Input, float_graph, frontend_spec
from tfaudiotl.runtime.load import open_artifact
from tfaudiotl.tflite.graph import Graph


@cache
def floats(name: str, input: Input) -> bytes:
    return float_graph(network(name), input=input).content


@pytest.mark.parametrize("quantize", tflite.QUANTIZE)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in NAMES]
)
def test_a_file_that_works_or_what_this_network_takes(
    name: str, quantize: tflite.Quantize | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    input: Input = "patches" if quantize == "int8_io" else "waveform"
    monkeypatch.setattr(tflite, "float_graph", lambda model, *, input, **_: Graph(floats(name, input)))
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


@pytest.mark.parametrize("quantize", tflite.QUANTIZE)
def test_an_export_unpacks_a_file_few_times(
    quantize: tflite.Quantize | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The float file, a copy to change, the quantised one, and what was written: however many trials there are."""
    name, unpacked = "yamnet_mini", []
    input: Input = "patches" if quantize == "int8_io" else "waveform"
    monkeypatch.setattr(tflite, "float_graph", lambda model, *, input, **_: Graph(floats(name, input)))
    plain = Graph.__init__

    def unpack(graph: Graph, content: bytes) -> None:
        unpacked.append(content)
        plain(graph, content)

    monkeypatch.setattr(Graph, "__init__", unpack)
    tflite.export_tflite(network(name), tmp_path / "m.tflite", quantize=quantize, input=input, calibrate=sounds(name))
    assert 2 <= len(unpacked) <= 4
