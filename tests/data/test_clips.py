from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.sounds import make_folder, tone, write
from tfaudiotl.data.clips import Clips
from tfaudiotl.data.table import window_spans
from tfaudiotl.errors import AudioError, AudioErrors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "sounds", {"dog": 4, "cat": 3, "rain": 5})


def test_a_folder_per_class(folder: Path) -> None:
    write(folder / "dog" / "deep" / "er" / "1-9.FLAC", tone(0.2, 8_000), 8_000, container="FLAC")
    write(folder / "dog" / ".hidden.wav", tone(0.1, 16_000))
    write(folder / ".hidden" / "a.wav", tone(0.1, 16_000))
    (folder / "LICENSE.txt").write_text("free")
    (folder / "rain" / "notes.md").write_text("wet")
    clips = Clips.from_directory(folder)
    assert clips.class_names == ("cat", "dog", "rain")
    assert clips.counts() == {"cat": 3, "dog": 5, "rain": 5}
    assert (len(clips), clips.ignored, clips.skipped, clips.multi_label) == (13, 2, (), False)
    assert repr(clips) == "Clips(13 clips, 3 classes, 0.0 min)"
    assert sorted(clips.durations) == pytest.approx([0.1] * 12 + [0.2])
    assert clips.fold is None
    assert clips.group is None
    assert np.isnan(clips.ends).all()
    assert clips.label_ids.tolist() == [0] * 3 + [1] * 5 + [2] * 5
    assert clips.targets.tolist() == np.eye(3)[clips.label_ids].tolist()
    assert list(clips.paths) == list(Clips.from_directory(str(folder)).paths)
    assert len(clips.load(0)) == 1_600
    assert len(clips.load(0, sample_rate=8_000)) == 800


def test_links_are_followed_once(folder: Path) -> None:
    (folder / "dog" / "again").symlink_to(folder / "dog", target_is_directory=True)
    elsewhere = make_folder(folder.parent / "elsewhere", {"bird": 2})
    (folder / "bird").symlink_to(elsewhere / "bird", target_is_directory=True)
    assert Clips.from_directory(folder).counts() == {"bird": 2, "cat": 3, "dog": 4, "rain": 5}


