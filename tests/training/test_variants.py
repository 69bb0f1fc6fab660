"""Changed versions of clips: at the network's rate, and as long as the clip."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.training import clips
from tfaudiotl.audio.waveforms import RandomGain
from tfaudiotl.training.variants import changed_waveforms


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050])
def test_versions_are_at_the_rate_asked_for_and_no_longer_than_the_clip(rate: int) -> None:
    table = clips(3)
    louder = changed_waveforms(table, RandomGain((6, 6)), sample_rate=rate, seed=0)
    for row, waveform in enumerate(louder):
        own = table.load(row, sample_rate=rate)
        assert abs(len(waveform) - len(own)) <= 1
        shared = min(len(own), len(waveform))
        np.testing.assert_allclose(waveform[:shared], own[:shared] * 10 ** (6 / 20), rtol=1e-3, atol=1e-4)
