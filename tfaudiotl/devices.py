"""What there is to train on, how ``fit`` gets all of it, and in which precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import keras

from tfaudiotl.errors import check_choice

if TYPE_CHECKING:
    import tensorflow as tf

StrategyName = Literal["auto", "tpu", "mirrored", "one"]


@dataclass(frozen=True)
class Device:
    """What was found.

    Attributes:
        kind: "tpu", "gpu" or "cpu".
        count: how many of them.
        compute_capability: of the first NVIDIA GPU; (0, 0) for all else and where it is not known.
    """

    kind: str
    count: int
    compute_capability: tuple[int, int] = (0, 0)


def find_device() -> Device:
    """The best kind of device that the Keras backend sees."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        tpus = tf.config.list_logical_devices("TPU")
        if tpus:
            return Device("tpu", len(tpus))
        if gpus:
            known = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
            return Device("gpu", len(gpus), (int(known[0]), int(known[1])))
        return Device("cpu", 1)
    names = keras.distribution.list_devices()
    kinds = [name.split(":")[0] for name in names]
    kind = next((kind for kind in ("tpu", "gpu") if kind in kinds), "cpu")
    return Device(kind, max(1, kinds.count(kind)), _jax_capability() if kind == "gpu" else (0, 0))


def has_accelerator() -> bool:
    """Whether Keras sees anything but CPUs."""
    return any(not device.startswith("cpu") for device in keras.distribution.list_devices())


def strategy(name: StrategyName = "auto", *, devices: Sequence[str] | None = None) -> tf.distribute.Strategy:
    """How TensorFlow spreads a training over devices; build and compile the model in its ``scope()``.

    ``model.fit`` and ``fine_tune`` then use all of it: each step's batch is shared out over the devices.

    Args:
        name: "auto": a TPU if there is one, else all GPUs of this host, else the one GPU or the CPU. "tpu";
            "mirrored": all GPUs, or ``devices``; "one": no spreading.
        devices: for "mirrored": names such as "GPU:0"; logical CPU devices serve for tests.

    Returns:
        ``TPUStrategy``, ``MirroredStrategy``, or TensorFlow's default. For several hosts see ``several_hosts``.

    Raises:
        ValueError: another name; "tpu" without one; a Keras backend other than TensorFlow.
    """
    check_choice("name", name, StrategyName)
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"strategy() is TensorFlow's way; with KERAS_BACKEND={keras.backend.backend()} use several_hosts() or "
            "keras.distribution.set_distribution"
        )
    import tensorflow as tf

    if name in ("auto", "tpu"):
        resolver = _tpu()
        if resolver is not None:
            tf.config.experimental_connect_to_cluster(resolver)
            tf.tpu.experimental.initialize_tpu_system(resolver)
            return tf.distribute.TPUStrategy(resolver)
        if name == "tpu":
            raise ValueError("name='tpu': TensorFlow finds no TPU here")
    gpus = len(tf.config.list_logical_devices("GPU"))
    if name == "mirrored" or (name == "auto" and (devices or gpus > 1)):
        return tf.distribute.MirroredStrategy(list(devices) if devices else None)
    return tf.distribute.get_strategy()


def check_scope(model: keras.Model) -> None:
    """ValueError if the model was not built under the strategy that a training here would use."""
    import tensorflow as tf

    own, here = getattr(model, "distribute_strategy", None), tf.distribute.get_strategy()
    if own is not None and own is not here:
        raise ValueError(
            f"model {model.name!r} was built under {_named(own)}, this runs under {_named(here)}: build and fine-tune "
            "it in one scope, such as with tl.strategy().scope():"
        )


def _named(strategy: tf.distribute.Strategy) -> str:
    kind, count = type(strategy).__name__, strategy.num_replicas_in_sync
    return "no strategy" if kind.startswith("_") else f"a {kind} of {count} device{'s' if count > 1 else ''}"


def several_hosts(
    coordinator: str | None = None, *, hosts: int | None = None, number: int | None = None
) -> keras.distribution.DataParallel:
    """Joins the hosts of one training, with Keras's JAX backend; call it first in each process.

    Keras 3 has no training over several hosts with TensorFlow: its trainer supports ``MirroredStrategy`` and
    ``TPUStrategy``, not ``MultiWorkerMirroredStrategy``. With ``KERAS_BACKEND=jax``, ``keras.distribution`` has it.
    Afterwards ``fit`` takes each host's own share of a batch, and all hosts hold the same weights.

    Args:
        coordinator: "address:port" of the first host; None lets a cloud TPU's environment tell.
        hosts: how many processes there are.
        number: which of them this is, from 0.

    Returns:
        The distribution, already set.

    Raises:
        ValueError: a Keras backend other than JAX.
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"several_hosts() needs KERAS_BACKEND=jax, not {keras.backend.backend()}: Keras 3's TensorFlow trainer "
            "does not support MultiWorkerMirroredStrategy"
        )
    keras.distribution.initialize(coordinator, hosts, number)
    distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(distribution)
    return distribution


def _tpu() -> Any:
    """The resolver of a TPU, or None."""
    import tensorflow as tf

    try:
        return tf.distribute.cluster_resolver.TPUClusterResolver()
    except (ValueError, tf.errors.NotFoundError, KeyError):
        return None


def _jax_capability() -> tuple[int, int]:
    import jax

    major, _, minor = str(getattr(jax.devices()[0], "compute_capability", "0.0")).partition(".")
    return int(major), int(minor or 0)


# Below, a GPU has no tensor cores, and float16 saves memory only. Source: NVIDIA's CUDA C++ Programming Guide, table of
# compute capabilities (7.0 is Volta).
TENSOR_CORES = (7, 0)
Precision = Literal["auto", "float32", "float16", "bfloat16"]
PRECISIONS = {"float32": "float32", "float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}


def set_precision(precision: Precision = "auto") -> str:
    """Sets the precision in which the models built from now on compute.

    The front-end, pooling over patches and scores are float32 whatever is set, and so are all weights. With float16,
    ``compile`` scales the loss, so that small gradients do not vanish; bfloat16 has float32's range and needs none.

    Args:
        precision: "float32", "float16", "bfloat16", or "auto": bfloat16 on TPU, float16 on a GPU with tensor cores,
            float32 otherwise: CPUs without instructions for the other two only emulate them, slowly.

    Returns:
        The Keras policy that was set: "float32", "mixed_float16" or "mixed_bfloat16".

    Raises:
        ValueError: another ``precision``.
    """
    if precision == "auto":
        precision = best_precision(find_device())
    check_choice("precision", precision, Precision)
    keras.config.set_dtype_policy(PRECISIONS[precision])
    return PRECISIONS[precision]


def best_precision(device: Device) -> Precision:
    """What ``set_precision("auto")`` takes on a device."""
    if device.kind == "tpu":
        return "bfloat16"
    if device.kind == "gpu" and device.compute_capability >= TENSOR_CORES:
        return "float16"
    return "float32"