def test_folds_and_groups_from_names(folder: Path) -> None:
    clips = Clips.from_directory(folder, fold_pattern=r"^(\d)-", group_pattern=r"-(\d+)\.")
    assert clips.fold is not None
    assert clips.fold.tolist() == ["1", "1", "2", "1", "1", "2", "2", "1", "1", "1", "2", "2"]
    assert clips.group is not None
    assert clips.group.tolist() == ["0", "2", "1", "0", "2", "1", "3", "0", "2", "4", "1", "3"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"^x(\d)", r"fold_pattern='\^x\(\\\\d\)' does not match the names of 12 of 12 files: .*1-0\.wav"),
        (r"^\d", "no capture group"),
        ("(", "not a regular expression"),
        (r"^1(-)?|2", "does not match the names of 5 of 12"),
    ],
)
def test_fold_patterns_that_do_not_fit(folder: Path, pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Clips.from_directory(folder, fold_pattern=pattern)


def test_folders_of_another_layout(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match=r"(?s)'.*missing' does not exist; expected one sub-folder.*dog/"):
        Clips.from_directory(tmp_path / "missing")
    with pytest.raises(ValueError, match="is empty"):
        Clips.from_directory(tmp_path)
    loose = write(tmp_path / "a.wav", tone(0.1, 16_000))
    with pytest.raises(ValueError, match="is not a directory"):
        Clips.from_directory(loose)
    with pytest.raises(ValueError, match=r"holds 1 files \(a\.wav\) but no sub-folders"):
        Clips.from_directory(tmp_path)
    write(tmp_path / "dog" / "a.wav", tone(0.1, 16_000))
    with pytest.raises(ValueError, match="holds one class, 'dog'"):
        Clips.from_directory(tmp_path)
    (tmp_path / "rain").mkdir()
    (tmp_path / "rain" / "a.txt").write_text("")
    with pytest.raises(ValueError, match=r"class folder 'rain' has no sound file \(1 other files\)"):
        Clips.from_directory(tmp_path)
    write(tmp_path / "rain" / "a.wav", tone(0.1, 16_000))
    assert len(Clips.from_directory(tmp_path)) == 2
    assert "1 sound files lie outside the class folders: a.wav" in caplog.text


def test_class_names_of_a_model(folder: Path) -> None:
    names = ["rain", "dog", "cat", "bird"]
    clips = Clips.from_directory(folder, class_names=names)
    assert clips.class_names == tuple(names)
    assert clips.counts() == {"rain": 5, "dog": 4, "cat": 3, "bird": 0}
    with pytest.raises(ValueError, match=r"labels 'cat' are not in class_names=\['dog', 'rain'\]"):
        Clips.from_directory(folder, class_names=["dog", "rain"])
    with pytest.raises(ValueError, match="each name once"):
        Clips.from_directory(folder, class_names=["dog", "dog", "rain", "cat"])
    with pytest.raises(ValueError, match="expected a sequence of names"):
        Clips.from_directory(folder, class_names="dog")


def test_bad_files_are_all_named_or_skipped(folder: Path) -> None:
    (folder / "dog" / "zero.wav").write_bytes(b"")
    (folder / "rain" / "text.wav").write_text("hello")
    (folder / "rain" / "gone.wav").symlink_to(folder / "nowhere.wav")
    with pytest.raises(AudioErrors, match=r"3 of 15 sounds cannot be used.*") as caught:
        Clips.from_directory(folder)
    assert {Path(error.path).name for error in caught.value.errors} == {"zero.wav", "text.wav", "gone.wav"}
    assert "on_error='skip'" in str(caught.value)
    clips = Clips.from_directory(folder, on_error="skip", fold_pattern=r"^(\d|\w+)")
    assert len(clips) == 12
    assert {Path(error.path).name for error in clips.skipped} == {"zero.wav", "text.wav", "gone.wav"}
    assert clips.source.tolist() == list(range(12))
    assert "3 skipped" in repr(clips)
    with pytest.raises(ValueError, match=r"on_error='ignore': allowed are 'raise' and 'skip'"):
        Clips.from_directory(folder, on_error="ignore")  # type: ignore[arg-type]


def test_a_class_that_skipping_would_lose(folder: Path) -> None:
    for path in (folder / "cat").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"(?s)no sound of 'cat' can be used:.*empty \(0 bytes\)"):
        Clips.from_directory(folder, on_error="skip")


def test_from_files_with_spans_and_several_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(4.0, 8_000), 8_000)
    clips = Clips.from_files(
        [path, str(path), path],
        [["dog"], ["dog", "rain", "dog"], []],
        starts=[0, 1.0, None],
        ends=[1.0, 2.5, None],
        folds=[1, 2, 2],
        groups=["x", "y", "y"],
        weights=[1, 0.5, 2],
    )
    assert clips.multi_label
    assert clips.targets.tolist() == [[1, 0], [1, 1], [0, 0]]
    assert clips.durations.tolist() == [1.0, 1.5, 4.0]
    assert len(clips.load(1)) == 24_000
    assert clips[1].labels == ("dog", "rain")
    assert (clips[1].start, clips[1].end, clips[1].fold, clips[1].group, clips[1].weight) == (
        1,
        2.5,
        "2",
        "y",
        0.5,
    )
    assert clips[-1].end is None
    with pytest.raises(ValueError, match="label_ids needs exactly one class"):
        _ = clips.label_ids
    with pytest.raises(ValueError, match="class_weights needs exactly one class"):
        clips.class_weights()


