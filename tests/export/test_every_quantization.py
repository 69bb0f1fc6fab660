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
from tfaudiotl.export.graph import Graph
from tfaudiotl.export.load import open_artifact
from tfaudiotl.export.prepare import float_content, frontend_spec


@cache
def floats(name: str, input: str) -> bytes:
    return float_content(network(name), input=input, samples=None)


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
