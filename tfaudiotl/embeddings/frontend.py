"""The front-end once more, in NumPy and SciPy: what runs in the engine's threads beside the network.

SciPy's Fourier transform works on many frames at once and lets other threads run; it takes half the time
of TensorFlow's. ``tests/embeddings/test_frontend.py`` holds it to the Keras layer.
"""

from __future__ import annotations

import keras
import numpy as np
import scipy.fft

from tfaudiotl.backbones.assembly import frontend_layer
from tfaudiotl.backbones.frontend import LogMel, WindowSpec

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


def fast_frontend(model: keras.Model) -> FastLogMel | FastWindows:
    """The front-end of a model of waveforms, in NumPy."""
    layer = frontend_layer(model)
    if layer is None:
        raise ValueError(f"model {model.name!r} takes no waveforms")
    return FastLogMel(layer) if isinstance(layer, LogMel) else FastWindows(layer.spec)
