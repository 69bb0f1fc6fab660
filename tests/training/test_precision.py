"""Half precision: float32 at both ends, no NaN, and a step that compiles whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfaudiotl.export.load import open_artifact
from tfaudiotl.export.prepare import Input
from tfaudiotl.export.tflite import export_tflite
from tfaudiotl.models.builder import build_classifier
from tfaudiotl.training import devices as precision_module
from tfaudiotl.training.devices import Device, best_precision, set_precision

CLASSES = ["a", "b", "c"]
ENDS = {"log_mel_frames", "log_mel", "valid_patches", "patch_pooling", "class_scores"}
HALF = ("mixed_float16", "mixed_bfloat16")


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (Device("tpu", 8), "bfloat16"),
        (Device("gpu", 1, (9, 0)), "float16"),
        (Device("gpu", 1, (6, 1)), "float32"),
        (Device("gpu", 1), "float32"),
        (Device("cpu", 1), "float32"),
    ],
)
def test_auto_takes_what_the_device_is_good_at(device: Device, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_precision(device) == expected
    monkeypatch.setattr(precision_module, "find_device", lambda: device)
    assert set_precision("auto") == {"float32": "float32"}.get(expected, f"mixed_{expected}")


def test_bad_precision_is_named() -> None:
    with pytest.raises(ValueError, match="precision='int4': allowed are 'auto', 'float32', 'float16', 'bfloat16'"):
        set_precision("int4")


@pytest.mark.parametrize("policy", HALF)
@pytest.mark.parametrize("input", ["waveform", "patches"])
def test_files_compute_in_single_precision(policy: str, input: Input, stand_in: Path, tmp_path: Path) -> None:
    keras.config.set_dtype_policy(policy)
    model = build_classifier("yamnet", classes=CLASSES, weights=str(stand_in), hidden=(8,))
    path = export_tflite(model, tmp_path / "model.tflite", input=input)
    keras.config.set_dtype_policy("float32")
    single = build_classifier("yamnet", classes=CLASSES, weights=str(stand_in), hidden=(8,))
    single.set_weights(model.get_weights())
    wanted = export_tflite(single, tmp_path / "single.tflite", input=input)
    x = np.random.default_rng(0).uniform(-1, 1, (1, 15_600)).astype(np.float32)
    np.testing.assert_allclose(open_artifact(path).scores(x), open_artifact(wanted).scores(x), atol=1e-6)


@pytest.mark.parametrize("policy", HALF)
@pytest.mark.parametrize("aggregate", ["scores", "embeddings"])
def test_front_end_and_outputs_are_float32(policy: str, aggregate: str, stand_in: Path) -> None:
    keras.config.set_dtype_policy(policy)
    model = build_classifier("yamnet", classes=CLASSES, weights=str(stand_in), aggregate=aggregate, hidden=(8,))
    half = policy.removeprefix("mixed_")
    x = np.random.default_rng(0).uniform(-1, 1, (1, 31_000)).astype(np.float32)
    names = [layer.name for layer in model.layers]
    outputs = keras.Model(model.input, [layer.output for layer in model.layers])(x)
    dtypes = {name: keras.backend.standardize_dtype(out.dtype) for name, out in zip(names, outputs, strict=True)}
    assert {dtypes[name] for name in ENDS & set(names)} == {"float32"}
    assert set(names) >= ENDS
    inner = names[names.index("layer1_conv") : names.index("patch_embedding") + 1]
    # Functional order: what runs beside the network (valid_patches) is an end.
    assert {dtypes[name] for name in inner if name not in ENDS} == {half}
    assert {keras.backend.standardize_dtype(v.dtype) for v in model.weights} == {"float32"}
    assert keras.backend.standardize_dtype(model(x).dtype) == "float32"


def loud_silent_clipped(rng: np.random.Generator) -> np.ndarray:
    """A batch of four: full-scale noise, silence, a clipped tone, a click."""
    time = np.arange(15_600) / 16_000
    clipped = np.clip(8 * np.sin(2 * np.pi * rng.uniform(50, 4_000) * time), -1, 1)
    click = np.zeros(15_600)
    click[rng.integers(15_600)] = 1.0
    return np.stack([rng.choice([-1.0, 1.0], 15_600), np.zeros(15_600), clipped, click]).astype(np.float32)


def train_steps(model: keras.Model, steps: int) -> list[float]:
    rng = np.random.default_rng(0)
    y = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    return [float(model.train_on_batch(loud_silent_clipped(rng), y)[0]) for _ in range(steps)]


@pytest.mark.parametrize("policy", HALF)
def test_steps_on_loud_silent_and_clipped_sound_are_finite(policy: str, stand_in: Path) -> None:
    keras.config.set_dtype_policy(policy)
    model = build_classifier(
        "yamnet", classes=CLASSES, embedding="layer2", weights=str(stand_in), hidden=(8,), trainable="all", seed=0
    )
    if policy == "mixed_float16":
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    losses = train_steps(model, 20)
    assert np.isfinite(losses).all()
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def step_graph(model: keras.Model, samples: int) -> tf.Graph:
    """The graph of one training step on a batch of 4."""
    x = tf.TensorSpec((4, samples), tf.float32)
    y = tf.TensorSpec((4, 3), tf.float32)
    model.optimizer.build(model.trainable_variables)
    model._symbolic_build(data_batch=(tf.zeros(x.shape), tf.zeros(y.shape)))
    graph: tf.Graph = tf.function(lambda x, y: model.train_step((x, y))).get_concrete_function(x, y).graph
    return graph


def all_operations(graph: tf.Graph) -> set[str]:
    """Types of the operations of a graph and of the functions it calls."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    return {node.op for node in nodes}


@pytest.mark.parametrize("policy", ["float32", *HALF])
def test_the_step_has_static_shapes_and_no_host_operation(policy: str, stand_in: Path) -> None:
    keras.config.set_dtype_policy(policy)
    model = build_classifier(
        "yamnet", classes=CLASSES, embedding="layer3", weights=str(stand_in), samples=31_000, trainable="all"
    )
    graph = step_graph(model, 31_000)
    host = {op for op in all_operations(graph) if "PyFunc" in op or op.startswith(("Print", "Send", "Recv", "Host"))}
    assert not host
    convolutions = [op for op in graph.get_operations() if op.type in ("Conv2D", "DepthwiseConv2dNative")]
    assert convolutions
    assert all(op.outputs[0].shape.is_fully_defined() for op in convolutions)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", *HALF])
def test_the_step_compiles_with_xla(policy: str, stand_in: Path) -> None:
    keras.config.set_dtype_policy(policy)
    losses: dict[bool, Any] = {}
    x = np.random.default_rng(0).uniform(-1, 1, (4, 15_600)).astype(np.float32)
    y = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    for jit in (True, False):
        model = build_classifier(
            "yamnet", classes=CLASSES, embedding="layer2", weights=str(stand_in), samples=15_600, trainable="all",
            hidden=(8,), dropout=0.0, seed=0,
        )  # fmt: skip
        # Plain descent: Adam's first steps are the signs of the gradients, and a rounding may turn a sign.
        model.compile(keras.optimizers.SGD(0.01), "categorical_crossentropy", jit_compile=jit)
        losses[jit] = [model.train_on_batch(x, y, return_dict=True)["loss"] for _ in range(3)]
    assert np.isfinite(losses[True]).all()
    # In half precision the roundings of one step are seen in the next loss: there the first alone is compared.
    same, rtol = (3, 1e-3) if policy == "float32" else (1, 0.01)
    np.testing.assert_allclose(losses[True][:same], losses[False][:same], rtol=rtol)
