"""How fast what learns: cosine with warm-up over the steps, another rate for every block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras

from tfaudiotl.classifiers.anatomy import parts


@keras.saving.register_keras_serializable(package="tfaudiotl")
class BlockAdam(keras.optimizers.Adam):
    """Adam with a factor on the learning rate of each layer (discriminative learning rates).

    Args:
        learning_rate: a number or a Keras schedule.
        factors: layer name -> factor; 1 for the others.
        **kwargs: Adam's.
    """

    def __init__(self, learning_rate: Any = 1e-3, *, factors: Mapping[str, float] | None = None, **kwargs: Any):
        super().__init__(learning_rate, **kwargs)
        self.factors = dict(factors or {})

    def build(self, variables: Sequence[Any]) -> None:
        super().build(variables)
        # A variable's path is "layer/kernel".
        self._of_variable = [self.factors.get(variable.path.split("/")[0], 1.0) for variable in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        factor = self._of_variable[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * factor)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factors": self.factors}


@contextmanager
def following_statistics(model: keras.Model, steps: int) -> Iterator[None]:
    """Inside, the moving statistics of batch norms that train follow within so many steps, such as an epoch's.

    Validation is by these. With Keras's momentum of 0.99 they tell of the first weights for hundreds of steps: a
    network that learns from scratch then looks as if it did not, and early stopping ends it.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = statistics_momentum(steps)
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


def statistics_momentum(steps: int) -> float:
    """Momentum of a moving mean that forgets its beginning within so many steps, between 0.9 and 0.99."""
    return min(0.99, max(0.9, 1 - 10 / steps))


def block_factors(model: keras.Model, decay: float) -> dict[str, float]:
    """Factors for the backbone's layers: ``decay`` for the last block, ``decay**2`` for the one before, and so on.

    What lies below the first block shares its factor.
    """
    found = parts(model)
    factors = {layer.name: decay ** max(1, len(found.blocks)) for layer in found.body if layer.weights}
    for depth, members in enumerate(reversed(found.blocks.values()), start=1):
        factors |= {layer.name: decay**depth for layer in members if layer.weights}
    return factors


def cosine(learning_rate: float, *, steps: int, warmup: float) -> keras.optimizers.schedules.CosineDecay:
    """Keras's cosine: from 0 up to ``learning_rate`` in the share ``warmup`` of the steps, then down to 0."""
    rising = round(steps * warmup)
    if not rising:
        return keras.optimizers.schedules.CosineDecay(learning_rate, max(1, steps))
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - rising), warmup_target=learning_rate, warmup_steps=rising
    )
