"""Tables of labelled sounds: CSV, TSV and Parquet files, data frames, and the layouts of well-known data sets."""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Formatter
from typing import Any, Literal, TextIO

from tfaudiotl.data.table import Columns, as_number, as_text, check_separator, is_missing, listed, part_of
from tfaudiotl.errors import check_choice

DataSet = Literal["esc50", "esc10", "urbansound8k", "fsd50k", "fsd50k_eval"]
Cells = dict[str, list[Any]]


@dataclass(frozen=True)
class Layout:
    """Where a published data set keeps its table and its sounds.

    Attributes:
        table: The table, below the data set's folder.
        path: Where a row's sound is, below that folder, with columns in braces.
        label: Column of the class names.
        separator: Between several of them.
        fold: Column of the folds.
        part: Column of the data set's own division.
        group: Column of what must stay together.
        only: A column and the value of the rows that belong to it.
    """

    table: str
    path: str
    label: str
    separator: str | None = None
    fold: str | None = None
    group: str | None = None
    part: str | None = None
    only: tuple[str, str] | None = None


# From the data sets' own tables: github.com/karolpiczak/ESC-50, urbansounddataset.weebly.com,
# zenodo.org/records/4060432 (FSD50K).
_ESC = Layout("meta/esc50.csv", "audio/{filename}", "category", fold="fold", group="src_file")
LAYOUTS: dict[DataSet, Layout] = {
    "esc50": _ESC,
    "esc10": Layout(_ESC.table, _ESC.path, _ESC.label, fold=_ESC.fold, group=_ESC.group, only=("esc10", "True")),
    "urbansound8k": Layout(
        "metadata/UrbanSound8K.csv", "audio/fold{fold}/{slice_file_name}", "class", fold="fold", group="fsID"
    ),
    "fsd50k": Layout("FSD50K.ground_truth/dev.csv", "FSD50K.dev_audio/{fname}.wav", "labels", ",", part="split"),
    "fsd50k_eval": Layout("FSD50K.ground_truth/eval.csv", "FSD50K.eval_audio/{fname}.wav", "labels", ","),
}


def read_data_set(name: DataSet, root: str | os.PathLike[str]) -> Columns:
    """The rows of a data set in one of ``LAYOUTS``.

    Raises:
        ValueError: There is no such layout, or no such table below ``root``.
    """
    check_choice("dataset", name, DataSet)
    layout, folder = LAYOUTS[name], Path(root)
    if not (folder / layout.table).is_file():
        raise ValueError(f"root={str(root)!r}: {name} has its table in {layout.table}, and there is none")
    columns = {name: getattr(layout, name) for name in ("path", "label", "fold", "group", "part")}
    return read_table(
        folder / layout.table, columns=columns, label_separator=layout.separator, root=folder, only=layout.only
    )


