"""Examine a trained network on its validation images, and write down what came out."""

from __future__ import annotations

import csv
import io
import itertools
import logging
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from graftonnx.data.cache import Images, load
from graftonnx.data.opening import absolute, is_remote, is_there, open_data
from graftonnx.data.splits import read_split
from graftonnx.errors import DataError
from graftonnx.files import write_text
from graftonnx.printable import cell
from graftonnx.training.report.page import render_page
from graftonnx.training.report.pictures import draw_confusion, draw_mistakes, draw_strengths
from graftonnx.training.report.validation import Batches, Findings, examine
from graftonnx.training.run import RunFolder, RunRecord
from graftonnx.training.source import check_record, open_source

BATCH = 32
"""Images that go through the network at once."""

Note = Callable[[str], object]

_log = logging.getLogger(__name__)


def write_report(
    run: RunFolder,
    record: RunRecord,
    images: Images,
    names: Sequence[str],
    note: Note = _log.info,
) -> None:
    """Write everything there is to look at, after a run has written its network.

    Whatever goes wrong becomes a note: the trained network is worth more than its report.

    Args:
        run: The run folder, with `model.onnx` in it.
        record: Its settings.
        images: The validation images.
        names: What each of them is called.
        note: Called with a remark for a person.
    """
    try:
        _write_all(run, record, _batches(images), names)
    except Exception as error:
        _log.debug("the report failed", exc_info=True)
        note(
            f"Note: the network is written, its report is not complete ({type(error).__name__}: {error}). "
            f"Try `graftonnx report {shlex.quote(str(run.path))}`."
        )


def rewrite_report(run: str | Path, *, data: str | Path | None = None, note: Note = _log.info) -> Path:
    """Write the report of a run folder anew.

    The network runs again on the validation images. Where it is not trained yet, or its images are gone, the
    report shows what the folder holds, and a note says what is missing.

    Args:
        run: The run folder.
        data: Where the data is now, if it has moved or is on the hub.
        note: Called with each remark for a person.

    Returns:
        The page.

    Raises:
        GraftError: If the folder holds no run, a record that does not fit its network, or cannot be written.
        DataError: If `data` is given and does not hold the run's images.
    """
    folder = RunFolder(Path(run))
    record = folder.read("report on")
    asked = data is not None
    if data is not None:
        record = record.model_copy(update={"data": absolute(str(data))})
        if not is_there(record.data):
            raise DataError(f"cannot report on '{run}': there is no data at '{data}'. Say where it is.")
    if folder.model.is_file():
        check_record(folder.path, record, open_source(folder.model, "report on"), "report on")
    remark = _missing(folder, record, asked)
    if remark is not None:
        note(f"Note: {remark}")
        write_text(folder.report, render_page(folder, record, (remark,)))
        return folder.report
    images = open_data(record.data)
    split = read_split(folder.split, images)
    loaded = load(images, replace(split, train=()), record.input_size, record.input_size, folder=folder.path)
    names = [sample.name for sample in split.val]
    _write_all(folder, record, _batches(loaded.val), names)
    return folder.report


def _missing(run: RunFolder, record: RunRecord, asked: bool) -> str | None:
    """Return why the network cannot be examined, if it cannot.

    Args:
        run: The run folder.
        record: Its settings.
        asked: Whether the data was given by the caller, who may open a connection.

    Raises:
        DataError: If its data is not where it should be, and was not there at the end of training either.
    """
    if not run.model.is_file():
        return (
            "the run is not finished: there is no trained network to examine. "
            f"Go on with graftonnx train {run.resuming}."
        )
    remote = not asked and is_remote(record.data)
    if is_there(record.data) and not remote:
        return None
    where = "on the Hugging Face hub, which is read only where the command says so" if remote else "gone"
    gone = f"the data '{record.data}' is {where}"
    if not run.findings.is_file():
        raise DataError(f"cannot report on '{run.path}': {gone}. Say where it is with --data.")
    return f"{gone}: what the network does is shown as it was measured earlier. Say where it is with --data."


def _batches(images: Images) -> Batches:
    """Part the images."""
    for start in range(0, len(images.labels), BATCH):
        part = slice(start, start + BATCH)
        yield images.pixels[part], images.labels[part]


def _write_all(run: RunFolder, record: RunRecord, batches: Batches, names: Sequence[str]) -> None:
    """Run the network over the validation images; write the findings, the page, tables and pictures."""
    findings, images = examine(run.model, batches, names, record.labels, record.device)
    write_text(run.findings, findings.model_dump_json() + "\n")
    if findings.mistakes:
        draw_mistakes(run.mistakes, findings.mistakes, images)
    else:
        run.mistakes.unlink(missing_ok=True)
    write_text(run.report, render_page(run, record))
    _write_tables(run, findings)
    draw_confusion(run.picture(run.confusion), findings.evaluation)
    if findings.strengths:
        draw_strengths(run.picture(run.skips), findings.strengths)


def _write_tables(run: RunFolder, findings: Findings) -> None:
    """Write the findings as CSV files."""
    _write_table(run.confusion, ("true", *findings.labels), _rows(findings))
    _write_table(
        run.classes,
        ("class", "images", "recall", "precision"),
        ((score.name, score.images, score.recall, score.precision) for score in findings.evaluation.scores),
    )
    if findings.strengths:
        _write_table(
            run.skips,
            ("exchange", "source", "target", "depth", "added_norm", "target_norm", "share"),
            ((*dict(skip).values(), skip.share) for skip in findings.strengths),
        )


def _rows(findings: Findings) -> Iterator[tuple[object, ...]]:
    for label, counts in zip(findings.labels, findings.confusion, strict=True):
        yield label, *counts


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file; numbers with six digits, empty cells where there is no number, no formulas."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in itertools.chain([header], rows):
        writer.writerow(
            [f"{x:.6g}" if isinstance(x, float) else cell(x) if isinstance(x, str) else x for x in row]
        )
    write_text(path, text.getvalue())
