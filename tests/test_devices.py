"""One device, several, several hosts: the same losses and the same weights."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.training import classifier, clips
from tfaudiotl import devices as precision_module
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.devices import Device, best_precision, find_device, set_precision, several_hosts, strategy
from tfaudiotl.export.prepare import Input
from tfaudiotl.export.tflite import export_tflite
from tfaudiotl.runtime.load import open_artifact
from tfaudiotl.training.batches import BatchPlan
from tfaudiotl.training.fine_tune import fine_tune

MIRRORED = """
import json, sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from pathlib import Path
from tests.helpers.training import Steps, clips, classifier
from tfaudiotl.devices import strategy
from tfaudiotl.training.fine_tune import fine_tune
names = sys.argv[2].split(",")
with (strategy("mirrored", devices=names) if len(names) > 1 else strategy("one")).scope():
    model, steps = classifier(Path(sys.argv[1]), dropout=0.0), Steps()
    # 19 clips in batches of 6: each of the two devices has 3, the last batch is a single clip.
    train = clips(7)[np.arange(19)]
    options = {"trainable": 1, "patience": 9, "head_epochs": 8, "epochs": 9, "batch_size": 6, "verbose": False}
    fine_tune(model, train, train[np.arange(5)], callbacks=[steps], **options)
assert len(steps.losses) == 4 * 17
print("LOSSES", json.dumps(steps.losses))
"""

HOSTS = """
import os, sys
from tfaudiotl.devices import several_hosts
address, number, stand_in, out = sys.argv[1:]
several_hosts(address, hosts=2, number=int(number))
import keras, numpy as np, tensorflow as tf
from tests.helpers.sounds import KINDS, sound
from tfaudiotl.classifiers.build import build_classifier
rng = np.random.default_rng(0)
x = np.stack([sound(kind, rng, seconds=0.975) for kind in KINDS * 8])
y = np.eye(3, dtype=np.float32)[list(range(3)) * 8]
model = build_classifier("yamnet", class_names=list(KINDS), embedding="layer2", weights=stand_in, hidden=(8,), seed=0,
                         samples=15_600, trainable=1, dropout=0.0)
# Each host reads its own half of every batch of 8.
own = np.arange(24).reshape(3, 2, 4)[:, int(number)].reshape(-1)
data = tf.data.Dataset.from_tensor_slices((x[own], y[own])).batch(4, drop_remainder=True)
history = model.fit(data, epochs=3, verbose=0)
np.savez(out, *[np.asarray(w) for w in model.get_weights()], loss=history.history["loss"])
"""


def run(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=540)
    assert process.returncode == 0, err[-3000:]
    return out


def test_auto_on_a_cpu_is_tensorflows_default() -> None:
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    assert find_device() == Device("cpu", 1)
    assert strategy("auto") is tf.distribute.get_strategy()
    assert strategy("one").num_replicas_in_sync == 1


def test_several_gpus_are_mirrored_and_a_tpu_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def mirrored(devices: Any) -> str:
        made.append(devices)
        return "mirrored"

    monkeypatch.setattr(
        tf.config, "list_logical_devices", lambda kind=None: ["GPU:0", "GPU:1"] if kind == "GPU" else []
    )
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", mirrored)
    assert strategy("auto") == "mirrored"
    assert made == [None]
    tpu = object()
    monkeypatch.setattr("tfaudiotl.devices._tpu", lambda: tpu)
    monkeypatch.setattr(tf.config, "experimental_connect_to_cluster", lambda resolver: made.append(resolver))
    monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", lambda resolver: made.append(resolver))
    monkeypatch.setattr(tf.distribute, "TPUStrategy", lambda resolver: ("tpu", resolver))
    assert strategy("auto") == ("tpu", tpu)
    assert made[1:] == [tpu, tpu]


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="name='horovod': allowed are 'auto', 'tpu', 'mirrored' and 'one'"):
        strategy("horovod")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="finds no TPU"):
        strategy("tpu")
    if keras.backend.backend() == "tensorflow":
        with pytest.raises(ValueError, match="KERAS_BACKEND=jax, not tensorflow"):
            several_hosts("127.0.0.1:1", hosts=2, number=0)


def test_each_device_gets_rows_of_every_batch_and_the_mean_stays() -> None:
    class Rows:
        """The rows' own numbers."""

        shapes: ClassVar[list[tuple[int, ...]]] = [()]

        def batch(self, rows: np.ndarray, draw: Any = None) -> tuple[np.ndarray, ...]:
            return (rows,)

    weights = np.linspace(1, 2, 7).astype(np.float32)
    plan = BatchPlan(Rows(), np.eye(7, dtype=np.float32), weights, batch_size=3, devices=2)
    rows, order = np.arange(7), []
    with plan.in_order(rows) as once, plan.training(rows, balanced=False, first=0, last=1) as shuffled:
        for dataset in (once, shuffled):
            batches = list(dataset.as_numpy_iterator())
            assert len(batches) == plan.steps(rows) == 2
            for numbers, targets, counts in batches:
                assert len(numbers) % 2 == 0
                np.testing.assert_array_equal(targets.argmax(axis=1), numbers)
                real = numbers[counts > 0]
                assert counts.mean() == pytest.approx((weights[real.astype(int)] / weights.mean()).mean(), rel=1e-5)
                order.append(real.tolist())
    assert order[0] + order[1] == list(range(7))
    assert sorted(order[2] + order[3]) == list(range(7))


