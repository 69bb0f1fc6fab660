"""Options over all commands: one meaning has one name and one help, and messages name what was typed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tests.helpers.commands import call
from tests.helpers.sounds import make_folder
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


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train FOLDER -o out --fine-tune-epochs 3", "--fine-tune-epochs needs --fine-tune"),
        ("train FOLDER -o out --fine-tune-rate 0.1", "--fine-tune-rate needs --fine-tune"),
        ("train FOLDER -o out --gradual", "--gradual needs --fine-tune"),
        ("train FOLDER -o out --test 0.3 --folds 3", "give --test or --folds, not both"),
        ("train FOLDER -o out --test 0.3 --fold-pattern x", "give --test or --fold-pattern, not both"),
        ("train FOLDER -o out --folds 3 --fold-pattern x", "give --folds or --fold-pattern, not both"),
        ("train FOLDER -o out --resume --overwrite", "give --resume or --overwrite, not both"),
        ("probe FOLDER --repeats 3", "--repeats needs --few-shot"),
        ("probe FOLDER --folds 5 --fold-pattern x", "give --folds or --fold-pattern, not both"),
        ("probe FOLDER --folds 5 --test-pattern x", "give --folds or --test-pattern, not both"),
        ("probe FOLDER --test-pattern x --fold-pattern x", "give --test-pattern or --fold-pattern, not both"),
        ("probe FOLDER --test-pattern x --group-pattern x", "give --test-pattern or --group-pattern, not both"),
        ("probe FOLDER --overwrite", "--overwrite needs --output"),
        ("inspect FOLDER --overwrite", "--overwrite needs --output"),
        ("inspect FOLDER --label kind", "--label: for a table"),
        ("inspect FOLDER/table.csv --label-pattern x", "--label-pattern: for a folder"),
        ("inspect FOLDER/table.json --path file", "--path: for others"),
        ("evaluate m.keras FOLDER --overwrite", "--overwrite needs --output"),
        ("events m.keras FOLDER/a.wav --overwrite", "--overwrite needs --output"),
        ("weights yamnet --overwrite", "--overwrite needs --output"),
        ("predict m.keras FOLDER --top 2 --timeline", "give --top or --timeline, not both"),
        ("predict m.keras FOLDER --threshold 0.4", "--threshold needs --timeline"),
        ("predict m.keras FOLDER --background rain", "--background needs --timeline"),
        ("predict m.keras FOLDER --report-background", "--report-background needs --timeline"),
        ("export m.keras -o m.tflite --patches --samples 9", "give --samples or --patches, not both"),
        ("export m.keras -o m.tflite --patches --matmul", "give --matmul or --patches, not both"),
        ("export m.keras -o m.tflite --calibrate FOLDER", "--calibrate needs --quantize int8 or int8_io"),
        ("distill FOLDER -o out --teacher FOLDER/m.keras --weights a.h5", "has its own"),
    ],
)
def test_options_without_effect_are_refused(command: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.keras").write_bytes(b"")
    result = CliRunner().invoke(app, command.replace("FOLDER", str(tmp_path)).split(), env={"COLUMNS": "200"})
    assert result.exit_code in (1, 2)
    assert message in re.sub(r"[\s│]+", " ", result.output)


@pytest.mark.parametrize(
    "command",
    [
        "train DATA -o OUT",
        "train OTHER --test DATA -o OUT",
        "probe DATA -o OUT",
        "inspect DATA -o OUT",
        "embed DATA -o OUT",
        "distill OTHER DATA -o OUT",
        "evaluate m.keras DATA -o OUT",
        "export m.keras -o OUT --verify DATA",
    ],
)
@pytest.mark.parametrize(("place", "relation"), [("data", "is"), (".", "holds"), ("data/out", "lies in")])
def test_results_never_come_among_the_recordings(
    command: str, place: str, relation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "data", {"a": 4, "b": 4})
    other = make_folder(tmp_path.parent / f"{tmp_path.name}-other", {"a": 4, "b": 4})
    (tmp_path / "m.keras").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    typed = command.replace("DATA", "data").replace("OUT", place).replace("OTHER", str(other)).split()
    result = call(*typed, *([] if typed[0] == "embed" else ["--overwrite"]), code=1)
    assert f"{place} {relation} the folder of recordings, data" in result.output
    assert sorted(tmp_path.rglob("*")) == before
