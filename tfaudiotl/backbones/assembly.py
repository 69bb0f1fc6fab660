"""What the builders share: front-end, a network on patches, and the patches' way back to their clips."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import ops

from tfaudiotl.backbones.frontend import (
    FastLogMel,
    FastWindows,
    GivenPatches,
    LogMel,
    LogMelSpec,
    PatchBatch,
    Patches,
    PatchPooling,
    PatchSequence,
    ValidPatches,
    Windows,
    WindowSpec,
)

Input = Literal["waveform", "patches"]


def assemble(
    network: Callable[[Any], Any],
    spec: LogMelSpec | WindowSpec,
    *,
    input: str = "waveform",
    samples: int | None = None,
    patch_pooling: str | None = None,
    name: str,
) -> keras.Model:
    """A network on patches as a model of waveforms or of patches.

    Args:
        network: from ``(rows, *spec.patch_shape, 1)`` to ``(rows, outputs)``.
        spec: of the front-end.
        input: "waveform": ``(batch, samples)``. "patches": ``(batch, *spec.patch_shape)``; not for windows of sound,
            whose patch is a waveform.
        samples: the waveform's fixed length, or None.
        patch_pooling: "avg" or "max" over the patches of a waveform, ``(batch, outputs)``; None keeps them, ``(batch,
            patches, outputs)``; "rows" leaves them rows of one batch, ``(batch * patches, outputs)``, for ``to_clips``.
        name: the model's name.

    Raises:
        ValueError: an argument outside what is allowed.
    """
    if input not in get_args(Input):
        raise ValueError(f"input={input!r}: allowed are 'waveform' and 'patches'")
    if patch_pooling not in (None, "avg", "max", "rows"):
        raise ValueError(f"patch_pooling={patch_pooling!r}: allowed are None, 'avg' and 'max'")
    if input == "patches" and (samples is not None or patch_pooling is not None):
        raise ValueError(
            "samples= and patch_pooling= belong to input='waveform'; with input='patches' a row is one patch"
        )
    if samples is not None and (not isinstance(samples, int) or samples < 1):
        raise ValueError(
            f"samples={samples!r}: a positive whole number of samples at {spec.sample_rate / 1000:g} kHz, or None for "
            "any length"
        )
    if input == "patches":
        if isinstance(spec, WindowSpec):
            raise ValueError(f"input='patches': {name} takes sound itself; use samples={spec.window} for one window")
        inputs = keras.Input(spec.patch_shape, name="patches")
        x = GivenPatches(spec, name="patch_batch")(inputs)
        return keras.Model(inputs, network(x), name=name)
    inputs = keras.Input((samples,), name="waveform")
    rows = PatchBatch(name="patch_batch")(_patches(inputs, spec))
    model = keras.Model(inputs, network(rows), name=name)
    if patch_pooling == "rows":
        return model
    return keras.Model(inputs, to_clips(model, model.output, patch_pooling), name=name)


def to_clips(model: keras.Model, x: Any, pooling: str | None) -> Any:
    """Puts ``x``, rows of a model's patches ``(batch * patches, ...)``, back to clips ``(batch, patches, ...)``.

    With ``pooling`` "avg" or "max" the patches that hold sound are pooled: ``(batch, dim)``. A model of patches has
    nothing to put back.
    """
    if grid_of_model(model) is None:
        return x
    x = PatchSequence(name="patch_sequence")([x, patches_of_model(model)])
    return PatchPooling(pooling, name="patch_pooling")([x, valid_patches(model)]) if pooling else x


def valid_patches(model: keras.Model) -> Any:
    """Which patches of a model's waveform are not padding, ``(batch, patches)``."""
    return ValidPatches(grid_of_model(model), name="valid_patches")(model.input)


def _patches(waveform: Any, spec: LogMelSpec | WindowSpec) -> Any:
    """``(batch, samples)`` to ``(batch, patches, *spec.patch_shape)``."""
    if isinstance(spec, WindowSpec):
        return Windows(spec, name="windows")(waveform)
    frames = LogMel(spec, name="log_mel_frames")(waveform)
    return Patches(patch_frames=spec.patch_frames, patch_hop=spec.patch_hop, name="log_mel")(frames)


def embed_patches(model: keras.Model, spec: LogMelSpec, sounds: np.ndarray) -> np.ndarray:
    """What the layer "embedding" of ``model`` makes of the first patch of each sound, whatever the model's input is.

    Args:
        model: a model of ``assemble`` with layers "patch_batch" and "embedding".
        spec: of its front-end.
        sounds: ``(sounds, samples)`` float32 at its rate.

    Returns:
        ``(sounds, numbers)`` float32.
    """
    network = keras.Function(rows_of_model(model), model.get_layer("embedding").output)
    patches = _patches(ops.convert_to_tensor(sounds), spec)[:, 0]
    return np.asarray(ops.cast(network(patches[..., None]), "float32"))


def patches_of_model(model: keras.Model) -> Any:
    """The tensor ``(batch, patches, ...)`` of a model of waveforms."""
    return model.get_layer("patch_batch").input


def rows_of_model(model: keras.Model) -> Any:
    """What a model's network takes: a row for each patch, ``(rows, *patch_shape, 1)``."""
    return model.get_layer("patch_batch").output


def frontend_of_model(model: keras.Model) -> LogMelSpec | WindowSpec | None:
    """The front-end that a model has, or of which it takes patches; None if it does not say."""
    given = [layer.spec for layer in model.layers if isinstance(layer, GivenPatches)]
    return given[0] if given else grid_of_model(model)


def grid_of_model(model: keras.Model) -> LogMelSpec | WindowSpec | None:
    """The numbers of the model's front-end; None for a model of patches, which has none."""
    layer = frontend_layer(model)
    return layer.spec if layer else None


def frontend_layer(model: keras.Model) -> LogMel | Windows | None:
    """The first layer of a model's front-end; None for a model of patches."""
    return next((layer for layer in model.layers if isinstance(layer, (LogMel, Windows))), None)


def fast_frontend(model: keras.Model) -> FastLogMel | FastWindows:
    """The front-end of a model of waveforms, in NumPy."""
    layer = frontend_layer(model)
    if layer is None:
        raise ValueError(f"model {model.name!r} takes no waveforms")
    return FastLogMel(layer) if isinstance(layer, LogMel) else FastWindows(layer.spec)
