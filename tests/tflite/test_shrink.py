"""Smaller .tflite files: nothing is lost but zeros, names and the last bits of numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.export.prepare import float_graph
from tfaudiotl.tflite.graph import Graph
from tfaudiotl.tflite.litert import run_content
from tfaudiotl.tflite.quantize import drop_fill, halve_constants


@pytest.fixture(scope="module", params=["fft", "matmul"])
def content(request: pytest.FixtureRequest, stand_in: Path) -> bytes:
    model = build_classifier("yamnet", class_names=["a", "b"], weights=str(stand_in), embedding="layer6", hidden=())
    return float_graph(model, frontend=request.param).content


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    time = np.arange(15_600) / 16_000
    tones = [level * np.sin(2 * np.pi * pitch * time) for pitch in (100, 440, 7_000) for level in (0.1, 1)]
    return np.stack([*tones, np.random.default_rng(0).uniform(-1, 1, 15_600), 0 * time]).astype(np.float32)


def changed(change: Callable[[Graph], None], content: bytes) -> bytes:
    graph = Graph(content)
    change(graph)
    return graph.content


def constants(content: bytes) -> dict[tuple[int, ...], set[str]]:
    """Types of the constants that the file holds, by shape."""
    graph, found = Graph(content), dict[tuple[int, ...], set[str]]()
    for op in graph.operators:
        for tensor in op.inputs:
            if graph.is_constant(tensor):
                found.setdefault(graph.shape(tensor), set()).add(graph.type(tensor))
    return found


def test_dropping_zeros_and_names_changes_no_bit(content: bytes, windows: np.ndarray) -> None:
    slim = changed(drop_fill, content)
    mel_bytes = 64 * 235 * 4  # bands x bins of float32; over nine tenths of them zeros
    assert len(content) - len(slim) > 0.8 * mel_bytes
    np.testing.assert_array_equal(run_content(slim, windows), run_content(content, windows))


def test_names_still_tell_the_layer(content: bytes) -> None:
    names = [op.name for op in Graph(changed(drop_fill, content)).operators]
    assert "layer6_pointwise_conv_relu" in "".join(names)
    assert max(map(len, names)) < 60  # of 350 before


def test_half_precision_leaves_the_front_end_whole(content: bytes, windows: np.ndarray) -> None:
    halved = changed(halve_constants, content)
    types, before = constants(halved), constants(content)
    fronts = {shape for shape in before if 235 in shape or 257 in shape or 400 in shape or 512 in shape}
    assert fronts
    assert all(types[shape] == before[shape] for shape in fronts)
    assert types[(256, 1, 1, 256)] == {"FLOAT16"}  # layer6's filter
    assert types[(256,)] == {"FLOAT16"}  # its bias
    # a tone's empty mel bands would show a front-end in half precision as 0.7
    np.testing.assert_allclose(run_content(halved, windows), run_content(content, windows), atol=0.02)


def test_numbers_beyond_half_precision_stay_in_float32(content: bytes, windows: np.ndarray) -> None:
    graph = Graph(content)
    last = next(op for op in graph.operators if "layer6_pointwise" in op.name and op.kind == "CONV_2D")
    bias = graph.constant(last.inputs[2])
    bias[0] = 1e6
    graph.set_constant(last.inputs[2], bias)
    halve_constants(graph)
    assert "FLOAT32" in constants(graph.content)[(256,)]
    assert np.isfinite(run_content(graph.content, windows)).all()
