"""The one place that prints: results on stdout, progress and notes on stderr, JSON when asked."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from graftonnx.cli.exit_codes import BROKEN_PIPE
from graftonnx.errors import GraftError
from graftonnx.printable import printable, printable_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text


QUIET = "graftonnx.quiet"
"""Where a click context remembers it."""


def say(text: str) -> None:
    """Print a line of the result to stdout; raises as `_printing`."""
    with _printing():
        click.echo(printable(text))


def say_data(text: str) -> None:
    """Print a line of data to stdout, as it is where a program reads it; raises as `_printing`."""
    with _printing():
        click.echo(printable(text) if is_terminal() else text)


def is_terminal() -> bool:
    """Return whether stdout is a terminal; it may be closed."""
    return sys.stdout is not None and sys.stdout.isatty()


def note(text: str) -> None:
    """Print a remark for a person to stderr, unless the command was called with `--quiet`."""
    if not is_quiet():
        warn(text)


def warn(text: str) -> None:
    """Print to stderr what a person must know, `--quiet` or not."""
    click.echo(printable(text), err=True)


def set_quiet(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Remember `--quiet` for the command that runs; the callback of that option."""
    ctx.meta[QUIET] = value


def is_quiet() -> bool:
    """Return whether the command that runs was called with `--quiet`."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(QUIET))


def print_json(value: object) -> None:
    """Print the result as JSON to stdout: a record, a data class, or plain data with these inside.

    Numbers that are not finite become null. Raises as `_printing`.
    """
    from pydantic_core import to_jsonable_python

    data = _finite(to_jsonable_python(value))
    say(printable_json(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)))


def _finite(data: Any) -> Any:
    """Return plain data with None in the place of numbers that are not finite."""
    if isinstance(data, dict):
        return {name: _finite(inner) for name, inner in data.items()}
    if isinstance(data, list):
        return [_finite(inner) for inner in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def forget_odd_sizes() -> None:
    """Forget a `COLUMNS` or `LINES` that is not a number of a few ASCII digits; rich may fail on it."""
    for name in ("COLUMNS", "LINES"):
        if name in os.environ and re.fullmatch(r"[0-9]{1,5}", os.environ[name]) is None:
            del os.environ[name]


def stdout() -> Console:
    """Return the rich console on stdout; when piped it is wide enough never to wrap a table.

    Names are shown as they are: no brackets in them are markup, no colons emoji, and nothing is obeyed.
    """
    from rich.console import Console

    class PlainConsole(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(printable(text), **options)

    console = PlainConsole(highlight=False, soft_wrap=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = PlainConsole(highlight=False, width=200, markup=False, emoji=False)
    return console


def print_table(table: Table) -> None:
    """Print a rich table to stdout; raises as `_printing`."""
    console = stdout()
    with _printing():
        with console.capture() as captured:
            console.print(table)
        click.echo(captured.get(), nl=False)


@contextlib.contextmanager
def _printing() -> Iterator[None]:
    """Print to stdout in the block.

    Where nobody reads the results any more, as in `| head -1`, the program ends without a word.

    Raises:
        GraftError: If stdout is closed, or what it leads to takes no more.
    """
    if sys.stdout is None:
        raise GraftError("cannot print the result: standard output is closed. Send it to a file or a pipe.")
    try:
        yield
    except BrokenPipeError:
        _forget()
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        _forget()
        raise GraftError(f"cannot print the result: {error.strerror or error}.") from error


def settle() -> None:
    """Forget what stdout does not take, if anything is left in its buffer."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        _forget()


def _forget() -> None:
    """Let go of what is left in the buffer of stdout: the interpreter would complain about it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
