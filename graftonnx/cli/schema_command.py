"""`graftonnx schema`: what a command's --json holds, as a JSON schema."""

from __future__ import annotations

import functools
import importlib
import operator
from typing import Any

import click

from graftonnx.cli import console
from graftonnx.spelling import did_you_mean

PRINTED = {
    "inspect": ("cli.records:Inspection",),
    "check": ("cli.records:Check",),
    "view": ("cli.records:Page",),
    "match": ("plan:Plan",),
    "fuse": ("cli.records:Fused", "plan:Plan"),
    "train": ("training.config:TrainResult", "comparison.record:Comparison"),
    "report": ("cli.records:Page",),
    "compare": ("comparison.record:Comparison",),
    "export": ("exporting.deploying:Export",),
    "bundle": ("cli.records:BundleRecord",),
    "verify": ("bundling.verifying:Verified",),
    "eval": ("cli.records:EvaluationRecord",),
    "predict": ("cli.records:Predictions",),
    "bench": ("benchmarks.record:Benchmark",),
    "doctor": ("cli.records:Doctor",),
    "zoo list": ("cli.records:Zoo",),
    "zoo export": ("zoo:Exported",),
}
"""What commands print with --json: types of graftonnx's modules; with --dry-run, and with --compare, the
second one."""


def printed(name: str) -> Any:
    """Return the pydantic adapter of what a command prints with --json."""
    from pydantic import TypeAdapter

    kinds = []
    for place in PRINTED[name]:
        module, _, kind = place.partition(":")
        kinds.append(getattr(importlib.import_module(f"graftonnx.{module}"), kind))
    return TypeAdapter(functools.reduce(operator.or_, kinds))


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="COMMAND")
def command(words: tuple[str, ...]) -> None:
    """Print the JSON schema of what COMMAND prints with --json.

    Lengths are in pixels, times in seconds, sizes in bytes, shares and accuracies in 0..1.
    """
    name = " ".join(words)
    if name not in PRINTED:
        raise click.UsageError(
            f"No command '{name}' prints JSON; these do: {', '.join(PRINTED)}.{did_you_mean(name, PRINTED)}"
        )
    console.print_json(printed(name).json_schema(mode="serialization"))
