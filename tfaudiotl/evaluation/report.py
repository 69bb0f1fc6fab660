"""The report of an evaluation: a folder with Markdown, pictures, a table for spreadsheets, and one page with sounds."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path

import numpy as np
import soundfile
from markdown_it import MarkdownIt

from tfaudiotl._files import new_files, write_atomic
from tfaudiotl.audio.files import load_audio
from tfaudiotl.audio.waveform import SAMPLE_RATE
from tfaudiotl.errors import AudioError, choices
from tfaudiotl.evaluation.measures import Average, averages, bootstrap_interval, calibration, top_k_accuracy
from tfaudiotl.evaluation.metrics import ClassMetrics, Evaluation, Mistake, Sound
from tfaudiotl.evaluation.plots import (
    confusion_matrix_figure,
    figure_bytes,
    per_class_figure,
    reliability_figure,
    save_figure,
    spectrogram_figure,
    training_curves_figure,
)
from tfaudiotl.markdown import Section, csv_line, escape_markdown, format_score, heading, markdown_table

DRAWS = 500  # of the bootstrap: a second, and the ends hold to a few thousandths
TOP = 3
_MISTAKES = 20  # as many as one would listen to

LISTEN = 10  # mistakes with a player
LISTEN_SECONDS = 10.0  # of each: 320 kB at 16 kHz

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.75rem; border-bottom: 1px solid #eee; text-align: left; } th { border-color: #999; }
img { max-width: 100%; height: auto; } audio { width: 100%; }
.sounds { display: grid; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); gap: 1.5rem; }
.sounds p { margin: 0.2rem 0; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True, eq=False)
class Report(Evaluation):
    """An evaluation that can be written down: what ``tfaudiotl.evaluate`` gives."""

    @classmethod
    def of(cls, evaluation: Evaluation) -> Report:
        """The report of an evaluation."""
        return cls(**{field.name: getattr(evaluation, field.name) for field in fields(evaluation)})

    def save(
        self, directory: str | os.PathLike[str], *, title: str = "Evaluation", sections: Iterable[Section] = ()
    ) -> Path:
        """Writes the report into a folder, see ``write_report``; returns the path of ``report.md``."""
        return write_report(directory, self, title=title, sections=sections)


def write_report(
    directory: str | os.PathLike[str],
    evaluation: Evaluation,
    *,
    title: str = "Evaluation",
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
        evaluation: what to report.
        title: the first line, plain text.
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
        text = "\n".join([f"# {heading(title)}\n", *(part.to_markdown() for part in parts)])
        _write_html(work / "report.html", title=title, markdown=text, evaluation=evaluation, sound=sound)
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
    rows = [(name, *map(format_score, vars(averages(evaluation, name)).values())) for name in choices(Average)]
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


# One page that needs nothing else: pictures, sounds and style are inside


def _write_html(path: Path, *, title: str, markdown: str, evaluation: Evaluation, sound: Sound | None = None) -> Path:
    """Writes the Markdown report as a page, its pictures (beside ``path``) and the worst mistakes' sounds inside.

    Args:
        path: the file to write, in the report's folder.
        title: of the page.
        markdown: the report.
        evaluation: whose worst mistakes to play.
        sound: gives a clip's waveform and rate by its row; None: from the files that the clips are named after.

    Returns:
        ``path``.
    """
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    body = re.sub(r'src="([^":]+\.png)"', lambda match: f'src="{_data(path.parent / match[1])}"', body)
    body = re.sub(r'<a href="([^":]+)">([^<]*)</a>', r"\2", body)  # files beside the page may stay behind
    players = _players(evaluation, sound or _from_names(evaluation.names))
    heading = re.search(r"<h2>Worst mistakes</h2>", body)
    if players and heading:
        body = f"{body[: heading.end()]}\n{players}{body[heading.end() :]}"
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(" ".join(title.split()))}</title>\n<style>{_STYLE}</style>\n'
        f"</head>\n<body>\n{body}</body>\n</html>\n"
    )
    return write_atomic(path, page)


def _players(evaluation: Evaluation, sound: Sound) -> str:
    items = []
    for mistake in evaluation.errors(LISTEN):
        try:
            waveform, rate = sound(mistake.index)
        except (AudioError, OSError, LookupError):
            continue  # the table names it
        items.append(_player(mistake, np.asarray(waveform, np.float32)[: round(LISTEN_SECONDS * rate)], rate))
    return f'<div class="sounds">\n{"".join(items)}</div>\n' if items else ""


def _player(mistake: Mistake, waveform: np.ndarray, rate: int) -> str:
    picture = base64.b64encode(figure_bytes(spectrogram_figure(waveform, rate), dpi=80)).decode()
    name = escape(Path(mistake.name).name or f"clip {mistake.index}")
    return (
        f'<div><img alt="spectrogram of {name}" src="data:image/png;base64,{picture}">\n'
        f'<audio controls preload="none" src="data:audio/wav;base64,{_wav(waveform, rate)}"></audio>\n'
        f"<p><b>{escape(mistake.predicted_label)}</b> ({mistake.score:.3f}), "
        f"truly <b>{escape(mistake.true_label)}</b></p>\n"
        f"<p>{name}</p></div>\n"
    )


def _wav(waveform: np.ndarray, rate: int) -> str:
    content = io.BytesIO()
    soundfile.write(content, np.clip(waveform, -1, 1), rate, format="WAV", subtype="PCM_16")
    return base64.b64encode(content.getvalue()).decode()


def _from_names(names: Sequence[str]) -> Sound:
    def load(row: int) -> tuple[np.ndarray, int]:

        return load_audio(names[row], sample_rate=SAMPLE_RATE), SAMPLE_RATE

    return load


def _data(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
