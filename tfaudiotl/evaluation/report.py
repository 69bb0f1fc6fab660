"""The report of an evaluation: a folder with Markdown, pictures and a table for spreadsheets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from tfaudiotl._files import new_files, write_atomic
from tfaudiotl.evaluation.bootstrap import bootstrap_interval
from tfaudiotl.evaluation.calibration import calibration
from tfaudiotl.evaluation.html import Sound, write_html
from tfaudiotl.evaluation.metrics import ClassMetrics, Evaluation
from tfaudiotl.evaluation.plots import (
    confusion_matrix_figure,
    per_class_figure,
    reliability_figure,
    save_figure,
    training_curves_figure,
)
from tfaudiotl.evaluation.ranking import AVERAGES, averages, top_k_accuracy
from tfaudiotl.evaluation.writing import csv_line, escape_markdown, format_score, markdown_table

__all__ = ["Section", "markdown_table", "write_report"]

DRAWS = 500  # of the bootstrap: a second, and the ends hold to a few thousandths
TOP = 3
_MISTAKES = 20  # as many as one would listen to


@dataclass(frozen=True)
class Section:
    """A part of the report that another stage has written, such as the check of an export.

    Attributes:
        title: its heading, plain text.
        body: Markdown, with headings of the third level or below.
    """

    title: str
    body: str

    def to_markdown(self) -> str:
        """The heading and the body."""
        return f"## {_heading(self.title)}\n\n{self.body.strip()}\n"


def write_report(
    directory: str | os.PathLike[str],
    *,
    title: str,
    evaluation: Evaluation,
    histories: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    sections: Iterable[Section] = (),
    groups: Sequence[object] | None = None,
    sound: Sound | None = None,
) -> Path:
    """Writes ``report.md`` and the files that it shows, and ``report.html``, the same as one page with sounds.

    The files are ``per_class.csv``, ``per_class.png``, ``confusion_matrix.png`` (one label per clip only),
    ``reliability.png`` (scores that are probabilities only) and ``training_curves.png`` (with ``histories`` only). They
    take their places together once all are written; other files in the folder stay as they are.

    Args:
        directory: made if missing, with its parents.
        title: the first line, plain text.
        evaluation: what to report.
        histories: training curves to draw, as for ``plots.training_curves_figure``; empty or None for none.
        sections: written at the end, in their order.
        groups: one value per clip, for the confidence interval; see ``bootstrap_interval``. None: the evaluation's.
        sound: gives a clip's waveform and rate by its row, for the page's players. None: the evaluation's; without any
            the clips are named after files.

    Returns:
        The path of ``report.md``.

    Raises:
        OSError: the folder or a file cannot be written; ``NotADirectoryError`` if ``directory`` is a file.
        ValueError: ``histories`` has runs but no loss and no accuracy.
    """
    groups = evaluation.groups if groups is None else groups
    sound = evaluation.sound if sound is None else sound
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(f"directory={str(directory)!r} is a file; give a folder, new or existing")
    with new_files(directory) as work:
        parts = [
            Section("Summary", _summary(evaluation, groups)),
            _per_class(work, evaluation),
            *([] if evaluation.multi_label else [_confusion_matrix(work, evaluation)]),
            *_reliability(work, evaluation),
            *([_training_curves(work, histories)] if histories else []),
            _mistakes(evaluation),
            *sections,
        ]
        text = "\n".join([f"# {_heading(title)}\n", *(part.to_markdown() for part in parts)])
        write_html(work / "report.html", title=title, markdown=text, evaluation=evaluation, sound=sound)
        write_atomic(work / "report.md", text)
    return directory / "report.md"


def _summary(evaluation: Evaluation, groups: Sequence[object] | None) -> str:
    """The measures of the whole, the means over classes, and how sure the accuracy is."""
    found = bootstrap_interval(evaluation, groups=groups, draws=DRAWS)
    drawn = f"{found.groups} groups of clips" if groups is not None else "clips"
    note = f"95 % interval of the accuracy, by drawing {drawn} again: {found.low:.3f} to {found.high:.3f}."
    if not evaluation.multi_label and len(evaluation.class_names) > TOP:
        note += f" Top-{TOP} accuracy: {top_k_accuracy(evaluation, TOP):.3f}."
    note = f"{note} {evaluation.notes()}".rstrip()
    rows = [(name, *map(format_score, vars(averages(evaluation, name)).values())) for name in AVERAGES]
    means = markdown_table(["Mean", "Precision", "Recall", "F1", "Average precision", "ROC-AUC"], rows)
    return f"{evaluation.summary_table()}\n\n{note}\n\n{means}"


def _reliability(directory: Path, evaluation: Evaluation) -> list[Section]:
    if evaluation.scores.min() < 0 or evaluation.scores.max() > 1:
        return []
    found = calibration(evaluation)
    save_figure(reliability_figure(found), directory / "reliability.png")
    note = (
        f"Of {found.decisions}: where the points lie on the diagonal, a score is the share of decisions that are right."
    )
    return [Section("Calibration", f"{note}\n\n![Accuracy by confidence](reliability.png)")]


def _per_class(directory: Path, evaluation: Evaluation) -> Section:
    write_atomic(directory / "per_class.csv", _csv(evaluation.per_class))
    save_figure(per_class_figure(evaluation), directory / "per_class.png")
    note = "The numbers with six digits are in [per_class.csv](per_class.csv)."
    picture = "![F1, precision and recall of each class](per_class.png)"
    return Section("Per class", f"{evaluation.per_class_table()}\n\n{note}\n\n{picture}")


def _confusion_matrix(directory: Path, evaluation: Evaluation) -> Section:
    save_figure(confusion_matrix_figure(evaluation), directory / "confusion_matrix.png")
    return Section("Confusion matrix", "![Confusion matrix](confusion_matrix.png)")


def _training_curves(directory: Path, histories: Mapping[str, Mapping[str, Sequence[float]]]) -> Section:
    save_figure(training_curves_figure(histories), directory / "training_curves.png")
    return Section("Training curves", "![Loss and accuracy per epoch](training_curves.png)")


def _mistakes(evaluation: Evaluation) -> Section:
    mistakes = evaluation.errors(_MISTAKES)
    if not mistakes:
        return Section("Worst mistakes", "None: every prediction is right.")
    rows = [
        (
            escape_markdown(mistake.name) or f"clip {mistake.index}",
            escape_markdown(mistake.true_label),
            escape_markdown(mistake.predicted_label),
            format_score(mistake.score),
        )
        for mistake in mistakes
    ]
    wrong = int((evaluation.predictions != evaluation.targets).any(axis=1).sum())
    note = f"{wrong} of {len(evaluation.targets)} clips have a wrong prediction; the most confident first."
    return Section("Worst mistakes", f"{note}\n\n{markdown_table(['Clip', 'True', 'Predicted', 'Score'], rows)}")


def _csv(metrics: Sequence[ClassMetrics]) -> str:
    names = [field.name for field in fields(ClassMetrics)]
    return "".join(map(csv_line, [names, *([getattr(row, name) for name in names] for row in metrics)]))


def _heading(text: str) -> str:
    return escape_markdown(" ".join(text.split()))
