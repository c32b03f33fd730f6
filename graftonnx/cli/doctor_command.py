"""`graftonnx doctor`: what works on this machine, what does not, and why."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

import click

from graftonnx.cli import console
from graftonnx.cli.parameters import json_option

if TYPE_CHECKING:
    from graftonnx.diagnosis import Diagnosis


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Say what works on this machine, what does not, why, and the command that helps.

    A small network is run on every provider that nothing stands in the way of. The exit code is 0 if networks
    can be run at all, on the CPU.
    """
    from graftonnx.diagnosis import diagnose

    diagnosis = diagnose()
    if as_json:
        console.print_json({"works": diagnosis.works, **dataclasses.asdict(diagnosis)})
    else:
        _print(diagnosis)
    if not diagnosis.works:
        sys.exit(1)


def _print(diagnosis: Diagnosis) -> None:
    from rich.table import Table

    about = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _facts(diagnosis):
        about.add_row(name, value)
    console.print_table(about)
    table = Table("provider", "works", "why not, and what helps")
    offered = [found for found in diagnosis.providers if found.offered or found.provider == "cpu"]
    for finding in offered:
        table.add_row(finding.provider, "yes" if finding.works else "no", finding.reason)
    console.print_table(table)
    others = ", ".join(found.provider for found in diagnosis.providers if found not in offered)
    console.say(f"not in the installed ONNX Runtime: {others} (--json says for each what helps)")
    for remark in diagnosis.remarks:
        console.say(f"remark: {remark}")


def _facts(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    """Return what is known of the machine as names and values."""
    packages = [f"{name} {version or 'missing'}" for name, version in diagnosis.packages.items()]
    builds = [("ONNX Runtime", diagnosis.cuda_build)]
    if diagnosis.packages["torch"]:
        builds.append(("torch", diagnosis.torch_cuda))
    memory = f", {diagnosis.memory / 2**30:.1f} GiB" if diagnosis.memory else ""
    supported = diagnosis.driver_cuda
    facts = [
        ("graftonnx", f"{diagnosis.graftonnx}, Python {diagnosis.python}, {diagnosis.system}"),
        ("packages", ", ".join(packages)),
        ("built for", ", ".join(f"{name}: {f'CUDA {cuda}' if cuda else 'CPU'}" for name, cuda in builds)),
        ("CPU", f"{diagnosis.processor}, {diagnosis.cores} cores{memory}"),
        ("driver", f"NVIDIA's, for CUDA {supported}" if supported else "none of NVIDIA's"),
    ]
    for number, device in enumerate(diagnosis.devices):
        text = f"{device.name}, {device.memory / 2**30:.1f} GiB, compute capability {device.capability}"
        facts.append((f"GPU {number}", text))
    facts.extend(("library", library) for library in diagnosis.libraries)
    return facts
