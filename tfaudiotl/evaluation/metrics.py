"""How good a classifier is: scores and targets in, measures out, all through scikit-learn's functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk

from tfaudiotl.markdown import escape_markdown, format_score, markdown_table

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Sound = Callable[[int], tuple[np.ndarray, int]]  # a clip's row -> its waveform (samples,) and rate in Hz

ABSENT = 20  # classes without clips that are named
FEW = 20  # clips, under which an accuracy says so
# Attributes of an Evaluation and their names in tables, in the order in which people ask for them.
_SUMMARY = (
    ("accuracy", "Accuracy"),
    ("balanced_accuracy", "Balanced accuracy"),
    ("macro_f1", "Macro F1"),
    ("mean_average_precision", "Mean average precision"),
    ("log_loss", "Log loss"),
)


@dataclass(frozen=True)
class ClassMetrics:
    """What was measured for one class.

    Attributes:
        name: the class.
        precision: share of its predictions that were right, 0 to 1; 0 where it was never predicted.
        recall: share of its examples that were found, 0 to 1; 0 where there were none.
        f1: harmonic mean of precision and recall, 0 to 1.
        average_precision: area under the precision-recall curve, 0 to 1, whatever the threshold; NaN
            where the targets hold no example of the class.
        support: number of examples of the class in the targets.
    """

    name: str
    precision: float
    recall: float
    f1: float
    average_precision: float
    support: int


@dataclass(frozen=True)
class Mistake:
    """One wrong decision.

    Attributes:
        index: row in ``scores`` and ``targets``.
        name: the clip's name, or "" where no names were given.
        true_label: the class that was right; for several labels per clip ``"dog"`` or ``"not dog"``.
        predicted_label: the class that was predicted; likewise.
        score: the predicted class's score; for several labels per clip, the score of the class decided on.
    """

    index: int
    name: str
    true_label: str
    predicted_label: str
    score: float


@dataclass(frozen=True, eq=False)  # arrays have no single truth value, so two evaluations compare by identity
class Evaluation:
    """Scores beside targets, and every measure that follows from them, computed when first asked for.

    Made by ``evaluate_scores``, which checks what it is given.

    Attributes:
        class_names: the classes, in the order of the columns.
        multi_label: whether a clip may have any number of classes, rather than exactly one.
        scores: (clips, classes), the model's output; the arrays are read-only.
        targets: (clips, classes), 1 where the class applies, else 0.
        names: the clips' names, or empty.
        threshold: score from which on a class counts as predicted, one for all or one for each; used with
            ``multi_label`` only.
        groups: what clips have in common (recording, speaker), one value for each, or None; for the accuracy's
            interval.
        sound: gives a clip's waveform and rate by its row, for the report's players, or None.
    """

    class_names: tuple[str, ...]
    multi_label: bool
    scores: FloatArray
    targets: FloatArray
    names: tuple[str, ...] = ()
    threshold: float | tuple[float, ...] = 0.5
    groups: tuple[Hashable, ...] | None = None
    sound: Sound | None = None

    @cached_property
    def predictions(self) -> IntArray:
        """(clips, classes) of 0 and 1: what the scores decide.

        One label per clip: the class with the highest score, the first of equals. Several labels: every
        class whose score is at or above ``threshold``.
        """
        if self.multi_label:
            return (self.scores >= self._thresholds).astype(np.int64)
        return np.eye(len(self.class_names), dtype=np.int64)[self.scores.argmax(axis=1)]

    @cached_property
    def accuracy(self) -> float:
        """Share of clips with the right class (multi-label: exactly the right set of classes), 0 to 1."""
        return float(sk.accuracy_score(*self._decisions))

    @cached_property
    def balanced_accuracy(self) -> float:
        """Accuracy in which every class weighs the same, 0 to 1.

        One label per clip: the mean recall of the classes that occur in the targets. Several labels: the
        mean, over the classes that occur, of the balanced accuracy of "has it or not" (0.5 is chance);
        NaN where none occurs.
        """
        if not self.multi_label:
            return _balanced_accuracy(*self._labels)
        return _mean([_balanced_accuracy(self._truth[:, c], self.predictions[:, c]) for c in self._occurring])

    @cached_property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that occur in the targets or the predictions, 0 to 1.

        As scikit-learn's default: a class that a small validation set lacks, and that was never predicted,
        says nothing either way and is left out.
        """
        occurs = self._truth.sum(axis=0) + self.predictions.sum(axis=0)
        return _mean([m.f1 for m, seen in zip(self.per_class, occurs, strict=True) if seen])

    @cached_property
    def mean_average_precision(self) -> float:
        """Mean average precision of the classes that occur in the targets, 0 to 1; NaN where none does."""
        return _mean([m.average_precision for m in self.per_class if m.support])

    @cached_property
    def per_class(self) -> tuple[ClassMetrics, ...]:
        """The measures of each class, in the order of ``class_names``."""
        truth, decided = self._decisions
        precision, recall, f1, support = sk.precision_recall_fscore_support(
            truth, decided, labels=self._positive_labels, average=None, zero_division=0
        )
        return tuple(
            ClassMetrics(
                name=name,
                precision=float(precision[c]),
                recall=float(recall[c]),
                f1=float(f1[c]),
                average_precision=self._average_precision(c),
                support=int(support[c]),
            )
            for c, name in enumerate(self.class_names)
        )

    @cached_property
    def confusion_matrix(self) -> IntArray:
        """(classes, classes) counts of clips: rows are the true classes, columns the predicted ones.

        Raises:
            ValueError: ``multi_label`` is true: a clip with several classes has no single cell.
        """
        if self.multi_label:
            raise ValueError(
                "confusion_matrix needs multi_label=False: with several labels per clip no single cell is "
                "right; use per_class (precision and recall of each class) or errors()"
            )
        return np.asarray(sk.confusion_matrix(*self._labels, labels=range(len(self.class_names))), np.int64)

    @cached_property
    def log_loss(self) -> float:
        """Mean cross-entropy in nats, 0 or more; NaN where the scores are no probabilities.

        One label per clip: minus the log of the true class's share of the row. Rows are divided by their
        sum first, which leaves softmax as it is and removes the rounding of quantised models. Several labels:
        binary cross-entropy, the mean over clips and classes, as Keras has it.
        """
        scores = self.scores
        if scores.min() < 0 or scores.max() > 1:
            return math.nan
        if self.multi_label:
            return float(sk.log_loss(self._truth.ravel(), scores.ravel(), labels=[0, 1]))
        total = scores.sum(axis=1, keepdims=True)
        if not total.all():
            return math.nan
        return float(sk.log_loss(self._labels[0], scores / total, labels=range(scores.shape[1])))

    def errors(self, k: int = 20) -> tuple[Mistake, ...]:
        """The worst mistakes: those to listen to first.

        Args:
            k: how many at most, 0 or more.

        Returns:
            One label per clip: the wrong clips, the most confident prediction first. Several labels: the
            wrong decisions, clip by class, the farthest from the threshold first.

        Raises:
            ValueError: ``k`` is negative.
        """
        if k < 0:
            raise ValueError(f"k={k}; give the number of mistakes wanted, 0 or more")
        if self.multi_label:
            wrong = np.argwhere(self.predictions != self._truth)
            badness = np.abs(self.scores - self._thresholds)[wrong[:, 0], wrong[:, 1]]
        else:
            true, predicted = self._labels
            rows = np.flatnonzero(true != predicted)
            wrong = np.stack([rows, predicted[rows]], axis=1)
            badness = self.scores[wrong[:, 0], wrong[:, 1]]
        order = np.argsort(-badness, kind="stable")[:k]  # stable: equals stay in the order of the clips
        return tuple(self._mistake(int(row), int(column)) for row, column in wrong[order])

    def to_dict(self) -> dict[str, Any]:
        """Everything but the scores, ready for ``json.dumps``.

        Returns:
            Plain strings, numbers, lists and dicts, NaN as None: ``clips``, ``class_names``,
            ``multi_label``, ``threshold`` (None without ``multi_label``), the summary's measures by their
            attribute names, ``per_class`` (a list of dicts) and ``confusion_matrix`` (nested lists; None
            with ``multi_label``).
        """
        return {
            "clips": len(self.targets),
            "class_names": list(self.class_names),
            "multi_label": self.multi_label,
            "threshold": _jsonable(self.threshold) if self.multi_label else None,
            **{attribute: _or_none(getattr(self, attribute)) for attribute, _ in _SUMMARY},
            "per_class": [{key: _or_none(value) for key, value in vars(m).items()} for m in self.per_class],
            "confusion_matrix": None if self.multi_label else self.confusion_matrix.tolist(),
        }

    def summary_table(self) -> str:
        """The measures of the whole as a Markdown table of two columns."""
        rows = [("Clips", str(len(self.targets))), ("Classes", str(len(self.class_names)))]
        for attribute, title in _SUMMARY:
            if attribute == "accuracy" and self.multi_label:
                title = "Accuracy (all labels of a clip right)"
            rows.append((title, format_score(getattr(self, attribute))))
        if self.multi_label:
            each = isinstance(self.threshold, tuple)
            rows.append(("Threshold", "one for each class" if each else f"{self.threshold:g}"))
        return markdown_table(["Measure", "Value"], rows)

    def per_class_table(self) -> str:
        """The measures of each class as a Markdown table, in the order of ``class_names``."""
        header = ["Class", "Precision", "Recall", "F1", "Average precision", "Clips"]
        rows = [
            (
                escape_markdown(m.name),
                *map(format_score, (m.precision, m.recall, m.f1, m.average_precision)),
                m.support,
            )
            for m in self.per_class
        ]
        return markdown_table(header, rows)

    def to_markdown(self) -> str:
        """The summary and the per-class table in Markdown, for a terminal, a notebook or a report."""
        note = f"{self.notes()}\n\n" if self.notes() else ""
        return f"{self.summary_table()}\n\n{note}{self.per_class_table()}\n"

    def notes(self) -> str:
        """What to know of the clips that the measures are of, in Markdown: absent classes, few clips; or nothing."""
        absent = [escape_markdown(m.name) for m in self.per_class if not m.support]
        notes = []
        if absent:
            names = ", ".join(absent[:ABSENT]) + (f" and {len(absent) - ABSENT} more" if absent[ABSENT:] else "")
            notes.append(f"No clips of {len(absent)} of the {len(self.class_names)} classes: {names}.")
        if len(self.targets) < FEW:
            notes.append(
                f"These measures rest on {len(self.targets)} clips: one more mistake is {1 / len(self.targets):.0%} of "
                "the accuracy."
            )
        return " ".join(notes)

    @property
    def _thresholds(self) -> FloatArray:
        return np.broadcast_to(self.threshold, len(self.class_names))

    @cached_property
    def _truth(self) -> IntArray:
        return self.targets.astype(np.int64)

    @cached_property
    def _labels(self) -> tuple[IntArray, IntArray]:
        # true and predicted class of each clip; for one label per clip only
        return self.targets.argmax(axis=1), self.scores.argmax(axis=1)

    @cached_property
    def _occurring(self) -> IntArray:
        return np.flatnonzero(self.targets.any(axis=0))

    @property
    def _decisions(self) -> tuple[IntArray, IntArray]:
        # scikit-learn takes (n, 1) for one binary column where it takes (n, 2) for two labels
        if len(self.class_names) == 1:
            return self._truth[:, 0], self.predictions[:, 0]
        return self._truth, self.predictions

    @property
    def _positive_labels(self) -> list[int] | None:
        # of one binary column, only "has it" is a class of ours
        return [1] if len(self.class_names) == 1 else None

    def _average_precision(self, column: int) -> float:
        truth = self._truth[:, column]
        # without a positive scikit-learn warns and says 0, which would read as a bad class
        return float(sk.average_precision_score(truth, self.scores[:, column])) if truth.any() else math.nan

    def _mistake(self, row: int, column: int) -> Mistake:
        predicted = self.class_names[column]
        if self.multi_label:
            labels = (f"not {predicted}", predicted)
            true, predicted = labels[self._truth[row, column]], labels[self.predictions[row, column]]
        else:
            true = self.class_names[self._labels[0][row]]
        name = self.names[row] if self.names else ""
        return Mistake(row, name, true, predicted, float(self.scores[row, column]))


