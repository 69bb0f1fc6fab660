"""The program, and what its commands share in talking to the terminal: errors, what is being done, how much is done."""

from __future__ import annotations

import errno
import faulthandler
import functools
import inspect
import io
import logging
import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.models import ArgumentInfo, OptionInfo

from tfaudiotl._download import download_progress
from tfaudiotl._threads import OnProgress, Progress, ignore
from tfaudiotl._version import __version__
from tfaudiotl.errors import ExportError

if TYPE_CHECKING:
    from tfaudiotl.errors import AudioError

EVERY = 10.0  # seconds between lines of progress
NARROW = 60  # columns; a terminal with fewer has no room for an epoch's measures
LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# A clause of advice that names an argument which no option of the command stands for.
ONLY_PYTHON = r"[;,] (?:or |if [^;,.]*, )?(?:give|pass|use) (?:\w+ )*?[a-z_]+=[^;.\n]*"
QUIET = "3"  # TensorFlow's level at which it says nothing

Command = TypeVar("Command", bound=Callable[..., None])
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Show TensorFlow's messages, and where in the program an error arose.")
]


@dataclass(frozen=True)
class Library:
    """In an option's ``Annotated``: the names that its value has as an argument of the library."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Needs:
    """In an option's ``Annotated``: the option without which it has no effect, or another that gives it one too."""

    option: str
    other: str | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """Any of them is enough."""
        return (self.option,) if self.other is None else (self.option, self.other)


@dataclass(frozen=True)
class Excludes:
    """In an option's ``Annotated``: the options beside which it, or one value of it, has no effect."""

    options: tuple[str, ...]
    value: str | None = None


app = typer.Typer(
    name="tfaudiotl",
    help="Turn a folder of recordings into your own sound classifier.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Turn a folder of recordings into your own sound classifier."""
    open_streams()
    if version:
        typer.echo(__version__)
        raise typer.Exit


def command(function: Command) -> Command:
    """Adds a function to the program as a command with ``--verbose``, whose errors are one message each."""
    signature = inspect.signature(function, eval_str=True)
    verbose = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Verbose)
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [*signature.parameters.values(), verbose, context]

    @functools.wraps(function)
    def run(*, context: typer.Context, verbose: bool = False, **arguments: Any) -> None:
        with errors(function, verbose=verbose):
            check_together(function, context)
            function(**arguments)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command()(run)
    return function