def test_from_files_that_cannot_be(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(1.0, 16_000))
    with pytest.raises(ValueError, match="labels has 1 entries for 2 clips"):
        Clips.from_files([path, path], ["a"])
    with pytest.raises(ValueError, match="no clips"):
        Clips.from_files([], [])
    with pytest.raises(ValueError, match=r"labels\[1\]=\['b'\].*mixture"):
        Clips.from_files([path, path], ["a", ["b"]])
    with pytest.raises(ValueError, match=r"labels\[0\]=3: expected a class name"):
        Clips.from_files([path], [3])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"weights\[0\]=-1\.0"):
        Clips.from_files([path], ["a"], weights=[-1])
    with pytest.raises(AudioErrors, match=r"start=0 s, end=2 s is not inside the file, which lasts 1 s"):
        Clips.from_files([path], ["a"], ends=[2])
    with pytest.raises(AudioErrors, match="None is left"):
        Clips.from_files([path], ["a"], ends=[2], on_error="skip")


def test_from_csv(tmp_path: Path) -> None:
    write(tmp_path / "sub" / "a.wav", tone(2.0, 16_000))
    table = tmp_path / "table.csv"
    table.write_text('path,label,fold,from,to,w\nsub/a.wav,"dog, cat",1,0.5,1,2\nsub/a.wav,,2,,,\n', "utf-8-sig")
    clips = Clips.from_table(table, fold="fold", start="from", end="to", weight="w", label_separator=",")
    assert clips.labels == (("dog", "cat"), ())
    assert clips.durations.tolist() == [0.5, 2.0]
    assert clips.weights.tolist() == [2.0, 1.0]
    assert clips.fold is not None
    assert clips.fold.tolist() == ["1", "2"]
    tabs = tmp_path / "table.tsv"
    tabs.write_text("filename\tcategory\tsite\na.wav\tdog\tx\na.wav\train\ty\n")
    clips = Clips.from_table(tabs, path="filename", label="category", group="site", root=tmp_path / "sub")
    assert clips.counts() == {"dog": 1, "rain": 1}
    assert not clips.multi_label


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,label\na.wav,dog\n", r"no column path='path'; there are \['file', 'label'\]"),
        ("path,label\n", "has no rows"),
        ("", r"no column path='path', label='label'.*; there are \[\]"),
        ("path,label,start\na.wav,dog,soon\n", "line 2, column 'start': 'soon'"),
        ("path,label,start\na.wav,,0\n", "line 2, column 'label': '': is empty"),
        ("path,label,start\n,dog,0\n", "line 2, column 'path': '': is empty"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path: Path, content: str, message: str) -> None:
    table = tmp_path / "table.csv"
    table.write_text(content)
    with pytest.raises(ValueError, match=message):
        Clips.from_table(table, start="start" if "start" in content else None)
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        Clips.from_table(tmp_path / "none.csv")


def test_from_arrays() -> None:
    stereo = np.stack([tone(1.0, 44_100)] * 2, axis=1)
    clips = Clips.from_arrays([stereo, (tone(0.5, 44_100) * 32768).astype(np.int16)], ["a", "b"], sample_rate=44_100)
    assert clips.durations.tolist() == [1.0, 0.5]
    assert clips.paths == ("array[0]", "array[1]")
    assert np.abs(clips.load(0) - tone(1.0, 16_000))[800:-800].max() < 1e-3
    assert len(clips.load(1, sample_rate=8_000)) == 4_000
    windows = clips.windows(0.25)
    assert len(windows) == 6
    assert np.array_equal(windows.load(2), clips.load(0)[8_000:12_000])
    with pytest.raises(AudioError, match=r"array\[1\]: .*NaN"):
        Clips.from_arrays([np.zeros(4), np.array([np.nan])], ["a", "b"], sample_rate=16_000)


