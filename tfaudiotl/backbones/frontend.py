"""From a waveform to the pictures that the networks look at: log-mel patches, as Keras layers.

``waveform -> LogMel -> Patches -> PatchBatch -> network -> PatchSequence -> PatchPooling``

All of it computes in float32 whatever the precision policy: a short-time spectrum in half precision
loses quiet sounds, and ``tf.signal`` has no half-precision Fourier transform.

``FastLogMel`` and ``FastWindows`` are the same in NumPy and SciPy, for the threads beside the network: SciPy's Fourier
transform works on many frames at once and lets other threads run; it takes half the time of TensorFlow's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
import scipy.fft
from keras import ops

Tensor = Any  # a Keras tensor, a backend tensor or a NumPy array
Shape = tuple[int | None, ...]


class PatchGrid(ABC):
    """Where the patches of a waveform lie, whatever is computed from them: the common part of all front-ends."""

    sample_rate: int
    pad_tail: bool

    @property
    @abstractmethod
    def min_samples(self) -> int:
        """Samples under one patch."""

    @property
    @abstractmethod
    def patch_hop_samples(self) -> int:
        """Samples from one patch to the next."""

    @property
    @abstractmethod
    def patch_shape(self) -> tuple[int, ...]:
        """What a patch is to the network, without its last axis of one channel."""

    @property
    @abstractmethod
    def patch_seconds(self) -> float:
        """Seconds that a patch stands for."""

    @property
    def min_seconds(self) -> float:
        """Seconds under one patch (YAMNet: 0.975)."""
        return self.min_samples / self.sample_rate

    @property
    def patch_hop_seconds(self) -> float:
        """Seconds from one patch to the next (YAMNet: 0.48)."""
        return self.patch_hop_samples / self.sample_rate

    def patches(self, samples: Any) -> Any:
        """Number of patches of a waveform of ``samples`` samples (an int or an integer tensor); at least 1."""
        beyond = samples - self.min_samples
        hops = -(-beyond // self.patch_hop_samples) if self.pad_tail else beyond // self.patch_hop_samples
        return 1 + (max(hops, 0) if isinstance(hops, int) else ops.maximum(hops, 0))

    def padded(self, samples: Any) -> Any:
        """Number of samples that ``patches(samples)`` patches cover."""
        return self.min_samples + (self.patches(samples) - 1) * self.patch_hop_samples

    def fit(self, waveform: Tensor) -> Tensor:
        """Pads or cuts waveforms ``(batch, samples)`` to whole patches."""
        samples = ops.shape(waveform)[1]
        wanted = self.padded(samples)
        if isinstance(samples, int):
            if samples < wanted:
                waveform = ops.pad(waveform, ((0, 0), (0, wanted - samples)))
            return waveform[:, :wanted]
        # The length is known only when the graph runs: pad by the most that can be missing, then cut.
        most = max(self.min_samples, self.patch_hop_samples)
        return ops.pad(waveform, ((0, 0), (0, most)))[:, :wanted]


@dataclass(frozen=True)
class WindowSpec(PatchGrid):
    """Windows of the waveform itself, for networks that take raw samples."""

    sample_rate: int = 16_000  # Hz
    window: int = 16_000  # samples
    hop: int = 8_000  # samples
    pad_tail: bool = True  # zero-pad to whole windows; False drops what does not fill one

    def __post_init__(self) -> None:
        for name in ("sample_rate", "window", "hop"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r}: a positive whole number")

    @property
    def min_samples(self) -> int:
        """Samples in a window."""
        return self.window

    @property
    def patch_hop_samples(self) -> int:
        """Samples from one window to the next."""
        return self.hop

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """``(window,)``."""
        return (self.window,)

    @property
    def patch_seconds(self) -> float:
        """Length of a window."""
        return self.window / self.sample_rate


@dataclass(frozen=True)
class LogMelSpec(PatchGrid):
    """What turns sound into log-mel patches; the defaults are YAMNet's.

    Source of every constant: ``params.py`` and ``features.py`` of tensorflow/models,
    research/audioset/yamnet. VGGish differs in ``log_offset`` and ``patch_hop`` alone.
    """

    sample_rate: int = 16_000  # Hz
    window: int = 400  # samples: 25 ms, periodic Hann
    hop: int = 160  # samples: 10 ms
    mel_bands: int = 64
    min_hz: float = 125.0
    max_hz: float = 7_500.0
    log_offset: float = 0.001  # log(mel + offset): silence becomes -6.9078
    patch_frames: int = 96  # frames: 0.96 s
    patch_hop: int = 48  # frames: 0.48 s
    pad_tail: bool = True  # zero-pad to whole patches; False drops what does not fill one

    @property
    def fft_length(self) -> int:
        """The next power of two: 512."""
        return 1 << (self.window - 1).bit_length()

    @property
    def min_samples(self) -> int:
        """Samples under one patch: 95 hops and one window, 15,600."""
        return (self.patch_frames - 1) * self.hop + self.window

    @property
    def patch_hop_samples(self) -> int:
        """Samples from one patch to the next: 7,680."""
        return self.patch_hop * self.hop

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """``(patch_frames, mel_bands)``: (96, 64)."""
        return (self.patch_frames, self.mel_bands)

    @property
    def patch_seconds(self) -> float:
        """Seconds that a patch stands for: 0.96."""
        return self.patch_frames * self.hop / self.sample_rate

    def mel_matrix(self) -> np.ndarray:
        """Weights ``(fft_length // 2 + 1, mel_bands)`` from magnitude spectrum to mel bands.

        Triangles, linear in the HTK mel scale ``m = 1127 ln(1 + f / 700)``, peak 1, and no weight on
        DC: the definition of ``tf.signal.linear_to_mel_weight_matrix``.
        """

        def mel(hz: Any) -> np.ndarray:
            return 1127.0 * np.log1p(np.asarray(hz, np.float64) / 700.0)

        bins = mel(np.linspace(0.0, self.sample_rate / 2, self.fft_length // 2 + 1))[:, None]
        edges = np.linspace(mel(self.min_hz), mel(self.max_hz), self.mel_bands + 2)
        lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
        rising = (bins - lower) / (centre - lower)
        falling = (upper - bins) / (upper - centre)
        weights = np.maximum(0.0, np.minimum(rising, falling))
        weights[0] = 0.0
        return weights.astype(np.float32)


def spec_from(spec: LogMelSpec | WindowSpec | dict[str, Any] | None) -> LogMelSpec | WindowSpec:
    """A front-end's numbers from their saved form."""
    if isinstance(spec, (LogMelSpec, WindowSpec)):
        return spec
    fields = spec or {}
    return LogMelSpec(**fields) if not fields or "mel_bands" in fields else WindowSpec(**fields)


@keras.saving.register_keras_serializable(package="tfaudiotl")
class LogMel(keras.layers.Layer):
    """Log-mel spectrogram: ``(batch, samples)`` in [-1, 1] to ``(batch, frames, mel_bands)``.

    ``log(mel(|STFT(waveform)|) + log_offset)``. The waveform is first zero-padded at its end to whole
    patches (or cut to them, ``spec.pad_tail=False``), so that ``frames = (patches - 1) * patch_hop +
    patch_frames``; anything shorter than one patch is padded to one. Each frame is computed once,
    though patches overlap.

    Args:
        spec: the numbers, a ``LogMelSpec`` or its fields as a dict.
        method: "fft", or "matmul": the Fourier transform as a matrix product over the bins that the mel
            bands use, which needs no complex numbers (microcontrollers, NPUs).
    """

    def __init__(self, spec: LogMelSpec | dict[str, Any] | None = None, *, method: str = "fft", **kwargs: Any):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        if method not in ("fft", "matmul"):
            raise ValueError(f"method={method!r}: allowed are 'fft' and 'matmul'")
        self.spec = spec if isinstance(spec, LogMelSpec) else LogMelSpec(**(spec or {}))
        self.method = method
        used = np.flatnonzero(self.spec.mel_matrix().any(axis=1))
        self._bins = slice(int(used[0]), int(used[-1]) + 1)  # YAMNet: 5 to 239 of 257
        self._mel = self.spec.mel_matrix()[self._bins]

    def call(self, waveform: Tensor) -> Tensor:
        frames = ops.extract_sequences(self.spec.fit(waveform), self.spec.window, self.spec.hop)
        mel = ops.matmul(self._magnitude(frames), ops.convert_to_tensor(self._mel))
        return ops.log(mel + self.spec.log_offset)

    def _magnitude(self, frames: Tensor) -> Tensor:
        """Magnitude spectrum of the frames, over the bins that the mel bands use."""
        if self.method == "matmul":
            bins = np.arange(self._bins.start, self._bins.stop)
            angle = 2 * np.pi * np.outer(np.arange(self.spec.window), bins) / self.spec.fft_length
            window = self._hann()[:, None]
            real = ops.matmul(frames, window * np.cos(angle).astype(np.float32))
            imag = ops.matmul(frames, window * np.sin(angle).astype(np.float32))
        else:
            real, imag = ops.rfft(frames * self._hann(), fft_length=self.spec.fft_length)
            real, imag = real[..., self._bins], imag[..., self._bins]
        return ops.sqrt(ops.square(real) + ops.square(imag))

    def _hann(self) -> Tensor:
        """The periodic Hann window ``(window,)``.

        In the backend's own float32 cosine, as ``tf.signal.hann_window``: a window that differs in its last
        bits leaks a loud tone's rounding noise into empty mel bands, where the log shows it (0.003).
        """
        angle = ops.convert_to_tensor(np.float32(2 * np.pi) * np.arange(self.spec.window, dtype=np.float32))
        return 0.5 - 0.5 * ops.cos(angle / float(self.spec.window))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, samples = input_shape
        if samples is None:
            return (batch, None, self.spec.mel_bands)
        frames = (self.spec.patches(samples) - 1) * self.spec.patch_hop + self.spec.patch_frames
        return (batch, frames, self.spec.mel_bands)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "spec": asdict(self.spec), "method": self.method}