def read_table(
    table: Any,
    *,
    columns: Mapping[str, str | None],
    label_separator: str | None = None,
    root: str | os.PathLike[str] | None = None,
    merge_repeats: bool = False,
    only: tuple[str, str] | None = None,
) -> Columns:
    """Reads labelled spans from a table.

    CSV is read as RFC 4180 has it; in tab-separated files a quotation mark is a sign like others, unless it is around a
    whole cell.

    Args:
        table: A CSV file, a TSV file (.tsv, .tab), a Parquet file (.parquet), a data frame, or columns by name.
        columns: "path", "label", "fold", "group", "start", "end", "weight", "part" and "channel" -> the name of the
            table's column, or None; the path may be a pattern with several columns in braces.
        label_separator: Splits a cell into several labels.
        root: What relative paths are relative to; None is the table's folder.
        merge_repeats: Make rows of the same span one row with all their labels.
        only: A column and the text of the rows to take.

    Raises:
        ValueError: The table is missing or empty, a column is missing or there twice, a row has more cells than there
            are columns, or a cell cannot be read.
    """
    check_separator(label_separator)
    named = isinstance(table, (str, os.PathLike))
    name = os.fspath(table) if named else type(table).__name__
    base = Path(root) if root is not None else Path(table).parent if named else Path()
    cells, places = _read_cells(table, name)
    pattern = columns["path"] or "path"
    fields = _fields(pattern)
    asked = [*(("path", field) for field in fields), *((k, c) for k, c in columns.items() if c and k != "path")]
    asked += [("only", only[0])] if only is not None else []
    missing = [f"{key}={column!r}" for key, column in asked if column not in cells]
    if missing:
        raise ValueError(f"{name}: no column {', '.join(missing)}; there are {list(cells)}")
    if only is not None:
        kept = [row for row, value in enumerate(cells[only[0]]) if as_text(value) == only[1]]
        cells = {column: [values[row] for row in kept] for column, values in cells.items()}
        places = [places[row] for row in kept]
    if not places:
        raise ValueError(f"{name}: has no rows")

    def column(key: str, convert: Callable[[Any], Any]) -> list[Any] | None:
        source = columns.get(key)
        return None if source is None else _converted(name, places, source, cells[source], convert)

    def labels(value: Any) -> str | list[str]:
        if not isinstance(value, (str, bytes)) and hasattr(value, "__iter__"):
            return [_filled(part) for part in value]
        if label_separator is None or (is_missing(value) and not isinstance(value, (str, bytes))):
            return _filled(value)
        return [part.strip() for part in as_text(value).split(label_separator) if part.strip()]

    parts = {field: _converted(name, places, field, cells[field], _filled) for field in fields}
    try:
        paths = parts[pattern] if pattern in parts else [
            pattern.format(**{field: values[row] for field, values in parts.items()}) for row in range(len(places))
        ]  # fmt: skip
    except (ValueError, LookupError, AttributeError) as error:
        raise ValueError(f"path={pattern!r} is no pattern of columns in braces: {error}") from None
    rows = Columns(
        paths=[str(base / path) for path in paths],
        labels=column("label", labels) or [],
        folds=column("fold", _filled),
        groups=column("group", as_text),
        starts=column("start", lambda value: as_number(value, 0)),
        ends=column("end", lambda value: as_number(value, math.nan)),
        weights=column("weight", lambda value: as_number(value, 1)),
        parts=column("part", part_of),
        channels=column("channel", _channel),
    )
    return _merged(rows) if merge_repeats else rows


def _fields(pattern: str) -> list[str]:
    """The columns that a path is made of."""
    if "{" not in pattern:
        return [pattern]
    try:
        return [field for _, field, _, _ in Formatter().parse(pattern) if field is not None]
    except ValueError as error:
        raise ValueError(f"path={pattern!r} is no pattern of columns in braces: {error}") from None


def _read_cells(table: Any, name: str) -> tuple[Cells, list[str]]:
    """The columns, and where each row stands, for messages."""
    if isinstance(table, (str, os.PathLike)):
        suffix = Path(table).suffix.lower()
        if suffix in (".parquet", ".pq"):
            cells = _read_parquet(table, name)
        else:
            return _read_text(table, name, "\t" if suffix in (".tsv", ".tab") else ",")
    elif hasattr(table, "columns") or isinstance(table, Mapping):
        names = list(getattr(table, "columns", table))
        _check_header(name, [str(column) for column in names])
        cells = {str(column): list(table[column]) for column in names}
    else:
        raise ValueError(f"table={table!r}: expected a file, a data frame or a dict of columns")
    lengths = {len(values) for values in cells.values()}
    if len(lengths) > 1:
        raise ValueError(f"{name}: its columns have different lengths, {sorted(lengths)}")
    return cells, [f"row {row}" for row in range(max(lengths, default=0))]


