"""The parts of a model of this package, by name: the one place that knows what the layers of a classifier are called.

A classifier is one flat Keras model: ``waveform -> patches -> network -> embedding -> head -> scores``. Whatever asks
for one of these, or whether a model has several labels, scores clips or patches, or takes waveforms, asks ``parts``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras

from tfaudiotl.backbones.assembly import frontend_of_model, grid_of_model
from tfaudiotl.backbones.frontend import LogMelSpec, PatchPooling, PatchSequence, WindowSpec
from tfaudiotl.backbones.registry import SPECS
from tfaudiotl.backbones.scores import ClassScores, class_names_of, scores_layer


@dataclass(frozen=True)
class Parts:
    """What a model consists of; a part that it lacks is None.

    Attributes:
        model: the model itself.
        waveform: its input ``(batch, samples)``; None for a model that takes patches.
        patches: what its front-end gives, ``(batch, patches, *patch_shape)``; None for a model that takes patches.
        rows: what its network takes, ``(rows, *patch_shape, 1)``, a row for each patch of all clips.
        sequence: the network's (or head's) output put back to clips, ``(batch, patches, ...)``; None where the
            patches stay rows.
        sequence_rows: the same before that, ``(rows, ...)``.
        valid: which patches hold sound, ``(batch, patches)``; None where nothing is pooled.
        embedding: what the head is given of each patch, ``(rows, dim)``; None for a backbone alone.
        statistics: the head's first layer where it takes statistics over a clip's patches.
        norm: the layer that standardises: the embedding, or these statistics.
        logits: the dense layer before the scores.
        scores: the last layer, with the class names, thresholds and background.
        grid: the numbers of the front-end that the model has; None for a model that takes patches.
        frontend: the same, or of the front-end that its patches must come from; None if nothing says.
    """

    model: keras.Model
    waveform: Any
    patches: Any
    rows: Any
    sequence: Any
    sequence_rows: Any
    valid: Any
    embedding: Any
    statistics: Any
    norm: Any
    logits: Any
    scores: ClassScores | None
    grid: LogMelSpec | WindowSpec | None
    frontend: LogMelSpec | WindowSpec | None

    @property
    def is_classifier(self) -> bool:
        """Whether ``build_classifier`` made it: an embedding, a head on it, scores of named classes."""
        return self.embedding is not None and self.norm is not None and self.scores is not None

    @property
    def takes_patches(self) -> bool:
        """Whether its input is a patch, ``(batch, frames, bands)``."""
        return len(self.model.inputs[0].shape) > 2

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class names, in output order; ValueError when it has none."""
        return class_names_of(self.model)

    @property
    def multi_label(self) -> bool:
        """Whether its classes are independent of each other, by the activation of its scores."""
        return self.scores is not None and self.scores.activation is keras.activations.sigmoid

    @property
    def sequence_head(self) -> bool:
        """Whether its head scores the sequence of a clip's patches, not each patch or their mean."""
        return self.statistics is not None or (self.norm is not None and len(self.norm.input.shape) == 3)

    @property
    def scores_clips(self) -> bool:
        """Whether its head scores a clip's patches together (their sequence or their mean), not each by itself."""
        names = (_SEQUENCE, _NORM)
        return [layer.name for layer in self.model.layers if layer.name in names] == [_SEQUENCE, _NORM]

    @cached_property
    def network(self) -> keras.Model:
        """From the model's input to the embedding: the backbone's part, sharing its layers; ValueError without one."""
        if self.embedding is None:
            raise ValueError(f"model {self.model.name!r} is no classifier of build_classifier: it has no embedding")
        return keras.Model(self.model.inputs[0], self.embedding)

    @property
    def body(self) -> list[Any]:
        """The layers that come from the backbone: those which the embedding is computed from."""
        return list(self.network.layers)

    @cached_property
    def blocks(self) -> dict[str, list[Any]]:
        """The backbone's blocks with their layers; see ``blocks_of``."""
        return blocks_of(self.network)

    @property
    def head(self) -> keras.Model:
        """From the embedding to the scores, sharing its layers: training it trains the classifier.

        Its input is ``(rows, dim)``; of a head on sequences ``(clips, patches, dim)`` and which patches there are.
        """
        if self.statistics is not None:
            inputs = self.statistics.input
        else:
            inputs = [self.norm.input, self.valid] if self.sequence_head else self.norm.input
        return keras.Model(inputs, self.scores.output, name="head")  # type: ignore[union-attr]

    @property
    def clip_embedding(self) -> keras.Model:
        """From the model's input to the embedding that the head is given, its mean over the clip: ``(batch, dim)``."""
        x = self.embedding
        if self.sequence is not None:
            x = PatchPooling("avg")([PatchSequence()([x, self.patches]), self.valid])
        return keras.Model(self.model.inputs[0], x)


