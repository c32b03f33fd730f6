"""`graftonnx eval`: measure the accuracy of a network on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from graftonnx.cli import console
from graftonnx.cli.inference_options import note_fallback, preprocess_option, run_options
from graftonnx.cli.parameters import DATA_HELP, Choice, any_file, json_option, quiet_option
from graftonnx.cli.progress import progress

if TYPE_CHECKING:
    from graftonnx.cli.records import EvaluationRecord
    from graftonnx.evaluation import Evaluation, Part, Selection
    from graftonnx.metadata import Preprocess
    from graftonnx.providers import Provider
    from graftonnx.providers.settings import Settings

MOST_COLUMNS = 20
"""Classes up to which the confusion matrix is shown; with more, the most confused pairs."""

PAIRS = 15
PARTS = {"train": "training images", "val": "validation images", "test": "test images", "all": "images"}


@click.command()
@click.argument("model", type=click.Path(path_type=Path), metavar="RUN|FILE.onnx")
@click.option("--data", metavar="DATA", shell_complete=any_file, required=True, help=DATA_HELP)
@click.option(
    "--split",
    "part",
    type=Choice(list(PARTS)),
    help="Which images.  [default: val where it is known, else test where there is one, else all]",
)
@click.option(
    "--split-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The split.json of the run.  [default: the one beside the network]",
)
@click.option(
    "--on-bad-image",
    type=Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="An image that cannot be decoded.",
)
@run_options
@preprocess_option
@json_option
@quiet_option
def command(
    model: Path,
    data: str,
    part: Part | None,
    split_file: Path | None,
    on_bad_image: str,
    provider: Provider,
    settings: Settings,
    batch_size: int,
    workers: int,
    mirror: bool,
    preprocess: Preprocess | None,
    as_json: bool,
) -> None:
    """Measure the accuracy of a network on labelled images: a run folder, or an ONNX file.

    Classes of the data and the network's labels are matched by name. Of a run folder exactly the images are
    taken that validated it in training.
    """
    from graftonnx.classifier import open_classifier
    from graftonnx.data.cache import described
    from graftonnx.evaluation import evaluate, select

    classifier = open_classifier(
        model, provider=provider, preprocess=preprocess, settings=settings, mirror=mirror
    )
    note_fallback(classifier.session)
    selection = select(data, part, source=model, split_file=split_file)
    if part is None and selection.part == "all":
        console.note("Note: nothing says which images validated; these are all, with those that trained.")
    with progress("Evaluating", len(selection.samples)) as advance:
        result = evaluate(
            classifier,
            selection,
            batch_size=batch_size,
            workers=workers,
            skip_bad=on_bad_image == "skip",
            on_image=advance,
        )
    if result.bad:
        count = f"{len(result.bad)} image{'s' * (len(result.bad) > 1)}"
        console.warn(f"{count} cannot be decoded, left out: {described(result.bad)}")
    if as_json:
        console.print_json(_record(model, selection, result))
    else:
        _print(model, selection, result)


def _record(model: Path, selection: Selection, result: Evaluation) -> EvaluationRecord:
    return {
        "model": str(model),
        "data": selection.data.where,
        "split": selection.part,
        "images": result.images,
        "bad_images": [{"name": image.name, "reason": image.reason} for image in result.bad],
        "top1": result.top1,
        "top5": result.top5,
        "loss": result.loss,
        "provider": result.provider,
        "mirror": result.mirror,
        "classes": list(result.scores),
        "confusion": result.confusion.tolist(),
    }


def _print(model: Path, selection: Selection, result: Evaluation) -> None:
    """Print the accuracy, each class, and what is taken for what."""
    top5 = f", top-5 {result.top5:.2%}" if len(result.labels) > 5 else ""
    mirrored = ", each with its mirror image" if result.mirror else ""
    console.say(
        f"{model}: top-1 {result.top1:.2%}{top5}, loss {result.loss:.4f} "
        f"({result.images} {PARTS[selection.part]} of {selection.data.where}, on {result.provider}{mirrored})"
    )
    if len(result.labels) <= MOST_COLUMNS:
        _print_matrix(result)
    else:
        _print_pairs(result)


def _print_matrix(result: Evaluation) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Rows: true class; columns: predicted class", title_justify="left")
    table.add_column("class")
    for heading in ("images", "recall", "precision", *result.labels):
        table.add_column(heading, justify="right")
    for i, score in enumerate(result.scores):
        cells = [
            Text(str(n), "bold") if i == j else (Text(str(n), "red") if n else "·")
            for j, n in enumerate(result.confusion[i].tolist())
        ]
        shares = (_percent(score.recall), _percent(score.precision))
        table.add_row(score.name, str(score.images), *shares, *cells)
    console.print_table(table)


def _print_pairs(result: Evaluation) -> None:
    from rich.table import Table

    seen = [score for score in result.scores if score.recall is not None]
    worst = Table("class", title=f"Lowest recall of {len(seen)} classes", title_justify="left")
    for heading in ("images", "recall", "precision"):
        worst.add_column(heading, justify="right")
    for score in sorted(seen, key=lambda s: s.recall or 0.0)[:PAIRS]:
        worst.add_row(score.name, str(score.images), _percent(score.recall), _percent(score.precision))
    console.print_table(worst)
    pairs = result.most_confused(PAIRS)
    if pairs:
        table = Table("class", "taken for", title="Most confused", title_justify="left")
        table.add_column("images", justify="right")
        for pair in pairs:
            table.add_row(pair.true, pair.predicted, str(pair.images))
        console.print_table(table)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
