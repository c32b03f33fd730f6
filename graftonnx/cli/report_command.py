"""`graftonnx report`: write the page about a training run anew."""

from __future__ import annotations

from pathlib import Path

import click

from graftonnx.cli import console
from graftonnx.cli.parameters import quiet_option


@click.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@click.option(
    "--data", type=click.Path(path_type=Path), metavar="DATA", help="Where the data is now, if it has moved."
)
@quiet_option
def command(run: Path, data: Path | None) -> None:
    """Write the report.html of a run folder anew, with its tables and pictures.

    The trained network runs again on the validation images, in ONNX Runtime. Of a run that is not finished
    the report shows what there is.
    """
    from graftonnx.training.report import rewrite_report

    console.say(f"wrote {rewrite_report(run, data=data, note=console.note)}")
