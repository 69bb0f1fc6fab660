"""Which layers of a classifier train: its head, its last blocks, all of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

BATCH_NORMS = ("frozen", "train")


def freeze(model: keras.Model, *, until: str | None, batch_norm: str = "frozen") -> keras.Model:
    """Freezes a classifier up to a layer, that layer included; everything above it trains.

    Frozen batch norm keeps its statistics and stays in inference mode. A compiled model is compiled again, with the
    same settings and a new optimizer state: ``fit`` would otherwise go on with the layers it knew.

    Args:
        model: a classifier of ``build_classifier``, trained or not, or loaded from its file.
        until: a block ("layer11"), or the name of a layer in ``model.summary()``; None freezes nothing. The
            whole backbone freezes with "backbone".
        batch_norm: what batch norm does in layers of the backbone that train. "frozen": it keeps statistics and
            offsets, which small batches and few clips would spoil. "train": it learns both, as a network trained from
            scratch must.

    Returns:
        ``model``, changed.

    Raises:
        ValueError: no such layer (the message lists the blocks), or one of the head.
    """
    body = backbone_layers(model)
    if until is None:
        frozen: set[int] = set()
    elif until == "backbone":
        frozen = {id(layer) for layer in body}
    else:
        frozen = _up_to(model, body, until)
    _set_frozen(body, frozen, batch_norm)
    return _compiled_again(model)


def train_blocks(model: keras.Model, trainable: int | str, *, batch_norm: str = "frozen") -> keras.Model:
    """Trains the head and the last blocks of the backbone; the rest is frozen as by ``freeze``.

    A block is a numbered layer of the network ("layer13"; VGGish's "conv3_1" and "conv3_2" are one).

    Args:
        model: as in ``freeze``.
        trainable: 0: the head alone; n: also the last n blocks; "layer12": that block and all after it; "all".
        batch_norm: as in ``freeze``.

    Returns:
        ``model``, changed.
    """
    set_blocks(model, trainable, batch_norm=batch_norm)
    return _compiled_again(model)


def set_blocks(
    model: keras.Model, trainable: int | str, *, batch_norm: str = "frozen", argument: str = "trainable"
) -> None:
    """What ``train_blocks`` does, for who compiles the model afterwards; errors name ``trainable`` as ``argument``."""
    names = block_names(model)
    body = backbone_layers(model)
    if trainable == "all":
        return _set_frozen(body, set(), batch_norm)
    if isinstance(trainable, str) and trainable in names:
        count = len(names) - names.index(trainable)
    elif isinstance(trainable, int) and not isinstance(trainable, bool) and 0 <= trainable <= len(names):
        count = trainable
    else:
        raise ValueError(
            f"{argument}={trainable!r}: allowed are 0 to {len(names)} (the last n blocks), 'all', or the block to "
            f"begin with: {', '.join(names) or 'this model has none'}"
        )
    free = set(names[len(names) - count :])
    return _set_frozen(body, {id(layer) for layer in body if block_of(layer) not in free}, batch_norm)


def block_names(model: keras.Model) -> list[str]:
    """The blocks of a classifier's backbone, from its input to its output."""
    return list(dict.fromkeys(name for layer in backbone_layers(model) if (name := block_of(layer))))


def block_of(layer: Any) -> str:
    """The block a layer belongs to ("layer8" of "layer8_depthwise_conv"), "" for none."""
    match = re.match(
        r"(?:layer|fc|[cC]onv(?:_dw|_pw)?)_?\d+(?=_|$)|block_?\d+(?=[a-z]?_|$)|(?:stem|top)(?=_)", layer.name
    )
    return re.sub("_dw|_pw", "", match[0]) if match else ""


def backbone_layers(model: keras.Model) -> list[Any]:
    """The layers that ``build_classifier`` took from the backbone: what "patch_embedding" is computed from."""
    try:
        embedding = model.get_layer("patch_embedding").output
    except ValueError:
        raise ValueError(
            f"model {model.name!r} is no classifier of build_classifier: it has no patch_embedding"
        ) from None
    return keras.Model(model.inputs, embedding).layers


def _up_to(model: keras.Model, body: Sequence[Any], until: str) -> set[int]:
    """Ids of the layers that ``until`` is computed from, and its own."""
    members = [layer for layer in body if until in (layer.name, block_of(layer))] or [
        layer for layer in body if layer.name.startswith(f"{until}_")
    ]
    if not members:
        raise ValueError(
            f"until={until!r}: allowed are the blocks {', '.join(block_names(model))}, 'backbone', None, and the names "
            "of the backbone's layers in model.summary()"
        )
    return {id(layer) for layer in keras.Model(model.inputs, members[-1].output).layers}


def _set_frozen(body: Sequence[Any], frozen: set[int], batch_norm: str) -> None:
    if batch_norm not in BATCH_NORMS:
        raise ValueError(f"batch_norm={batch_norm!r}: allowed are {' and '.join(map(repr, BATCH_NORMS))}")
    for layer in body:
        keeps = batch_norm == "frozen" and isinstance(layer, layers.BatchNormalization)
        layer.trainable = id(layer) not in frozen and not keeps


def _compiled_again(model: keras.Model) -> keras.Model:
    if model.compiled:
        model.compile_from_config(model.get_compile_config())
    return model
