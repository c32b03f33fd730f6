"""What the `datasets` library reads: names on the Hugging Face hub, saved sets, Parquet files.

Local Parquet files are streamed, so that nothing is copied and memory does not grow with them. Names on the
hub are downloaded once into the library's own cache, which is memory-mapped.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from graftonnx.data.bounds import LONGEST_LABEL, check_label
from graftonnx.data.catalogue import LABELS, PARTS, Data, Part, catalogue, part_of
from graftonnx.data.manifests import COLUMNS, open_rows
from graftonnx.data.parquet import check_parquet
from graftonnx.data.saved import check_saved
from graftonnx.errors import DataError
from graftonnx.images import Content

if TYPE_CHECKING:
    import datasets

PREFIX = "hf:"
"""What a name on the hub begins with: `hf:NAME` or `hf:NAME:CONFIGURATION`."""

IMAGES = ("image", "img", "jpg", "jpeg", "png", "webp")
"""Columns that may hold the image where no column says that it does."""

AT_ONCE = 1000
"""Rows whose labels are read at once."""

UNLABELLED = -1
"""What published data sets give as the label of test images whose class is secret."""

RAISED = (
    OSError, ValueError, TypeError, LookupError, RuntimeError, MemoryError, OverflowError, ImportError,
    AttributeError, AssertionError, SystemError, SystemExit, subprocess.SubprocessError, tarfile.TarError,
)  # fmt: skip
"""What the library raises for a damaged file, beside its own errors."""

Table: TypeAlias = "datasets.Dataset | datasets.IterableDataset"


class TableStore:
    """Images named `<part>/<row>` in the image column of tables."""

    def __init__(self, where: str, tables: Mapping[Part, Any], column: str) -> None:
        self._where = where
        self._tables = tables
        self._column = column

    def contents(self, names: Sequence[str]) -> Iterator[tuple[int, Content]]:
        """Give each image, in the order of the rows."""
        wanted: dict[str, dict[int, int]] = {}
        for place, name in enumerate(names):
            part, _, row = name.partition("/")
            wanted.setdefault(part, {})[int(row)] = place
        for part, table in self._tables.items():
            if part in wanted:
                yield from self._read(table, wanted[part])

    def _read(self, table: Table, wanted: Mapping[int, int]) -> Iterator[tuple[int, Content]]:
        import datasets

        images = table.select_columns([self._column])
        rows: Iterable[tuple[int, Any]]
        if isinstance(images, datasets.Dataset):
            order = sorted(wanted)
            rows = zip(order, images.select(order), strict=True)
        else:
            rows = zip(range(max(wanted) + 1), images, strict=False)
        with _described(self._where):
            for row, cells in rows:
                if row in wanted:
                    yield wanted[row], _content(cells[self._column])


def open_hub(where: str) -> Data:
    """List the images of a data set on the Hugging Face hub.

    Args:
        where: `hf:NAME` or `hf:NAME:CONFIGURATION`.

    Raises:
        DataError: If the library is missing, there is no such data set, or it has no labelled images.
    """
    name, _, configuration = where.removeprefix(PREFIX).partition(":")
    library = _library(where)
    with _described(where):
        tables = library.load_dataset(name, configuration or None)
    return _open_tables(where, tables)


def open_saved(folder: Path) -> Data:
    """List the images of a data set that `save_to_disk` wrote; its files are memory-mapped.

    Raises:
        DataError: As :func:`open_hub`.
    """
    library = _library(str(folder))
    with _described(str(folder)):
        check_saved(folder)
        loaded = library.load_from_disk(str(folder))
    tables = loaded if isinstance(loaded, dict) else {"train": loaded}
    for table in tables.values():
        table.reset_format()
    return _open_tables(str(folder), tables)


def open_parquet(paths: Sequence[Path], where: str) -> Data:
    """List the images in Parquet files, or those that a single one names as a table of paths and labels.

    Raises:
        DataError: As :func:`open_hub`.
    """
    _library(where)
    import pyarrow.dataset
    import pyarrow.parquet

    with _described(where):
        columns = pyarrow.parquet.read_schema(paths[0]).names
        for path in paths:
            check_parquet(path)
    if len(paths) == 1 and "path" in columns and not set(IMAGES) & set(columns):
        with _described(where):
            wanted = [name for name in columns if name.lower() in COLUMNS]
            table = pyarrow.parquet.read_table(paths[0], columns=wanted, read_dictionary=wanted)
        cells = map(_cells, table.columns)
        return open_rows(paths[0], table.column_names, enumerate(zip(*cells, strict=True), 1))
    # Without read-ahead: it would keep hundreds of MiB of the file in memory.
    scan = pyarrow.dataset.ParquetFragmentScanOptions(use_buffered_stream=True, pre_buffer=False)
    load = functools.partial(_stream, paths, where, fragment_scan_options=scan)
    return _open_tables(where, load(), lambda column: load(columns=[column]))


def _cells(column: Any) -> Iterator[Any]:
    """Yield the cells of a column; those that are equal are one object."""
    for chunk in column.chunks:
        if hasattr(chunk, "dictionary"):
            values = chunk.dictionary.to_pylist()
            yield from (None if at is None else values[at] for at in chunk.indices.to_pylist())
        else:
            yield from chunk.to_pylist()


def _library(where: str) -> ModuleType:
    """Import the `datasets` library."""
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(
            f"cannot read '{where}': the package `datasets` is not installed. "
            "Install it: pip install 'graftonnx[datasets]'."
        ) from error


def _stream(paths: Sequence[Path], where: str, **options: object) -> Mapping[str, Table]:
    """Open Parquet files; the part of each is in its name, as in `val-00001.parquet`."""
    library = _library(where)
    files: dict[str, list[str]] = {}
    for path in paths:
        files.setdefault(part_of(path) if len(paths) > 1 else "train", []).append(str(path.resolve()))
    with _described(where):
        tables: Mapping[str, Table] = library.load_dataset(
            "parquet", data_files=files, streaming=True, **options
        )
    return tables


def _open_tables(
    where: str,
    tables: Mapping[str, Table],
    alone: Callable[[str], Mapping[str, Table]] | None = None,
) -> Data:
    """List the rows of tables: those called train, val and test, or a single one whatever it is called.

    Args:
        where: What the user calls the data.
        tables: By name.
        alone: Opens the same tables with one column only, where that saves reading the others.
    """
    import datasets

    parts = _parts(tables)
    if "train" not in parts:
        raise DataError(
            f"cannot use '{where}': its splits are {_listed(tables)}; expected 'train' among them."
        )
    features = parts["train"].features
    if features is None:
        raise DataError(
            f"cannot use '{where}': it does not say what its columns are. Save it with its features."
        )
    image, label = _image_column(where, features), _label_column(where, features)
    labelled, pictured = (parts if alone is None else _parts(alone(column)) for column in (label, image))
    rows = {part: list(_rows(where, part, table, label)) for part, table in labelled.items()}
    undecoded = datasets.Image(decode=False)
    with _described(where):
        images = {part: table.cast_column(image, undecoded) for part, table in pictured.items()}
    store = TableStore(where, images, image)
    return catalogue(where, {part: listed for part, listed in rows.items() if listed}, store)


def _parts(tables: Mapping[str, Table]) -> dict[Part, Table]:
    if len(tables) == 1:
        return {"train": next(iter(tables.values()))}
    return {PARTS[name.lower()]: table for name, table in tables.items() if name.lower() in PARTS}


def _rows(where: str, part: Part, table: Table, column: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the class of each labelled row."""
    names = getattr((table.features or {}).get(column), "names", None)
    known: dict[str, str] = {}
    with _described(where):
        for row, label in enumerate(_labels(where, table, column)):
            if label is None or isinstance(label, float):
                raise DataError(
                    f"cannot use row {row} of the {part} images of '{where}': its '{column}' is {label!r}, "
                    "expected a whole number or text."
                )
            if names is not None and label == UNLABELLED:
                continue
            text = names[label] if names is not None else str(label).strip()
            yield f"{part}/{row}", known.setdefault(text, text)


