"""Any waveform model of TF Hub as a frozen Keras layer: ``backbone="hub:HANDLE"``."""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfaudiotl._seeds import stream
from tfaudiotl.backbones.assembly import assemble
from tfaudiotl.backbones.frontend import WindowSpec
from tfaudiotl.backbones.spec import BackboneSpec, EmbeddingLayer
from tfaudiotl.backbones.weight_files import open_saved_model, saved_model_folder
from tfaudiotl.errors import WeightsError

PREFIX = "hub:"
# Name in a handle -> Hz, for models that do not say it themselves. Source: their pages on TF Hub and Kaggle.
KNOWN_RATES = {
    "nonsemantic-speech-benchmark": 16_000,  # TRILL, FRILL
    "bird-vocalization-classifier": 32_000,  # Perch
    "yamnet": 16_000,
    "vggish": 16_000,
}
METHODS = ("infer_tf", "__call__")  # Perch has the first
DEFAULT_SECONDS = 1.0  # a window's length, where the model takes any


class HubModule:
    """A SavedModel that takes sound: its function, input and output found out.

    Args:
        handle: TF Hub handle, SavedModel folder or archive.
        sample_rate: Hz; None: what the SavedModel or a table of known ones says.
        window: samples at a time; None: what the function's input fixes, else one second.
        output: key or number of the output to take; None: the only one, or the one called like "embedding".
        signature: name of the function; None: "serving_default", else ``infer_tf``, else the call itself.

    Raises:
        WeightsError: no SavedModel, none of its functions takes one waveform, or something must be given.
    """

    def __init__(
        self,
        handle: str,
        *,
        sample_rate: int | None = None,
        window: int | None = None,
        output: str | int | None = None,
        signature: str | None = None,
    ):
        self.handle = handle
        with saved_model_folder(handle) as folder:
            # A copy: archives are unpacked for the time of this block only, and the model may be saved later.
            self.folder = Path(tempfile.mkdtemp(prefix="tfaudiotl-hub-")) / "module"
            weakref.finalize(self, shutil.rmtree, self.folder.parent, ignore_errors=True)
            shutil.copytree(folder, self.folder)
        try:
            self.module = open_saved_model(self.folder)
        except WeightsError as error:
            raise WeightsError(f"hub:{handle}: {error}") from error
        self.sample_rate = sample_rate or self._rate()
        self._find_function(signature, window)
        self._find_output(output)

    def _rate(self) -> int:
        import tensorflow as tf

        stated = getattr(self.module, "sample_rate", None)
        if isinstance(stated, tf.Variable):  # what a SavedModel keeps of an attribute
            return int(stated.numpy())
        known = known_rate(self.handle)
        if known is not None:
            return known
        raise WeightsError(f"hub:{self.handle}: says nothing of its sample rate; give sample_rate=")

    def _find_function(self, name: str | None, window: int | None) -> None:
        """The first function with exactly one floating-point input of one or two axes."""
        functions = {key: [function] for key, function in getattr(self.module, "signatures", {}).items()}
        for method in METHODS:
            if hasattr(getattr(self.module, method, None), "concrete_functions"):
                functions[method] = getattr(self.module, method).concrete_functions
        wanted = [name] if name else [key for key in ("serving_default", *METHODS) if key in functions]
        for key in wanted:
            for function in functions.get(key, []):
                taken = _inputs(function)
                sound = [spec for spec in taken if spec.dtype.is_floating and spec.shape.rank in (1, 2)]
                others = [spec for spec in taken if spec.dtype.is_integer and spec.shape.rank == 0]
                if len(sound) == 1 and len(sound) + len(others) == len(taken):
                    self._function, self._taken, self._sound = function, taken, sound[0]
                    self.window = self._window(window)
                    return
        raise WeightsError(
            f"hub:{self.handle}: signature={name!r}: no function takes one waveform (samples,) or (batch, samples), "
            f"with or without a sample rate; there are {', '.join(functions) or 'none'}"
        )

    def _window(self, window: int | None) -> int:
        fixed = self._sound.shape[-1]
        if fixed is not None and window not in (None, fixed):
            raise WeightsError(f"hub:{self.handle}: window={window}: it takes {fixed} samples at a time")
        return fixed or window or round(DEFAULT_SECONDS * self.sample_rate)

    def _find_output(self, output: str | int | None) -> None:
        noise = stream("network check", 0, "hub").normal(0, 0.1, self.window).astype(np.float32)
        found = self._named(self._call(noise if self._sound.shape.rank == 1 else noise[None]))
        shown = ", ".join(f"{key} {tuple(value.shape)}" for key, value in sorted(found.items()))
        if output is None:
            like = [key for key in found if "embedding" in key.lower()]
            choice = list(found) if len(found) == 1 else like if len(like) == 1 else []
            if not choice:
                raise WeightsError(
                    f"hub:{self.handle}: several outputs ({shown}); give backbone_options={{'output': ...}}"
                )
            output = choice[0]
        elif f"output_{output}" in found:  # a signature's name for what has none
            output = f"output_{output}"
        if str(output) not in found:
            raise WeightsError(f"hub:{self.handle}: output={output!r}: there are {shown}")
        self.output = str(output)
        self.width = int(found[self.output].shape[-1])

    def _call(self, sound: Any) -> Any:
        import tensorflow as tf

        arguments = [
            sound if spec is self._sound else tf.constant(self.sample_rate, spec.dtype) for spec in self._taken
        ]
        names = [spec.name for spec in self._taken]
        if self._function.structured_input_signature[0]:  # a method: by place
            return self._function(*arguments)
        return self._function(**{name: tf.convert_to_tensor(a) for name, a in zip(names, arguments, strict=True)})

    @staticmethod
    def _named(outputs: Any) -> dict[str, Any]:
        if isinstance(outputs, Mapping):
            return {str(key): value for key, value in outputs.items()}
        listed = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        return {str(number): value for number, value in enumerate(listed)}

    def __call__(self, windows: Any) -> Any:
        """``(rows, window)`` to ``(rows, width)``; what the model gives over time is averaged."""
        import tensorflow as tf

        def one(sound: Any) -> Any:
            return tf.reshape(self._named(self._call(sound))[self.output], (-1, self.width))

        if self._sound.shape.rank == 1:
            return tf.map_fn(lambda row: tf.reduce_mean(one(row), axis=0), windows)
        if self._sound.shape[0] is not None:  # a batch of one size, so one by one
            if self._sound.shape[0] != 1:
                raise WeightsError(f"hub:{self.handle}: takes batches of {self._sound.shape[0]} only")
            return tf.map_fn(lambda row: tf.reduce_mean(one(row[None]), axis=0), windows)
        found = self._named(self._call(windows))[self.output]
        return tf.reduce_mean(tf.reshape(found, (tf.shape(windows)[0], -1, self.width)), axis=1)


