"""`graftonnx export`: write the deployable file of a trained network."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graftonnx.cli import console
from graftonnx.cli.inference_options import preprocess_option
from graftonnx.cli.parameters import quiet_option

if TYPE_CHECKING:
    from graftonnx.exporting import Export

FOLDED = {
    "scales": "scales and batch norms",
    "preprocessing": "preprocessing steps",
    "skips": "skips that stayed zero",
    "identities": "dropouts and identities",
    "constants": "constants",
}


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
    "--softmax/--no-softmax", default=True, show_default=True, help="Whether the output is probabilities."
)
@click.option(
    "--labels",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Class names, one on each line; they replace those in the network.",
)
@preprocess_option
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@quiet_option
def command(
    source: Path,
    output: Path,
    softmax: bool,
    labels: Path | None,
    preprocess: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write the deployable file of a trained network: a run folder, or an ONNX file.

    Batch norms and preprocessing are folded into the convolutions, dropouts and unused skips disappear, and
    class names and input convention go inside. ONNX Runtime compares the new file with the old one before
    anything is written.
    """
    from graftonnx.exporting import export
    from graftonnx.files import read_labels

    written = export(
        source,
        output,
        with_softmax=softmax,
        labels=read_labels(labels) if labels else None,
        preprocess=preprocess,
        force=force,
    )
    if as_json:
        record = dataclasses.asdict(written)
        console.print_json({**record, "path": str(written.path), "source": str(written.source)})
    else:
        _print(written)


def _print(written: Export) -> None:
    """Print the result in three lines."""
    counts = dataclasses.asdict(written.folded)
    folded = ", ".join(f"{counts[key]} {what}" for key, what in FOLDED.items() if counts[key])
    labels = f"{written.labels} labels" if written.labels else "no labels"
    console.say(
        f"Wrote {written.path}: {written.nodes} nodes (of {written.nodes_before}), "
        f"{written.bytes / 1e6:.1f} MB (of {written.bytes_before / 1e6:.1f}), output '{written.output}', "
        f"{labels} inside."
    )
    console.say(f"Folded: {folded or 'nothing'}.")
    console.say(
        f"In ONNX Runtime it differs from {written.source} by {written.difference:.0e} of the largest output "
        f"(at most {written.tolerance:.0e} is allowed)."
    )
