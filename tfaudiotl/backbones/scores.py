"""The last layer of every classifier: float32 scores, and the names of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="tfaudiotl")
class ClassScores(keras.layers.Layer):
    """The final activation in float32, carrying the class names into the saved model.

    Args:
        activation: a Keras activation's name ("softmax", "sigmoid"), or None for logits.
        class_names: the names in output order; empty when unknown.
    """

    def __init__(self, activation: str | None = "softmax", *, class_names: Sequence[str] = (), **kwargs: Any):
        kwargs["dtype"] = "float32"  # probabilities in half precision round to 0 and 1
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)
        self.class_names = tuple(class_names)

    def call(self, logits: Any) -> Any:
        return self.activation(logits)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "activation": activation, "class_names": list(self.class_names)}


def class_names_of(model: keras.Model) -> tuple[str, ...]:
    """The class names kept inside a classifier, in output order; ValueError when it has none."""
    for layer in reversed(model.layers):
        if isinstance(layer, ClassScores) and layer.class_names:
            return layer.class_names
    raise ValueError(f"model {model.name!r} carries no class names: pass class_names=")
