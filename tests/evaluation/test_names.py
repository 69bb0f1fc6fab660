"""Names of classes and files are text: whatever is in them, every picture, page and table shows them as they are."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text

from tests.helpers.reports import history
from tests.helpers.sounds import tone, write
from tfaudiotl.backbones.scores import check_class_names
from tfaudiotl.data.clips import Clips
from tfaudiotl.data.inspection import spectrogram_page
from tfaudiotl.embeddings.probe import ProbeRow, ProbeTable
from tfaudiotl.evaluation.metrics import evaluate_scores
from tfaudiotl.evaluation.plots import save_figure, spectrograms_figure
from tfaudiotl.evaluation.report import write_report
from tfaudiotl.markdown import csv_line, json_text, rounded
from tfaudiotl.runtime.events import Event, events_csv, events_json
from tfaudiotl.runtime.predictor import Prediction
from tfaudiotl.training.compare import Comparison, Run

HOSTILE = r"cost $\frac$ of _x$_{$"
NO_UTF8 = os.fsdecode(b"caf\xe9")
SHOWN = "caf\N{REPLACEMENT CHARACTER}"


def description_page(path: Path) -> None:
    root = path.parent / "sounds"
    for label in (HOSTILE, "dog"):
        write(root / label / "a $\\frac$.wav", tone(0.1, 16_000))
        (root / label / f"{NO_UTF8}.wav").write_bytes((root / label / "a $\\frac$.wav").read_bytes())
    save_figure(spectrogram_page(Clips.from_directory(root)), path)


def timeline(path: Path) -> None:
    events = [Event(0.0, 0.5, HOSTILE, 0.9)]
    scores = np.array([[0.9, 0.1], [0.2, 0.8]])
    Prediction(np.zeros(16_000), 16_000, (HOSTILE, NO_UTF8), np.array([0.0, 0.5]), scores, 0.5, events).plot(path)


def comparison(path: Path) -> None:
    Comparison([Run(HOSTILE, seed, 0.5, 0.5, 3.0 + seed, 9) for seed in range(2)], "2 epochs").plot(path)


def probe(path: Path) -> None:
    rows = [ProbeRow(HOSTILE, 8, 0.5, 0.5, 0.1, 0.4, 0.1)]
    ProbeTable(f"hub:{HOSTILE}", rows, HOSTILE, "best", "4 folds", 8, [], {}).plot(path)


@pytest.mark.parametrize(
    "draw",
    [
        description_page,
        timeline,
        comparison,
        probe,
        lambda path: save_figure(spectrograms_figure([tone(0.25, 16_000)], [HOSTILE], 16_000), path),
    ],
)
def test_pictures_take_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw: Callable[[Path], Any]) -> None:
    drawn: list[str] = []
    real = Text.draw

    def noted(self: Text, *args: Any, **options: Any) -> None:
        drawn.append(self.get_text())
        real(self, *args, **options)

    monkeypatch.setattr(Text, "draw", noted)
    draw(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"
    assert any(r"$\frac$" in text for text in drawn)


def test_pictures_are_written_in_the_format_of_their_name(tmp_path: Path) -> None:
    comparison(tmp_path / "picture.svg")
    assert "<svg" in (tmp_path / "picture.svg").read_text()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"ends in \.png"):
        comparison(tmp_path / "picture.docx")
    assert sorted(tmp_path.iterdir()) == before


def test_a_report_of_files_whose_names_are_no_utf8(tmp_path: Path) -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]])
    path = write(tmp_path / "x.wav", tone(0.1, 16_000)).rename(tmp_path / f"{NO_UTF8}.wav")
    found = evaluate_scores(scores, np.eye(2)[[0, 1, 1]], class_names=[HOSTILE, "=x"], names=[str(path)] * 3)
    report = write_report(tmp_path / "report", found, title=NO_UTF8, histories={NO_UTF8: history(2)})
    assert f"{SHOWN}.wav" in report.read_text(encoding="utf-8")
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert f"<p>{SHOWN}.wav</p>" in page  # with a player, so that the file was found
    rows = list(csv.reader(io.StringIO((tmp_path / "report" / "per_class.csv").read_text(encoding="utf-8"))))
    assert [row[0] for row in rows] == ["name", HOSTILE, "'=x"]


@pytest.mark.parametrize(
    "name", ["a\nb", "a\rb", "a\u2028b", "a\u2029", "\x85a", "a\x0bb", "a\x1cb", "a\tb", "a\0", "a\x7f", NO_UTF8]
)
def test_class_names_that_no_file_of_labels_can_hold(name: str) -> None:
    with pytest.raises(ValueError, match=r"class_names\[1\]=.*one line of text"):
        check_class_names(["dog", name])


def test_class_names_in_any_script() -> None:
    names = ["Geräusch", "می‌خواهم", "👩‍🚒", "a b", "a\u00a0b", HOSTILE, "=x"]
    assert check_class_names(names) == names


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_spreadsheet_computes_no_name(text: str) -> None:
    written = events_csv([Event(0.5, 1.0, text, 0.25)])
    assert next(csv.DictReader(io.StringIO(written, newline="")))["label"] == f"'{text}"


def test_cells_keep_what_is_in_them() -> None:
    cells = ['a "b"', "a,b", "a=b", "", None, float("nan"), -0.5, np.float32(0.1), np.int64(-3), True, NO_UTF8]
    line = csv_line(cells)
    assert next(csv.reader([line])) == ['a "b"', "a,b", "a=b", "", "", "", "-0.5", "0.1", "-3", "True", SHOWN]
    assert line.endswith("\n")
    assert not line.endswith("\r\n")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.123456789, 0.123457),
        (np.float32(1 / 3), 0.333333),
        (1.23456789e-7, 1.23457e-7),
        (-123.456789, -123.457),
        (86_399.1234567, 86_399.123),  # seconds of a day-long recording
        (0.0, 0.0),
        (1e300, 1e300),
        (float("inf"), None),
        (2**60, 2**60),
        (np.bool_(True), True),
        (np.array([0.1, 0.2], np.float32), [0.1, 0.2]),
        ({"a": (1.5, {"b": None})}, {"a": [1.5, {"b": None}]}),
        (Path("x"), "x"),
    ],
)
def test_numbers_have_the_digits_that_mean_something(value: object, expected: object) -> None:
    assert rounded(value) == expected
    assert type(rounded(value)) is type(expected)
    assert json.loads(json_text(value)) == expected


def test_events_as_json() -> None:
    assert json.loads(events_json([Event(1 / 3, 2 / 3, NO_UTF8, 0.1 + 0.2)])) == [
        {"start": 0.333333, "end": 0.666667, "label": SHOWN, "score": 0.3}
    ]