def test_a_model_of_another_scope_is_refused(stand_in: Path) -> None:
    mirrored = strategy("mirrored", devices=["CPU:0"])
    with mirrored.scope():
        model = classifier(stand_in)
    with pytest.raises(ValueError, match="under a MirroredStrategy of 1 device, this runs under no strategy"):
        fine_tune(model, clips())


@pytest.mark.slow
def test_two_devices_give_the_losses_of_one(stand_in: Path) -> None:
    losses = {}
    for names in ("CPU:0", "CPU:0,CPU:1"):
        out = finish(run(MIRRORED, stand_in, names))
        losses[names] = json.loads(next(line for line in out.splitlines() if line.startswith("LOSSES"))[7:])
    # A mean over an epoch counts the rows that fill its last batch; the steps after it show what was learned from it.
    one, two = (np.delete(found, np.s_[3::4]) for found in losses.values())
    assert len(one) >= 50
    np.testing.assert_allclose(two, one, atol=1e-4)


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights(stand_in: Path, tmp_path: Path) -> None:
    pytest.importorskip("jax")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    outs = [tmp_path / f"{number}.npz" for number in range(2)]
    processes = [
        run(HOSTS, address, number, stand_in, out, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
        for number, out in enumerate(outs)
    ]
    for process in processes:
        finish(process)
    with np.load(outs[0]) as first, np.load(outs[1]) as second:
        assert first["loss"][-1] < first["loss"][0]
        for name in first.files:
            np.testing.assert_array_equal(first[name], second[name])


# Half precision: float32 at both ends, no NaN, and a step that compiles whole.

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
    with pytest.raises(ValueError, match="precision='int4': allowed are 'auto', 'float32', 'float16' and 'bfloat16'"):
        set_precision("int4")  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", HALF)
@pytest.mark.parametrize("input", ["waveform", "patches"])
def test_files_compute_in_single_precision(policy: str, input: Input, stand_in: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"class_names": CLASSES, "weights": str(stand_in), "embedding": "layer3", "hidden": (8,)}
    keras.config.set_dtype_policy(policy)
    model = build_classifier("yamnet", **options)
    path = export_tflite(model, tmp_path / "model.tflite", input=input)
    keras.config.set_dtype_policy("float32")
    single = build_classifier("yamnet", **options)
    single.set_weights(model.get_weights())
    wanted = export_tflite(single, tmp_path / "single.tflite", input=input)
    x = np.random.default_rng(0).uniform(-1, 1, (1, 15_600)).astype(np.float32)
    np.testing.assert_allclose(open_artifact(path).scores(x), open_artifact(wanted).scores(x), atol=1e-6)


@pytest.mark.parametrize("policy", HALF)
@pytest.mark.parametrize("aggregate", ["scores", "embeddings"])
def test_front_end_and_outputs_are_float32(policy: str, aggregate: Any, stand_in: Path) -> None:
    keras.config.set_dtype_policy(policy)
    model = build_classifier("yamnet", class_names=CLASSES, weights=str(stand_in), aggregate=aggregate, hidden=(8,))
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
        "yamnet", class_names=CLASSES, embedding="layer2", weights=str(stand_in), hidden=(8,), trainable="all", seed=0
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
        "yamnet", class_names=CLASSES, embedding="layer3", weights=str(stand_in), samples=31_000, trainable="all"
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
            "yamnet", class_names=CLASSES, embedding="layer2", weights=str(stand_in), samples=15_600, trainable="all",
            hidden=(8,), dropout=0.0, seed=0,
        )  # fmt: skip
        # Plain descent: Adam's first steps are the signs of the gradients, and a rounding may turn a sign.
        model.compile(keras.optimizers.SGD(0.01), "categorical_crossentropy", jit_compile=jit)
        losses[jit] = [model.train_on_batch(x, y, return_dict=True)["loss"] for _ in range(3)]
    assert np.isfinite(losses[True]).all()
    # In half precision the roundings of one step are seen in the next loss: there the first alone is compared.
    same, rtol = (3, 1e-3) if policy == "float32" else (1, 0.01)
    np.testing.assert_allclose(losses[True][:same], losses[False][:same], rtol=rtol)
