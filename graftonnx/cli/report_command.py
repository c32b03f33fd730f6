"""`graftonnx report`: write the page about a training run anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from graftonnx.cli import console
from graftonnx.cli.parameters import json_option, quiet_option

if TYPE_CHECKING:
    from graftonnx.cli.records import Page


@click.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DATA",
    help="Where the data is now, if it has moved or is on the hub.",
)
@json_option
@quiet_option
def command(run: Path, data: Path | None, as_json: bool) -> None:
    """Write the report.html of a run folder anew, with its tables and pictures.

    The trained network runs again on the validation images, in ONNX Runtime. Of a run that is not finished
    the report shows what there is.
    """
    from graftonnx.training.report import rewrite_report

    page = rewrite_report(run, data=data, note=console.note)
    if as_json:
        written: Page = {"path": str(page)}
        console.print_json(written)
    else:
        console.say(f"wrote {page}")