def evaluate_scores(
    scores: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    class_names: Sequence[str],
    multi_label: bool = False,
    threshold: npt.ArrayLike = 0.5,
    names: Sequence[str] = (),
    groups: Sequence[Hashable] | None = None,
    sound: Sound | None = None,
) -> Evaluation:
    """Checks scores and targets and puts them into an ``Evaluation``.

    Args:
        scores: (clips, classes), finite: probabilities, or other scores where higher means more likely (then
            ``log_loss`` is NaN). Copied.
        targets: (clips, classes) of 0 and 1, bool or any number type; without ``multi_label`` exactly one
            1 in each row. Copied.
        class_names: the classes in the order of the columns; at least two, or one with ``multi_label``.
        multi_label: whether a clip may have any number of classes.
        threshold: score from which on a class counts as predicted, one for all or one for each class, with
            ``multi_label`` only; finite.
        names: the clips' names for the list of mistakes, as many as there are rows, or empty.
        groups: what clips have in common (recording, speaker), one value for each row, for the accuracy's interval.
        sound: gives a clip's waveform and rate by its row, for the report's players; None: clips are named after files.

    Returns:
        The evaluation; its measures are computed when first asked for.

    Raises:
        ValueError: an argument is empty, or of another shape, range or length than said above.
    """
    if isinstance(class_names, str):
        raise ValueError(f"class_names={class_names!r} is one string; give a sequence of names")
    class_names = tuple(str(name) for name in class_names)
    least = 1 if multi_label else 2
    if len(class_names) < least:
        raise ValueError(
            f"class_names={class_names!r} has {len(class_names)} names; at least {least} are needed with "
            f"multi_label={multi_label}"
        )
    score_matrix = _checked_matrix("scores", scores, classes=len(class_names))
    target_matrix = _checked_matrix("targets", targets, classes=len(class_names))
    if len(score_matrix) != len(target_matrix):
        raise ValueError(f"scores has {len(score_matrix)} rows and targets {len(target_matrix)}; give as many")
    _check_targets(target_matrix, one_hot=not multi_label)
    levels = np.asarray(threshold)
    if levels.dtype.kind not in "fiu" or levels.shape not in ((), (len(class_names),)) or not np.isfinite(levels).all():
        raise ValueError(
            f"threshold={threshold!r}; give a finite number, such as 0.5 for probabilities, or one for each class"
        )
    if isinstance(names, str) or len(names) not in (0, len(score_matrix)):
        raise ValueError(
            f"names has length {len(names)} ({type(names).__name__}); give one name for each of the "
            f"{len(score_matrix)} rows of scores, or none"
        )
    if groups is not None and len(groups) != len(score_matrix):
        raise ValueError(
            f"groups has {len(groups)} entries; give one for each of the {len(score_matrix)} rows of scores"
        )
    return Evaluation(
        class_names=class_names,
        multi_label=bool(multi_label),
        scores=score_matrix,
        targets=target_matrix,
        names=tuple(str(name) for name in names),
        threshold=tuple(map(float, levels)) if levels.ndim else float(levels),
        groups=None if groups is None else tuple(groups),
        sound=sound,
    )


def _balanced_accuracy(true: IntArray, predicted: IntArray) -> float:
    # What sk.balanced_accuracy_score computes; that function warns of classes which only the predictions
    # have, an everyday matter with small validation sets.
    return float(sk.recall_score(true, predicted, labels=np.unique(true), average="macro", zero_division=0))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _jsonable(threshold: float | tuple[float, ...]) -> float | list[float]:
    return list(threshold) if isinstance(threshold, tuple) else threshold


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _checked_matrix(argument: str, value: npt.ArrayLike, *, classes: int) -> FloatArray:
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


def _check_targets(targets: FloatArray, *, one_hot: bool) -> None:
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