@keras.saving.register_keras_serializable(package="tfaudiotl")
class Windows(keras.layers.Layer):
    """Cuts ``(batch, samples)`` into windows ``(batch, windows, window)``, zero-padded (or cut) to whole ones.

    Args:
        spec: the numbers, a ``WindowSpec`` or its fields as a dict.
    """

    def __init__(self, spec: WindowSpec | dict[str, Any], **kwargs: Any):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.spec = spec if isinstance(spec, WindowSpec) else WindowSpec(**spec)

    def call(self, waveform: Tensor) -> Tensor:
        waveform = self.spec.fit(waveform)
        if waveform.shape[1] == self.spec.window:
            return waveform[:, None]
        return ops.extract_sequences(waveform, self.spec.window, self.spec.hop)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, samples = input_shape
        return (batch, None if samples is None else self.spec.patches(samples), self.spec.window)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "spec": asdict(self.spec)}


@keras.saving.register_keras_serializable(package="tfaudiotl")
class Patches(keras.layers.Layer):
    """Cuts ``(batch, frames, bands)`` into patches ``(batch, patches, patch_frames, bands)``.

    Args:
        patch_frames: frames in a patch.
        patch_hop: frames from one patch's start to the next's; it divides ``patch_frames``.
    """

    def __init__(self, *, patch_frames: int, patch_hop: int, **kwargs: Any):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        if patch_hop < 1 or patch_frames % patch_hop:
            raise ValueError(f"patch_hop={patch_hop}: must divide patch_frames={patch_frames}")
        self.patch_frames, self.patch_hop = patch_frames, patch_hop

    def call(self, frames: Tensor) -> Tensor:
        hop, parts = self.patch_hop, self.patch_frames // self.patch_hop
        count, bands = ops.shape(frames)[1] // hop, frames.shape[2]
        blocks = ops.reshape(frames, (-1, count, hop, bands))
        return ops.concatenate([blocks[:, i : count - parts + 1 + i] for i in range(parts)], axis=2)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, frames, bands = input_shape
        patches = None if frames is None else (frames - self.patch_frames) // self.patch_hop + 1
        return (batch, patches, self.patch_frames, bands)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "patch_frames": self.patch_frames, "patch_hop": self.patch_hop}


