"""`graftonnx inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graftonnx.cli import console
from graftonnx.cli.parameters import ImageSize, dequantize_option, json_option, quiet_option

if TYPE_CHECKING:
    from graftonnx.cli.records import Inspection
    from graftonnx.network import Network


@click.command(name="inspect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--input-size", type=ImageSize(), help="Look at the network at this size.  [default: its own]")
@dequantize_option
@json_option
@quiet_option
def command(file: Path, input_size: tuple[int, int] | None, dequantize: bool, as_json: bool) -> None:
    """Show what is in a network: input, output, cost, feature tensor and taps.

    Taps are the values that can be exchanged with another network. Stride is in input pixels, depth is the
    share of the weight layers before the feature tensor.
    """
    from graftonnx.model import load

    network = load(file, input_size=input_size, dequantize=dequantize)
    facts = describe(network)
    if as_json:
        console.print_json(facts)
    else:
        _print(network, facts)


def describe(network: Network) -> Inspection:
    """Return the facts of a network."""
    from graftonnx.costs import macs, parameters
    from graftonnx.taps import find_taps

    view = network.view
    feature = view.shapes[network.head.feature]
    return {
        "name": network.name,
        "sha256": network.sha256,
        "producer": network.producer,
        "opset": network.opset,
        "ir_version": network.ir_version,
        "input": {
            "name": network.input,
            "shape": ["batch", *network.input_shape],
            "preprocess": network.preprocess,
            "preprocess_reason": network.preprocess_reason,
        },
        "inputs": {name: ["batch", *shape] for name, shape in network.input_shapes.items()},
        "output": {"name": network.head.output, "classes": network.head.classes}
        if network.complete
        else None,
        "nodes": network.nodes,
        "parameters": parameters(view),
        "macs": macs(view),
        "feature": {"name": network.head.feature, "shape": ["batch", *feature[1:]]},
        "taps": [
            {
                "name": tap.name,
                "op": tap.op,
                "shape": list(tap.shape),
                "stride": [round(side, 2) for side in tap.stride],
                "depth": round(tap.depth, 3),
                "spine": tap.spine,
            }
            for tap in find_taps(network)
        ],
        "parents": list(network.metadata.parents),
        "head": network.metadata.head,
        "labels": list(network.metadata.labels),
        "notes": list(network.notes),
    }


def _print(network: Network, facts: Inspection) -> None:
    from rich.table import Table

    def spelled(shape: list[Any]) -> str:
        return f"[{', '.join('N' if extent == 'batch' else str(extent) for extent in shape)}]"

    about = Table(show_header=False, box=None, pad_edge=False)
    about.add_row("file", f"{facts['name']} ({facts['producer'] or 'unknown producer'})")
    read = len(network.skeleton.graph.node)
    nodes = f"{facts['nodes']} nodes{f' ({read} as read)' * (read != facts['nodes'])}"
    about.add_row("format", f"opset {facts['opset']}, IR {facts['ir_version']}, {nodes}")
    for name, shape in facts["inputs"].items():
        about.add_row("input", f"{name} {spelled(shape)}")
    about.add_row("expects", f"{convention(network)} ({network.preprocess_reason})")
    if facts["output"] is not None:
        about.add_row("output", f"{facts['output']['name']} [N, {facts['output']['classes']}]")
    about.add_row("feature", f"{facts['feature']['name']} {spelled(facts['feature']['shape'])}")
    about.add_row("parameters", f"{facts['parameters']:,}")
    about.add_row("MACs", f"{facts['macs'] / 1e6:,.1f} M")
    for parent in network.metadata.parents:
        reads = "" if parent.input is None else f", reads {parent.input}"
        about.add_row(f"branch {parent.branch}", f"{parent.name}, {parent.parameters:,} parameters{reads}")
    if network.metadata.head is not None:
        about.add_row("head", str(network.metadata.head))
    for note in network.notes:
        about.add_row("note", note)
    console.print_table(about)
    taps = Table(title=f"{len(facts['taps'])} taps", title_justify="left")
    for header in ("tap", "op"):
        taps.add_column(header, overflow="fold")
    for header in ("shape", "stride", "depth"):
        taps.add_column(header, justify="right", no_wrap=True)
    taps.add_column("ends a block", no_wrap=True)
    for tap in facts["taps"]:
        steps = list(dict.fromkeys(tap["stride"]))
        stride = "x".join(f"{step:g}" for step in (steps if len(steps) == 1 else tap["stride"]))
        size = "x".join(map(str, tap["shape"]))
        taps.add_row(
            tap["name"], tap["op"], size, stride, f"{tap['depth']:.2f}", "yes" if tap["spine"] else ""
        )
    console.print_table(taps)


def convention(network: Network) -> str:
    """Return what a network expects, for people: `rgb, (x * 1 - 0.5) / 0.5`."""
    given = network.preprocess

    def numbers(values: tuple[float, ...]) -> str:
        return f"{values[0]:g}" if len(values) == 1 else f"[{', '.join(f'{v:g}' for v in values)}]"

    formula = f"(x * {given.scale:g} - {numbers(given.mean)}) / {numbers(given.std)}"
    return f"{given.order}, {formula}" if len(network.input_shape) == 3 else formula
