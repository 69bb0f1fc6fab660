from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.sounds import tone, write
from tfaudiotl.data.clips import Clips
from tfaudiotl.data.label_tables import read_table
from tfaudiotl.data.splits import units


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate("abcd"):
        write(tmp_path / "audio" / f"{name}.wav", tone(1.0, 16_000, frequency=200.0 * (number + 1)))
    return tmp_path


COLUMNS: dict[str, list[Any]] = {
    "file": ["audio/a.wav", "audio/b.wav", "audio/b.wav", "audio/d.wav"],
    "class": ["cat", "dog", "cat", "dog"],
    "from": [0.0, 0.25, 0.5, None],
    "to": [0.5, None, 1.0, None],
    "part": [1, 2, 2, 1],
    "site": ["x", "y", "y", "z"],
    "importance": [1.0, 0.5, None, 2.0],
}
NAMES: dict[str, Any] = {
    "path": "file", "label": "class", "start": "from", "end": "to", "fold": "part", "group": "site",
    "weight": "importance",
}  # fmt: skip


def check(clips: Clips) -> None:
    assert [Path(path).name for path in clips.paths] == ["a.wav", "b.wav", "b.wav", "d.wav"]
    assert clips.labels == (("cat",), ("dog",), ("cat",), ("dog",))
    assert clips.starts.tolist() == [0, 0.25, 0.5, 0]
    assert clips.durations.tolist() == [0.5, 0.75, 0.5, 1.0]
    assert clips.fold is not None
    assert clips.fold.tolist() == ["1", "2", "2", "1"]
    assert clips.group is not None
    assert clips.group.tolist() == ["x", "y", "y", "z"]
    assert clips.weights.tolist() == [1, 0.5, 1, 2]


def test_a_dict_of_columns(folder: Path) -> None:
    check(Clips.from_table(COLUMNS, root=folder, **NAMES))