def known_rate(handle: str) -> int | None:
    """Hz of a model of ``KNOWN_RATES``, or None.

    A handle is told by any of its parts ("google/yamnet/1"). Of a folder or an archive only the last part counts, but
    for its version: the folders above it may be called anything.
    """
    parts = re.sub(r"^\w+://[^/]+/", "", handle).split("?")[0].rstrip("/").split("/")
    if Path(handle).exists():
        named = [part for part in Path(handle).absolute().parts if not part.isdigit()]
        parts = [named[-1].split(".")[0]]
    return next((rate for name, rate in KNOWN_RATES.items() if name in parts), None)


def _inputs(function: Any) -> list[Any]:
    import tensorflow as tf

    places, names = function.structured_input_signature
    return [spec for spec in [*places, *names.values()] if isinstance(spec, tf.TensorSpec)]


@keras.saving.register_keras_serializable(package="tfaudiotl")
class HubEmbedding(keras.layers.Layer):
    """A SavedModel as a frozen layer: windows ``(rows, window, 1)`` to ``(rows, width)``.

    A saved .keras file has the SavedModel inside, so it opens where the handle does not resolve.
    """

    def __init__(self, *, module: HubModule | None = None, settings: Mapping[str, Any] | None = None, **kwargs: Any):
        kwargs |= {"dtype": "float32", "trainable": False}
        super().__init__(**kwargs)
        self._module: list[HubModule] = [module] if module else []  # in a list: Keras tracks what it knows
        self.settings = dict(settings or {})
        if module:
            names = ("handle", "sample_rate", "window", "output", "width")
            self.settings = {**self.settings, **{name: getattr(module, name) for name in names}}

    @property
    def module(self) -> HubModule:
        """The SavedModel; loaded from its handle where no file brought it along."""
        if not self._module:
            self._module.append(self._opened(self.settings["handle"]))
        return self._module[0]

    @property
    def assets_folder(self) -> Path:
        """The files that the layer computes with, its weights among them; Keras knows nothing of them."""
        return self.module.folder

    def _opened(self, handle: str) -> HubModule:
        names = ("sample_rate", "window", "output", "signature")
        return HubModule(handle, **{name: self.settings.get(name) for name in names})

    def share(self, other: HubEmbedding) -> None:
        """Takes the SavedModel of another layer."""
        self._module[:] = other._module

    def call(self, x: Any) -> Any:
        return self.module(x[..., 0])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], self.settings["width"])

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(self.compute_output_shape(x.shape), dtype="float32")

    def save_assets(self, path: str) -> None:
        shutil.copytree(self.module.folder, Path(path) / "module", dirs_exist_ok=True)

    def load_assets(self, path: str) -> None:
        handle = self.settings["handle"]
        self._module[:] = [self._opened(str(Path(path) / "module"))]
        self._module[0].handle = handle

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "settings": self.settings}