def test_picking_rows(folder: Path) -> None:
    clips = Clips.from_directory(folder)
    assert [Path(clip.path) for clip in clips] == [Path(path) for path in clips.paths]
    choices: list[Any] = [slice(2, 5), [2, 3, 4], np.array([2, 3, 4]), np.isin(np.arange(12), [2, 3, 4])]
    for rows in choices:
        part = clips[rows]
        assert part.paths == clips.paths[2:5]
        assert part.class_names == clips.class_names
        assert part.source.tolist() == [2, 3, 4]
    assert clips[2:5][[0, 2]].source.tolist() == [2, 4]
    assert len(clips[[]]) == len(clips[:0]) == 0
    with pytest.raises(IndexError):
        clips[12]
    with pytest.raises(TypeError):
        clips["dog"]  # type: ignore[index]
    with pytest.raises(TypeError):
        clips[[0.5]]  # type: ignore[list-item]


def test_immutable(folder: Path) -> None:
    clips = Clips.from_directory(folder)
    with pytest.raises(dataclasses.FrozenInstanceError):
        clips.paths = ()  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        clips.weights[0] = 2


def test_class_weights(folder: Path) -> None:
    clips = Clips.from_directory(folder)
    assert clips.class_weights() == pytest.approx({0: 12 / 9, 1: 12 / 12, 2: 12 / 15})
    with pytest.raises(ValueError, match="no clip of 'bird'"):
        Clips.from_directory(folder, class_names=["bird", "cat", "dog", "rain"]).class_weights()


@pytest.mark.parametrize(
    ("duration", "window", "hop", "expected"),
    [
        (0.4, 1.0, 1.0, [(0.0, 0.4)]),
        (1.0, 1.0, 1.0, [(0.0, 1.0)]),
        (3.0, 1.0, 1.0, [(0, 1), (1, 2), (2, 3)]),
        (2.6, 1.0, 1.0, [(0, 1), (1, 2), (2, 2.6)]),
        (2.4, 1.0, 1.0, [(0, 1), (1, 2), (1.4, 2.4)]),
        (2.0, 1.0, 0.5, [(0, 1), (0.5, 1.5), (1, 2)]),
        (2.2, 1.0, 0.5, [(0, 1), (0.5, 1.5), (1, 2), (1.5, 2.2)]),
        (0.3, 0.1, 0.1, [(0, 0.1), (0.1, 0.2), (0.2, 0.3)]),  # 0.3 / 0.1 is under 3 in binary
    ],
)
def test_windows_cover_a_clip(duration: float, window: float, hop: float, expected: list[tuple[float, float]]) -> None:
    spans = window_spans(duration, window, hop)
    assert np.array(spans) == pytest.approx(np.array(expected))


def test_windows_of_clips(tmp_path: Path) -> None:
    long, short = write(tmp_path / "a.wav", tone(2.4, 16_000)), write(tmp_path / "b.wav", tone(0.3, 16_000))
    clips = Clips.from_files(
        [short, long, long], ["x", "y", "z"], starts=[0, 0, 1.0], groups=[1, 2, 3], folds=[1, 2, 2]
    )
    windows = clips.windows(1.0)
    assert windows.source.tolist() == [0, 1, 1, 1, 2, 2]
    assert windows.starts.tolist() == pytest.approx([0, 0, 1, 1.4, 1.0, 1.4])
    assert np.isnan(windows.ends[0])
    assert windows.ends[1:].tolist() == pytest.approx([1, 2, 2.4, 2.0, 2.4])
    assert windows.durations.tolist() == pytest.approx([0.3, 1, 1, 1, 1, 1])
    assert [labels[0] for labels in windows.labels] == ["x", "y", "y", "y", "z", "z"]
    assert windows.group is not None
    assert windows.group.tolist() == ["1", "2", "2", "2", "3", "3"]
    assert [len(windows.load(row)) for row in range(6)] == [4_800] + [16_000] * 5
    assert len(clips[:0].windows(1.0)) == 0
    for window, hop in [(0, None), (-1, None), (float("nan"), None), (1, 0), (1, 2)]:
        with pytest.raises(ValueError, match="^window_seconds=" if hop is None else "^hop_seconds=.*above 0 to 1"):
            clips.windows(window, hop)


