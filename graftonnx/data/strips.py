"""CIFAR-100 as lossless strips: a zip file with one image of 32 x 32·N pixels for each fine class.

`cifar100_train.zip` holds `train_00.webp` to `train_99.webp` and `labels.json` with the class names under
`fine`; `cifar100_test.zip` likewise.
"""

from __future__ import annotations

import contextlib
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from graftonnx.data.bounds import LARGEST_TEXT, open_zip, read_entry
from graftonnx.data.catalogue import PARTS, Data, Part, catalogue
from graftonnx.decoders import UNREADABLE, open_image
from graftonnx.errors import DataError
from graftonnx.images import Pixels

NAMES = "labels.json"
STRIP = re.compile(r"(train|test)_([0-9]{1,9})\.(?:webp|png)")
"""A strip; the groups are its part and the number of its class."""


class StripStore:
    """Images named `<part>/<class>/<row>`."""

    def __init__(self, strips: Mapping[str, tuple[Path, str]]) -> None:
        self._strips = strips

    def contents(self, names: Sequence[str]) -> Iterator[tuple[int, Pixels]]:
        """Give the pixels of each image, strip by strip."""
        wanted: dict[str, list[tuple[int, int]]] = {}
        for place, name in enumerate(names):
            strip, _, row = name.rpartition("/")
            wanted.setdefault(strip, []).append((place, int(row)))
        for strip, rows in wanted.items():
            path, entry = self._strips[strip]
            with open_zip(path) as archive:
                images = _read(path, archive, entry)
            yield from ((place, images[row]) for place, row in rows)


def is_strips(path: Path) -> bool:
    """Return whether a file is a zip of strips; a damaged one is none.

    Raises:
        DataError: If it has too many entries.
    """
    if not zipfile.is_zipfile(path):
        return False
    try:
        with open_zip(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
    return NAMES in names and all(name == NAMES or STRIP.fullmatch(name) for name in names)


def open_strips(paths: Sequence[Path], where: str) -> Data:
    """List the images of one zip of strips, or of one each part.

    Args:
        paths: The zip files. The images of a single one are all images, whatever it calls itself.
        where: What the user calls them.

    Raises:
        DataError: If a strip is damaged or has no name.
    """
    parts: dict[Part, list[tuple[str, str]]] = {}
    strips: dict[str, tuple[Path, str]] = {}
    for path in paths:
        with open_zip(path) as archive:
            classes = _class_names(path, archive)
            for entry in sorted(set(archive.namelist()) - {NAMES}):
                part, label = _strip(path, entry, classes)
                part = part if len(paths) > 1 else "train"
                strips[f"{part}/{label}"] = path, entry
                rows = range(_count(path, archive, entry))
                parts.setdefault(part, []).extend((f"{part}/{label}/{row}", label) for row in rows)
    return catalogue(where, parts, StripStore(strips))


def _class_names(path: Path, archive: zipfile.ZipFile) -> list[str]:
    try:
        return [
            str(name)
            for name in json.loads(read_entry(archive, archive.getinfo(NAMES), LARGEST_TEXT))["fine"]
        ]
    except (ValueError, KeyError, TypeError, RecursionError, zipfile.BadZipFile) as error:
        raise DataError(
            f"cannot read '{path}': its {NAMES} has no list 'fine' of class names. Get it anew."
        ) from error


def _strip(path: Path, entry: str, classes: Sequence[str]) -> tuple[Part, str]:
    """Return the part and the class of a strip."""
    found = STRIP.fullmatch(entry)
    assert found is not None
    if int(found[2]) >= len(classes):
        raise DataError(
            f"cannot read '{path}': '{entry}' has no name among the {len(classes)} in {NAMES}. Get it anew."
        )
    return PARTS[found[1]], classes[int(found[2])]


def _count(path: Path, archive: zipfile.ZipFile, entry: str) -> int:
    """Return the number of images in a strip, from its header."""
    with _described(path, entry), open_image(read_entry(archive, archive.getinfo(entry))) as image:
        return image.height // image.width


def _read(path: Path, archive: zipfile.ZipFile, entry: str) -> Pixels:
    """Decode one strip to uint8 [N, S, S, 3], S being its width."""
    with _described(path, entry), open_image(read_entry(archive, archive.getinfo(entry))) as image:
        side = image.width
        return np.asarray(image.convert("RGB")).reshape(-1, side, side, 3)


@contextlib.contextmanager
def _described(path: Path, entry: str) -> Iterator[None]:
    """Turn what a damaged strip raises into a sentence."""
    try:
        yield
    except (*UNREADABLE, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read '{entry}' in '{path}': {error}. Get the file anew.") from error
