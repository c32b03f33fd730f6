"""What the rows of a Parquet file take in memory, known before they are read.

A value of a dictionary takes a few bits of the file for each row that has it, and all its bytes in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

from graftonnx.data.bounds import MOST_ITEMS, check_entries, check_growth, most_growth

ROWS = 64
"""Rows that are decoded at once to see how large they are."""

HEADER = 16
"""Bytes that show the type and the size of a page."""

NEXT_NUMBER = 0x15
"""What stands in front of a number of the next field."""

DICTIONARY = 2
"""The type of a page that is a dictionary."""


def check_parquet(path: Path) -> None:
    """Refuse a Parquet file whose rows take far more memory than it has bytes.

    Raises:
        DataError: If there are too many rows, or they grow too much.
        OSError: If it cannot be read.
        ValueError: If it is no Parquet file.
    """
    import pyarrow.parquet

    with path.open("rb") as raw, pyarrow.parquet.ParquetFile(path) as file:
        metadata = file.metadata
        check_entries(path, metadata.num_rows, MOST_ITEMS)
        for row in range(metadata.num_row_groups):
            group = metadata.row_group(row)
            for column in range(group.num_columns):
                chunk = group.column(column)
                repeated = file.schema.column(column).max_repetition_level > 0
                check_growth(path, max(chunk.total_uncompressed_size, 8 * chunk.num_values * repeated))
                size = _dictionary_size(raw, chunk)
                check_growth(path, size)
                most = most_growth(path)
                if group.num_rows * size > most:
                    at_once = max(1, min(ROWS, most // size))
                    _check_decoded(path, file, row, chunk.path_in_schema, at_once)


def _check_decoded(path: Path, file: Any, row_group: int, column: str, rows: int) -> None:
    """Decode a column piece by piece, until it has grown too much."""
    total = 0
    for batch in file.iter_batches(rows, row_groups=[row_group], columns=[column], use_threads=False):
        total += sum(map(_size, batch.columns))
        check_growth(path, total)


def _size(column: Any) -> int:
    """Return the bytes of a column; each row counts with its value, although a dictionary holds it once."""
    from pyarrow import types

    if types.is_dictionary(column.type):
        return int(column.dictionary_decode().nbytes)
    if types.is_struct(column.type):
        return sum(map(_size, column.flatten()))
    if types.is_list(column.type) or types.is_large_list(column.type):
        return _size(column.flatten()) + 8 * len(column)
    return int(column.nbytes)


def _dictionary_size(file: IO[bytes], chunk: Any) -> int:
    """Return the bytes of the dictionary of a part of a column, 0 where it has none.

    The header of its first page says so, in Thrift's compact protocol: type, size unpacked, size packed. The
    record at the end of the file may say otherwise, but is not what a reader unpacks by.
    """
    start = chunk.data_page_offset
    if chunk.dictionary_page_offset is not None:
        start = min(start, chunk.dictionary_page_offset)
    file.seek(max(start, 0))
    numbers = _numbers(file.read(HEADER))
    if len(numbers) < 2:
        return int(chunk.total_uncompressed_size)
    kind, size, *_ = numbers
    return size if kind == DICTIONARY else 0


def _numbers(header: bytes) -> list[int]:
    """Return the whole numbers that stand at the beginning of a structure of Thrift's compact protocol."""
    numbers: list[int] = []
    value = shift = 0
    is_number = False
    for byte in header:
        if not is_number:
            if byte != NEXT_NUMBER:
                break
            is_number, value, shift = True, 0, 0
            continue
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value >> 1)  # positive ones are doubled
            is_number = False
    return numbers
