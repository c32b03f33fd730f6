"""`graftonnx match`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from graftonnx.cli import console
from graftonnx.cli.parameters import (
    dequantize_option,
    force_option,
    input_size_option,
    json_option,
    load_parents,
    max_skips_option,
    preprocess_option,
    split_parents,
)

if TYPE_CHECKING:
    from graftonnx.plan import Plan


@click.command(name="match")
@click.argument("parents", nargs=-1, required=True, metavar="A B")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the plan as YAML here.")
@input_size_option
@max_skips_option
@preprocess_option
@dequantize_option
@force_option
@json_option
def command(
    parents: tuple[str, ...],
    output: Path | None,
    input_size: tuple[int, int] | None,
    max_skips: int,
    preprocess: tuple[str, ...],
    dequantize: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Plan the exchanges between networks A and B: chosen pairs of taps, and why others are not.

    The plan file (-o) can be edited and given to `graftonnx fuse --plan`.
    """
    from graftonnx import files
    from graftonnx.matching import match
    from graftonnx.plan import write_plan

    paths, conventions = split_parents(parents, preprocess)
    if len(paths) != 2:
        raise click.UsageError(f"{len(paths)} parents given; expected two: graftonnx match A B")
    if output is not None:
        files.check_writable(output, force=force)
    a, b = load_parents(paths, [input_size] * 2, conventions, dequantize=dequantize)
    plan = match(a, b, max_skips=max_skips)
    if output is not None:
        write_plan(plan, output, force=force)
    if as_json:
        console.print_json(plan.model_dump(mode="json"))
        return
    print_plan(plan, rejections=True)
    if output is not None:
        console.note(f"wrote {output}")


def print_plan(plan: Plan, *, rejections: bool) -> None:
    """Print the exchanges of a plan as a table, and the rejections as another."""
    from rich.table import Table

    for letter, parent in plan.parents.items():
        height, width = parent.input_size
        console.say(f"{letter}: {parent.name} at {height}x{width}")
    if len(plan.parents) == 1:
        return
    exchanges = Table(title=f"{len(plan.exchanges)} exchanges", title_justify="left")
    exchanges.add_column("#", justify="right")
    for header in ("a", "b"):
        exchanges.add_column(header, overflow="fold")
    for header in ("into a", "into b"):
        exchanges.add_column(header, no_wrap=True)
    exchanges.add_column("score", justify="right", no_wrap=True)
    for index, exchange in enumerate(plan.exchanges):
        into = {skip.target.split("/")[0]: skip for skip in exchange}
        ends = {tap.split("/")[0]: tap for skip in exchange for tap in (skip.source, skip.target)}
        score = exchange[0].score
        exchanges.add_row(
            str(index),
            *(ends[letter].split("/", 1)[1] for letter in sorted(ends)),
            *(str(into[letter].projection) if letter in into else "-" for letter in sorted(ends)),
            "" if score is None else f"{score:.2f}",
        )
    console.print_table(exchanges)
    if len(plan.parents) > 1 and not plan.exchanges:
        console.note("note: nothing is exchanged; the branches meet in the head only")
    if not rejections or not plan.rejections:
        return
    table = Table(title=f"{len(plan.rejections)} taps of a not exchanged", title_justify="left")
    for header in ("a", "best partner in b"):
        table.add_column(header, overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("why not")
    for item in plan.rejections:
        table.add_row(item.a.split("/", 1)[1], item.b.split("/", 1)[1], f"{item.score:.2f}", item.reason)
    console.print_table(table)
