"""`graftonnx bundle`: make a folder with all that it takes to run a network elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graftonnx.cli import console
from graftonnx.cli.inference_options import preprocess_option
from graftonnx.cli.parameters import (
    DATA_HELP,
    Choice,
    any_file,
    element_option,
    force_option,
    json_option,
    layout_option,
    quiet_option,
)

if TYPE_CHECKING:
    from graftonnx.bundling.making import Bundle
    from graftonnx.cli.records import BundleRecord
    from graftonnx.exporting.form import ElementType
    from graftonnx.metadata import ImageLayout, Precision, Preprocess

PRECISIONS = ("fp32", "fp16", "bf16", "int8")


class Licence(click.ParamType[tuple[str, str]]):
    """`a=Apache-2.0`: a branch, and the licence of its parent."""

    name = "BRANCH=LICENCE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Return both parts."""
        found = re.fullmatch(r"([a-z])=(.+)", str(value))
        if found is None:
            self.fail(
                f"{value!r} is no licence of a branch; give BRANCH=LICENCE, as a=Apache-2.0.", param, ctx
            )
        return found[1], found[2]


@click.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="RUN|FILE.onnx")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    required=True,
    help="The folder to make.",
)
@click.option(
    "--precision",
    "precisions",
    type=Choice(PRECISIONS),
    multiple=True,
    default=PRECISIONS[:1],
    show_default=True,
    help="Of the networks in it; for several repeat the option: --precision fp32 --precision int8. The first "
    "one counts where none is asked for.",
)
@element_option
@layout_option
@click.option("--name", help="Name of the network.  [default: that of the folder]")
@click.option(
    "--data",
    metavar="DATA",
    shell_complete=any_file,
    help=f"Measure the accuracy on it. {DATA_HELP}  [default: what validated the run]",
)
@click.option(
    "--split-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The split.json of the run, for --data.  [default: the one beside the network]",
)
@click.option(
    "--calibrate",
    metavar="DATA",
    help="Images that int8 takes its ranges from.  [default: training images of --data]",
)
@click.option(
    "--accept-loss", is_flag=True, help="Write networks though their answers differ more often than expected."
)
@click.option(
    "--labels",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Class names, one on each line; they replace those in the network.",
)
@click.option(
    "--licence", "licences", type=Licence(), multiple=True, help="The licence of a parent; may be repeated."
)
@preprocess_option
@force_option
@json_option
@quiet_option
def command(
    source: Path,
    output: Path,
    precisions: tuple[Precision, ...],
    element: ElementType,
    layout: ImageLayout,
    name: str | None,
    data: str | None,
    split_file: Path | None,
    calibrate: str | None,
    accept_loss: bool,
    labels: Path | None,
    licences: tuple[tuple[str, str], ...],
    preprocess: Preprocess | None,
    force: bool,
    as_json: bool,
) -> None:
    """Make a folder with all that it takes to run a network elsewhere: a run folder, or an ONNX file.

    In it: the network, labels, a model card, a selfcheck, a predict.py that needs ONNX Runtime, NumPy and
    Pillow alone, a model repository for Triton, and the sums of all files, which `graftonnx verify` checks.
    """
    from graftonnx.bundling import bundle
    from graftonnx.reading import read_labels

    made = bundle(
        source,
        output,
        precisions=tuple(dict.fromkeys(precisions)),
        element=element,
        layout=layout,
        name=name,
        data=data,
        split_file=split_file,
        calibrate=calibrate,
        accept_loss=accept_loss,
        labels=read_labels(labels) if labels else None,
        preprocess=preprocess,
        licences=dict(licences),
        force=force,
        on_step=lambda step: console.note(f"{step} ..."),
    )
    if as_json:
        console.print_json(_record(made))
    else:
        _print(made)


def _record(made: Bundle) -> BundleRecord:
    return {
        "path": str(made.path),
        "name": made.verified.name,
        "files": made.verified.files,
        "split": made.selection.part if made.selection is not None else None,
        "models": [
            {
                "precision": model.precision,
                "bytes": model.bytes,
                "seconds": model.seconds,
                "top1": model.evaluation.top1 if model.evaluation is not None else None,
                "fidelity": model.fidelity,
            }
            for model in made.models
        ],
    }


def _print(made: Bundle) -> None:
    """Print a line for each precision, and what is in the folder."""
    for model in made.models:
        accuracy = f", top-1 {model.evaluation.top1:.2%}" if model.evaluation is not None else ""
        same = (
            f", {model.fidelity.agreement:.2%} of the answers as before"
            if model.fidelity is not None and not model.fidelity.random
            else ""
        )
        console.say(
            f"{model.precision}: {model.bytes / 1e6:.1f} MB, {1e3 * model.seconds:.2f} ms for one image"
            f"{accuracy}{same}"
        )
    console.say(f"Wrote {made.path}: {made.verified.files} files, verified.")
    if made.selection is None:
        console.note("Note: its accuracy was not measured: give --data.")