def _read_text(table: str | os.PathLike[str], name: str, delimiter: str) -> tuple[Cells, list[str]]:
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            lines = _split_csv(file, name) if delimiter == "," else _split_plain(file, delimiter)
            _, header = next(lines, ("", []))
            _check_header(name, header)
            rows = []
            for place, row in lines:
                if any(row[len(header) :]):
                    raise ValueError(
                        f"{name}, {place}: has {len(row)} cells, but there are {len(header)} columns, {header}; a cell "
                        "with the separator in it needs quotation marks around it"
                    )
                rows.append((place, [*row, *[None] * (len(header) - len(row))]))
    except OSError as error:
        raise ValueError(f"table={name!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"table={name!r} is not UTF-8 text: {error}") from None
    cells: Cells = {column: [row[number] for _, row in rows] for number, column in enumerate(header)}
    return cells, [place for place, _ in rows]


def _split_csv(file: TextIO, name: str) -> Iterator[tuple[str, list[str]]]:
    """The rows of a CSV file that are not empty, and the line where each begins."""
    reader = csv.reader(file, strict=True)
    begin, columns = 1, 0
    try:
        for row in reader:
            columns = columns or len(row)
            # What a stray quotation mark swallows are rows, and those have as many separators as rows have.
            if any(0 < cell.count("\n") * max(columns - 1, 1) <= cell.count(",") for cell in row):
                raise csv.Error(f"a cell goes on to line {reader.line_num} and seems to have rows in it")
            if row:
                yield f"line {begin}", row
            begin = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{name}, line {begin}: {error}; a quotation mark at the beginning of a cell needs another at its end, and "
            'those inside are written twice, as in """5 m"" high"'
        ) from None


def _split_plain(file: TextIO, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """The rows of a file without quoting, as tab-separated ones are; a cell that is quoted as a whole is unquoted."""
    for number, line in enumerate(file, start=1):
        text = line.rstrip("\r\n")
        if text:
            yield f"line {number}", [_unquoted(cell) for cell in text.split(delimiter)]


def _unquoted(cell: str) -> str:
    quoted = len(cell) >= 2 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")
    return cell[1:-1].replace('""', '"') if quoted else cell


def _check_header(name: str, header: Sequence[str]) -> None:
    repeated = [column for column, count in Counter(header).items() if count > 1 and column]
    if repeated:
        raise ValueError(f"{name}: has the column {repeated[0]!r} {header.count(repeated[0])} times; expected once")


def _read_parquet(table: str | os.PathLike[str], name: str) -> Cells:
    try:
        from pyarrow import parquet
    except ImportError as error:  # missing, or of a release that wants another NumPy
        raise ValueError(
            f'table={name!r}: reading Parquet needs pyarrow ({error}): pip install "tfaudiotl[tables]", with NumPy 1 '
            f'also "pyarrow<25"'
        ) from None
    try:
        content = parquet.read_table(table)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise ValueError(f"table={name!r} cannot be read: {error}") from None
    _check_header(name, content.column_names)
    cells: Cells = content.to_pydict()
    return cells


def _converted(
    table: str, places: list[str], column: str, values: list[Any], convert: Callable[[Any], Any]
) -> list[Any]:
    result = []
    for place, value in zip(places, values, strict=True):
        try:
            result.append(convert(value))
        except ValueError as error:
            raise ValueError(f"{table}, {place}, column {column!r}: {value!r}: {error}") from None
    return result


def _channel(value: Any) -> int:
    number = int(as_text(value) or -1)
    if number < 0 and not is_missing(value):
        raise ValueError("expected the number of a channel, from 0")
    return number


def _filled(value: Any) -> str:
    text = as_text(value)
    if not text:
        raise ValueError("is empty")
    return text


def _merged(rows: Columns) -> Columns:
    """Rows of the same file and span as one, with the labels of all; the other columns must agree."""
    first: dict[tuple[Any, ...], int] = {}
    starts, ends = rows.starts or [0.0] * len(rows.paths), rows.ends or [math.nan] * len(rows.paths)
    labels: list[list[str]] = []
    kept: list[int] = []
    for row, path in enumerate(rows.paths):
        key = (path, starts[row], None if math.isnan(ends[row]) else ends[row])
        place = first.setdefault(key, len(kept))
        given = [rows.labels[row]] if isinstance(rows.labels[row], str) else rows.labels[row]
        if place == len(kept):
            kept.append(row)
            labels.append(list(given))
            continue
        labels[place] += given
        for name in ("folds", "groups", "weights", "parts", "channels"):
            column = getattr(rows, name)
            if column is not None and column[row] != column[kept[place]]:
                told = listed([repr(column[kept[place]]), repr(column[row])])
                raise ValueError(f"{path}: its repeated rows have different {name}: {told}")
    return replace(rows.take(kept), labels=labels)
