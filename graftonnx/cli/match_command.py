"""`graftonnx match`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graftonnx.cli import console
from graftonnx.cli.matching_options import calibration_of, check_into, make_plan, matching_options
from graftonnx.cli.parameters import (
    any_file,
    dequantize_option,
    force_option,
    input_size_option,
    inputs_option,
    json_option,
    load_parents,
    preprocess_option,
    quiet_option,
    split_parents,
)

if TYPE_CHECKING:
    from graftonnx.metadata import InputKind
    from graftonnx.plan import Plan


@click.command(name="match")
@click.argument("parents", nargs=-1, required=True, metavar="A B [C ...]", shell_complete=any_file)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the plan as YAML here.")
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path),
    metavar="PAGE",
    help="Write a page that shows why this plan: every pair's score, the chosen ones, the reasons.",
)
@input_size_option
@inputs_option
@matching_options
@preprocess_option
@dequantize_option
@force_option
@json_option
@quiet_option
def command(
    parents: tuple[str, ...],
    output: Path | None,
    page: Path | None,
    input_size: tuple[int, int] | None,
    inputs: InputKind | None,
    preprocess: tuple[str, ...],
    calibrate: Path | None,
    dequantize: bool,
    force: bool,
    as_json: bool,
    **limits: Any,
) -> None:
    """Plan the exchanges between networks: chosen pairs of taps, and why others are not.

    The plan file (-o) can be edited and given to `graftonnx fuse --plan`.
    """
    from graftonnx import files
    from graftonnx.plan import write_plan

    paths, conventions = split_parents(parents, preprocess)
    if len(paths) < 2:
        raise click.UsageError(
            f"{len(paths)} parents given; expected two or more: graftonnx match A B [C ...]"
        )
    check_into(limits["into"], len(paths))
    for target in (output, page):
        if target is not None:
            files.check_writable(target, force=force)
    networks = load_parents(paths, [input_size] * len(paths), conventions, dequantize=dequantize)
    calibration = calibration_of(networks, calibrate)
    similarity = None if calibration is None else calibration.similarity()
    plan = make_plan(networks, similarity, inputs=inputs or "shared", **limits)
    if output is not None:
        write_plan(plan, output, force=force)
    if page is not None:
        from graftonnx.drawing import explain_plan

        asked = {"policy": limits["policy"], "into": limits["into"], "similarity": similarity}
        explain_plan(plan, *networks, output=page, force=force, **asked)
    if as_json:
        console.print_json(plan)
        return
    print_plan(plan, rejections=True)
    for target in (output, page):
        if target is not None:
            console.note(f"wrote {target}")


def print_plan(plan: Plan, *, rejections: bool) -> None:
    """Print the exchanges of a plan as a table, the rejections as another, and what was guessed."""
    from rich.table import Table

    for letter, parent in plan.parents.items():
        own = ", an input of its own" if plan.inputs == "separate" else ""
        console.say(f"{letter}: {parent.name} at {'x'.join(map(str, parent.input_size))}{own}")
        if parent.is_guessed:
            console.note(f"note: preprocessing of {letter} {parent.preprocess_reason}; --preprocess sets it")
    if len(plan.parents) == 1:
        return
    if plan.exchanges:
        _print_exchanges(plan)
    else:
        console.say("0 exchanges")
        console.note(f"note: nothing is exchanged; the branches meet in the head only{_way_out(plan)}")
    if not rejections or not plan.rejections:
        return
    table = Table(title=f"{len(plan.rejections)} taps not exchanged", title_justify="left")
    for header in ("tap", "best partner"):
        table.add_column(header, overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("why not")
    for item in plan.rejections:
        table.add_row(item.a, item.b, f"{item.score:.2f}", item.reason)
    console.print_table(table)


def _print_exchanges(plan: Plan) -> None:
    from rich.table import Table

    exchanges = Table(title=f"{len(plan.exchanges)} exchanges", title_justify="left")
    exchanges.add_column("#", justify="right")
    for header in ("tap", "and tap"):
        exchanges.add_column(header, overflow="fold")
    for header in ("into the first", "into the second"):
        exchanges.add_column(header, no_wrap=True)
    exchanges.add_column("score", justify="right", no_wrap=True)
    for index, exchange in enumerate(plan.exchanges):
        into = {skip.target: skip for skip in exchange}
        ends = sorted({tap for skip in exchange for tap in (skip.source, skip.target)})
        score = exchange[0].score
        exchanges.add_row(
            str(index),
            *ends,
            *(str(into[end].projection) if end in into else "none" for end in ends),
            "" if score is None else f"{score:.2f}",
        )
    console.print_table(exchanges)


def _way_out(plan: Plan) -> str:
    """Return which option gives exchanges where the grids are too far apart for any."""
    from graftonnx.projections import TOO_FAR

    given = click.get_current_context().params
    is_far = any(item.reason.startswith(TOO_FAR) for item in plan.rejections)
    if not is_far or given["max_skips"] == 0 or given.get("plan_file") is not None:
        return ""
    return "; `--policy all` also takes grids that differ by more than two"
