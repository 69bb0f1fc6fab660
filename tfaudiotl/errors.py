"""Errors that say what was read, what was expected and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence


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
    """Several unusable sounds at once, so that all can be mended in one go; ``errors`` lists them."""

    SHOWN = 10  # lines in the message; the attribute has them all

    def __init__(self, errors: Sequence[AudioError], total: int, advice: str) -> None:
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


class ExportError(RuntimeError):
    """An exported file that does not do what the Keras model does, or could not be written."""