def hub_model(
    handle: str,
    *,
    include_top: bool = False,
    weights: str | None = None,
    input: str = "waveform",
    samples: int | None = None,
    patch_pooling: str | None = None,
    sample_rate: int | None = None,
    window: int | None = None,
    hop: int | None = None,
    output: str | int | None = None,
    signature: str | None = None,
    name: str = "hub",
) -> keras.Model:
    """A model of TF Hub that takes sound, as a functional Keras model of clips of any length.

    It is a black box: one embedding, no layers inside, never trained, no .tflite file.

    Args:
        handle: TF Hub handle, SavedModel folder or archive.
        include_top: has no meaning here.
        weights: None; the SavedModel brings its own ("audioset", the functions' default, is taken for None).
        input: "waveform" only.
        samples: fixes the waveform's length, or None for any.
        patch_pooling: over the windows of a clip: None, "avg" or "max".
        sample_rate: Hz; None: see ``HubModule``.
        window: samples at a time; None: see ``HubModule``.
        output: key or number of the output to take; None: see ``HubModule``.
        signature: name of the function; None: see ``HubModule``.
        hop: samples from window to window; None: half a window.
        name: the model's name.
    """
    if weights not in (None, "audioset"):
        raise ValueError(f"weights={weights!r}: a hub: backbone brings its own; leave it out")
    module = HubModule(handle, sample_rate=sample_rate, window=window, output=output, signature=signature)
    spec = WindowSpec(sample_rate=module.sample_rate, window=module.window, hop=hop or max(1, module.window // 2))
    layer = HubEmbedding(module=module, settings={"signature": signature}, name="embedding")
    return assemble(layer, spec, input=input, samples=samples, patch_pooling=patch_pooling, name=name)


@cache
def hub_spec(name: str) -> BackboneSpec:
    """The record of ``"hub:HANDLE"``; the SavedModel is opened when it is built."""
    handle = name.removeprefix(PREFIX)
    if not handle:
        raise ValueError(f"backbone={name!r}: give the handle, folder or archive after 'hub:'")
    build: Callable[..., keras.Model] = partial(hub_model, handle)
    return BackboneSpec(
        name=name,
        build=build,
        description="a SavedModel of TF Hub, as it is",
        presets={},
        license="its own",
        source=handle,
        frontend=WindowSpec(),
        layers=(EmbeddingLayer("embedding", "embedding", 0),),
        black_box=True,
    )
