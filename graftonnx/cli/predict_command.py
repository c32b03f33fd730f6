"""`graftonnx predict`: classify images."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import click

from graftonnx.cli import console
from graftonnx.cli.ending import Ended
from graftonnx.cli.exit_codes import INTERRUPTED, SOME_UNREADABLE
from graftonnx.cli.inference_options import note_fallback, preprocess_option, run_options
from graftonnx.cli.parameters import Choice, IntRange, any_file, json_option, quiet_option
from graftonnx.cli.progress import progress
from graftonnx.errors import DataError
from graftonnx.printable import printable_json

if TYPE_CHECKING:
    from graftonnx.classifier import Classifier
    from graftonnx.metadata import Preprocess
    from graftonnx.prediction import Answer, Tally, Written
    from graftonnx.prediction.formats import Format, Text
    from graftonnx.prediction.listing import Listing
    from graftonnx.providers import Provider
    from graftonnx.providers.settings import Settings

Style = Literal["table", "csv", "json", "jsonl", "parquet"]


@click.command()
@click.argument("model", type=click.Path(path_type=Path), metavar="RUN|FILE.onnx")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|DIR|GLOB|-...", shell_complete=any_file)
@click.option("--top", type=IntRange(min=1), default=1, show_default=True, help="Likeliest classes to give.")
@click.option(
    "--format",
    "style",
    type=Choice(["table", "csv", "json", "jsonl", "parquet"]),
    help="[default: by the name of the output file; a table on the screen]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the answers to this file; if the command is interrupted, the same one goes on.",
)
@click.option("--force", is_flag=True, help="Replace an existing file, and begin anew.")
@click.option("-0", "--null", is_flag=True, help="Names on standard input end with NUL: find -print0.")
@click.option(
    "--labels",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Class names, one on each line; they replace those in the network.",
)
@run_options
@preprocess_option
@json_option
@quiet_option
def command(
    model: Path,
    images: tuple[str, ...],
    top: int,
    style: Style | None,
    output: Path | None,
    force: bool,
    null: bool,
    labels: Path | None,
    provider: Provider,
    settings: Settings,
    batch_size: int,
    workers: int,
    mirror: bool,
    preprocess: Preprocess | None,
    as_json: bool,
) -> None:
    """Classify images with a run folder or an ONNX file.

    Images are files, folders (everything below them), glob patterns, and - for names on standard input;
    answers come in their order. A file that cannot be read gets a row with the reason, is named at the end,
    and makes the exit code 3.
    """
    style = _style("json" if as_json and style is None else style, output)
    _check_usage(images, style, null=null, as_json=as_json)
    from graftonnx.classifier import open_classifier
    from graftonnx.prediction.listing import list_images, read_names
    from graftonnx.reading import read_labels

    names: Iterable[str] = ()
    if "-" in images:
        names = read_names(_standard_input(), b"\0" if null else b"\n")
    listing = list_images(images, names)
    given = read_labels(labels) if labels else ()
    classifier = open_classifier(
        model, provider=provider, preprocess=preprocess, settings=settings, labels=given, mirror=mirror
    )
    note_fallback(classifier.session)
    job = _Job(classifier, listing, min(top, classifier.classes), batch_size, workers)
    if output is None or style == "table":
        tally = _show(job, style)
    else:
        tally = _save(job, style, output, force=force)
    if tally.unreadable:
        _name(tally)
        sys.exit(SOME_UNREADABLE)


class _Job(NamedTuple):
    """What is to be classified, and how."""

    classifier: Classifier
    listing: Listing
    top: int
    batch_size: int
    workers: int


def _style(style: Style | None, output: Path | None) -> Style:
    """Return the format: what was asked for, or what the output file's name says."""
    if output is None:
        if style == "parquet":
            raise click.UsageError("Parquet is for files: give -o FILE.parquet.")
        return style or "table"
    if style == "table":
        raise click.UsageError(
            "A table is for the screen: with -o give --format csv, json, jsonl or parquet."
        )
    if style is None:
        from graftonnx.prediction.formats import SUFFIXES

        if output.suffix.lower() not in SUFFIXES:
            raise click.UsageError(
                f"Cannot tell the format from '{output}': give --format csv, json, jsonl or parquet."
            )
        style = SUFFIXES[output.suffix.lower()]
    return style


def _check_usage(images: Sequence[str], style: Style, *, null: bool, as_json: bool) -> None:
    if as_json and style != "json":
        raise click.UsageError(f"--json and --format {style} exclude each other. Leave one out.")
    if images.count("-") > 1:
        raise click.UsageError("Standard input can be read once: give - once.")
    if null and "-" not in images:
        raise click.UsageError("-0 is about names on standard input: give - as well.")


def _standard_input() -> io.BufferedIOBase:
    if sys.stdin is None:
        raise DataError("cannot read names from standard input: it is closed. Give it a file or a pipe.")
    return cast(io.BufferedIOBase, sys.stdin.buffer)


def _save(job: _Job, style: Format, output: Path, *, force: bool) -> Written:
    """Write the answers to a file; after Ctrl-C say how to go on."""
    from graftonnx.prediction import write_predictions
    from graftonnx.prediction.journal import journal_of

    try:
        with progress("Classifying", job.listing.count) as advance:
            written = write_predictions(
                job.classifier,
                job.listing.names,
                output,
                style=style,
                top=job.top,
                batch_size=job.batch_size,
                workers=job.workers,
                force=force,
                on_images=advance,
            )
    except (KeyboardInterrupt, Ended) as stop:
        part = journal_of(output)
        kept = (
            f" What is answered is in {part}; the same command goes on from there." if part.exists() else ""
        )
        console.warn(f"Interrupted.{kept}")
        sys.exit(stop.code if isinstance(stop, Ended) else INTERRUPTED)
    resumed = f" ({written.resumed} of them before it was interrupted)" if written.resumed else ""
    console.note(f"Wrote {output}: {written.images} images{resumed}.")
    return written


def _show(job: _Job, style: Style) -> Tally:
    """Print the answers: a table when all are there, other formats as they come."""
    from graftonnx.prediction import Tally, predict
    from graftonnx.prediction.formats import lines

    tally = Tally()
    streamed = style != "table" and console.is_terminal()
    with progress("Classifying", job.listing.count, hidden=streamed) as advance:
        found = predict(
            job.classifier, job.listing.names, top=job.top, batch_size=job.batch_size, workers=job.workers
        )
        answers = tally.counted(_advancing(found, advance))
        if style != "table":
            for line in lines(answers, cast("Text", style), job.top):
                console.say_data(line if style == "csv" else printable_json(line))
            return tally
        rows = [answer for answer in answers if answer.error is None]
    _print(rows, job.top)
    return tally


def _advancing(answers: Iterable[Answer], advance: Callable[[int], object]) -> Iterator[Answer]:
    for answer in answers:
        advance(1)
        yield answer


def _print(answers: list[Answer], top: int) -> None:
    from rich.table import Table

    table = Table("image")
    for _ in range(top):
        table.add_column("class")
        table.add_column("probability", justify="right")
    for row in answers:
        cells = [(c.label, f"{c.probability:.1%}") for c in row.candidates]
        table.add_row(row.image, *(cell for pair in cells for cell in pair))
    console.print_table(table)


def _name(tally: Tally) -> None:
    """Print what could not be read."""
    for error in tally.errors:
        console.warn(error)
    more = tally.unreadable - len(tally.errors)
    if more:
        console.warn(f"... and {more} more")
    console.warn(f"{tally.unreadable} of {tally.images} images could not be read.")
