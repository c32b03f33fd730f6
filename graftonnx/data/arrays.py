"""Pixels in arrays: NumPy archives (`.npz`) and the idx files of MNIST, plain or gzipped.

Rows are read one after another, so that memory does not grow with the file.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from graftonnx.data.bounds import (
    MOST_ITEMS,
    check_entries,
    check_growth,
    check_pixels,
    open_zip,
    read_array,
    read_entry,
    read_header,
)
from graftonnx.data.catalogue import PARTS, Data, Part, catalogue
from graftonnx.errors import DataError
from graftonnx.images import Pixels

KEYS: dict[Part, tuple[tuple[str, str], ...]] = {
    "train": (("images", "labels"), ("x_train", "y_train"), ("train_images", "train_labels"), ("x", "y")),
    "val": (("x_val", "y_val"), ("val_images", "val_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
}
"""The names of images and labels in a NumPy archive: by Keras, by MedMNIST, and the plain ones."""

CLASS_KEYS = ("classes", "class_names")
"""The names of an array of class names in a NumPy archive."""

IDX_IMAGES = re.compile(r"(?:(.+)[-_])?images[-.]idx[34]-ubyte(?:\.gz)?", re.IGNORECASE)
"""An idx file of images; the group is its part."""

IDX_PARTS: dict[str, Part] = {**PARTS, "t10k": "test"}

UBYTE = 8
"""The code of unsigned bytes in an idx file."""

LABEL_DIMENSIONS = 1

DAMAGED = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, RuntimeError, struct.error,
)  # fmt: skip
"""What reading a damaged array raises."""


@dataclass(frozen=True)
class Rows:
    """Images of one part, one after another in a file.

    Attributes:
        open: Opens the file at its first image.
        shape: Of one image: [H, W] or [H, W, C].
        labels: The class of each image, as text.
    """

    open: Callable[[], contextlib.AbstractContextManager[IO[bytes]]]
    shape: tuple[int, ...]
    labels: tuple[str, ...]


class RowStore:
    """Images named `<part>/<row>`."""

    def __init__(self, path: Path, parts: Mapping[Part, Rows]) -> None:
        self._path = path
        self._parts = parts

    def contents(self, names: Sequence[str]) -> Iterator[tuple[int, Pixels]]:
        """Give the pixels of each image, in the order of the file."""
        wanted: dict[str, dict[int, int]] = {}
        for place, name in enumerate(names):
            part, _, row = name.partition("/")
            wanted.setdefault(part, {})[int(row)] = place
        for part, rows in self._parts.items():
            if part in wanted:
                yield from self._read(rows, wanted[part])

    def _read(self, rows: Rows, wanted: Mapping[int, int]) -> Iterator[tuple[int, Pixels]]:
        size = math.prod(rows.shape)
        with _described(self._path), rows.open() as file:
            for row in range(max(wanted) + 1):
                content = file.read(size)
                if len(content) < size:
                    raise EOFError(f"it ends in image {row}")
                if row in wanted:
                    yield wanted[row], np.frombuffer(content, np.uint8).reshape(rows.shape)


def open_npz(path: Path) -> Data:
    """List the images of a NumPy archive.

    It holds `images` and `labels`; or `x_train`, `y_train`, and `x_test`, `y_test` or `x_val`, `y_val`; or
    `train_images`, `train_labels` and so on. Images are uint8 [N, H, W], [N, H, W, 1] or [N, H, W, 3], labels
    [N] or [N, 1], numbers or text. `classes`, an array of text, names the numbers.

    Raises:
        DataError: If the arrays have other names, shapes or types.
    """
    with _described(path), open_zip(path) as archive:
        held = {name.removesuffix(".npy") for name in archive.namelist()}
        names = next((_class_names(path, archive, key) for key in CLASS_KEYS if key in held), None)
        parts: dict[Part, Rows] = {}
        for part, pairs in KEYS.items():
            pair = next((pair for pair in pairs if set(pair) <= held), None)
            if pair is not None:
                parts[part] = _npz_rows(path, archive, *pair, names)
    if "train" not in parts:
        raise DataError(
            f"cannot read '{path}': it holds {', '.join(repr(name) for name in sorted(held)) or 'nothing'}; "
            "expected 'images' and 'labels', or 'x_train' and 'y_train'. Save the arrays under these names."
        )
    return _catalogue(path, parts)


def open_idx(folder: Path) -> Data:
    """List the images of MNIST's idx files: `train-images-idx3-ubyte`, its labels, and `t10k` likewise.

    Raises:
        DataError: If a file is damaged, or labels are missing.
    """
    parts: dict[Part, Rows] = {}
    for path in sorted(folder.iterdir()):
        found = IDX_IMAGES.fullmatch(path.name)
        if found is not None and path.is_file():
            part = IDX_PARTS.get((found[1] or "train").lower().split("-")[-1])
            if part is None:
                raise DataError(
                    f"cannot read '{path}': '{found[1]}' is no part of a data set; "
                    "expected train, val, test or t10k. Rename it."
                )
            parts[part] = _idx_rows(path)
    if "train" not in parts:
        raise DataError(f"cannot read '{folder}': there is no 'train-images-idx3-ubyte' in it. Add it.")
    return _catalogue(folder, parts)


def holds_idx(folder: Path) -> bool:
    """Return whether a folder holds idx files of images."""
    return any(IDX_IMAGES.fullmatch(entry.name) and entry.is_file() for entry in folder.iterdir())


def _catalogue(path: Path, parts: Mapping[Part, Rows]) -> Data:
    listed = {
        part: [(f"{part}/{row}", label) for row, label in enumerate(rows.labels)]
        for part, rows in parts.items()
    }
    return catalogue(str(path), listed, RowStore(path, parts))


def _npz_rows(
    path: Path, archive: zipfile.ZipFile, images: str, labels: str, names: NDArray[np.generic] | None
) -> Rows:
    """Check one part of a NumPy archive."""
    (shape, fortran, dtype), offset = _header(path, archive, images)
    if dtype != np.uint8 or fortran or len(shape) not in (3, 4) or shape[3:] not in ((), (1,), (3,), (4,)):
        raise DataError(
            f"cannot use '{images}' in '{path}': it is {dtype} {list(shape)}{' in Fortran order' * fortran}; "
            "expected uint8 [N, H, W] or [N, H, W, 3]. Save it so."
        )
    check_entries(path, shape[0], MOST_ITEMS)
    check_pixels(path, images, shape[1:])
    (count, *_), _ = _header(path, archive, labels)
    if count[:1] not in ((), shape[:1]):
        raise DataError(
            f"cannot use '{path}': '{images}' has {shape[0]} images and '{labels}' {count[0]} "
            "labels; expected as many. Save one label for each image."
        )
    texts = _labels(path, labels, _array(path, archive, labels), names)

    @contextlib.contextmanager
    def opened() -> Iterator[IO[bytes]]:
        with open_zip(path) as archive, archive.open(f"{images}.npy") as file:
            file.read(offset)
            yield file

    return Rows(opened, shape[1:3] if shape[3:] == (1,) else shape[1:], texts)


def _header(
    path: Path, archive: zipfile.ZipFile, key: str
) -> tuple[tuple[tuple[int, ...], bool, np.dtype[np.generic]], int]:
    """Read the shape, the order and the type of an array, and where its numbers begin."""
    info = archive.getinfo(f"{key}.npy")
    check_growth(path, info.file_size)
    with archive.open(info) as file:
        return read_header(file, info.file_size), file.tell()


def _array(path: Path, archive: zipfile.ZipFile, key: str) -> NDArray[np.generic]:
    info = archive.getinfo(f"{key}.npy")
    check_growth(path, info.file_size)
    return read_array(io.BytesIO(read_entry(archive, info)), info.file_size)


def _class_names(path: Path, archive: zipfile.ZipFile, key: str) -> NDArray[np.generic]:
    names = _array(path, archive, key)
    if names.ndim != LABEL_DIMENSIONS or names.dtype.kind not in "iubUS":
        raise DataError(
            f"cannot use '{key}' in '{path}': it is {names.dtype} {list(names.shape)}; "
            "expected the name of each class, text [K]. Save them so."
        )
    return names


def _labels(
    path: Path, key: str, labels: NDArray[np.generic], names: NDArray[np.generic] | None
) -> tuple[str, ...]:
    """Return the class of each image, as text."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != LABEL_DIMENSIONS or labels.dtype.kind not in "iubU":
        raise DataError(
            f"cannot use '{key}' in '{path}': it is {labels.dtype} {list(labels.shape)}; "
            "expected one whole number or text for each image, [N]. One-hot labels: argmax(axis=1)."
        )
    if names is None or labels.dtype.kind == "U":
        values = labels.tolist()
        texts = {value: str(value) for value in set(values)}
        return tuple(texts[value] for value in values)
    if labels.size and not 0 <= labels.min() <= labels.max() < len(names):
        raise DataError(
            f"cannot use '{key}' in '{path}': it holds numbers from {labels.min()} to {labels.max()}; "
            f"expected 0 to {len(names) - 1}, for {len(names)} class names. Correct either."
        )
    named = [str(name) for name in names]
    return tuple(named[int(label)] for label in labels.tolist())


