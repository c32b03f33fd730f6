"""Answers as CSV, JSON, JSON lines and Parquet, one after the other, however many there are."""

from __future__ import annotations

import csv
import io
import itertools
import json
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from graftonnx.errors import DataError
from graftonnx.prediction.answers import DIGITS, Answer, to_record
from graftonnx.printable import cell

Text = Literal["csv", "json", "jsonl"]
Format = Literal["csv", "json", "jsonl", "parquet"]

SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
"""The format that a file's name asks for."""

ROW_GROUP = 1 << 16
"""Rows that Parquet keeps together, which is what is in memory at once."""


def columns(top: int) -> list[str]:
    """Return the columns of CSV and Parquet: `image, label_1, probability_1, label_2, …, error`."""
    pairs = (f"{what}_{rank}" for rank in range(1, top + 1) for what in ("label", "probability"))
    return ["image", *pairs, "error"]


def check_format(style: Format) -> None:
    """Refuse a format that cannot be written here, before any work is done.

    Raises:
        DataError: If Parquet needs a package that is missing.
    """
    if style == "parquet":
        try:
            import pyarrow.parquet  # noqa: F401 # whether it is there is the question
        except ModuleNotFoundError as error:
            raise DataError(
                "cannot write Parquet: the package 'pyarrow' is missing. Install it with: "
                "pip install 'graftonnx[datasets]', or choose csv, json or jsonl."
            ) from error


def write(answers: Iterable[Answer], path: Path, style: Format, top: int) -> None:
    """Write answers to a file.

    Args:
        answers: In the order of the rows.
        path: The file.
        style: Its format.
        top: Most candidates of an answer: so many columns it gets.
    """
    if style == "parquet":
        _write_parquet(answers, path, top)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(f"{line}\n" for line in lines(answers, style, top))


def lines(answers: Iterable[Answer], style: Text, top: int) -> Iterator[str]:
    """Yield answers as text, piece by piece; a newline belongs after each."""
    if style == "csv":
        return _csv(answers, top)
    records = map(to_record, answers)
    if style == "jsonl":
        return (json.dumps(record, ensure_ascii=False) for record in records)
    return _json(records)


def _csv(answers: Iterable[Answer], top: int) -> Iterator[str]:
    yield _row(columns(top))
    for answer in answers:
        pairs = [(cell(c.label), f"{c.probability:.{DIGITS}f}") for c in answer.candidates]
        cells = [text for pair in pairs for text in pair]
        missing = [""] * (2 * (top - len(pairs)))
        yield _row([cell(answer.image), *cells, *missing, cell(answer.error or "")])


def _row(cells: list[str]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerow(cells)
    return text.getvalue().removesuffix("\r\n")


def _json(records: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield a JSON array as `json.dumps(..., indent=2)` lays it out."""
    yield "["
    held = None
    for record in records:
        if held is not None:
            yield f"{held},"
        held = textwrap.indent(json.dumps(record, indent=2, ensure_ascii=False), "  ")
    if held is not None:
        yield held
    yield "]"


def _write_parquet(answers: Iterable[Answer], path: Path, top: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    types = {"probability": pa.float64()}
    schema = pa.schema([(name, types.get(name.split("_")[0], pa.string())) for name in columns(top)])
    remaining = iter(answers)
    with path.open("wb") as file, pyarrow.parquet.ParquetWriter(file, schema) as writer:
        while rows := [_cells(answer) for answer in itertools.islice(remaining, ROW_GROUP)]:
            writer.write_table(pa.Table.from_pylist(rows, schema))


def _cells(answer: Answer) -> dict[str, str | float | None]:
    """Return a row of Parquet; what is left out becomes null."""
    row: dict[str, str | float | None] = {"image": answer.image, "error": answer.error}
    for rank, candidate in enumerate(answer.candidates, 1):
        row[f"label_{rank}"], row[f"probability_{rank}"] = candidate.label, candidate.probability
    return row
