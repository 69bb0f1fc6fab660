"""Options over all commands: one meaning has one name and one help, and messages name what was typed."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import typer

from tests.helpers.commands import call
from tfaudiotl.backbones.registry import list_backbones
from tfaudiotl.cli import console, options
from tfaudiotl.cli.console import app

COMMANDS = {str(each.callback.__name__): each.callback for each in app.registered_commands if each.callback}
PARSED = typer.main.get_command(app).commands  # type: ignore[attr-defined]
# Options that several commands have with a meaning of their own: their help says which.
OWN = {
    "output",
    "weights",
    "patches",
    "embedding",
    "epochs",
    "batch_size",
    "learning_rate",
    "path",
    "format",
    "quantize",
    "background",
}


def function(name: str) -> Callable[..., None]:
    return inspect.unwrap(COMMANDS[name])


@pytest.mark.parametrize("name", COMMANDS)
def test_messages_name_every_option_as_it_is_typed(name: str) -> None:
    names = console.options_of(function(name))
    for parameter in PARSED[name].params:
        if parameter.name in ("help", "verbose"):
            continue
        shown = console.in_options(f"{parameter.name}='value' is not allowed", function(name))
        if parameter.param_type_name == "argument":
            assert shown == "value is not allowed"
        elif parameter.is_flag:
            shown = console.in_options(f"pass {parameter.name}=True, not {parameter.name}=False", function(name))
            written = [*parameter.opts, *parameter.secondary_opts]
            assert shown.split(", not ")[0].removeprefix("pass ") in written
            assert names[parameter.name] == (written[0], "--no-" + written[0][2:])
        else:
            option, value, *rest = shown.split()
            assert option in parameter.opts
            assert option.startswith("--")
            assert [value, *rest] == ["value", "is", "not", "allowed"]


def test_one_meaning_has_one_name_and_one_help() -> None:
    found: dict[str, dict[tuple[str | None, tuple[str, ...]], str]] = {}
    for name, command in PARSED.items():
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name not in OWN:
                found.setdefault(parameter.name, {})[parameter.help, tuple(parameter.opts)] = name
    assert {name: ways for name, ways in found.items() if len(ways) > 1} == {}
    labelled = ("train", "evaluate", "probe", "inspect")
    for option in ("label_pattern", "overwrite"):
        assert all(option in inspect.signature(COMMANDS[name]).parameters for name in labelled)


def test_the_backbones_are_those_there_are() -> None:
    assert sorted(options.BACKBONES) == list_backbones()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_terminal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    text = call(name, "--help").output
    assert max(map(len, text.splitlines())) <= 80
    for words in ("so many", "anew", "hear", "gone on", "likewise", "left out"):
        assert words not in text.lower()
