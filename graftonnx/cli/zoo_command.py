"""`graftonnx zoo`: list the networks of the paper, and export one as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from graftonnx.cli.console import note, print_json, print_table, say
from graftonnx.cli.parameters import LARGEST_SIDE, FloatRange, IntRange, Seed, json_option, quiet_option

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from graftonnx.cli.records import ZooEntry


@click.group("zoo", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """List and export the networks of the paper."""


@command.command("list")
@json_option
@quiet_option
def list_networks(as_json: bool) -> None:
    """List the networks that `zoo export` can write."""
    from graftonnx.models.registry import ENTRIES

    if as_json:
        entries: list[ZooEntry] = [
            {
                "name": entry.name,
                "summary": entry.summary,
                "parameters": entry.parameters,
                "input_size": entry.input_size,
                "smallest_input": entry.smallest_input,
                "classes": entry.classes,
                "preprocess": entry.preprocess,
                "source": entry.source,
            }
            for entry in ENTRIES
        ]
        print_json(entries)
        return
    from rich.table import Table

    table = Table("network", "what it is", box=None, pad_edge=False)
    for heading in ("parameters", "input", "classes"):
        table.add_column(heading, justify="right")
    table.add_column("preprocess")
    table.add_column("source")
    for entry in ENTRIES:
        table.add_row(
            entry.name,
            entry.summary,
            f"{entry.parameters:,}",
            f"{entry.input_size}x{entry.input_size}",
            str(entry.classes),
            entry.preprocess,
            entry.source,
        )
    print_table(table)


def _known(ctx: click.Context, param: click.Parameter, name: str) -> str:
    """Answer an unknown network with the nearest names."""
    from graftonnx.models.registry import ChoiceError, find

    try:
        known: str = find(name).name
    except ChoiceError as error:
        raise click.BadParameter(str(error), ctx, param) from error
    return known


def _completed(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete a network's name."""
    from click.shell_completion import CompletionItem

    from graftonnx.models.registry import ENTRIES

    return [
        CompletionItem(entry.name, help=entry.summary)
        for entry in ENTRIES
        if entry.name.startswith(incomplete)
    ]


@command.command("export")
@click.argument("name", callback=_known, shell_complete=_completed)
@click.option(
    "--weights",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Checkpoint with torchvision's keys: .pth, .pt or .safetensors. Without it the weights are random.",
)
@click.option(
    "--input-size",
    type=IntRange(1, LARGEST_SIDE),
    metavar="N",
    help="Height and width of the images in pixels.  [default: the published size]",
)
@click.option(
    "--classes",
    type=IntRange(min=1),
    metavar="K",
    help="Number of classes.  [default: the published number]",
)
@click.option(
    "--width",
    type=FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    metavar="FACTOR",
    help="Multiply the number of channels, for a narrower or wider network.",
)
@click.option("--seed", type=Seed(), default=0, show_default=True, help="Seed of the random weights.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.onnx",
    required=True,
    help="The file to write.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@json_option
@quiet_option
def export(
    name: str,
    weights: Path | None,
    input_size: int | None,
    classes: int | None,
    width: float,
    seed: int,
    output: Path,
    force: bool,
    as_json: bool,
) -> None:
    """Write the network NAME as an ONNX file; `zoo list` shows the names.

    The batch is dynamic, height and width are fixed. BatchNormalization and Dropout stay nodes of their own
    and the weights keep their PyTorch names, so that the file can be fine-tuned. ONNX Runtime's logits are
    compared with PyTorch's before anything is written.
    """
    from graftonnx.models.registry import ChoiceError
    from graftonnx.zoo import export_network

    try:
        exported = export_network(
            name,
            output,
            weights=weights,
            input_size=input_size,
            classes=classes,
            width=width,
            seed=seed,
            force=force,
        )
    except ChoiceError as error:
        raise click.UsageError(f"{error}.") from error
    for remark in exported.notes:
        note(f"Note: {remark}.")
    if as_json:
        print_json(exported)
        return
    channels, height, breadth = exported.input_shape
    say(
        f"Wrote {exported.path}: {exported.name}, {exported.parameters:,} parameters, "
        f"input [batch, {channels}, {height}, {breadth}], {exported.classes} classes, "
        f"{exported.bytes / 1e6:.1f} MB; differs from PyTorch by {exported.difference:.0e} of the top logit."
    )
