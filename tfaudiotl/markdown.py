"""Markdown tables, rows of CSV and JSON: how everything that is reported is written."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from tfaudiotl._files import show_name

MISSING = "\N{EN DASH}"  # a cell without a value: None and NaN

# "1,234", "-0.5", "1e-05", "97.5 %": text that a reader compares by its digits
_NUMERIC = re.compile(r"[-+\u2212±]?(\d[\d,]*\.?\d*|\.\d+)(e[-+]?\d+)?\s?%?", re.IGNORECASE)
DIGITS = 6  # significant ones of what is written: a float32 has seven
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets begin a formula with
_SPECIAL = re.compile(r"[\\`*<\[\]&$~]|(?<![^\W_])_|_(?![^\W_])")


def format_cell(value: object) -> str:
    """One value as text for a table.

    Args:
        value: a float is written with four significant digits, an integer as it is, a bool as yes or
            no, None and NaN as ``MISSING``; anything else with ``str``. Format numbers yourself to choose
            the digits.

    Returns:
        The text, on one line.
    """
    if value is None or (isinstance(value, Real) and math.isnan(value)):
        return MISSING
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, Real) and not isinstance(value, Integral):
        return f"{float(value):.4g}"
    return " ".join(show_name(str(value)).split())


def format_score(value: float) -> str:
    """A score with three decimals, so that a column of them lines up; NaN as ``MISSING``."""
    return MISSING if math.isnan(value) else f"{value:.3f}"


def escape_markdown(text: str) -> str:
    """Text that renders as itself: names of classes and clips may hold Markdown or HTML signs.

    Args:
        text: any text. Underscores inside words stay as they are, since Markdown leaves them alone.

    Returns:
        The text with a backslash before each sign that Markdown would act on. Pipes are left to
        ``markdown_table``.
    """
    return _SPECIAL.sub(r"\\\g<0>", text)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in GitHub's Markdown, aligned so that it can be read as plain text too.

    Args:
        header: the names of the columns, at least one.
        rows: the cells, as many in each row as there are columns; see ``format_cell``. Cells may hold
            Markdown (links, emphasis); pipes are escaped and line breaks become spaces.

    Returns:
        The table without a final line break. Columns of numbers are aligned right.

    Raises:
        ValueError: ``header`` is empty, or a row has another number of cells.
    """
    if not header:
        raise ValueError(f"header={header!r} is empty; give the name of at least one column")
    lines = [[_escape_pipes(format_cell(cell)) for cell in header]]
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"rows[{number}] has {len(row)} cells; the header has {len(header)}: {header!r}")
        lines.append([_escape_pipes(format_cell(cell)) for cell in row])
    columns = list(zip(*lines, strict=True))
    right = [_is_numeric(column[1:]) for column in columns]
    widths = [max(3, *map(len, column)) for column in columns]  # three: the shortest rule is "---"
    rule = [f"{'-' * (w - 1)}:" if r else "-" * w for w, r in zip(widths, right, strict=True)]
    padded = [
        [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True)]
        for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [padded[0], rule, *padded[1:]])


def _escape_pipes(text: str) -> str:
    # A pipe after an odd number of backslashes would join the last one to itself and end the cell:
    # make their number even first.
    return re.sub(r"(\\*)\|", lambda match: match[1] + "\\" * (len(match[1]) % 2) + r"\|", text)


def _is_numeric(cells: Sequence[str]) -> bool:
    values = [cell for cell in cells if cell not in ("", MISSING)]
    return bool(values) and all(_NUMERIC.fullmatch(cell) for cell in values)


def rounded(value: Any) -> Any:
    """A value for CSV or JSON, with as many digits as mean something.

    Args:
        value: a number, text, None, or sequences and mappings of them.

    Returns:
        Python's own types: floats with ``DIGITS`` significant digits, of which at least three are decimals (seconds
        of a long recording keep their milliseconds); text as ``show_name`` gives it; NaN and infinity as None;
        sequences as lists.
    """
    if isinstance(value, str):
        return show_name(value)
    if value is None or isinstance(value, (bool, np.bool_)):
        return None if value is None else bool(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        if not math.isfinite(number):
            return None
        return round(number, max(3, DIGITS - 1 - math.floor(math.log10(abs(number))))) if number else 0.0
    if isinstance(value, Mapping):
        return {show_name(str(key)): rounded(each) for key, each in value.items()}
    if isinstance(value, (Sequence, np.ndarray, set, frozenset)):
        return [rounded(each) for each in value]
    return show_name(str(value))


def json_text(value: Any, *, indent: int = 2) -> str:
    """``rounded`` values as JSON, with a final line break."""
    return json.dumps(rounded(value), indent=indent, allow_nan=False) + "\n"


def csv_line(cells: Iterable[object]) -> str:
    """One row of CSV, with its line break.

    Args:
        cells: as ``rounded`` takes them; None and NaN become empty cells, which spreadsheets and pandas take for "no
            value". Text that a spreadsheet would compute (it begins with =, +, -, @, a tab or a carriage return) gets
            an apostrophe before it, which spreadsheets do not show.

    Returns:
        The line.
    """
    line = io.StringIO()
    values = (rounded(cell) for cell in cells)
    csv.writer(line, lineterminator="\r\n").writerow(  # with which it quotes either sign where a cell has one
        f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value for value in values
    )
    return line.getvalue()[:-2] + "\n"


@dataclass(frozen=True)
class Section:
    """A part of a report, such as the check of an export.

    Attributes:
        title: its heading, plain text.
        body: Markdown, with headings of the third level or below.
    """

    title: str
    body: str

    def to_markdown(self) -> str:
        """The heading and the body."""
        return f"## {heading(self.title)}\n\n{self.body.strip()}\n"


def heading(text: str) -> str:
    """Text for the line of a heading, which renders as itself."""
    return escape_markdown(" ".join(text.split()))
