"""Commands called as from a terminal."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from tfaudiotl.cli import app

# Options of ``train`` that take a second or two.
FAST = ["--embedding", "layer3", "--hidden", "", "--epochs", "10", "--learning-rate", "0.02"]


def call(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result
