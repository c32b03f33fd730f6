"""What `save_to_disk` wrote: its files are looked through before the `datasets` library maps them to memory.

Arrow believes the offsets in a file, and unpacks what is compressed as soon as it is opened. `save_to_disk`
compresses nothing, and writes each value where it belongs.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftonnx.data.bounds import check_entries
from graftonnx.errors import DataError
from graftonnx.reading import opened, read_bytes

if TYPE_CHECKING:
    import datasets

PARTS_FILE = "dataset_dict.json"
"""Names the folders of a set in several parts."""

STATE_FILE = "state.json"
"""Names the files of a table."""

INFO_FILE = "dataset_info.json"
"""Says what its columns are."""

SAVED = (PARTS_FILE, STATE_FILE)
"""Files that `save_to_disk` leaves."""

LARGEST_RECORD = 1 << 24
"""Bytes of one of them."""

SEPARATING = frozenset("/\\:")
"""Characters of a path or an address."""

LONGEST_SHOWN = 200
"""Characters of a name that a message shows."""

HEADER, CUSTOM = 2, 4
"""Fields of a message: what it holds, and what others add to it, which may be how it is compressed."""

COMPRESSION = 3
"""The field of a record batch that says how it is compressed."""


def is_saved(folder: Path) -> bool:
    """Return whether `save_to_disk` wrote a folder."""
    return any((folder / name).is_file() for name in SAVED)


def check_saved(folder: Path) -> None:
    """Refuse a data set that would fill the memory, lead outside its folder, or crash the process.

    Args:
        folder: Where it lies: a table, or a folder for each of several.

    Raises:
        DataError: Then.
        OSError: If a file cannot be read.
        ValueError, and others that the library raises: If it is damaged.
    """
    if (folder / INFO_FILE).is_file() and (folder / STATE_FILE).is_file():
        _check_table(folder)
    elif (folder / PARTS_FILE).is_file():
        for path in _inside(folder, _listed(folder / PARTS_FILE, "splits")):
            _check_table(path)


def _check_table(folder: Path) -> None:
    """Check the files of one table; what it says of its columns is what they are."""
    import datasets
    import pyarrow.ipc

    names = [entry["filename"] for entry in _listed(folder / STATE_FILE, "_data_files")]
    claimed = datasets.DatasetInfo.from_dict(_record(folder / INFO_FILE)).features
    for path in _inside(folder, names):
        with opened(path, path.stat().st_size):
            _check_messages(path)
        with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as stream:
            _check_types(path, stream.schema, claimed)
            rows = 0
            for batch in stream:
                rows += batch.num_rows
                check_entries(path, rows)
                _check_values(path, batch)


def _check_values(path: Path, batch: Any) -> None:
    """Refuse values that do not lie in their file, or are no text where they should be."""
    import pyarrow as pa

    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"cannot read '{path}': its values are not where it says ({str(error).rstrip('.')}). Get it anew."
        ) from error


def _check_messages(path: Path) -> None:
    """Refuse compressed record batches, and dictionaries, whose values count once for many rows."""
    import pyarrow.ipc

    with pyarrow.memory_map(str(path)) as file:
        for message in pyarrow.ipc.MessageReader.open_stream(file):
            if message.type == "dictionary" or (message.type == "record batch" and _is_packed(message)):
                raise DataError(
                    f"cannot read '{path}': it holds compressed values or a dictionary, expected plain ones "
                    "as `save_to_disk` writes them. Save it anew."
                )


def _is_packed(message: Any) -> bool:
    """Return whether a record batch is compressed, or may be: its description is a FlatBuffer."""
    content = bytes(message.metadata)
    root = struct.unpack_from("<I", content)[0]
    place = _field(content, root, HEADER)
    header = place + struct.unpack_from("<I", content, place)[0]
    return bool(_field(content, header, COMPRESSION) or _field(content, root, CUSTOM))


def _field(content: bytes, table: int, number: int) -> int:
    """Return where a field of a table in a FlatBuffer is, 0 if it has none."""
    fields = table - struct.unpack_from("<i", content, table)[0]
    place = 4 + 2 * number
    if place >= struct.unpack_from("<H", content, fields)[0]:
        return 0
    offset: int = struct.unpack_from("<H", content, fields + place)[0]
    return offset and table + offset


def _check_types(path: Path, schema: Any, claimed: datasets.Features | None) -> None:
    """Refuse columns that the library would convert when it opens them, and values that many rows share."""
    import datasets

    found = datasets.Features.from_arrow_schema(schema)
    wanted = (claimed or found).reorder_fields_as(found)
    views = sorted({str(kind) for field in schema for kind in _types(field.type) if _is_view(kind)})
    if views or schema.types != [wanted.arrow_schema.field(name).type for name in schema.names]:
        raise DataError(
            f"cannot read '{path}': its columns are {', '.join(views) or schema.types}, expected those that "
            f"{INFO_FILE} names, as `save_to_disk` writes them. Save it anew."
        )


def _types(kind: Any) -> Iterator[Any]:
    """Yield a type of Arrow and those inside."""
    yield kind
    for place in range(kind.num_fields):
        yield from _types(kind.field(place).type)


def _is_view(kind: Any) -> bool:
    """Return whether the values of a type may lie in the same place."""
    from pyarrow import types

    return bool(
        types.is_string_view(kind)
        or types.is_binary_view(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def _record(path: Path) -> dict[str, Any]:
    """Return an object in JSON."""
    record = json.loads(read_bytes(path, LARGEST_RECORD))
    if not isinstance(record, dict):
        raise DataError(
            f"cannot read '{path}': it holds no object, as `save_to_disk` writes it. Save it anew."
        )
    return record


def _listed(path: Path, key: str) -> list[Any]:
    """Return a list in an object in JSON."""
    found = _record(path).get(key)
    if not isinstance(found, list):
        raise DataError(
            f"cannot read '{path}': it has no list '{key}', as `save_to_disk` writes it. Save it anew."
        )
    return found


def _is_plain(name: Any) -> bool:
    """Return whether something is the name of a file or folder, neither a path nor an address."""
    return isinstance(name, str) and bool(name.strip(".")) and SEPARATING.isdisjoint(name)


def _inside(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield what a record names in its folder, each once and by a name that cannot lead elsewhere."""
    seen: set[str] = set()
    for name in names:
        if not _is_plain(name) or name in seen:
            raise DataError(
                f"cannot read '{folder}': it names {str(name)[:LONGEST_SHOWN]!r}, expected each file and "
                "folder in it once. Save it anew."
            )
        seen.add(name)
        yield folder / name
