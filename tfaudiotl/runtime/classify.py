"""MATLAB's ``classifySound``, for those who come from there: sounds, timestamps and a table of results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfaudiotl.runtime.events import Event
from tfaudiotl.runtime.predictor import Predictor


@dataclass(frozen=True)
class ClassifiedSound:
    """What ``classify_sound`` heard.

    Attributes:
        sounds: the labels, in order of their start.
        timestamps: ``(sounds, 2)``: start and end of each in seconds.
        results: the events, with the highest score of each.
    """

    sounds: list[str]
    timestamps: np.ndarray
    results: list[Event]


def classify_sound(
    audio: Any,
    sample_rate: int,
    *,
    model: str | Path | keras.Model | Predictor,
    threshold: float = 0.35,
    minimum_sound_separation: float = 0.25,
    minimum_sound_duration: float = 0.5,
) -> ClassifiedSound:
    """Names the sounds in a recording, with MATLAB's names and defaults.

    Windows and hop are the model's own (YAMNet's: 0.975 s every 0.48 s). ``classifySound`` smooths and thresholds in
    its own way, which is not published; the meaning of the three numbers is the same.

    Args:
        audio: the waveform, as for ``Predictor.predict``.
        sample_rate: Hz.
        model: a classifier, such as ``tl.YAMNet(patch_pooling="avg")`` with its 521 classes, or a ``Predictor``
            (whose own settings then hold).
        threshold: a sound is reported from this score on.
        minimum_sound_separation: seconds; sounds of a class closer than this are one.
        minimum_sound_duration: seconds; shorter sounds are left out.
    """
    predictor = model
    if not isinstance(predictor, Predictor):
        predictor = Predictor(
            predictor, threshold=threshold, min_gap=minimum_sound_separation, min_duration=minimum_sound_duration
        )
    events = predictor.predict(audio, sample_rate=sample_rate)
    times = np.array([(event.start, event.end) for event in events], np.float64).reshape(-1, 2)
    return ClassifiedSound([event.label for event in events], times, events)
