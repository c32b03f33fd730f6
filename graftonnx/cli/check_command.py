"""`graftonnx check`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from graftonnx.cli import console
from graftonnx.cli.parameters import FloatRange, ImageSize, Seed, json_option, quiet_option
from graftonnx.errors import ParityError, UnsupportedOpError

if TYPE_CHECKING:
    from graftonnx.cli.records import Check
    from graftonnx.errors import Refusal
    from graftonnx.parity import Comparison


_COPIES = 16
"""Sizes of the file that both sides take for weights and for the values of a small input."""


@click.command(name="check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--against", type=click.Path(path_type=Path), help="Compare with this ONNX file instead.")
@click.option(
    "--input-size",
    type=ImageSize(),
    help="Height and width of the random images.  [default: the file's, or 64]",
)
@click.option(
    "--tolerance",
    type=FloatRange(min=0, min_open=True),
    default=1e-4,
    show_default=True,
    help="Distance allowed, as a share of a value's largest number.",
)
@click.option("--seed", type=Seed(), default=0, show_default=True, help="Of the random input.")
@json_option
@quiet_option
def command(
    file: Path,
    against: Path | None,
    input_size: tuple[int, int] | None,
    tolerance: float,
    seed: int,
    as_json: bool,
) -> None:
    """Check that a network converts to PyTorch, and computes the same there.

    Every node that cannot be converted is listed. If there is none, ONNX Runtime and the PyTorch module run
    on the same random input, and every value between input and output is compared; the first that differs
    is shown with its node. With --against, two ONNX files run on the same input, and their outputs are
    compared by position.
    """
    from graftonnx import limits
    from graftonnx.normalise.sizes import check_sizes
    from graftonnx.parity import random_inputs
    from graftonnx.weights import read, whole

    model = whole(*read(file))
    check_sizes(model, input_size)
    refusals = _refusals(file) if against is None else []
    if refusals:
        _refuse(file, refusals, as_json)
    arrays = random_inputs(model, size=input_size, seed=seed)
    if against is not None:
        from graftonnx.parity import compare_models

        other = whole(*read(against))
        check_sizes(other, input_size)
        with limits.bounded("the comparison", _COPIES * (model.ByteSize() + other.ByteSize())):
            comparison = compare_models(model, other, *arrays, rtol=tolerance)
        sides = (file.name, against.name)
    else:
        from graftonnx.conversion import to_torch
        from graftonnx.parity import compare_module, compare_values

        with limits.bounded("the comparison", _COPIES * model.ByteSize()):
            module = to_torch(model)
            comparison = compare_values(model, module, *arrays, rtol=tolerance)
            if comparison.first is None:
                worst = compare_module(model, module, *arrays, rtol=tolerance)
                comparison = dataclasses.replace(comparison, worst=max(worst, comparison.worst))
        sides = ("ONNX Runtime", "PyTorch")
    facts: Check = {
        "file": str(file),
        "equal": comparison.first is None,
        "inputs": [list(array.shape) for array in arrays],
        "values": comparison.values,
        "worst": comparison.worst,
    }
    _report(facts, model, comparison, sides, as_json)


def _refusals(file: Path) -> list[Refusal]:
    """Return every node that cannot be converted.

    Raises:
        UnsupportedOpError: If the graph as a whole cannot.
    """
    from graftonnx.conversion import unsupported

    found = []
    for error in unsupported(file):
        if error.refusal is None:
            raise error
        found.append(error.refusal)
    return found


def _refuse(file: Path, refusals: list[Refusal], as_json: bool) -> NoReturn:
    """Show the nodes that cannot be converted, and fail."""
    if as_json:
        found: Check = {"file": str(file), "equal": False, "unsupported": refusals}
        console.print_json(found)
    else:
        from rich.table import Table

        table = Table()
        for header in ("node", "operator", "domain", "opset", "what is missing"):
            table.add_column(header, overflow="fold")
        for refusal in refusals:
            table.add_row(
                refusal.node, refusal.op_type, refusal.domain or "ai.onnx", str(refusal.opset), refusal.reason
            )
        console.print_table(table)
    count = f"{len(refusals)} node" + ("s" if len(refusals) > 1 else "")
    raise UnsupportedOpError(
        f"cannot convert '{file}': {count} without an exact counterpart in PyTorch. Export the "
        "network without them."
    )


def _report(facts: Check, model: Any, comparison: Comparison, sides: tuple[str, str], as_json: bool) -> None:
    """Show what came out of a comparison; fail if a value differs."""
    from graftonnx.parity import described_node

    if comparison.first is None:
        if as_json:
            console.print_json(facts)
        else:
            shapes = ", ".join(str(shape) for shape in facts["inputs"])
            console.say(
                f"{comparison.values} values equal within {max(comparison.worst, 1e-9):.1g} "
                f"({sides[0]}, {sides[1]}) on a random input {shapes}"
            )
        return
    name, difference = comparison.first
    node = described_node(model, name)
    if as_json:
        facts["first"] = {
            "value": name,
            "node": node,
            "index": list(difference.index),
            "relative": difference.relative,
            "numbers": [difference.onnx, difference.torch],
        }
        console.print_json(facts)
    raise ParityError(f"the first value that differs is '{name}' of {node}: {difference.between(*sides)}.")
