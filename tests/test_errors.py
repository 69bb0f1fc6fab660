"""Checks of arguments name the argument, the value, and what is allowed."""

from __future__ import annotations

import pickle
from typing import Any, Literal

import numpy as np
import pytest

from tfaudiotl.errors import AudioError, AudioErrors, check_choice, check_number

Pooling = Literal["avg", "max"]


@pytest.mark.parametrize(
    ("value", "allowed"),
    [("avg", Pooling), (None, Pooling | None), ("max", ("avg", "max")), (1, (0, 1)), (True, (True,))],
)
def test_allowed_choices_pass(value: Any, allowed: Any) -> None:
    check_choice("pooling", value, allowed)


@pytest.mark.parametrize("value", ["mean", None, 0, np.zeros(2), ["avg"]])
def test_other_choices_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^pooling=.*: allowed are 'avg' and 'max'$"):
        check_choice("pooling", value, Pooling)


def test_a_choice_of_another_type_is_another_one() -> None:
    with pytest.raises(ValueError, match=r"^n=True: allowed are 0, 1 and None$"):
        check_choice("n", True, Literal[0, 1] | None)


@pytest.mark.parametrize(
    ("value", "options", "words"),
    [
        (0, {"least": 1, "whole": True}, "whole numbers of at least 1"),
        (2.0, {"least": 1, "whole": True}, "whole numbers of at least 1"),
        (True, {"least": 1, "whole": True}, "whole numbers of at least 1"),
        (1.5, {"least": 0, "most": 1}, "numbers from 0 to 1"),
        (float("nan"), {"least": 0, "most": 1}, "numbers from 0 to 1"),
        (1, {"least": 0, "below": 1}, "numbers from 0 and below 1"),
        (0, {"above": 0, "below": 1}, "numbers above 0 and below 1"),
        (0.0, {"above": 0}, "numbers above 0"),
        (3, {"below": 3}, "numbers below 3"),
        (float("inf"), {}, "numbers"),
        ("1", {"least": 0}, "numbers of at least 0"),
    ],
)
def test_numbers_outside_are_refused(value: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^rate={value!r}: allowed are {words}$"):
        check_number("rate", value, **options)


@pytest.mark.parametrize("value", [1, np.int64(1), 1.0, np.float32(1)])
def test_numbers_inside_pass(value: Any) -> None:
    check_number("rate", value, least=1, most=1)


def test_the_advice_is_the_same_everywhere_and_survives_a_copy() -> None:
    errors = AudioErrors([AudioError("a.wav", "broken")], 3)
    assert str(errors) == str(pickle.loads(pickle.dumps(errors)))
    assert str(errors).endswith("Fix or remove them, or pass on_error='skip' to leave them out.")