_ROWS, _SEQUENCE, _VALID = "patch_batch", "patch_sequence", "valid_patches"
_EMBEDDING, _LOGITS = "patch_embedding", ("head_logits", "logits")
_STATISTICS, _NORM = "head_statistics", "head_batch_norm"


def parts(model: keras.Model) -> Parts:
    """The parts of any Keras model, whether this package made it or not; what it lacks is None.

    Example:
        >>> found = parts(build_classifier("yamnet", class_names=["dog", "rain"]))
        >>> found.multi_label, found.grid.sample_rate
        (False, 16000)
    """
    there = {layer.name: layer for layer in getattr(model, "layers", ())}

    def output(name: str) -> Any:
        return there[name].output if name in there else None

    grid = grid_of_model(model)
    return Parts(
        model=model,
        waveform=model.inputs[0] if grid is not None else None,
        patches=there[_ROWS].input if grid is not None and _ROWS in there else None,
        rows=output(_ROWS),
        sequence=output(_SEQUENCE),
        sequence_rows=there[_SEQUENCE].input[0] if _SEQUENCE in there else None,
        valid=output(_VALID),
        embedding=output(_EMBEDDING),
        statistics=there.get(_STATISTICS),
        norm=there.get(_NORM),
        logits=next((there[name] for name in _LOGITS if name in there), None),
        scores=scores_layer(model),
        grid=grid,
        frontend=frontend_of_model(model) or _frontend_by_name(model),
    )


def _frontend_by_name(model: keras.Model) -> LogMelSpec | WindowSpec | None:
    """Of a model of patches that an earlier version wrote, without its front-end's numbers: its backbone's."""
    backbone = model.name.removesuffix("_classifier")
    known = backbone != model.name and backbone in SPECS and len(model.inputs[0].shape) > 2
    return SPECS[backbone].frontend if known else None


def classifier_parts(model: keras.Model, *, waveforms: bool = False) -> Parts:
    """The parts of a classifier of ``build_classifier``; with ``waveforms`` of one that takes waveforms.

    Raises:
        ValueError: another model.
    """
    found = parts(model)
    if not found.is_classifier:
        raise ValueError(f"model {found.model.name!r} is no classifier of build_classifier")
    if waveforms and (found.grid is None or found.sequence is None):
        raise ValueError(f"model {model.name!r} takes no waveforms: build the classifier with input='waveform'")
    return found


def blocks_of(network: keras.Model) -> dict[str, list[Any]]:
    """The blocks of a backbone with their layers, from input to output, as the backbone's record lists them.

    Args:
        network: the backbone up to some layer. Where that one lies inside a block, the block has the layers up to it.
    """
    present = {layer.name: layer for layer in network.layers}
    spec = max(SPECS.values(), key=lambda spec: len(spec.keras_layers & set(present)))
    found, rest = {}, list(network.layers)
    for block in spec.blocks:
        part = keras.Model(network.inputs, present[block.end].output) if block.end in present else network
        below = {id(layer) for layer in part.layers}
        members = [layer for layer in rest if id(layer) in below]
        if any(layer.weights for layer in members):
            found[block.name] = members
        rest = [layer for layer in rest if id(layer) not in below]
    return found
