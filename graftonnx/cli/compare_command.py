"""`graftonnx compare`: did fusion help?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graftonnx.cli import console
from graftonnx.cli.help import grouped
from graftonnx.cli.parameters import IntRange, any_file, json_option, quiet_option
from graftonnx.cli.training_options import config_of, panels, training_options

if TYPE_CHECKING:
    from graftonnx.comparison import Comparison
    from graftonnx.training import TrainConfig

COMPARISON_PANEL = ["--data", "--output", "--seeds", "--force", "--json", "--quiet", "--help"]


@grouped({"Comparison": COMPARISON_PANEL, **panels()})
@click.argument("source", type=click.Path(path_type=Path), metavar="FUSED.onnx")
@click.argument("others", nargs=-1, type=click.Path(path_type=Path), metavar="[OTHER.onnx ...]")
@click.option(
    "--data",
    metavar="DATA",
    shell_complete=any_file,
    required=True,
    help="Labelled images, as `train` takes them.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for the runs and results."
)
@click.option("--seeds", type=IntRange(min=1), default=3, metavar="N", help="Runs of each network. [3]")
@click.option("--force", is_flag=True, help="Replace the comparison in the output folder.")
@training_options
@json_option
@quiet_option
def command(
    source: Path,
    others: tuple[Path, ...],
    data: str,
    output: Path,
    seeds: int,
    force: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Fine-tune a fused network and its parts alike: did fusion help?

    Compared are each parent alone, the average of their probabilities, their features joined without skips,
    and the fused network: same data, settings and seeds. OTHER.onnx are the same parents, fused in other
    ways; they are trained as well. The same command again goes on where it stopped.
    """
    run(source, data, output, config_of(settings), others=others, seeds=seeds, force=force, as_json=as_json)


def run(
    source: Path,
    data: str,
    output: Path,
    config: TrainConfig,
    *,
    others: Sequence[Path] = (),
    seeds: int,
    force: bool,
    as_json: bool,
) -> None:
    """Compare, and print the result; an interruption ends the program with the command to go on with."""
    if (config.devices, config.nodes) != (1, 1):
        raise click.UsageError("A comparison trains in one process. Leave out --devices and --nodes.")
    from graftonnx.comparison import compare
    from graftonnx.training import Interrupted
    from graftonnx.training.memory import keep_freed_pages

    keep_freed_pages()
    try:
        comparison = compare(
            source,
            data,
            output,
            config,
            others=others,
            seeds=seeds,
            force=force,
            progress=not console.is_quiet(),
            note=console.note,
        )
    except Interrupted as stop:
        console.warn(f"Interrupted in epoch {stop.epoch} of {stop.run}; everything is saved.")
        console.warn("The same command goes on from there.")
        sys.exit(128 + stop.signal)
    if as_json:
        console.print_json(comparison)
    else:
        _print(comparison)


def _print(comparison: Comparison) -> None:
    """Print the networks, the conditions and the verdict."""
    from rich.table import Table

    from graftonnx.comparison.markdown import COLUMNS, conditions, row

    table = Table(COLUMNS[0])
    for heading in COLUMNS[1:]:
        table.add_column(heading, justify="right")
    for standing in comparison.networks:
        table.add_row(*row(standing))
    console.print_table(table)
    console.note(conditions(comparison))
    console.say(comparison.verdict)
