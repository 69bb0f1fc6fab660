"""Errors that say what was read, what was expected and what to do about it; and the checks of arguments."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from numbers import Integral, Real
from types import NoneType
from typing import Any, Literal, get_args

OnError = Literal["raise", "skip"]  # what to do with sounds that cannot be used
ADVICE = "Fix or remove them, or pass on_error='skip' to leave them out."


class AudioError(ValueError):
    """A sound that cannot be used: ``path`` (or where the samples came from) and ``reason``."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[AudioError], tuple[str, str]]:
        # Exceptions copy through their arguments; the default would pass the joined message alone.
        return type(self), (self.path, self.reason)


class AudioErrors(AudioError):
    """Several unusable sounds at once, so that all can be repaired in one go; ``errors`` lists them."""

    SHOWN = 10  # lines in the message; the attribute has them all

    def __init__(self, errors: Sequence[AudioError], total: int, advice: str = ADVICE) -> None:
        self.errors, self.total, self.advice = list(errors), total, advice
        lines = [f"  {error}" for error in self.errors[: self.SHOWN]]
        if len(self.errors) > self.SHOWN:
            lines.append(f"  ... and {len(self.errors) - self.SHOWN} more")
        summary = f"{len(self.errors)} of {total} sounds cannot be used"
        super().__init__(summary, "\n".join(["", *lines, advice]))

    def __reduce__(self) -> tuple[type[AudioErrors], tuple[list[AudioError], int, str]]:  # type: ignore[override]
        return type(self), (self.errors, self.total, self.advice)


class WeightsError(ValueError):
    """Weights that cannot be found, read or matched to the network."""


class DivergedError(ValueError):
    """A training whose loss is no finite number: there is nothing to keep of it, nor to continue."""


class ExportError(RuntimeError):
    """An exported file that does not do what the Keras model does, or could not be written."""


def choices(kind: Any) -> tuple[Any, ...]:
    """The values of a ``Literal`` type, ``None`` among them for ``Literal[...] | None``."""
    found: list[Any] = []
    for part in get_args(kind):
        found += [None] if part is NoneType else choices(part) if get_args(part) else [part]
    return tuple(found)


def check_choice(name: str, value: Any, allowed: Any) -> None:
    """ValueError unless ``value`` is one of those allowed.

    Args:
        name: the argument as the caller typed it.
        value: its value.
        allowed: a ``Literal`` type, or a collection of values, such as the keys of a dict.
    """
    values = list(allowed) if isinstance(allowed, Collection) else list(choices(allowed))
    # Not "in": 1 equals True, and an array compares element by element.
    if not any(
        isinstance(value, type(one)) and isinstance(value, bool) == isinstance(one, bool) and value == one
        for one in values
    ):
        named = [repr(one) for one in values]
        raise ValueError(f"{name}={value!r}: allowed are {' and '.join([', '.join(named[:-1]), named[-1]])}")


def check_number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    whole: bool = False,
) -> None:
    """ValueError unless ``value`` is a finite number in a range; True and False are no numbers.

    Args:
        name: the argument as the caller typed it.
        value: its value.
        least: the smallest that is allowed.
        most: the greatest that is allowed.
        above: what it must be greater than.
        below: what it must be smaller than.
        whole: whether it must be an integer.
    """
    fits = isinstance(value, Integral if whole else Real) and not isinstance(value, bool) and math.isfinite(value)
    fits = fits and (least is None or value >= least) and (most is None or value <= most)
    if not (fits and (above is None or value > above) and (below is None or value < below)):
        raise ValueError(
            f"{name}={value!r}: allowed are {'whole ' if whole else ''}numbers{_range(least, most, above, below)}"
        )


def _range(least: float | None, most: float | None, above: float | None, below: float | None) -> str:
    low = f" from {least:g}" if least is not None else f" above {above:g}" if above is not None else ""
    if most is not None:
        return f"{low} to {most:g}"
    if below is not None:
        return f"{low}{' and' if low else ''} below {below:g}"
    return low if least is None else f" of at least {least:g}"
