from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.reports import parse
from tfaudiotl.markdown import MISSING, escape_markdown, format_cell, markdown_table


def test_table_parses_and_aligns_numbers_right() -> None:
    table = markdown_table(
        ["Name", "Score", "Note"],
        [("dog", 0.51234567, "ok"), ("a longer name", None, "1 | 2"), ("x", 12, "")],
    )
    header, rule, *rows = parse(table)
    assert header == ["Name", "Score", "Note"]
    assert [cell.endswith(":") for cell in rule] == [False, True, False]
    assert rows == [["dog", "0.5123", "ok"], ["a longer name", MISSING, "1 | 2"], ["x", "12", ""]]
    assert len({len(line) for line in table.splitlines()}) == 1  # readable as plain text


@pytest.mark.parametrize("text", ["a|b", "a\\|b", "|", "\\", "a\\\\|b", "*x* | `y`", "__init__", "<b>|</b>", "$a$"])
def test_any_name_survives_a_table(text: str) -> None:
    table = markdown_table(["Name", "Next"], [(escape_markdown(text), "next")])
    assert parse(table)[2] == [text, "next"]


def test_line_breaks_become_spaces() -> None:
    assert parse(markdown_table(["a\nb"], [("c\r\nd",)])) == [["a b"], ["---"], ["c d"]]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.000012345, "1.234e-05"),
        (np.float32(0.25), "0.25"),
        (np.int64(1234567), "1234567"),
        (True, "yes"),
        (np.bool_(False), "no"),
        (float("nan"), MISSING),
        (np.float64("nan"), MISSING),
        ("as it is", "as it is"),
    ],
)
def test_cells(value: object, text: str) -> None:
    assert format_cell(value) == text


@pytest.mark.parametrize(
    ("cells", "right"),
    [
        (["1,234", "-5"], True),
        (["97.5 %", MISSING], True),
        (["1e-05", ".5"], True),
        (["12 ms", "3"], False),
        ([MISSING, ""], False),
        (["1-100032-A-0.wav"], False),
    ],
)
def test_columns_of_numbers_are_told_from_text(cells: list[str], right: bool) -> None:
    rule = markdown_table(["h"], [(cell,) for cell in cells]).splitlines()[1]
    assert rule.endswith(": |") is right


def test_tables_without_rows_or_columns() -> None:
    assert parse(markdown_table(["a", "b"], [])) == [["a", "b"], ["---", "---"]]
    with pytest.raises(ValueError, match="header"):
        markdown_table([], [])
    with pytest.raises(ValueError, match=r"rows\[1\] has 1 cells; the header has 2"):
        markdown_table(["a", "b"], [(1, 2), (3,)])


def test_underscores_inside_words_stay_readable() -> None:
    assert escape_markdown("crying_baby") == "crying_baby"
    assert escape_markdown("_x") == "\\_x"
