"""`graftonnx predict`: classify images."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from graftonnx.cli import console
from graftonnx.cli.inference_options import note_fallback, preprocess_option, run_options
from graftonnx.cli.parameters import json_option, quiet_option
from graftonnx.cli.progress import progress

if TYPE_CHECKING:
    from graftonnx.prediction import Answer
    from graftonnx.providers import Provider
    from graftonnx.providers.settings import Settings

Format = Literal["table", "csv", "json"]

SOME_UNREADABLE = 3
"""The exit code when images could not be read; all others are classified."""


@click.command()
@click.argument("model", type=click.Path(path_type=Path), metavar="RUN|FILE.onnx")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|DIR|GLOB...")
@click.option(
    "--top", type=click.IntRange(min=1), default=1, show_default=True, help="Likeliest classes to give."
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "csv", "json"]),
    help="[default: by the name of the output file; a table on the screen]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write CSV or JSON to this file.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@run_options
@preprocess_option
@json_option
@quiet_option
def command(
    model: Path,
    images: tuple[str, ...],
    top: int,
    style: Format | None,
    output: Path | None,
    force: bool,
    provider: Provider,
    settings: Settings,
    batch_size: int,
    workers: int,
    preprocess: str | None,
    as_json: bool,
) -> None:
    """Classify images with a run folder or an ONNX file.

    Images are files, folders (everything below them) and glob patterns; answers come in their order. Files
    that cannot be read are named at the end, the others are classified, and the exit code is 3.
    """
    style = _style("json" if as_json and style is None else style, output)
    if as_json and style != "json":
        raise click.UsageError(f"--json and --format {style} exclude each other.")
    from graftonnx.classifier import open_classifier
    from graftonnx.files import check_writable
    from graftonnx.prediction import answer, find_images

    if output is not None:
        check_writable(output, force=force)
    paths = find_images(images)
    classifier = open_classifier(model, provider=provider, preprocess=preprocess, settings=settings)
    note_fallback(classifier.session)
    top = min(top, classifier.classes)
    answers: list[Answer] = []
    unreadable: list[str] = []
    with progress("Classifying", len(paths)) as advance:
        for prediction in classifier.predict(paths, batch_size=batch_size, workers=workers):
            if prediction.probabilities is None:
                unreadable.append(prediction.error or "")
            else:
                answers.append(answer(prediction.path, prediction.probabilities, classifier.labels, top))
            advance()
    _give(answers, top, style, output)
    if unreadable:
        for reason in unreadable:
            console.warn(reason)
        console.warn(f"{len(unreadable)} of {len(paths)} images could not be read.")
        sys.exit(SOME_UNREADABLE)


def _style(style: Format | None, output: Path | None) -> Format:
    """Return the format: what was asked for, or what the output file's name says."""
    if output is None:
        return style or "table"
    if style == "table":
        raise click.UsageError("A table is for the screen: with -o give --format csv or json.")
    if style is None:
        named: dict[str, Format] = {".csv": "csv", ".json": "json"}
        if output.suffix.lower() not in named:
            raise click.UsageError(f"Cannot tell the format from '{output}': give --format csv or json.")
        style = named[output.suffix.lower()]
    return style


def _give(answers: list[Answer], top: int, style: Format, output: Path | None) -> None:
    """Print the answers, or write them to a file."""
    from graftonnx.files import write_text
    from graftonnx.prediction import to_csv, to_records

    if style == "table":
        _print(answers, top)
        return
    if style == "csv":
        text = to_csv(answers, top)
    else:
        text = json.dumps(to_records(answers), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        console.say(text.removesuffix("\n"))
    else:
        write_text(output, text)
        console.note(f"Wrote {output}: {len(answers)} images.")


def _print(answers: list[Answer], top: int) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("image")
    for _ in range(top):
        table.add_column("class")
        table.add_column("probability", justify="right")
    for row in answers:
        cells = [(escape(c.label), f"{c.probability:.1%}") for c in row.candidates]
        table.add_row(escape(str(row.image)), *(cell for pair in cells for cell in pair))
    console.print_table(table)