def _labels(where: str, table: Table, column: str) -> Iterator[Any]:
    """Yield the cells of a column, or of what holds the labels in it, as they are stored."""
    import pyarrow.compute

    key = _key((table.features or {}).get(column))
    for batch in table.select_columns([column]).with_format("arrow").iter(AT_ONCE):
        cells = batch[column] if key is None else pyarrow.compute.struct_field(batch[column], key)
        if cells.nbytes > LONGEST_LABEL:  # of all, usually
            for cell in cells:
                check_label(where, column, len(cell.as_buffer() or b"") if hasattr(cell, "as_buffer") else 0)
        yield from cells.to_pylist()


def _image_column(where: str, features: Mapping[str, object]) -> str:
    import datasets

    typed = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    named = [name for name in IMAGES if name in features]
    for found in (typed, named):
        if found:
            return found[0]
    raise DataError(
        f"cannot use '{where}': none of its columns {_listed(features)} holds images. "
        "Name it 'image'; its values are bytes, or {bytes, path}."
    )


def _label_column(where: str, features: Mapping[str, object]) -> str:
    import datasets

    named = [name for name in LABELS if name in features]
    typed = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    for found in (named, typed):
        if found:
            _check_type(where, found[0], features[found[0]])
            return found[0]
    raise DataError(
        f"cannot use '{where}': none of its columns {_listed(features)} holds labels. Name it 'label'."
    )


def _key(feature: object) -> str | None:
    """Return what holds the label in a column of objects."""
    return next((name for name in LABELS if name in feature), None) if isinstance(feature, dict) else None


def _check_type(where: str, column: str, feature: object) -> None:
    """Refuse labels that are neither numbers nor text, and those that the library would decode."""
    import datasets

    key = _key(feature)
    found = feature[key] if isinstance(feature, dict) and key is not None else feature
    if not isinstance(found, datasets.Value | datasets.ClassLabel) or found.dtype.endswith("_view"):
        kind = found.dtype if isinstance(found, datasets.Value) else type(found).__name__
        raise DataError(
            f"cannot use '{where}': its '{column}' is of the type {kind}, expected whole numbers or text. "
            "Save it with labels of such a type."
        )


def _content(cell: Mapping[str, Any] | None) -> Content:
    """Return how to get the image of a cell."""
    if cell is not None and cell["bytes"] is not None:
        content: bytes = cell["bytes"]
        return content
    return Path(cell["path"]) if cell is not None and cell["path"] else b""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


@contextlib.contextmanager
def _described(where: str) -> Iterator[None]:
    """Turn what the library raises into a sentence."""
    from datasets.exceptions import DatasetsError

    try:
        yield
    except (DatasetsError, *RAISED) as error:
        first = str(error).strip().partition("\n")[0].rstrip(".")
        raise DataError(f"cannot read '{where}': {first or type(error).__name__}.") from error
