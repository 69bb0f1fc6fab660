"""Half precision where it pays: float16 or bfloat16 inside the network, float32 at its ends."""

from __future__ import annotations

import keras

from tfaudiotl.training.devices import Device, find_device

# Below, a GPU has no tensor cores, and float16 saves memory only. Source: NVIDIA's CUDA C++ Programming Guide, table of
# compute capabilities (7.0 is Volta).
TENSOR_CORES = (7, 0)
PRECISIONS = {"float32": "float32", "float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}


def set_precision(precision: str = "auto") -> str:
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
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}: allowed are 'auto', {', '.join(map(repr, PRECISIONS))}")
    keras.config.set_dtype_policy(PRECISIONS[precision])
    return PRECISIONS[precision]


def best_precision(device: Device) -> str:
    """What ``set_precision("auto")`` takes on a device."""
    if device.kind == "tpu":
        return "bfloat16"
    if device.kind == "gpu" and device.compute_capability >= TENSOR_CORES:
        return "float16"
    return "float32"