def test_esc10(shared: Path) -> None:
    clips = Clips.from_directory(shared / "data" / "esc10", fold_pattern=r"^(\d)-", group_pattern=r"^\d-(\d+)")
    assert repr(clips) == "Clips(400 clips, 10 classes, 33.4 min)"
    assert set(clips.counts().values()) == {40}
    assert clips.ignored == 1
    folds = clips.folds()
    assert [name for name, _, _ in folds] == ["1", "2", "3", "4", "5"]
    assert all(len(test) == 80 for _, _, test in folds)
    train, val = clips.split(test=0.2)
    assert clips.group is not None
    assert train.group is not None
    assert val.group is not None
    assert not set(train.group) & set(val.group)
    assert all(6 <= count <= 10 for count in val.counts().values())
    waveform = clips.load(0)
    assert waveform.dtype == np.float32
    assert len(waveform) == pytest.approx(80_000, abs=500)


def test_a_table_of_clips_needs_no_tensorflow() -> None:
    loaded = "{'tensorflow', 'keras', 'sklearn'} & set(sys.modules)"
    code = f"import sys, tfaudiotl.data.clips; sys.exit(bool({loaded}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    folder = make_folder(tmp_path / "sounds", {"cat": 6, "dog": 3, "rain": 1})
    return Clips.from_directory(folder, fold_pattern=r"^(\d)-")


def test_filter(clips: Clips) -> None:
    assert clips.filter(labels=["rain", "dog"]).counts() == {"dog": 3, "rain": 1}
    assert clips.filter(lambda clip: clip.fold == "2").counts() == {"cat": 3, "dog": 1, "rain": 0}
    assert len(clips.filter(min_seconds=0.2)) == 0
    assert len(clips.filter(max_seconds=0.2)) == 10
    with pytest.raises(ValueError, match="'cow'"):
        clips.filter(labels=["cow"])
    several = Clips.from_arrays([np.ones(160)] * 2, [["a", "b"], ["b"]], sample_rate=16_000)
    assert several.filter(labels="a").labels == (("a",),)


def test_merge(clips: Clips, tmp_path: Path) -> None:
    more = Clips.from_directory(make_folder(tmp_path / "more", {"cow": 2, "dog": 1}), fold_pattern=r"^(\d)-")
    both = clips.merge(more)
    assert both.class_names == ("cat", "dog", "rain", "cow")
    assert both.counts() == {"cat": 6, "dog": 4, "rain": 1, "cow": 2}
    assert both.source.tolist() == list(range(13))
    assert both.load(12).shape == (1_600,)
    with pytest.raises(ValueError, match="fold"):
        clips.merge(Clips.from_directory(tmp_path / "more"))
    held = [Clips.from_arrays([np.full(160, v)], ["a"], sample_rate=16_000) for v in (0.25, 0.5)]
    assert [float(held[0].merge(held[1]).load(row)[0]) for row in (0, 1)] == [0.25, 0.5]
    with pytest.raises(ValueError, match="in memory"):
        held[0].merge(Clips.from_directory(tmp_path / "more"))


def test_relabel(clips: Clips) -> None:
    pets = clips.relabel({"cat": "pet", "dog": "pet"})
    assert pets.counts() == {"pet": 9, "rain": 1}
    assert not pets.multi_label
    negative = clips.relabel({"rain": None, "cat": ["cat", "pet"]})
    assert negative.multi_label
    assert negative.counts() == {"cat": 6, "pet": 6, "dog": 3}
    assert clips.relabel({}, class_names=["rain", "dog", "cat", "cow"]).counts() == {
        "rain": 1, "dog": 3, "cat": 6, "cow": 0
    }  # fmt: skip
    with pytest.raises(ValueError, match="'cow'"):
        clips.relabel({"cow": "dog"})


