"""Tar files by the convention of WebDataset: `0001.jpg` beside `0001.cls`, `0001.txt` or `0001.json`.

Files next to each other whose names begin alike are one row. Of a row the image and the label are read, each
with a limit; what other files hold is not looked at.
"""

from __future__ import annotations

import itertools
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from graftonnx.data.bounds import LARGEST_RECORD, check_label, check_size
from graftonnx.data.catalogue import LABELS, Data, Part, catalogue, part_of
from graftonnx.data.folders import is_image
from graftonnx.data.tars import DAMAGED, described, entries, open_tar
from graftonnx.errors import DataError

PEEK = 16
"""Entries of a tar file that tell a shard from an archive of class folders."""

MOST_SHOWN = 20
"""Names that a message shows."""

NUMBER, RECORD = "cls", "json"
"""What files are called that hold a number, and an object with the label in it."""


class File(NamedTuple):
    """A file in a shard.

    Attributes:
        row: Which row of the shard it belongs to.
        field: Its name behind the first dot.
        entry: Where it is.
        archive: The shard, which is at this file.
    """

    row: int
    field: str
    entry: tarfile.TarInfo
    archive: tarfile.TarFile


class ShardStore:
    """Images named `<part>/<row>`."""

    def __init__(self, parts: Mapping[Part, Sequence[Path]], field: str) -> None:
        self._parts = parts
        self._field = field

    def contents(self, names: Sequence[str]) -> Iterator[tuple[int, bytes]]:
        """Give each image, in the order of the files; a row without one has no bytes."""
        wanted: dict[str, dict[int, int]] = {}
        for place, name in enumerate(names):
            part, _, row = name.partition("/")
            wanted.setdefault(part, {})[int(row)] = place
        for part, places in wanted.items():
            yield from self._read(self._parts[part], places)  # type: ignore[index]

    def _read(self, paths: Sequence[Path], places: dict[int, int]) -> Iterator[tuple[int, bytes]]:
        for number, file in _numbered(paths):
            if file.field == self._field and number in places:
                yield places.pop(number), _content(file)
                if not places:
                    return
        yield from ((place, b"") for place in places.values())


def open_shards(paths: Sequence[Path], where: str) -> Data:
    """List the images in shards; the part of each is in its name, as in `val-0001.tar`.

    Args:
        paths: The files.
        where: What the user calls them.

    Raises:
        DataError: If one is damaged or holds too much, or there are no labelled images.
    """
    parts: dict[Part, list[Path]] = {}
    for path in paths:
        parts.setdefault(part_of(path) if len(paths) > 1 else "train", []).append(path)
    if len(parts) == 1:
        parts = {"train": list(paths)}
    if "train" not in parts:
        names = ", ".join(map(repr, parts))
        raise DataError(f"cannot use '{where}': its splits are {names}; expected 'train' among them.")
    fields = _fields(parts["train"])
    image = _first(
        where, "images", fields, (field for field in fields if is_image(f"image.{_suffix(field)}"))
    )
    label = _first(where, "labels", fields, (field for field in LABELS if field in fields))
    rows = {part: list(_rows(where, part, files, image, label)) for part, files in parts.items()}
    return catalogue(
        where, {part: listed for part, listed in rows.items() if listed}, ShardStore(parts, image)
    )


def is_shard(path: Path) -> bool:
    """Return whether a tar file holds labels beside its images, and no folders of classes.

    Raises:
        DataError: If it unpacks to too much.
    """
    images, labels = set(), set()
    try:
        with open_tar(path) as archive:
            for entry in itertools.islice((e for e in entries(path, archive) if e.isreg()), PEEK):
                stem, dot, suffix = entry.name.removeprefix("./").rpartition(".")
                if is_image(f"image{dot}{suffix}"):
                    images.add(stem)
                elif suffix in LABELS:
                    labels.add(stem)
    except DAMAGED:
        return False
    return bool(images & labels)


def _files(path: Path) -> Iterator[File]:
    """Yield the visible files of a shard."""
    row, last = -1, None
    with described(path), open_tar(path) as archive:
        for entry in entries(path, archive):
            folder, _, name = entry.name.rpartition("/")
            stem, dot, field = name.partition(".")
            if stem and dot and not name.startswith("__") and entry.isreg() and not entry.issparse():
                row += (folder, stem) != last
                last = folder, stem
                yield File(row, field, entry, archive)


def _numbered(paths: Sequence[Path]) -> Iterator[tuple[int, File]]:
    """Yield the files of several shards, each with the number of its row among all."""
    rows = 0
    for path in paths:
        row = -1
        for file in _files(path):
            row = file.row
            yield rows + row, file
        rows += row + 1


def _fields(paths: Sequence[Path]) -> list[str]:
    """Return what the files of the first row are called."""
    return [file.field for number, file in itertools.takewhile(lambda found: not found[0], _numbered(paths))]


def _first(where: str, what: str, fields: Iterable[str], found: Iterator[str]) -> str:
    field = next(found, None)
    if field is None:
        names = ", ".join(map(repr, itertools.islice(fields, MOST_SHOWN)))
        raise DataError(
            f"cannot use '{where}': of its first row none of the files {names or '(there are none)'} holds "
            f"{what}. Name them as in 0001.jpg and 0001.cls."
        )
    return field


def _rows(where: str, part: Part, paths: Sequence[Path], image: str, label: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the class of each row."""
    known: dict[str, str] = {}
    for row, files in itertools.groupby(_numbered(paths), lambda found: found[0]):
        found: Any = None
        seen: set[str] = set()
        for _, file in files:
            if file.field in seen:
                raise DataError(
                    f"cannot use '{where}': it holds '{file.entry.name}' twice. Remove one of them."
                )
            seen.add(file.field)
            if file.field == image:
                check_size(Path(where), file.entry.name, file.entry.size)
            elif file.field == label:
                found = _label(where, file)
        if found is None or isinstance(found, list | float | dict):
            kind = "missing" if found is None else f"a {type(found).__name__}"
            raise DataError(
                f"cannot use row {row} of the {part} images of '{where}': its '{label}' is {kind}, expected "
                "a whole number or text."
            )
        text = str(found).strip()
        check_label(where, label, len(text))
        yield f"{part}/{row}", known.setdefault(text, text)


def _label(where: str, file: File) -> Any:
    """Read a label: a number, a text, or what an object holds under one of the names of a label."""
    check_label(where, file.entry.name, file.entry.size, LARGEST_RECORD if file.field == RECORD else None)
    content = _content(file)
    try:
        if file.field == NUMBER:
            return int(content)
        if file.field != RECORD:
            return content.decode()
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"cannot use '{where}': its '{file.entry.name}' holds {content[:60]!r}, expected a whole number, "
            "text or an object in JSON, as its name says. Correct it."
        ) from error
    if not isinstance(record, dict):
        return record
    return next((record[key] for key in LABELS if key in record), None)


def _content(file: File) -> bytes:
    stream = file.archive.extractfile(file.entry)
    assert stream is not None
    return stream.read()


def _suffix(field: str) -> str:
    return field.rpartition(".")[2]
