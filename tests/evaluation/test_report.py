from __future__ import annotations

import base64
import csv
import errno
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.helpers.reports import check_png, evaluation, history, parse
from tests.helpers.sounds import tone, write
from tfaudiotl import _files
from tfaudiotl.data.clips import Clips
from tfaudiotl.data.splits import shared_units
from tfaudiotl.evaluation import report
from tfaudiotl.evaluation.metrics import evaluate_scores
from tfaudiotl.evaluation.report import Report, write_report
from tfaudiotl.markdown import Section, markdown_table

pytestmark = pytest.mark.filterwarnings("error")


def headings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("#")]


def links(text: str) -> set[str]:
    return set(re.findall(r"\]\(([^)]+)\)", text))


def table_after(text: str, heading: str) -> list[list[str]]:
    lines = text.split(f"{heading}\n")[1].split("\n## ")[0].splitlines()
    return parse("\n".join(line for line in lines if line.startswith("|")))


def test_the_whole_report(tmp_path: Path) -> None:
    found = evaluation(4)
    sections = [
        Section("Export", markdown_table(["File", "Agreement"], [("model.tflite", 0.99)])),
        Section("Time", "\nAn hour.\n\n"),
    ]
    path = write_report(
        tmp_path / "new" / "report",
        found,
        title="ESC-10\n*all*",
        histories={"fold 1": history(3), "fold 2": history(4)},
        sections=sections,
    )
    assert path == tmp_path / "new" / "report" / "report.md"
    text = path.read_text(encoding="utf-8")
    assert headings(text) == [
        r"# ESC-10 \*all\*",
        "## Summary",
        "## Per class",
        "## Confusion matrix",
        "## Calibration",
        "## Training curves",
        "## Worst mistakes",
        "## Export",
        "## Time",
    ]
    pictures = {"per_class.png", "confusion_matrix.png", "reliability.png", "training_curves.png"}
    files = {"report.md", "report.html", "per_class.csv", *pictures}
    assert {p.name for p in path.parent.iterdir()} == files
    assert links(text) == files - {"report.md", "report.html"}
    for picture in path.parent.glob("*.png"):
        check_png(picture)
    assert ["Accuracy", f"{found.accuracy:.3f}"] in table_after(text, "## Summary")
    _, _, *rows = table_after(text, "## Per class")
    assert [row[0] for row in rows] == list(found.class_names)
    _, _, *mistakes = table_after(text, "## Worst mistakes")
    assert len(mistakes) == min(20, len(found.errors(10**6)))
    assert mistakes[0] == [
        f"clip {found.errors(1)[0].index}",
        found.errors(1)[0].true_label,
        found.errors(1)[0].predicted_label,
        f"{found.errors(1)[0].score:.3f}",
    ]
    assert text.endswith("## Time\n\nAn hour.\n")


def test_csv_has_six_digits_and_empty_cells_for_nothing(tmp_path: Path) -> None:
    scores = [[0.9, 0.1, 0], [0.6, 0.4, 0], [0.3, 0.7, 0]]
    found = evaluate_scores(scores, np.eye(3)[[0, 1, 1]], class_names=["a, b", 'say "c"', "none"])
    write_report(tmp_path, found)
    with open(tmp_path / "per_class.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["a, b", 'say "c"', "none"]
    assert rows[1]["f1"] == "0.666667"
    assert [row["support"] for row in rows] == ["1", "2", "0"]
    assert rows[2]["average_precision"] == ""


def test_several_labels_have_no_confusion_matrix(tmp_path: Path) -> None:
    text = write_report(tmp_path, evaluation(3, multi_label=True), title="Tags").read_text(encoding="utf-8")
    assert "# Tags" in headings(text)
    assert not {"## Confusion matrix", "## Training curves"} & set(headings(text))
    assert {p.name for p in tmp_path.iterdir()} == {
        *("report.md", "report.html", "per_class.csv", "per_class.png", "reliability.png")
    }


def test_no_mistakes(tmp_path: Path) -> None:
    found = evaluate_scores(np.eye(2), np.eye(2), class_names=["a", "b"], names=["1.wav", "2.wav"])
    assert "every prediction is right" in write_report(tmp_path, found).read_text(encoding="utf-8")


def test_names_with_markdown_in_them(tmp_path: Path) -> None:
    names = ["a|b", "<script>"]
    found = evaluate_scores([[0.1, 0.9]], [[1, 0]], class_names=names, names=["dir\\x|y.wav"])
    text = write_report(tmp_path, found).read_text(encoding="utf-8")
    assert table_after(text, "## Worst mistakes")[2] == ["dir\\x|y.wav", "a|b", "<script>", "0.900"]


def test_an_existing_folder_is_refreshed_and_keeps_other_files(tmp_path: Path) -> None:
    write_report(tmp_path, evaluation(3), title="First")
    (tmp_path / "notes.txt").write_text("mine")
    assert "Second" in write_report(tmp_path, evaluation(3), title="Second").read_text(encoding="utf-8")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file; give a folder"):
        write_report(path, evaluation(2))
    assert path.read_text() == "mine"


def test_a_failure_on_the_way_keeps_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_report(tmp_path, evaluation(2), title="Old")
    old = path.read_text(encoding="utf-8")

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("tfaudiotl.evaluation.report.per_class_figure", full)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path, evaluation(2), title="New")
    assert path.read_text(encoding="utf-8") == old