@keras.saving.register_keras_serializable(package="tfaudiotl")
class PatchBatch(keras.layers.Layer):
    """Puts the patches of all clips into one batch: ``(batch, patches, ...)`` to ``(batch * patches, ..., 1)``."""

    def __init__(self, **kwargs: Any):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)

    def call(self, patches: Tensor) -> Tensor:
        return ops.reshape(patches, (-1, *patches.shape[2:], 1))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, patches, *shape = input_shape
        return (None if batch is None or patches is None else batch * patches, *shape, 1)


@keras.saving.register_keras_serializable(package="tfaudiotl")
class GivenPatches(keras.layers.Layer):
    """Takes patches that were made elsewhere: ``(batch, frames, bands)`` to ``(batch, frames, bands, 1)``.

    Args:
        spec: of the front-end that the patches must come from, so that a model of patches still knows it.
    """

    def __init__(self, spec: LogMelSpec | dict[str, Any], **kwargs: Any):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.spec = spec if isinstance(spec, LogMelSpec) else LogMelSpec(**spec)

    def call(self, patches: Tensor) -> Tensor:
        return ops.expand_dims(patches, -1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape, 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "spec": asdict(self.spec)}


@keras.saving.register_keras_serializable(package="tfaudiotl")
class PatchSequence(keras.layers.Layer):
    """The inverse of ``PatchBatch``: ``[(batch * patches, ...), like]`` to ``(batch, patches, ...)``.

    ``like`` is any tensor ``(batch, patches, ...)``; only its number of patches is used. The values keep
    their precision, whatever the policy.
    """

    def __init__(self, **kwargs: Any):
        kwargs |= {"dtype": "float32", "autocast": False}
        super().__init__(**kwargs)

    def call(self, inputs: list[Tensor]) -> Tensor:
        x, like = inputs
        return ops.reshape(x, (-1, ops.shape(like)[1], *x.shape[1:]))

    def compute_output_spec(self, inputs: list[Tensor]) -> Tensor:
        x, like = inputs
        return keras.KerasTensor((like.shape[0], like.shape[1], *x.shape[1:]), dtype=x.dtype)


