"""The last layer of every classifier: float32 scores, the names of the classes, and what counts as hearing one."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

THRESHOLD = 0.5  # of a class for which nobody chose one


@keras.saving.register_keras_serializable(package="tfaudiotl")
class ClassScores(keras.layers.Layer):
    """The final activation in float32, carrying the class names into the saved model.

    Args:
        activation: a Keras activation's name ("softmax", "sigmoid"), or None for logits.
        class_names: the names in output order; empty when unknown.
        thresholds: the score from which each class is heard, in the same order; empty when nobody chose any.
        background: the class of sound that is none of the others, never an event; None without one.
    """

    def __init__(
        self,
        activation: str | None = "softmax",
        *,
        class_names: Sequence[str] = (),
        thresholds: Sequence[float] = (),
        background: str | None = None,
        **kwargs: Any,
    ):
        kwargs["dtype"] = "float32"  # probabilities in half precision round to 0 and 1
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)
        self.class_names = tuple(class_names)
        self.thresholds = class_thresholds(thresholds, class_names) if thresholds else ()
        self.background = check_background(background, class_names)

    def call(self, logits: Any) -> Any:
        return self.activation(logits)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        activation = keras.activations.serialize(self.activation)
        config = {**super().get_config(), "activation": activation, "class_names": list(self.class_names)}
        # Only where they were chosen, so that earlier versions open the other files.
        if self.thresholds:
            config["thresholds"] = list(self.thresholds)
        if self.background is not None:
            config["background"] = self.background
        return config


def class_names_of(model: keras.Model) -> tuple[str, ...]:
    """The class names kept inside a classifier, in output order; ValueError when it has none."""
    for layer in reversed(model.layers):
        if isinstance(layer, ClassScores) and layer.class_names:
            return layer.class_names
    raise ValueError(f"model {model.name!r} carries no class names: pass class_names=")


def scores_layer(model: keras.Model) -> ClassScores | None:
    """The classifier's last layer; None for models that were built elsewhere, and for embeddings."""
    return next((layer for layer in reversed(model.layers) if isinstance(layer, ClassScores)), None)


def set_thresholds(model: keras.Model, thresholds: float | Mapping[str, Any] | Sequence[Any] | None) -> None:
    """Keeps the scores from which classes are heard in a classifier, and so in every file that it is written to.

    ``Predictor``, streams, the command line and, with several labels, ``evaluate`` then use them unless told otherwise.

    Args:
        model: a classifier of this package.
        thresholds: one for all classes; or a mapping from class name to threshold, such as ``choose_thresholds`` gives
            (classes that it lacks are heard from 0.5 on); or one for each class in output order. In [0, 1]. None
            forgets them.

    Raises:
        ValueError: the model is no classifier of this package; a threshold outside [0, 1] or not a number; a class that
            the model does not have, or another number of thresholds than of classes.

    Example:
        >>> set_thresholds(model, choose_thresholds(evaluate(model, val), goal="precision", value=0.9))
        >>> model.save("sounds.keras")
    """
    layer = _own_layer(model)
    layer.thresholds = () if thresholds is None else class_thresholds(thresholds, layer.class_names, "thresholds")


def set_background(model: keras.Model, background: str | None) -> None:
    """Declares one class to be no sound of interest: it is scored like the others, but is never an event.

    Args:
        model: a classifier of this package.
        background: the class's name, or None for none.

    Raises:
        ValueError: the model is no classifier of this package, or has no such class.
    """
    layer = _own_layer(model)
    layer.background = check_background(background, layer.class_names)


def decisions_of(model: keras.Model) -> dict[str, Any]:
    """What files say beside the class names: "thresholds" in output order, and "background"; JSON-ready, if any."""
    layer = scores_layer(model)
    if layer is None:
        return {}
    found: dict[str, Any] = {}
    if layer.thresholds:
        found["thresholds"] = list(layer.thresholds)
    if layer.background is not None:
        found["background"] = layer.background
    return found


def _own_layer(model: keras.Model) -> ClassScores:
    layer = scores_layer(model)
    if layer is None:
        raise ValueError(f"model {model.name!r} is no classifier of build_classifier or train_classifier")
    return layer


# Control characters, bytes that are no UTF-8, separators of lines and paragraphs: most of them end a line of labels.
_UNFIT = ("Cc", "Cs", "Zl", "Zp")


def check_class_names(class_names: Sequence[str], *, at_least: int = 2) -> list[str]:
    """``class_names`` as a list of different names, two or as many as ``at_least`` says, or a ValueError."""
    if isinstance(class_names, str) or not isinstance(class_names, Iterable):
        raise ValueError(f"class_names={class_names!r}: a sequence of class names, such as ['dog', 'rain']")
    names = list(class_names)
    if (
        len(names) < at_least
        or len(set(names)) != len(names)
        or not all(isinstance(name, str) and name for name in names)
    ):
        number = {1: "one name", 2: "two different, non-empty names"}[at_least]
        raise ValueError(f"class_names={names!r}: at least {number}")
    for place, name in enumerate(names):
        bad = next((letter for letter in name if unicodedata.category(letter) in _UNFIT), None)
        if bad is not None:
            raise ValueError(
                f"class_names[{place}]={name!r} has the character {bad!r}: a name is one line of text without control "
                "characters, since exported files hold one name a line; rename the folder, or relabel the clips"
            )
    return names


def check_background(background: str | None, class_names: Sequence[str]) -> str | None:
    """The background class, if it is one of the classes; else ValueError."""
    if background is not None and background not in class_names:
        raise ValueError(f"background={background!r}: the classes are {', '.join(map(repr, class_names))}")
    return background


def class_thresholds(
    thresholds: float | Mapping[str, Any] | Sequence[Any], class_names: Sequence[str], argument: str = "threshold"
) -> tuple[float, ...]:
    """One threshold for each class, from whichever way they were given.

    Args:
        thresholds: a number; a mapping from class name to number, where classes may be missing; or one number for each
            class in their order. What has an attribute ``value``, such as ``Threshold``, stands for that number.
        class_names: the classes, in output order.
        argument: what errors call ``thresholds``.

    Raises:
        ValueError: a threshold that is no number from 0 to 1, an unknown class, or another number of thresholds.
    """
    if isinstance(thresholds, Mapping):
        if unknown := sorted(set(thresholds) - set(class_names)):
            raise ValueError(f"{argument}: no class is called {', '.join(map(repr, unknown))}; there are {class_names}")
        return tuple(_checked(thresholds.get(name, THRESHOLD), f"{argument}[{name!r}]") for name in class_names)
    if isinstance(thresholds, (str, bytes, float, int)) or not hasattr(thresholds, "__len__"):
        return (_checked(thresholds, argument),) * len(class_names)
    values = list(thresholds)
    if len(values) != len(class_names):
        raise ValueError(f"{argument}: {len(values)} thresholds for {len(class_names)} classes")
    return tuple(_checked(value, f"{argument}[{name!r}]") for value, name in zip(values, class_names, strict=True))


def _checked(given: Any, argument: str) -> float:
    try:
        value = float(getattr(given, "value", given))
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value <= 1:
        raise ValueError(f"{argument}={getattr(given, 'value', given)!r}: allowed is 0 to 1")
    return value
