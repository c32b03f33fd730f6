"""`graftonnx view`."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graftonnx.cli import console
from graftonnx.cli.parameters import dequantize_option, force_option, json_option, quiet_option

if TYPE_CHECKING:
    from graftonnx.cli.records import Page


@click.command(name="view")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.argument("parents", nargs=-1, type=click.Path(path_type=Path), metavar="[A B ...]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="PAGE",
    help="page.html, or figure.svg or figure.png for a paper.  [default: FILE.html here]",
)
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
@dequantize_option
@force_option
@json_option
@quiet_option
def command(
    file: Path,
    parents: tuple[Path, ...],
    output: Path | None,
    show: bool,
    dequantize: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Draw a network, a fused file, a run folder, or a plan (with its parents A B ... behind it).

    The page needs nothing but a browser: branches as columns of blocks, the skips between them, every
    operator, what was not exchanged and why, and the plan, in which skips can be switched on and off.
    """
    from graftonnx.drawing import view

    drawn = view(file, *parents, output=output, force=force, dequantize=dequantize)
    if as_json:
        written: Page = {"path": str(drawn)}
        console.print_json(written)
    else:
        console.say(f"wrote {drawn}")
    if show:
        _open(drawn.resolve())


def _open(page: Path) -> None:
    if not webbrowser.open(page.as_uri()):
        console.warn(f"No browser was found here: open {page} yourself.")
