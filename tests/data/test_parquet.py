"""Parquet files that are small, and whose rows are not."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.pictures import encoded, picture

from graftonnx.data import bounds
from graftonnx.data.opening import open_data
from graftonnx.errors import DataError


def repeated(value: str | bytes, rows: int) -> pa.DictionaryArray:
    """Return a column in which all rows have one value."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([value]))


def write(file: Path, /, store_schema: bool = False, **columns: pa.Array) -> Path:
    pq.write_table(pa.table(columns), file, compression="zstd", store_schema=store_schema)
    return file


@pytest.mark.parametrize("store_schema", [False, True], ids=["text", "dictionary"])
@pytest.mark.parametrize("column", ["label", "image", "note"])
def test_one_value_in_many_rows_does_not_fill_the_memory(
    column: str, store_schema: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "ALLOWED_GROWTH", 1 << 24)
    columns = {
        "image": repeated(encoded(picture("red", 0)), 2_000),
        "label": pa.array(["a", "b"] * 1_000),
        "note": repeated("x", 2_000),
    }
    columns[column] = repeated(("x" if column != "image" else b"x") * 20_000, 2_000)
    file = write(tmp_path / "a.parquet", store_schema, **columns)
    assert file.stat().st_size < 10_000
    with pytest.raises(DataError, match="It was made to fill the memory"):
        open_data(file)


def test_one_value_in_many_rows_of_a_table_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "ALLOWED_GROWTH", 1 << 24)
    file = write(tmp_path / "a.parquet", path=repeated("a.png", 2_000), label=repeated("x" * 20_000, 2_000))
    with pytest.raises(DataError, match="It was made to fill the memory"):
        open_data(file)


def test_too_many_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_ENTRIES", 1_000)
    file = write(tmp_path / "a.parquet", path=repeated("a.png", 2_000), label=repeated("x", 2_000))
    with pytest.raises(DataError, match="more than 1,000 entries"):
        open_data(file)


def test_values_that_differ_are_counted_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "ALLOWED_GROWTH", 1 << 19)
    names = [f"{row:06d}.png" for row in range(10_000)]
    file = write(tmp_path / "a.parquet", path=pa.array(names), label=pa.array(["a", "b"] * 5_000))
    assert [sample.label for sample in open_data(file).train[:3]] == [0, 1, 0]