def test_data_frames_and_parquet(folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(COLUMNS)
    assert frame["importance"].isna().sum() == 1
    check(Clips.from_table(frame, root=folder, **NAMES))
    pytest.importorskip("pyarrow", exc_type=ImportError)  # those of 2026 want NumPy 2
    frame.to_parquet(folder / "table.parquet")
    check(Clips.from_table(folder / "table.parquet", **NAMES))
    (folder / "no.parquet").write_text("hello")
    with pytest.raises(ValueError, match="cannot be read"):
        Clips.from_table(folder / "no.parquet", **NAMES)


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t")])
def test_text(folder: Path, suffix: str, delimiter: str) -> None:
    lines = [delimiter.join(COLUMNS)]
    for row in zip(*COLUMNS.values(), strict=True):
        lines.append(delimiter.join("" if cell is None else str(cell) for cell in row))
    (folder / f"table{suffix}").write_text("\n".join(lines), encoding="utf-8")
    check(Clips.from_table(folder / f"table{suffix}", **NAMES))


def test_several_labels(folder: Path) -> None:
    files = ["audio/a.wav", "audio/a.wav", "audio/b.wav"]
    separated = Clips.from_table({"path": files[1:], "label": ["cat; dog", ""]}, label_separator=";", root=folder)
    listed = Clips.from_table({"path": files[1:], "label": [["cat", "dog"], []]}, root=folder)
    arrays = Clips.from_table({"path": files[1:], "label": [np.array(["cat", "dog"]), np.array([])]}, root=folder)
    for clips in (separated, listed, arrays):
        assert clips.multi_label
        assert clips.labels == (("cat", "dog"), ())
    repeated = Clips.from_table({"path": files, "label": ["cat", "dog", "dog"]}, merge_repeats=True, root=folder)
    assert repeated.multi_label
    assert repeated.labels == (("cat", "dog"), ("dog",))
    with pytest.raises(ValueError, match=r"a\.wav: its repeated rows have different folds: '1', '2'"):
        Clips.from_table(
            {"path": files, "label": ["x", "y", "x"], "fold": [1, 2, 1]}, fold="fold", merge_repeats=True, root=folder
        )


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"path": ["a"], "label": ["x", "y"]}, {}, "different lengths"),
        ({"path": ["a"]}, {}, r"no column label='label'; there are \['path'\]"),
        ({"path": ["a"], "label": ["x"]}, {"path": "{path}/{take}.wav"}, "no column path='take'"),
        ({"path": [None], "label": ["x"]}, {}, "row 0, column 'path': None: is empty"),
        ({"path": ["a"], "label": ["x"], "start": ["soon"]}, {"start": "start"}, "row 0, column 'start': 'soon'"),
        (17, {}, "a file, a data frame or a dict"),
    ],
)
def test_tables_that_cannot_be_read(columns: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Clips.from_table(columns, **options)


def test_published_data_sets(tmp_path: Path) -> None:
    def table(path: str, *lines: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("\n".join(lines), encoding="utf-8")

    for name in ["audio/1-100032-A-0.wav", "audio/2-1-A-30.wav", "audio/fold5/100032-3-0-0.wav",
                 "audio/fold10/100263-2-0-117.wav", "FSD50K.dev_audio/64760.wav", "FSD50K.dev_audio/16399.wav",
                 "FSD50K.eval_audio/37199.wav"]:  # fmt: skip
        write(tmp_path / name, tone(0.1, 44_100), 44_100)
    table(
        "meta/esc50.csv",
        "filename,fold,target,category,esc10,src_file,take",
        "1-100032-A-0.wav,1,0,dog,True,100032,A",
        "2-1-A-30.wav,2,30,door_wood_knock,False,1,A",
    )
    table(
        "metadata/UrbanSound8K.csv",
        "slice_file_name,fsID,start,end,salience,fold,classID,class",
        "100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark",
        "100263-2-0-117.wav,100263,58.5,62.5,1,10,2,children_playing",
    )
    table(
        "FSD50K.ground_truth/dev.csv",
        "fname,labels,mids,split",
        '64760,"Electric_guitar,Guitar,Music","/m/02sgy,/m/0342h",train',
        '16399,"Bark,Dog,Animal","/m/05tny_,/m/0bt9lr",val',
    )
    table("FSD50K.ground_truth/eval.csv", "fname,labels,mids", '37199,"Guitar,Music","/m/02sgy,/m/0342h"')
    esc = Clips.from_dataset("esc50", tmp_path)
    assert esc.counts() == {"dog": 1, "door_wood_knock": 1}
    assert esc.fold is not None
    assert esc.group is not None
    assert (esc.fold.tolist(), esc.group.tolist()) == (["1", "2"], ["100032", "1"])
    assert Clips.from_dataset("esc10", tmp_path).class_names == ("dog",)
    urban = Clips.from_dataset("urbansound8k", tmp_path)
    assert urban.fold is not None
    assert urban.fold.tolist() == ["5", "10"]
    assert urban.class_names == ("children_playing", "dog_bark")
    assert urban.durations.tolist() == pytest.approx([0.1, 0.1])  # its start and end are of the original recording
    fsd = Clips.from_dataset("fsd50k", tmp_path)
    assert fsd.multi_label
    assert fsd.labels[0] == ("Electric_guitar", "Guitar", "Music")
    evaluation = Clips.from_dataset("fsd50k_eval", tmp_path, class_names=fsd.class_names)
    assert evaluation.targets.shape == (1, 6)
    for call, message in [
        (lambda: Clips.from_dataset("esc5", tmp_path), "'esc50', 'esc10', 'urbansound8k'"),  # type: ignore[arg-type]
        (lambda: Clips.from_dataset("esc50", tmp_path / "audio"), "meta/esc50.csv"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        (".csv", 'path,note,label\na.wav,"5 m,dog\nb.wav,,cat\n', "line 2: unexpected end of data"),
        (".csv", 'path,note,label\na.wav,"5 m,dog\nb.wav,"6 m",cat\n', "line 2: .*quotation mark"),
        (".csv", 'path,note,label\na.wav,,dog\nb.wav,"5 m,dog\nc.wav,5 m",cat\n', "line 3: a cell goes on to line 4"),
        (".csv", "path,label\na1.wav,dog\na2.wav,dog,bark\n", "line 3: has 3 cells, but there are 2 columns"),
        (".csv", "path,label,label\na.wav,dog,cat\n", "has the column 'label' 2 times"),
        (".csv", f"path,label,note\na.wav,dog,{'x' * 200_000}\n", "line 2: field larger than field limit"),
        (".tsv", "path\tlabel\na.wav\tdog\tbark\n", "line 2: has 3 cells"),
        (".tsv", "path\tpath\na.wav\tb.wav\n", "has the column 'path' 2 times"),
        (".csv", "", "no column path='path'"),
        (".csv", "path,label\na.wav,\n", "line 2, column 'label': '': is empty"),
    ],
)
def test_text_that_would_lose_rows_or_cells(tmp_path: Path, suffix: str, text: str, message: str) -> None:
    table = tmp_path / f"table{suffix}"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_table(table, columns={"path": "path", "label": "label"}, label_separator=None)
    if "bark" in text:
        with pytest.raises(ValueError, match="needs quotation marks"):
            read_table(table, columns={"path": "path", "label": "label"}, label_separator=",")


def test_quotation_marks(tmp_path: Path) -> None:
    def labels(suffix: str, text: str) -> list[Any]:
        (tmp_path / f"t{suffix}").write_text(text, encoding="utf-8")
        return read_table(tmp_path / f"t{suffix}", columns={"path": "path", "label": "label"}).labels

    note = '"two lines,\nno rows"'
    rows = f'path,label,note\n"a,1.wav","say ""x""",{note}\n\nb.wav,"c,d",,,\n'
    assert labels(".csv", rows) == ['say "x"', "c,d"]
    rows = 'path\tlabel\na\t"unsure\nb\t5" pipe\n\n"c\td"\te\n'.replace('"c\td"\te', '"c d"\t"say ""x"""')
    assert labels(".tsv", rows) == ['"unsure', '5" pipe', 'say "x"']


def test_missing_values(folder: Path) -> None:
    files = ["audio/a.wav", "audio/b.wav", "audio/c.wav", "audio/d.wav"]
    groups: list[Any] = ["g", "g", None, float("nan")]
    given = Clips.from_files([folder / file for file in files], ["x", "y", "x", "y"], groups=groups)
    named = Clips.from_table({"path": files, "label": list("xyxy"), "g": [b"g", "g", "", NA()]}, group="g", root=folder)
    for clips in (given, named):
        assert [clip.group for clip in clips] == ["g", "g", None, None]
        assert units(clips, None).tolist() == units(clips, groups).tolist() == [0, 0, 1, 2]
        assert clips.describe(against=[clips[[2]]]).problems[-1].names == (str(folder / files[2]),)
    for missing in (None, float("nan"), "", NA()):
        with pytest.raises(ValueError, match=r"folds\[1\]=.*expected a name or a number"):
            Clips.from_files([folder / files[0]] * 2, ["x", "y"], folds=[1, missing])
        with pytest.raises(ValueError, match=r"row 1, column 'f'.*is empty"):
            Clips.from_table({"path": files, "label": list("xyxy"), "f": [1, missing, 2, 2]}, fold="f", root=folder)
        for separator in (None, ";"):
            if separator and missing == "":
                continue  # background: that a cell of several labels has none
            with pytest.raises(ValueError, match=r"row 1, column 'label'.*is empty"):
                Clips.from_table(
                    {"path": files, "label": ["x", missing, "x", "y"]}, label_separator=separator, root=folder
                )
    assert Clips.from_files([folder / files[0]] * 2, ["x", "y"], folds=[1.0, np.float32(2)]).fold.tolist() == ["1", "2"]  # type: ignore[union-attr]


class NA:
    """As pandas.NA: nothing that is compared with it is true or false."""

    def __ne__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = object.__hash__


def test_labels_as_bytes(folder: Path) -> None:
    files = [str(folder / "audio" / "a.wav"), str(folder / "audio" / "b.wav")]
    for labels in ([b"dog", "K\u00e4fer".encode()], np.array([b"dog", "K\u00e4fer".encode()])):
        assert Clips.from_files(files, labels).labels == (("dog",), ("K\u00e4fer",))
        assert Clips.from_table({"path": files, "label": labels}).labels == (("dog",), ("K\u00e4fer",))
    assert Clips.from_files([files[0].encode()], [[b"dog", b"cat"]]).labels == (("dog", "cat"),)
    with pytest.raises(ValueError, match=r"labels\[0\]=.*UTF-8"):
        Clips.from_files(files, [b"\xe9", b"dog"])
    with pytest.raises(ValueError, match="row 0, column 'label'"):
        Clips.from_table({"path": files, "label": [b"\xe9", b"dog"]})


def test_arguments_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_text("filename,fold,category,src_file\na.wav,1,dog,7\n")
    with pytest.raises(ValueError, match="no column only='esc10'"):
        Clips.from_dataset("esc10", tmp_path)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"label_separator": ""}, "label_separator=''"),
        ({"path": "{}"}, "no column path=''"),
        ({"path": "{path"}, "path='{path' is no pattern"),
        ({"path": "{path:d}"}, "path='{path:d}' is no pattern"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            Clips.from_table({"path": ["a"], "label": ["x"]}, **options)
