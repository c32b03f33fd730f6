"""The one place that prints: results on stdout, progress and notes on stderr, JSON when asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


QUIET = "graftonnx.quiet"
"""Where a click context remembers it."""


def say(text: str) -> None:
    """Print a line of the result to stdout."""
    click.echo(text)


def note(text: str) -> None:
    """Print a remark for a person to stderr, unless the command was called with `--quiet`."""
    if not is_quiet():
        warn(text)


def warn(text: str) -> None:
    """Print to stderr what a person must know, `--quiet` or not."""
    click.echo(text, err=True)


def set_quiet(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Remember `--quiet` for the command that runs; the callback of that option."""
    ctx.meta[QUIET] = value


def is_quiet() -> bool:
    """Return whether the command that runs was called with `--quiet`."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(QUIET))


def print_json(value: Any) -> None:
    """Print the result as JSON to stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def stdout() -> Console:
    """Return the rich console on stdout; when piped it is wide enough never to wrap a table."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    return console


def print_table(table: Table) -> None:
    """Print a rich table to stdout."""
    stdout().print(table)
