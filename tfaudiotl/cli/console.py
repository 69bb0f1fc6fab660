"""What commands share in talking to the terminal: errors, notes, progress bars."""

from __future__ import annotations

import inspect
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from typer.models import OptionInfo

if TYPE_CHECKING:
    from tfaudiotl.errors import AudioError
    from tfaudiotl.training.recipe import Progress

EVERY = 10.0  # seconds between lines of progress


@contextmanager
def errors(command: Callable[..., None]) -> Iterator[None]:
    """Loads TensorFlow; turns the library's errors into one message and exit code 1, Ctrl-C into 130.

    Args:
        command: whose options the message names where the library names its arguments.
    """
    from tfaudiotl.errors import ExportError

    load_tensorflow()
    try:
        yield
    except KeyboardInterrupt:
        typer.secho("\nInterrupted.", err=True, fg="yellow")
        raise typer.Exit(130) from None
    except (ValueError, OSError, ExportError) as error:
        typer.secho(f"Error: {in_options(str(error), command)}", err=True, fg="red")
        raise typer.Exit(1) from error


def in_options(message: str, command: Callable[..., None]) -> str:
    """The message with a command's options for arguments: "--few-shot 9" for "few_shot=9"."""
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        for given in getattr(parameter.annotation, "__metadata__", ()):
            if isinstance(given, OptionInfo):
                # inside Annotated, typer keeps an option's first name where its default would be
                names = (given.default, *(given.param_decls or ()))
                written = [each for each in names if str(each).startswith("--")]
                option = written[0] if written else "--" + name.replace("_", "-")
                message = re.sub(rf"(?<![\w.(]){name}=", f"{option} ", message)
    return message


def load_tensorflow() -> None:
    """Imports TensorFlow without the notes on CPU features and missing GPUs that it prints on every start."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    terminal = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # its C++ part writes to the descriptor, not to sys.stderr
    try:
        import tensorflow as tf
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
    tf.get_logger().setLevel("ERROR")


def list_left_out(skipped: Iterable[AudioError]) -> None:
    """Says which sounds were not used, and why."""
    for error in skipped:
        typer.secho(f"left out: {error}", err=True, fg="yellow")


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar; yields a function of the number done and in all."""
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def stage_bars() -> Iterator[Callable[[str, int, int], None]]:
    """One progress bar per stage; yields a function of stage, number done and in all."""
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def step(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield step


@contextmanager
def training_bars() -> Iterator[Progress]:
    """One bar for the clips, then one per training run."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from tfaudiotl.training.recipe import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        lines = _Lines()
        yield Progress(clips=lines.clips, epoch=lines.epoch)
        return
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Bars(*columns, console=console) as bars:
        tasks: dict[str, Any] = {}

        def clips(done: int, total: int) -> None:
            if "clips" not in tasks:
                tasks["clips"] = bars.add_task("Listening to clips", total=total)
            bars.update(tasks["clips"], completed=done)

        def epoch(run: str, number: int, epochs: int, metrics: dict[str, float]) -> None:
            if run not in tasks:
                tasks[run] = bars.add_task(f"Training: {run}", total=epochs)
            bars.update(tasks[run], completed=number, description=f"Training: {run}  {_measures(metrics)}")

        yield Progress(clips=clips, epoch=epoch)


def _measures(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())


class _Lines:
    """Progress where no bar can be drawn, in a log say: a line when a stage begins and every ten seconds."""

    def __init__(self) -> None:
        self.stage, self.said = "", 0.0

    def _say(self, stage: str, done: int, total: int, more: str = "") -> None:
        now = time.monotonic()
        if stage != self.stage or done == total or now - self.said >= EVERY:
            typer.echo(f"{stage}: {done} of {total}  {more}".rstrip(), err=True)
            self.stage, self.said = stage, now

    def clips(self, done: int, total: int) -> None:
        self._say("Listening to clips", done, total)

    def epoch(self, run: str, number: int, epochs: int, metrics: dict[str, float]) -> None:
        self._say(f"Training: {run}, epoch", number, epochs, _measures(metrics))
