"""Tables of images: a CSV or Parquet file with the columns `path` and `label`, and `split` if you like.

    path,label,split
    photos/1.jpg,cat,train
    photos/2.jpg,dog,val

Paths are relative to the table. The values of `split` are the names that folders of a split may have.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from graftonnx.data.catalogue import PARTS, Data, Part, catalogue
from graftonnx.data.folders import FolderTree
from graftonnx.errors import DataError
from graftonnx.reading import opened
from graftonnx.spelling import did_you_mean

COLUMNS = ("path", "label", "split")


def open_csv(path: Path) -> Data:
    """List the images that a CSV file names.

    Raises:
        DataError: If it is no table of paths and labels, or names no images to train on.
    """
    try:
        with opened(path) as file:
            table = csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline=""), strict=True)
            header = next(table, [])
            return open_rows(path, header, ((table.line_num, row) for row in table if row))
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read '{path}': it is not UTF-8 text. Save it as UTF-8.") from error
    except csv.Error as error:
        raise DataError(f"cannot read '{path}': it is not a CSV file ({error}). Save it anew.") from error


def open_rows(path: Path, header: Sequence[str], rows: Iterable[tuple[int, Sequence[object]]]) -> Data:
    """List the images that the rows of a table name.

    Args:
        path: The table.
        header: Its column names.
        rows: Each row's number, for messages, and its cells.

    Raises:
        DataError: As :func:`open_csv`.
    """
    places = _columns(path, header)
    parts: dict[Part, list[tuple[str, str]]] = {"train": []}
    for number, row in rows:
        name, label, split = _cells(path, number, places, row)
        if split.lower() not in PARTS:
            raise DataError(
                f"cannot use row {number} of '{path}': its split is '{split}'; expected train, val or test."
                f"{did_you_mean(split, PARTS)} Correct it."
            )
        parts.setdefault(PARTS[split.lower()], []).append((name, label))
    return catalogue(str(path), parts, FolderTree(path.parent))


def _columns(path: Path, header: Sequence[str]) -> list[int]:
    """Return where `path`, `label` and, if it is there, `split` are among the columns."""
    found = {name.strip().lower(): place for place, name in enumerate(header)}
    if not {"path", "label"} <= found.keys():
        raise DataError(
            f"cannot read '{path}': its columns are {', '.join(repr(name) for name in header) or 'missing'}; "
            "expected 'path' and 'label', and 'split' if you like. Name them so in the first line."
        )
    return [found[name] for name in COLUMNS if name in found]


def _cells(path: Path, number: int, places: Sequence[int], row: Sequence[object]) -> Iterator[str]:
    """Yield the path, the label and the split of a row; without such a column the split is `train`."""
    for place, what in zip(places, COLUMNS, strict=False):
        cell = row[place] if place < len(row) else None
        if cell is None or cell == "":
            raise DataError(f"cannot use row {number} of '{path}': its {what} is empty. Fill it in.")
        yield str(cell)
    if len(places) < len(COLUMNS):
        yield "train"
