"""Options that mean the same in every command that runs a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from graftonnx.cli import console

if TYPE_CHECKING:
    from graftonnx.runtime import Session

F = TypeVar("F", bound=Callable[..., Any])

PRESETS = ("imagenet", "inception", "caffe", "unit", "raw")
PROVIDERS = ("auto", "cpu", "cuda")


def preprocess_option(function: F) -> F:
    """Add `--preprocess`."""
    return click.option(
        "--preprocess",
        type=click.Choice(PRESETS),
        help="What the input expects, for a file that was not made by graftonnx.",
    )(function)


def run_options(function: F) -> F:
    """Add `--provider`, `--batch-size` and `--workers`."""
    for option in (
        click.option(
            "--workers",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Threads that decode images; 0: one per core.",
        ),
        click.option(
            "--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Images at once."
        ),
        click.option(
            "--provider",
            type=click.Choice(PROVIDERS),
            default="auto",
            show_default=True,
            help="Where to run; auto takes CUDA where it works.",
        ),
    ):
        function = option(function)
    return function


def note_fallback(session: Session) -> None:
    """Tell a person with a GPU why it is not used."""
    if session.fallback:
        console.note(f"Note: running on the CPU: {session.fallback}")