@keras.saving.register_keras_serializable(package="tfaudiotl")
class ValidPatches(keras.layers.Layer):
    """Which patches hold sound: ``(batch, samples)`` to ``(batch, patches)``, 1.0 or 0.0.

    The zeros at a waveform's end count as padding: the patches that the waveform would have without
    them are valid, at least the first. So a clip gives the same pooled result alone and padded in a
    batch, and lengths need not be carried beside the samples.
    """

    def __init__(self, spec: LogMelSpec | WindowSpec | dict[str, Any] | None = None, **kwargs: Any):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.spec = spec_from(spec)

    def call(self, waveform: Tensor) -> Tensor:
        samples = ops.shape(waveform)[1]
        patches = self.spec.patches(samples)
        if isinstance(patches, int) and patches == 1:
            return ops.ones((ops.shape(waveform)[0], 1))
        place = ops.arange(1, samples + 1, dtype="int32")
        sounding = ops.cast(ops.not_equal(waveform, 0.0), "int32")
        # The appended zero keeps the maximum defined for a waveform without samples.
        length = ops.max(ops.pad(sounding * place, ((0, 0), (0, 1))), axis=1, keepdims=True)
        index = ops.arange(patches, dtype="int32")
        starts = ops.where(index == 0, -1, self.spec.min_samples + (index - 1) * self.spec.patch_hop_samples)
        if not self.spec.pad_tail:  # a patch is there only when it is filled
            starts = ops.where(index == 0, -1, starts + self.spec.patch_hop_samples - 1)
        return ops.cast(length > starts, "float32")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, samples = input_shape
        return (batch, None if samples is None else self.spec.patches(samples))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "spec": asdict(self.spec)}


