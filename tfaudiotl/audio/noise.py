"""Coloured noise, for augmentation, distillation and the demo."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import scipy.fft

Colour = Literal["white", "pink", "brown", "blue", "violet"]
COLOURS: tuple[Colour, ...] = get_args(Colour)
# Power goes with the frequency f as f ** exponent: 0, -3, -6, 3, 6 dB per octave.
EXPONENTS: dict[Colour, float] = {"white": 0.0, "pink": -1.0, "brown": -2.0, "blue": 1.0, "violet": 2.0}


def coloured_noise(colour: Colour | float, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise without a mean, float32 ``(samples,)``, of root mean square 1.

    Args:
        colour: a name, or the exponent of the frequency that the power goes with (pink: -1).
        samples: at least 2.
        rng: where the numbers come from.
    """
    exponent = EXPONENTS[colour] if isinstance(colour, str) else colour
    spectrum = scipy.fft.rfft(rng.standard_normal(samples, np.float32))
    spectrum[0] = 0
    spectrum[1:] *= np.arange(1, len(spectrum), dtype=np.float32) ** np.float32(exponent / 2)
    wave = scipy.fft.irfft(spectrum, samples)
    return (wave / max(float(np.sqrt(np.mean(np.square(wave)))), 1e-9)).astype(np.float32)
