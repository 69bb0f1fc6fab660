"""Which way to train on these clips? Asked of the clips themselves, by a probe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras

from tfaudiotl._threads import OnProgress, ignore
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.classifiers.anatomy import blocks_of
from tfaudiotl.data.clips import Clips
from tfaudiotl.embeddings.probe import ProbeTable, probe_layers
from tfaudiotl.errors import OnError

# Clips of a class below which fine-tuning learns the clips instead of the class. A rule of thumb, between ESC-10 (32
# per class in training) and FSDD (270), where fine-tuning pays: benchmarks/RESULTS-fine-tuning.md.
ENOUGH_CLIPS = 100
# A domain is far when the odds of an error on the last embedding are more than so many times those on the best layer
# (with few errors: when there are so many times as many), and when the difference is more than so many standard errors:
# no errors against two say nothing.
NEAR_ODDS = 2.0
NEAR_STANDARD_ERRORS = 2.0


@dataclass(frozen=True)
class Advice:
    """What to do, and why.

    Attributes:
        case: "small and near", "small and far", "large and near" or "large and far".
        strategy: "head only", "head on a lower layer", "last blocks" or "everything".
        embedding: for ``build_classifier``.
        trainable: for ``fine_tune``.
        regularisation: arguments of ``build_classifier`` and ``fine_tune``, as a dict for each.
        reasons: why, sentence by sentence, with what was measured.
        probe: the table behind it.
    """

    case: str
    strategy: str
    embedding: str
    trainable: int | str
    regularisation: dict[str, dict[str, Any]]
    reasons: tuple[str, ...]
    probe: ProbeTable

    def to_markdown(self) -> str:
        """The advice as text."""
        code = ", ".join(f"{name}={value!r}" for name, value in self.regularisation["build_classifier"].items())
        tuning = ", ".join(f"{name}={value!r}" for name, value in self.regularisation["fine_tune"].items())
        return "\n".join(
            [
                f"**{self.strategy}** ({self.case})",
                "",
                *(f"- {reason}" for reason in self.reasons),
                "",
                "```python",
                f"model = tl.build_classifier({self.probe.backbone!r}, class_names=..., embedding={self.embedding!r}, "
                f"{code})",
                f"tl.fine_tune(model, train, val, trainable={self.trainable!r}{', ' if tuning else ''}{tuning})",
                "```",
            ]
        )


def advise(
    clips: Clips,
    backbone: str = "yamnet",
    *,
    folds: int = 5,
    weights: str | None = "audioset",
    seed: int = 0,
    on_error: OnError = "raise",
    progress: OnProgress = ignore,
) -> Advice:
    """Says how to train on ``clips``: what to train, on which layer, how regularised, and why.

    The four classic cases of transfer learning: small or large data, near to or far from what the backbone was trained
    on. Size is the number of clips of the rarest class. Nearness is measured, not asked: a linear probe on every
    layer. Near to its own domain a network's last embedding is about the best; far from it, a lower layer is, since
    the upper ones have specialised in something else.

    Args:
        clips: labelled, one label each; those to train on, never those to test on.
        backbone: a name from ``list_backbones()``.
        folds: of the probe, a number to draw.
        weights: as for the backbone's builder.
        seed: of the folds.
        on_error: "raise" or "skip" sounds that cannot be used.
        progress: as for ``probe_layers``.
    """
    spec = get_backbone(backbone)
    names = [layer.name for layer in spec.layers if layer.name not in spec.top]
    table = probe_layers(
        backbone, clips, cv=folds, embedding=names, weights=weights, seed=seed, on_error=on_error, progress=progress
    )
    return advice_of(table, int(clips.targets.sum(axis=0).min()), spec.default_embedding)


def advice_of(table: ProbeTable, rarest: int, last: str) -> Advice:
    """The advice that a probe's table and the size of the rarest class lead to.

    Args:
        table: of all layers.
        rarest: clips of the rarest class.
        last: the backbone's own embedding.
    """
    best = max(table.rows, key=lambda row: row.accuracy)
    own = table.row(last)
    errors, least = ((1 - row.accuracy) * table.clips for row in (own, best))
    near, large = not _more_errors(errors, least, table.clips), rarest >= ENOUGH_CLIPS
    case = f"{'large' if large else 'small'} and {'near' if near else 'far'}"
    strategy, embedding, trainable = _plan(table, near=near, large=large, last=last)
    measured = (
        f"Size: the rarest class has {rarest} clips; {ENOUGH_CLIPS} or more count as large.",
        f"Nearness: a linear probe reaches {own.accuracy:.3f} on the last embedding and {best.accuracy:.3f} on the "
        f"best layer, {best.layer}: {errors:.0f} errors against {least:.0f} in {table.clips} clips, near unless the "
        f"odds of an error are more than {NEAR_ODDS:g} times as high and that is more than chance makes of the same.",
    )
    return Advice(
        case, strategy, embedding, trainable, _regularisation(large=large), (*measured, _REASONS[case]), table
    )


def _more_errors(errors: float, least: float, clips: int) -> bool:
    """Whether ``errors`` of ``clips`` clips are clearly more than ``least``: by their odds, and beyond chance.

    Odds, since twice as many cannot be where the best layer errs on more than half. Chance by the usual test of two
    shares, pooled and with the correction for counts.
    """
    pooled = (errors + least) / (2 * clips)
    error = math.sqrt(2 * clips * pooled * (1 - pooled))
    sure = errors - least - 1 > NEAR_STANDARD_ERRORS * error
    return sure and errors * (clips - least) > NEAR_ODDS * least * (clips - errors)


_REASONS = {
    "small and near": (
        "The last embedding says what there is to say; few clips cannot improve on it, only be learned by heart."
    ),
    "small and far": (
        "The upper layers have specialised in other sounds, and there are too few clips to teach them: leave them out, "
        "and train a head on the layer that still tells these classes apart."
    ),
    "large and near": (
        "There are enough clips to adapt the last blocks, and little to change in them: a low rate will do."
    ),
    "large and far": (
        "There are enough clips to teach the layers that have specialised in other sounds; those below the best layer "
        "are good as they are."
    ),
}


def _plan(table: ProbeTable, *, near: bool, large: bool, last: str) -> tuple[str, str, int | str]:
    """Strategy, embedding, trainable."""
    if near:
        return ("last blocks", last, 2) if large else ("head only", last, 0)
    best = max(table.rows, key=lambda row: row.accuracy).layer
    if not large:
        return "head on a lower layer", table.recommended, 0
    # The blocks above the best layer, and that one itself, train.
    below = [layer.name for layer in get_backbone(table.backbone).layers].index(best)
    first = block_of_embedding(table.backbone, best)
    return ("everything", last, "all") if below <= 2 or not first else ("last blocks", last, first)


def block_of_embedding(backbone: str, name: str) -> str:
    """The block of ``fine_tune`` in which the embedding layer ``name`` lies; "" for one below the first block."""
    spec = get_backbone(backbone)
    layer = spec.embedding_layer(name).layer
    with keras.device("cpu:0"):
        model = spec.build(include_top=name in spec.top, weights=None)
    return next(reversed(blocks_of(keras.Model(model.input, model.get_layer(layer).output))), "")


def _regularisation(*, large: bool) -> dict[str, dict[str, Any]]:
    if large:
        return {"build_classifier": {"dropout": 0.2}, "fine_tune": {"learning_rate": 1e-3, "label_smoothing": 0.0}}
    return {
        "build_classifier": {"dropout": 0.4, "hidden": (128,)},
        "fine_tune": {"learning_rate": 3e-4, "label_smoothing": 0.1},
    }
