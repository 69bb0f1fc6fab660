"""How good is a classifier on labelled clips, whichever way it was saved?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from tfaudiotl._threads import OnProgress, Progress, ignore, map_ahead
from tfaudiotl.audio.waveform import SAMPLE_RATE, Sound
from tfaudiotl.backbones.scores import THRESHOLD
from tfaudiotl.data.clips import Clips
from tfaudiotl.data.splits import shared_units
from tfaudiotl.errors import AudioError, AudioErrors, OnError, check_choice
from tfaudiotl.evaluation.metrics import evaluate_scores
from tfaudiotl.evaluation.report import Report
from tfaudiotl.runtime.load import score_clip
from tfaudiotl.runtime.predictor import Predictor


def evaluate(
    model: str | Path | keras.Model | Predictor,
    clips: Clips,
    *,
    class_names: Sequence[str] | None = None,
    on_error: OnError = "raise",
    skipped: list[AudioError] | None = None,
    progress: OnProgress = ignore,
) -> Report:
    """Scores every clip and compares with its labels.

    Args:
        model: a Keras model, or the path of a .keras file, SavedModel or .tflite file; or a ``Predictor`` of one.
        clips: labelled clips; their classes must be among the model's, and need not be all of them.
        class_names: names in output order, for a model that does not carry them.
        on_error: "raise": one AudioErrors that lists every clip that cannot be read, once all were tried; "skip":
            they are left out.
        skipped: a list that takes the skipped sounds; without one they are in the log.
        progress: called after each clip.

    Returns:
        An ``Evaluation``; clips' names are their paths. With several labels it is decided by the thresholds that the
        file carries (``set_thresholds``), else by 0.5. Its report plays the clips themselves, and draws whole
        recordings or groups for the accuracy's interval.

    Raises:
        ValueError: the clips have classes which the model does not.
        AudioErrors: clips that cannot be read, with ``on_error="raise"``, or all of them.
    """
    check_choice("on_error", on_error, OnError)
    if isinstance(model, Predictor) and class_names is not None:
        raise ValueError(f"class_names={list(class_names)!r}: a Predictor has its own; give them to it")
    predictor = model if isinstance(model, Predictor) else Predictor(model, class_names=class_names)
    names = predictor.class_names
    unknown = sorted({label for labels in clips.labels for label in labels} - set(names))
    if unknown:
        raise ValueError(f"clips have the classes {unknown}, which the model does not; it has {list(names)}")
    artifact = predictor.artifact

    def load(row: int) -> Sound | AudioError:
        try:
            return clips.open(row, sample_rate=artifact.sample_rate)
        except AudioError as error:
            return error

    scores, rows, lost = [], [], []
    for row, sound in enumerate(map_ahead(load, range(len(clips)))):
        try:
            if isinstance(sound, AudioError):
                raise sound
            scores.append(score_clip(artifact, sound))
            rows.append(row)
        except AudioError as error:  # of a long recording perhaps in its middle
            lost.append(error)
        progress(Progress("Classifying", row + 1, len(clips)))
    if lost and (on_error == "raise" or not rows):
        raise AudioErrors(lost, len(clips))
    if skipped is not None:
        skipped += lost
    column = {name: index for index, name in enumerate(names)}
    targets = np.zeros((len(rows), len(names)), np.float32)
    for place, row in enumerate(rows):
        targets[place, [column[label] for label in clips.labels[row]]] = 1
    read = clips[rows]
    own = predictor.artifact.score_threshold
    measured = evaluate_scores(
        np.stack(scores),
        targets,
        class_names=names,
        multi_label=clips.multi_label,
        threshold=THRESHOLD if own is None else own,
        names=read.paths,
        groups=shared_units(read),
        sound=lambda row: (read.load(row), SAMPLE_RATE),
    )
    return Report.of(measured)