def test_balance(clips: Clips) -> None:
    assert clips.balance().counts() == {"cat": 6, "dog": 6, "rain": 6}
    assert clips.balance("smallest").counts() == {"cat": 1, "dog": 1, "rain": 1}
    assert clips.balance(4).counts() == {"cat": 4, "dog": 4, "rain": 4}
    assert len(set(clips.balance(4, seed=1).filter(labels=["cat"]).paths)) == 4
    assert clips.balance(seed=3).paths == clips.balance(seed=3).paths
    train, val = clips.filter(labels=["cat", "dog"]).balance().split(test=0.3)
    assert not set(train.paths) & set(val.paths)
    with pytest.raises(ValueError, match="per_class='most'"):
        clips.balance("most")  # type: ignore[arg-type]


def test_saved_and_opened(clips: Clips, tmp_path: Path) -> None:
    stereo = write(tmp_path / "sounds" / "stereo.wav", np.stack([tone(1.0, 16_000)] * 2, axis=1))
    spans = Clips.from_files(
        [stereo, stereo], [["a"], []], starts=[0.25, 0], ends=[0.75, None], groups=["g", "h"], weights=[1, 0.5],
        class_names=["b", "a"], channels=1,
    )  # fmt: skip
    for number, table in enumerate((clips, spans)):
        path = tmp_path / f"{number}.json"
        table.save(path)
        opened = Clips.from_saved(path)
        assert [Path(p).resolve() for p in opened.paths] == [Path(p).resolve() for p in table.paths]
        for name in ("labels", "class_names", "multi_label"):
            assert getattr(opened, name) == getattr(table, name)
        for name in ("starts", "ends", "durations", "weights", "fold", "group", "channel"):
            before, after = getattr(table, name), getattr(opened, name)
            assert (before is None and after is None) or np.array_equal(
                before, after, equal_nan=before.dtype.kind == "f"
            )
    (tmp_path / "sounds").rename(tmp_path / "elsewhere")
    (tmp_path / "0.json").rename(tmp_path / "elsewhere" / "0.json")
    (tmp_path / "no.json").write_text("{}")
    for path in (tmp_path / "no.json", tmp_path / "missing.json"):
        with pytest.raises(ValueError, match="no table that"):
            Clips.from_saved(path)
    with pytest.raises(ValueError, match="in memory"):
        Clips.from_arrays([np.ones(160)], ["a"], sample_rate=16_000).save(tmp_path / "a.json")
    assert not list(tmp_path.glob(".*"))


def test_channels(tmp_path: Path) -> None:
    sound = np.stack([tone(0.5, 16_000), tone(0.5, 16_000, frequency=1_000)], axis=1)
    stereo, mono = write(tmp_path / "stereo.wav", sound), write(tmp_path / "mono.wav", sound[:, 0])
    clips = Clips.from_files([stereo, mono], ["a", "b"], channels="all", groups=["x", "y"])
    assert [(Path(c.path).name, c.channel, c.labels, c.group) for c in clips] == [
        ("stereo.wav", 0, ("a",), "x"),
        ("stereo.wav", 1, ("a",), "x"),
        ("mono.wav", 0, ("b",), "y"),
    ]
    for row, expected in enumerate([sound[:, 0], sound[:, 1], sound[:, 0]]):
        assert np.abs(clips.load(row) - expected).max() < 1e-4
    assert clips.windows(0.2).channel is not None
    first = Clips.from_files([stereo], ["a"], channels="first")
    assert np.abs(first.load(0) - sound[:, 0]).max() < 1e-4
    mean = Clips.from_files([stereo], ["a"])
    assert mean.channel is None
    assert np.abs(mean.load(0) - sound.mean(axis=1)).max() < 1e-4
    merged = first.merge(mean)
    assert np.abs(merged.load(1) - sound.mean(axis=1)).max() < 1e-4
    assert [e.reason for e in Clips.from_files([stereo, mono], ["a", "b"], channels=1, on_error="skip").skipped] == [
        "has 1 channels, so none of number 1 (from 0)"
    ]
    with pytest.raises(ValueError, match="channels='left'"):
        Clips.from_files([stereo], ["a"], channels="left")  # type: ignore[arg-type]