def _idx_rows(path: Path) -> Rows:
    """Check one part of a folder of idx files."""
    beside = [
        path.with_name(re.sub("images", "labels", name, flags=re.IGNORECASE))
        for name in _spellings(re.sub(r"idx[34]", "idx1", path.name, flags=re.IGNORECASE))
    ]
    labels_path = next((other for other in beside if other.is_file()), None)
    if labels_path is None:
        raise DataError(f"cannot use '{path}': its labels '{beside[0].name}' are missing. Add them.")
    with _described(path), _open(path) as file:
        shape = _idx_header(file)
        check_entries(path, shape[0] if shape else 0, MOST_ITEMS)
        check_pixels(path, "0", shape[1:])
        offset = file.tell()
    with _described(labels_path), _open(labels_path) as file:
        count = _idx_header(file)
        check_entries(labels_path, count[0] if count else 0, MOST_ITEMS)
        labels = np.frombuffer(file.read(math.prod(count[:1])), np.uint8)
    if len(shape) not in (3, 4) or len(count) != LABEL_DIMENSIONS or not len(labels) == count[0] == shape[0]:
        raise DataError(
            f"cannot use '{path}': it is {list(shape)} and its labels are {list(count)} "
            f"({len(labels)} in the file); expected [N, H, W] and [N]."
        )

    @contextlib.contextmanager
    def opened() -> Iterator[IO[bytes]]:
        with _open(path) as file:
            file.read(offset)
            yield file

    return Rows(opened, shape[1:], tuple(map(str, labels.tolist())))


def _spellings(name: str) -> tuple[str, ...]:
    """Return a file's name, and the same packed if it is not, and unpacked if it is."""
    return (name, name.removesuffix(".gz") if name.endswith(".gz") else f"{name}.gz")


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.name.endswith(".gz") else path.open("rb")


def _idx_header(file: IO[bytes]) -> tuple[int, ...]:
    """Read the shape of an idx file of bytes."""
    zero, code, dimensions = struct.unpack(">HBB", file.read(4))
    if zero or code != UBYTE:
        raise ValueError("it does not begin as an idx file of unsigned bytes")
    return struct.unpack(f">{dimensions}I", file.read(4 * dimensions))


@contextlib.contextmanager
def _described(path: Path) -> Iterator[None]:
    """Turn what a damaged file raises into a sentence."""
    try:
        yield
    except DAMAGED as error:
        raise DataError(f"cannot read '{path}': it is damaged ({error}). Get it anew.") from error
