from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.sounds import tone, write
from tfaudiotl.data.annotations import Mark, gaps, read_marks
from tfaudiotl.data.clips import Clips
from tfaudiotl.errors import AudioErrors
from tfaudiotl.runtime.events import Event, events_audacity, events_raven

MARKS = [Mark(1.0, 2.5, "frog"), Mark(4.0, 4.5, "bird; frog")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("pond.wav", "deep/wood.flac"):
        write(tmp_path / name, tone(6.0, 16_000))
    audacity = "1.0\t2.5\tfrog\n\\\t200.0\t3000.0\n4.0\t4.5\tbird; frog\n"
    (tmp_path / "pond.txt").write_text(audacity, encoding="utf-8")
    raven = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tSpecies\n" + "".join(
        f"{n}\t{view}\t1\t{m.start}\t{m.end}\t100\t{m.label}\n"
        for n, m in enumerate(MARKS, 1)
        for view in ("Waveform 1", "Spectrogram 1")
    )
    (tmp_path / "deep" / "wood.Table.1.selections.txt").write_text(raven, encoding="utf-8")
    return tmp_path


def test_marks_of_both_programs(folder: Path) -> None:
    assert read_marks(folder / "pond.txt") == MARKS
    assert read_marks(folder / "deep" / "wood.Table.1.selections.txt") == MARKS


def test_marks_that_this_package_writes(tmp_path: Path) -> None:
    events = [Event(1.0, 2.5, "frog", 0.9), Event(4.0, 4.5, "bird; frog", 0.6)]
    for name, text in (("audacity.txt", events_audacity(events)), ("raven.txt", events_raven(events))):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert read_marks(tmp_path / name) == MARKS


def test_recordings_with_marks(folder: Path) -> None:
    clips = Clips.from_annotations(folder, label_separator=";")
    assert clips.multi_label
    assert clips.labels == (("frog",), ("bird", "frog")) * 2
    assert clips.durations.tolist() == [1.5, 0.5] * 2
    with_background = Clips.from_annotations(folder, background="nothing")
    assert not with_background.multi_label
    quiet = with_background.filter(labels=["nothing"])
    assert [(clip.start, clip.end) for clip in quiet][:3] == [(0.0, 1.0), (2.5, 4.0), (4.5, 6.0)]
    assert set(with_background.class_names) == {"frog", "bird; frog", "nothing"}
    negative = with_background.relabel({"nothing": None})
    assert negative.multi_label
    assert not negative.targets[[row for row, own in enumerate(negative.labels) if not own]].any()


def test_recordings_without_marks(folder: Path) -> None:
    silent = write(folder / "unmarked.wav", tone(2.0, 16_000))
    with pytest.raises(AudioErrors, match=r"unmarked\.wav: has no annotation"):
        Clips.from_annotations(folder)
    assert [error.path for error in Clips.from_annotations(folder, on_error="skip").skipped] == [str(silent)]
    clips = Clips.from_annotations(folder, background="nothing")
    assert sum(Path(path).name == "unmarked.wav" for path in clips.paths) == 1
    (folder / "empty.wav").write_bytes(b"")
    skipped = Clips.from_annotations(folder, background="nothing", on_error="skip").skipped
    assert [Path(error.path).name for error in skipped] == ["empty.wav"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.0\t1.0\tfrog", "line 1: 1 to 1 s is no span"),
        ("1.0\t2.0\tfrog\n3\t4\t ", "line 2: has no label"),
        ("one\ttwo\tfrog", "line 1: expected start and end in seconds"),
        ("Begin Time (s)\tEnd Time (s)\tMood\n0\t1\tgood", "which column has the label.*Mood"),
    ],
)
def test_marks_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"(?s)a.txt.*{message}"):
        read_marks(tmp_path / "a.txt")
    assert read_marks.__doc__


def test_gaps() -> None:
    marks = [Mark(3, 4, "a"), Mark(1, 2, "a"), Mark(1.5, 2.2, "b")]
    assert gaps(marks, 6, 1.0) == [(0.0, 1), (4, 6)]
    assert gaps(marks, 6, 0.5) == [(0.0, 1), (2.2, 3), (4, 6)]
    assert gaps([], 6, 1.0) == [(0.0, 6)]
    assert gaps([Mark(0, 7, "a")], 6, 1.0) == []


def test_quotation_marks_in_raven_tables_are_signs(tmp_path: Path) -> None:
    header = "Selection\tBegin Time (s)\tEnd Time (s)\tLabel\n"
    labels = ['"unsure', 'wren "3"', "a\u2028b", '"robin"']
    rows = "".join(f"{n}\t{n}\t{n + 1}\t{label}\n\n" for n, label in enumerate(labels))
    (tmp_path / "a.txt").write_text(header + rows, encoding="utf-8")
    assert [mark.label for mark in read_marks(tmp_path / "a.txt")] == labels
    (tmp_path / "b.txt").write_text(header + "\n1\t0\t1\tdog\tbark\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 3: has 5 cells, but there are 4 columns"):
        read_marks(tmp_path / "b.txt")
    (tmp_path / "c.txt").write_text(header.replace("Selection", "Label") + "x\t0\t1\ty\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has the column 'Label' 2 times"):
        read_marks(tmp_path / "c.txt")


def test_marks_that_two_recordings_could_have(folder: Path) -> None:
    write(folder / "pond.flac", tone(6.0, 16_000))
    for options in ({}, {"background": "none", "on_error": "skip"}):
        with pytest.raises(ValueError, match=r"pond\.txt: whose marks are these\? There are pond\.flac, pond\.wav"):
            Clips.from_annotations(folder, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"background_seconds": 0}, {"background_seconds": -1.0}, {"background_seconds": float("nan")}]
)
def test_a_background_has_a_length(folder: Path, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="background_seconds="):
        Clips.from_annotations(folder, background="none", **options)  # type: ignore[arg-type]