def test_spans_are_played_and_their_recordings_drawn_together(tmp_path: Path) -> None:
    path = write(tmp_path / "long.wav", np.concatenate([tone(1.0, 16_000, frequency=f) for f in (300, 3_000)]))
    clips = Clips.from_files([path] * 4, ["a", "a", "b", "b"], starts=[0, 1, 0, 1], ends=[1, 2, 1, 2])
    found = evaluate_scores(
        [[0.2, 0.8], [0.1, 0.9], [0.1, 0.9], [0.2, 0.8]],
        clips.targets,
        class_names=clips.class_names,
        names=clips.paths,
        groups=shared_units(clips),
        sound=lambda row: (clips.load(row), 16_000),
    )
    text = write_report(tmp_path / "report", found).read_text(encoding="utf-8")
    assert "by drawing 1 groups of clips again" in text
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    players = re.findall(r"data:audio/wav;base64,([^\"]+)", page)
    assert len(players) == 2
    for content, row in zip(players, (1, 0), strict=True):  # the more confident mistake is the second span
        wave, rate = soundfile.read(io.BytesIO(base64.b64decode(content)), dtype="float32")
        assert rate == 16_000
        np.testing.assert_allclose(wave, clips.load(row), atol=1e-4)
    with pytest.raises(ValueError, match="groups has 1 entries"):
        evaluate_scores([[0.2, 0.8]] * 2, np.eye(2), class_names=["a", "b"], groups=[1])


def test_recordings_of_one_clip_each_need_no_groups(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{n}.wav", tone(0.1, 16_000)) for n in range(3)]
    assert shared_units(Clips.from_files(files, ["a", "b", "b"])) is None
    assert shared_units(Clips.from_files(files, ["a", "b", "b"], groups=["x", "x", None])) == [0, 0, 1]


def test_absent_classes_and_few_clips_are_named(tmp_path: Path) -> None:
    names = [f"c{number}_" for number in range(30)]
    found = evaluate_scores(np.eye(30)[[0, 1, 2]], np.eye(30)[[0, 1, 2]], class_names=names)
    for text in (found.to_markdown(), write_report(tmp_path, found).read_text(encoding="utf-8")):
        assert "No clips of 27 of the 30 classes: c3\\_, c4\\_" in text
        assert "c22\\_ and 7 more." in text
        assert "These measures rest on 3 clips: one more mistake is 33% of the accuracy." in text
    assert evaluation(4).notes() == ""


@pytest.mark.parametrize("moment", ["the last picture", "the page", "the last rename"])
def test_a_failed_report_leaves_the_old_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    write_report(tmp_path, evaluation(3), title="old")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if moment == "the last rename":
        real = os.replace

        def replace(source: Path, target: Path) -> None:
            if Path(target) == tmp_path / "report.md" and Path(source).parent.name == "new":
                full()
            real(source, target)

        monkeypatch.setattr(_files.os, "replace", replace)
    else:
        monkeypatch.setattr(report, "confusion_matrix_figure" if moment == "the last picture" else "_write_html", full)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path, evaluation(4), title="new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_evaluate_gives_writes_itself_down(tmp_path: Path) -> None:
    found = Report.of(evaluation(3))
    assert found.to_dict() == evaluation(3).to_dict()
    path = found.save(tmp_path / "report", title="Mine", sections=[Section("More", "words")])
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Mine\n")
    assert "## More\n\nwords" in text
