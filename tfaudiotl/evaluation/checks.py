"""Arguments that the measures can rely on: errors name the argument, the value and what is allowed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def checked_matrix(argument: str, value: npt.ArrayLike, *, classes: int) -> FloatArray:
    """A read-only float64 copy of an argument with a row for each clip and a column for each class.

    Args:
        argument: its name, for messages.
        value: what the caller gave.
        classes: number of columns that it must have.

    Returns:
        (clips, classes), at least one clip, all finite.

    Raises:
        ValueError: ``value`` is anything else.
    """
    try:
        matrix = np.array(value, dtype=np.float64)  # a copy, since measures are remembered
    except (TypeError, ValueError) as error:
        raise ValueError(f"{argument} is no array of numbers of shape (clips, {classes}): {error}") from error
    if matrix.ndim != 2 or matrix.shape[1] != classes:
        hint = "; np.eye(classes)[labels] makes rows of class numbers" if argument == "targets" else ""
        raise ValueError(
            f"{argument} has shape {matrix.shape}; (clips, {classes}) is needed, a column for each of class_names{hint}"
        )
    if not len(matrix):
        raise ValueError(f"{argument} has shape {matrix.shape}: no clips; give at least one row")
    finite = np.isfinite(matrix)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise ValueError(
            f"{argument}[{row}, {column}]={matrix[row, column]} ({(~finite).sum()} of {matrix.size} values "
            f"are not finite); only finite numbers are allowed"
        )
    matrix.setflags(write=False)
    return matrix


def check_targets(targets: FloatArray, *, one_hot: bool) -> None:
    """Refuses targets other than 0 and 1.

    Args:
        targets: (clips, classes).
        one_hot: whether each row must have exactly one 1.

    Raises:
        ValueError: the first value or row at fault, and what is allowed.
    """
    allowed = (targets == 0) | (targets == 1)
    if not allowed.all():
        row, column = np.argwhere(~allowed)[0]
        raise ValueError(f"targets[{row}, {column}]={targets[row, column]:g}; only 0 and 1 are allowed")
    counts = targets.sum(axis=1)
    if one_hot and (counts != 1).any():
        row = int(np.flatnonzero(counts != 1)[0])
        raise ValueError(
            f"targets[{row}] has {int(counts[row])} classes; exactly one is allowed with multi_label=False "
            f"(pass multi_label=True for clips with none or several)"
        )