@contextmanager
def errors(command: Callable[..., None], *, verbose: bool = False) -> Iterator[None]:
    """Turns what is raised into one message and exit code 1, and Ctrl-C into 130.

    Args:
        command: whose options the message names where the library names its arguments.
        verbose: show the traceback too, and what TensorFlow says.
    """
    with ExitStack() as stack:
        if not verbose and os.environ.get(LOG_LEVEL, QUIET) == QUIET:
            stack.enter_context(quiet())
        stack.enter_context(downloads_shown())
        stack.enter_context(notes_shown(command))
        try:
            yield
        except (typer.BadParameter, typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            typer.secho("\nInterrupted.", err=True, fg="yellow")
            raise typer.Exit(130) from None
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # whoever read the output has closed it; click ends the program in silence
            if verbose:
                traceback.print_exception(error)
            typer.secho(f"Error: {in_options(message_of(error), command)}", err=True, fg="red")
            raise typer.Exit(1) from error


@contextmanager
def notes_shown(command: Callable[..., None]) -> Iterator[None]:
    """Shows what the library logs as a warning, with the command's options in it."""

    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = in_options(record.getMessage(), command)
            if text not in said:  # a split is tried before the work, then made
                said.add(text)
                say(text)

    said: set[str] = set()
    logger, handler = logging.getLogger("tfaudiotl"), Shown(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def message_of(error: Exception) -> str:
    """What an exception says, for somebody who does not read Python."""
    text = str(error).strip()
    if isinstance(error, OSError) and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object!r} cannot be written as {error.encoding}"
    if isinstance(error, MemoryError):
        return f"out of memory{f': {text}' if text else ''}"
    if isinstance(error, (ValueError, OSError, ExportError)) and not isinstance(error, UnicodeError) and text:
        return text
    first = text.splitlines()[0] if text else "no message"
    return f"{type(error).__name__}: {first} (--verbose shows where)"


def in_options(message: str, command: Callable[..., None]) -> str:
    """The message with a command's options for the library's arguments: "--few-shot 9" for "few_shot=9"."""
    for argument_name, (on, off) in options_of(command).items():
        argument = rf"(?<![\w.])(?<!\w\(){argument_name}="  # not within a call, whose arguments are Python's
        if off:
            message = re.sub(rf"{argument}True\b", on, re.sub(rf"{argument}False\b", off, message))
        else:
            on = f"{on} " if on else ""
            # Without the quotes that a shell does not need either.
            message = re.sub(rf"{argument}(['\"])([\w.+/-]+)\1", rf"{on}\2", message)
            message = re.sub(rf"{argument}(?=[^\s,;:.)])", on, message)
            message = re.sub(argument, on.rstrip(), message) if on else message
        if on:
            message = re.sub(rf"(?<![\w.-]){argument_name}: (?=[^;]* then, )", f"{on.rstrip()} ", message)
    message = re.sub(r"(--[\w-]+(?: \w+)?) \(\1\)", r"\1", message)  # named in both ways, in Python's and in ours
    return re.sub(ONLY_PYTHON, "", message)


def options_of(command: Callable[..., None]) -> dict[str, tuple[str, str]]:
    """What a command's user types for each name of an argument.

    Returns:
        For each name the option, and the one that turns a switch off, else ""; two times "" for what has no option
        but its place.
    """
    own: dict[str, tuple[str, str]] = {}
    library: dict[str, tuple[str, str]] = {}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        metadata = getattr(parameter.annotation, "__metadata__", ())
        for given in metadata:
            if isinstance(given, ArgumentInfo):
                own[name] = ("", "")
            elif isinstance(given, OptionInfo):
                # inside Annotated, typer keeps an option's first name where its default would be
                every = map(str, (given.default, *(given.param_decls or ())))
                option = next((each for each in every if each.startswith("--")), "--" + name.replace("_", "-"))
                own[name] = (
                    option,
                    f"--no-{option[2:]}" if parameter.annotation.__origin__ in (bool, bool | None) else "",
                )
        for given in metadata:
            if isinstance(given, Library):
                library |= dict.fromkeys(given.names, own[name])
    return library | own


def check_together(command: Callable[..., None], context: typer.Context) -> None:
    """Refuses options that were typed and would have no effect with what else was typed, or not; see ``Needs``.

    Raises:
        typer.BadParameter: names both options.
    """
    names, typed, values = options_of(command), {}, {}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            typed[names[name][0]], values[names[name][0]] = parameter, context.params[name]
    for option, parameter in typed.items():
        for relation in getattr(parameter.annotation, "__metadata__", ()):
            if isinstance(relation, Needs) and not typed.keys() & set(relation.options):
                raise typer.BadParameter(f"{option} needs {' or '.join(relation.options)}: it has no effect without")
            if isinstance(relation, Excludes) and relation.value in (None, values[option]):
                for other in relation.options:
                    if other in typed and relation.value is None:
                        raise typer.BadParameter(f"give {option} or {other}, not both")
                    if other in typed:
                        raise typer.BadParameter(f"{other} has no effect with {option} {relation.value}")


@contextmanager
def quiet() -> Iterator[None]:
    """Shows what Python writes to standard error, and nothing that TensorFlow's C++ writes there.

    Its notes on CPU features, missing GPUs and delegates go to the descriptor. Should it end the process, the fault
    handler still says where.
    """
    had = os.environ.get(LOG_LEVEL)
    os.environ[LOG_LEVEL] = QUIET
    python = sys.stderr
    with ExitStack() as stack:
        stack.callback(_set_environment, had)
        terminal = os.dup(2)
        stack.callback(os.close, terminal)
        stack.callback(os.dup2, terminal, 2)
        if _descriptor(python) == 2:
            python.flush()
            sys.stderr = stack.enter_context(
                open(terminal, "w", encoding=python.encoding, errors=python.errors, buffering=1, closefd=False)
            )
            stack.callback(setattr, sys, "stderr", python)
            if not faulthandler.is_enabled():
                faulthandler.enable(terminal)
                stack.callback(faulthandler.disable)
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        if not sys.warnoptions:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            warnings.filterwarnings("default", module="tfaudiotl")  # its own are for the user
        yield


def _set_environment(level: str | None) -> None:
    os.environ.pop(LOG_LEVEL, None)
    if level is not None:
        os.environ[LOG_LEVEL] = level


def _descriptor(stream: Any) -> int | None:
    try:
        return int(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return None


def open_streams() -> None:
    """Opens standard output and error where the caller has closed them, so that no other file gets their numbers."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", errors="replace", closefd=False))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files need not be text in the terminal's encoding: they go out as they came in.
        utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")


def say(text: str) -> None:
    """A line on standard error about what is being done."""
    typer.echo(text, err=True)


def load_tensorflow() -> None:
    """Imports TensorFlow, which takes seconds, and says so before."""
    if "tensorflow" not in sys.modules:
        say("Loading TensorFlow")
    import tensorflow as tf

    if os.environ.get(LOG_LEVEL) == QUIET:
        tf.get_logger().setLevel("ERROR")


def list_left_out(skipped: Iterable[AudioError]) -> None:
    """Says which sounds were not used, and why."""
    for error in skipped:
        typer.secho(f"Skipped: {error}", err=True, fg="yellow")


def warn_of(path: str | os.PathLike[str], doubt: str | None) -> None:
    """Says of a file why what was found in it says little, if there is a reason."""
    if doubt is not None:
        typer.secho(f"Warning: {os.fspath(path)}: {doubt}", err=True, fg="yellow")


@contextmanager
def progress_shown(*, bars: bool = True) -> Iterator[OnProgress]:
    """Shows progress on standard error: a bar on a terminal, lines in a log; yields what is called with ``Progress``.

    Args:
        bars: False where other lines on the terminal show the progress: then there is none on it, a plain one neither.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal and not bars:
        yield ignore
    elif not console.is_terminal or console.is_dumb_terminal:
        yield _Lines()
    else:
        with _bars(console) as shown:
            stages = _Bars(shown)
            try:
                yield stages
            finally:
                stages.finish()


@contextmanager
def downloads_shown() -> Iterator[None]:
    """Shows the progress of every download inside the block, while it lasts."""
    with ExitStack() as stack:
        stage = ""
        shown: OnProgress = ignore

        def report(progress: Progress) -> None:
            nonlocal stage, shown
            if progress.stage != stage:
                stack.close()
                stage, shown = progress.stage, stack.enter_context(progress_shown())
            shown(progress)
            if progress.done == progress.total:
                stack.close()
                stage = ""

        with download_progress(report):
            yield


def _bars(console: Any) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bars, TextColumn, TimeRemainingColumn
    from rich.table import Column

    # Columns that do not wrap keep their width, so that the bar gives way first: one line at any width.
    def column() -> Column:
        return Column(no_wrap=True, overflow="ellipsis")

    return Bars(
        TextColumn("{task.description}", table_column=column()),
        BarColumn(bar_width=None),
        MofNCompleteColumn(table_column=column()),
        TextColumn("{task.fields[measure]}", table_column=column()),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True, table_column=column()),
        console=console,
        expand=True,
        redirect_stdout=False,  # rich would send it to standard error
        redirect_stderr=False,
    )


class _Bars:
    """A bar for the stage that runs, and a line for each that has ended."""

    def __init__(self, bars: Any) -> None:
        self.bars, self.now, self.task, self.began = bars, Progress("", 0, 0), None, 0.0

    def __call__(self, progress: Progress) -> None:
        if progress.stage != self.now.stage:
            self.finish()
            self.task = self.bars.add_task(progress.stage, total=progress.total, measure="")
            self.began = time.monotonic()
        self.now = progress
        measure = _measure(progress.measures) if self.bars.console.width >= NARROW else ""
        self.bars.update(self.task, completed=progress.done, total=progress.total, measure=measure)

    def finish(self) -> None:
        """Leaves a line of the stage that ran."""
        if self.task is None:
            return
        self.bars.remove_task(self.task)
        self.task = None
        seconds = time.monotonic() - self.began
        line = f"{self.now.stage}: {self.now.done} of {self.now.total}, {seconds:.0f} s  {_measure(self.now.measures)}"
        self.bars.console.print(line.rstrip(), markup=False, highlight=False, no_wrap=True, overflow="ellipsis")


def _measure(measures: Mapping[str, float]) -> str:
    """The one of an epoch's measures that says most."""
    for name in ("val_accuracy", "accuracy", "val_loss", "loss"):
        if name in measures:
            return f"{name} {measures[name]:.3f}"
    return ""


class _Lines:
    """Progress where no bar can be drawn, in a log say: a line when a stage begins and every ten seconds."""

    def __init__(self) -> None:
        self.stage, self.said = "", 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage != self.stage or progress.done == progress.total or now - self.said >= EVERY:
            measures = "  ".join(f"{name} {value:.3f}" for name, value in progress.measures.items())
            typer.echo(f"{progress.stage}: {progress.done} of {progress.total}  {measures}".rstrip(), err=True)
            self.stage, self.said = progress.stage, now