@keras.saving.register_keras_serializable(package="tfaudiotl")
class PatchPooling(keras.layers.Layer):
    """Pools over the valid patches: ``[(batch, patches, dim), (batch, patches)]`` to ``(batch, dim)``.

    Args:
        mode: "avg" or "max".
    """

    def __init__(self, mode: str = "avg", **kwargs: Any):
        kwargs["dtype"] = "float32"  # a mean of many half-precision numbers loses digits
        super().__init__(**kwargs)
        if mode not in ("avg", "max"):
            raise ValueError(f"mode={mode!r}: allowed are 'avg' and 'max'")
        self.mode = mode

    def call(self, inputs: list[Tensor]) -> Tensor:
        x, valid = inputs
        if x.shape[1] == 1:
            return x[:, 0]
        valid = valid[..., None]
        if self.mode == "max":
            return ops.max(ops.where(valid > 0, x, ops.full_like(x, -3.0e38)), axis=1)
        return ops.sum(x * valid, axis=1) / ops.sum(valid, axis=1)

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        batch, _, dim = input_shape[0]
        return (batch, dim)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mode": self.mode}


BLOCK = 480  # frames at a time: their spectra (about 1 MB) stay in a core's own cache


class FastLogMel:
    """A ``LogMel`` layer's numbers for one waveform: each frame is computed once, though patches overlap.

    Args:
        layer: the Keras layer whose window, mel bands and offset to use.
    """

    def __init__(self, layer: LogMel):
        self.spec = layer.spec
        self._hann = np.asarray(layer._hann(), np.float32)
        mel = self.spec.mel_matrix()
        used = np.flatnonzero(mel.any(axis=1))
        self._bins = slice(int(used[0]), int(used[-1]) + 1)
        self._mel = mel[self._bins]

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """``(samples,)`` float32 to ``(frames, mel_bands)`` float32, padded or cut to whole patches."""
        spec = self.spec
        wanted = spec.padded(len(waveform))
        if len(waveform) < wanted:
            waveform = np.pad(waveform, (0, wanted - len(waveform)))
        waveform = np.ascontiguousarray(waveform[:wanted], np.float32)
        frames = np.lib.stride_tricks.sliding_window_view(waveform, spec.window)[:: spec.hop]
        out = np.empty((len(frames), spec.mel_bands), np.float32)
        padded = np.zeros((min(BLOCK, len(frames)), spec.fft_length), np.float32)
        for start in range(0, len(frames), BLOCK):
            block = frames[start : start + BLOCK]
            rows = padded[: len(block)]
            np.multiply(block, self._hann, out=rows[:, : spec.window])
            spectrum = scipy.fft.rfft(rows, axis=1)[:, self._bins]
            power = np.square(spectrum.real)
            power += np.square(spectrum.imag)
            np.matmul(np.sqrt(power, out=power), self._mel, out=out[start : start + BLOCK])
        out += np.float32(spec.log_offset)
        return np.log(out, out=out)

    def patches(self, waveform: np.ndarray) -> np.ndarray:
        """``(samples,)`` to overlapping patches ``(patches, patch_frames, mel_bands)``, a view."""
        frames, spec = self(waveform), self.spec
        windows = np.lib.stride_tricks.sliding_window_view(frames, spec.patch_frames, axis=0)[:: spec.patch_hop]
        return windows.transpose(0, 2, 1)


class FastWindows:
    """A ``Windows`` layer's numbers for one waveform.

    Args:
        spec: where the windows lie.
    """

    def __init__(self, spec: WindowSpec):
        self.spec = spec

    def patches(self, waveform: np.ndarray) -> np.ndarray:
        """``(samples,)`` to overlapping windows ``(windows, window)``, a view."""
        wanted = self.spec.padded(len(waveform))
        if len(waveform) < wanted:
            waveform = np.pad(waveform, (0, wanted - len(waveform)))
        waveform = np.ascontiguousarray(waveform[:wanted], np.float32)
        return np.lib.stride_tricks.sliding_window_view(waveform, self.spec.window)[:: self.spec.hop]
