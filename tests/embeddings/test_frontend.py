"""The engine's front-end gives the Keras layer's numbers, for every length and manner with the tail."""

from __future__ import annotations

import numpy as np
import pytest

from tfaudiotl.backbones.frontend import LogMel, LogMelSpec
from tfaudiotl.embeddings.frontend import FastLogMel


@pytest.mark.parametrize("pad_tail", [True, False])
@pytest.mark.parametrize("samples", [0, 1, 15_599, 15_600, 15_601, 40_000, 170_000])
def test_equals_the_keras_layer(samples: int, pad_tail: bool, rng: np.random.Generator) -> None:
    layer = LogMel(LogMelSpec(pad_tail=pad_tail))
    fast = FastLogMel(layer)
    time = np.arange(samples) / 16_000
    for waveform in (rng.uniform(-1, 1, samples), 0.001 * np.sin(6_000 * time), np.zeros(samples)):
        waveform = waveform.astype(np.float32)
        np.testing.assert_allclose(fast(waveform), np.asarray(layer(waveform[None]))[0], atol=1e-3)


def test_patches_overlap_by_their_hop(rng: np.random.Generator) -> None:
    fast = FastLogMel(LogMel())
    waveform = rng.uniform(-1, 1, 50_000).astype(np.float32)
    frames, patches = fast(waveform), fast.patches(waveform)
    assert patches.shape == (6, 96, 64)
    np.testing.assert_array_equal(patches[2], frames[96:192])
    assert patches.base is not None  # a view: each frame is there once
