"""The one place that prints: results on stdout, progress and notes on stderr, JSON when asked."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from graftonnx.cli.exit_codes import BROKEN_PIPE
from graftonnx.printable import printable, printable_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text


QUIET = "graftonnx.quiet"
"""Where a click context remembers it."""


def say(text: str) -> None:
    """Print a line of the result to stdout."""
    with _reader():
        click.echo(printable(text))


def say_data(text: str) -> None:
    """Print a line of data to stdout, as it is where a program reads it."""
    with _reader():
        click.echo(printable(text) if sys.stdout.isatty() else text)


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
    """Print the result as JSON to stdout: a record, a data class, or plain data with these inside."""
    from pydantic_core import to_jsonable_python

    say(printable_json(json.dumps(to_jsonable_python(value), indent=2, ensure_ascii=False)))


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
    """Print a rich table to stdout."""
    console = stdout()
    with console.capture() as captured:
        console.print(table)
    with _reader():
        click.echo(captured.get(), nl=False)


@contextlib.contextmanager
def _reader() -> Iterator[None]:
    """End the program without a word where nobody reads its results any more, as in `| head -1`."""
    try:
        yield
    except BrokenPipeError:
        # Else the interpreter would complain about what is left in its buffer.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
