"""Random numbers: every purpose draws from a stream of its own, whatever seeds and numbers the others use.

NumPy pads a seed with zeros, so ``default_rng(7)`` and ``default_rng([7, 0])`` are one stream, and two things drawn
from one stream are not independent of each other. Here the purpose, the seed and any further numbers are hashed.
"""

from __future__ import annotations

import hashlib

import numpy as np

PURPOSES = (
    "balance",  # rows that Clips.balance repeats or leaves out
    "batches",  # order of the examples in an epoch of fine-tuning, and the variants that stand in
    "bootstrap",  # clips of a draw for an interval
    "calibration",  # windows that a quantiser sees
    "changed batch",  # augmentation of a batch of waveforms in fine-tuning
    "changed copy",  # augmentation of a copy that is computed once
    "classifier",  # weights and dropout of a head's layers
    "dataset augmentation",
    "dataset shuffle",
    "dataset balance",
    "distillation batches",
    "distillation classifier",  # first weights of the student's outputs
    "distillation sound",
    "distillation student",  # first weights of the student
    "export check",  # clips that exported files are compared on
    "few-shot draw",
    "folds",
    "head batches",  # order of the examples in an epoch of a head's training
    "inner folds",  # rows that a closed-form head holds out to choose its shrinkage
    "held-out part",
    "inner part",  # clips inside a training part that stop the training
    "network check",  # noise that two forms of a network are compared on
    "noise bank",  # recordings of noise for augmentation
    "noise clips",  # the demo's sounds
    "records shuffle",
    "room bank",  # echoes of rooms for augmentation
    "shown clips",  # examples that a description shows
)


def stream(purpose: str, seed: int, *parts: int | str) -> np.random.Generator:
    """A generator for one purpose.

    Args:
        purpose: one of ``PURPOSES``.
        seed: the caller's seed.
        parts: what tells this stream from others of the same purpose and seed: an epoch, a layer's name.

    Returns:
        The same generator for the same arguments; another one, independent of it, for any others.
    """
    return np.random.default_rng(_entropy(purpose, seed, parts))


def derived_seed(purpose: str, seed: int, *parts: int | str) -> int:
    """A seed in [0, 2**31) for Keras, TensorFlow or another function with a ``seed``; arguments as for ``stream``."""
    return _entropy(purpose, seed, parts) % 2**31


def _entropy(purpose: str, seed: int, parts: tuple[int | str, ...]) -> int:
    if purpose not in PURPOSES:
        raise ValueError(f"purpose={purpose!r}: not in PURPOSES")
    plain = [part if isinstance(part, str) else int(part) for part in (purpose, seed, *parts)]
    return int.from_bytes(hashlib.sha256(repr(plain).encode()).digest()[:16], "big")
