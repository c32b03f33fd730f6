"""Progress bars on stderr: only on a terminal, and gone when the work is done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from graftonnx.cli.console import is_quiet


@contextlib.contextmanager
def progress(description: str, total: int | None, *, hidden: bool = False) -> Iterator[Callable[..., None]]:
    """Show a bar while the block runs, but for `--quiet`; yield a function that advances it by one, or more.

    Args:
        description: What is being done.
        total: How many steps there are; None if nobody knows.
        hidden: Whether no bar is wanted.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = hidden or is_quiet() or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count=1: bar.advance(task, count)
