"""`graftonnx export`: write the deployable file of a trained network."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graftonnx.cli import console
from graftonnx.cli.inference_options import preprocess_option
from graftonnx.cli.parameters import (
    DATA_HELP,
    Choice,
    ImageSize,
    IntRange,
    any_file,
    element_option,
    json_option,
    layout_option,
    number_from_one,
    quiet_option,
)

if TYPE_CHECKING:
    from graftonnx.exporting import Export
    from graftonnx.exporting.fidelity import Fidelity
    from graftonnx.exporting.form import ElementType
    from graftonnx.metadata import ImageLayout, Precision, Preprocess

DYNAMIC = "dynamic"

FOLDED = {
    "scales": ("scale or batch norm", "scales and batch norms"),
    "preprocessing": ("preprocessing step", "preprocessing steps"),
    "skips": ("skip that stayed zero", "skips that stayed zero"),
    "pools": ("pool behind a 1x1 conv", "pools behind 1x1 convs"),
    "products": ("1x1 conv", "1x1 convs"),
    "sums": ("sum behind a 1x1 conv", "sums behind 1x1 convs"),
    "concats": ("concat behind a 1x1 conv", "concats behind 1x1 convs"),
    "identities": ("dropout or identity", "dropouts and identities"),
    "constants": ("constant", "constants"),
}
"""What was taken out: one, and several."""


class SizeOrDynamic(ImageSize):
    """A size, or `dynamic` for any."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Return height and width; 0 and 0 for any."""
        return (0, 0) if value == DYNAMIC else super().convert(value, param, ctx)


class BatchOrDynamic(click.ParamType[int | None]):
    """A number of images, or `dynamic` for any."""

    name = "batch"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Return the number; None for any."""
        if value == DYNAMIC or value is None:
            return None
        number = number_from_one(str(value))
        if number is None:
            self.fail(f"{value!r} is no number of images; give 1 or more, or {DYNAMIC}.", param, ctx)
        return number


@click.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="RUN|FILE.onnx")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.onnx",
    required=True,
    help="The file to write.",
)
@click.option(
    "--precision",
    type=Choice(["fp32", "fp16", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="fp16: computes in float16, for GPUs; bf16: stores the weights in half the bytes and computes in "
    "float32; int8: computes in 8 bits, for CPUs, after --calibrate.",
)
@element_option
@layout_option
@click.option(
    "--size",
    type=SizeOrDynamic(),
    metavar="N|HxW|dynamic",
    help="Of the images, which are resized inside to the network's own size.  [default: the network's own]",
)
@click.option(
    "--batch",
    type=BatchOrDynamic(),
    metavar="N|dynamic",
    default="dynamic",
    show_default=True,
    help="Images at once; dynamic: any number.",
)
@click.option(
    "--opset",
    type=IntRange(min=7),
    help="Of the operators, for older or newer runtimes.  [default: the network's own]",
)
@click.option(
    "--softmax/--no-softmax", default=True, show_default=True, help="Whether the output is probabilities."
)
@click.option(
    "--data",
    metavar="DATA",
    shell_complete=any_file,
    help=f"Compares the file with the network on them. {DATA_HELP}",
)
@click.option(
    "--split-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The split of the run that trained the network.  [default: split.json beside it]",
)
@click.option(
    "--calibrate",
    metavar="DATA",
    shell_complete=any_file,
    help="Images that the range of every value is taken from, 256 of them; a folder of images without labels "
    "will do.  [default: training images of --data]",
)
@click.option(
    "--accept-loss", is_flag=True, help="Write the file though its answers differ more often than expected."
)
@click.option(
    "--labels",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Class names, one on each line; they replace those in the network.",
)
@preprocess_option
@click.option("--force", is_flag=True, help="Replace an existing file.")
@json_option
@quiet_option
def command(
    source: Path,
    output: Path,
    precision: Precision,
    element: ElementType,
    layout: ImageLayout,
    size: tuple[int, int] | None,
    batch: int | None,
    opset: int | None,
    softmax: bool,
    data: str | None,
    split_file: Path | None,
    calibrate: str | None,
    accept_loss: bool,
    labels: Path | None,
    preprocess: Preprocess | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write the deployable file of a trained network: a run folder, or an ONNX file.

    Batch norms and preprocessing are folded into the convolutions, dropouts and unused skips disappear, and
    class names and input convention go inside. ONNX Runtime compares the new file with the old one before
    anything is written.

    Another precision than fp32 changes some answers. How many is measured on the images of --data, else on
    those of --calibrate, else on random ones; nothing is written where fewer than 99.9 % (fp16) or 99 %
    (bf16, int8) stay the same, unless --accept-loss is given.
    """
    from graftonnx.exporting import export
    from graftonnx.reading import read_labels

    if precision == "int8" and calibrate is None and data is None:
        raise click.UsageError("--precision int8 needs images: give --calibrate, or --data.")
    written = export(
        source,
        output,
        precision=precision,
        element=element,
        layout=layout,
        size=size,
        batch=batch,
        opset=opset,
        with_softmax=softmax,
        labels=read_labels(labels) if labels else None,
        preprocess=preprocess,
        data=data,
        split_file=split_file,
        calibrate=calibrate,
        accept_loss=accept_loss,
        force=force,
    )
    if as_json:
        console.print_json(written)
    else:
        _print(written)


def _print(written: Export) -> None:
    """Print the result in a few lines."""
    counts = dataclasses.asdict(written.folded)
    folded = ", ".join(
        f"{counts[key]} {words[counts[key] > 1]}" for key, words in FOLDED.items() if counts[key]
    )
    labels = f"{written.labels} labels" if written.labels else "no labels"
    console.say(
        f"Wrote {written.path}: {written.nodes} nodes (of {written.nodes_before}), "
        f"{written.bytes / 1e6:.1f} MB (of {written.bytes_before / 1e6:.1f}), output '{written.output}', "
        f"{labels} inside."
    )
    console.say(f"Folded: {folded or 'nothing'}.")
    console.say(
        f"In ONNX Runtime {'it' if written.precision == 'fp32' else 'its float32 form'} differs from "
        f"{written.source} by {written.difference:.0e} of the largest output "
        f"(at most {written.tolerance:.0e} is allowed)."
    )
    if written.kept:
        console.say(f"Kept in float32 since they do harm in {written.precision}: {', '.join(written.kept)}.")
    if written.fidelity is not None:
        _print_fidelity(written.precision, written.fidelity)


def _print_fidelity(precision: str, found: Fidelity) -> None:
    console.say(
        f"In {precision} {found.agreement:.2%} of {found.images} {found.pictures} get the same answer; "
        f"probabilities differ by {found.max_difference:.1e} at most, {found.mean_difference:.1e} on average."
    )
    if found.accuracy is not None and found.accuracy_before is not None:
        change = found.accuracy - found.accuracy_before
        console.say(
            f"Accuracy {found.accuracy:.2%} (of {found.accuracy_before:.2%}, {100 * change:+.2f} points)."
        )
