"""Every layer of this package that a saved model may hold; importing this registers them with Keras."""

from tfaudiotl.backbones.frontend import (
    LogMel,
    PatchBatch,
    Patches,
    PatchPooling,
    PatchSequence,
    ValidPatches,
)
from tfaudiotl.backbones.pca import PcaPostprocess
from tfaudiotl.backbones.scores import ClassScores

__all__ = [
    "ClassScores",
    "LogMel",
    "PatchBatch",
    "PatchPooling",
    "PatchSequence",
    "Patches",
    "PcaPostprocess",
    "ValidPatches",
]
