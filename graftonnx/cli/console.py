"""The one place that prints: results on stdout, progress and notes on stderr, JSON when asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def say(text: str) -> None:
    """Print a line of the result to stdout."""
    click.echo(text)


def note(text: str) -> None:
    """Print a remark for a person to stderr."""
    click.echo(text, err=True)


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
