"""What files of strangers may ask for: nothing is allocated, read or unpacked that was not counted before.

Numbers in a header are claims. They are compared with what is there, or with the limits here, first.
"""

from __future__ import annotations

import math
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from graftonnx.decoders import MOST_PIXELS
from graftonnx.errors import DataError

MOST_ENTRIES = 20_000_000
"""Entries of an archive, or images in an array."""

MOST_ITEMS = 2_000_000
"""Entries of a zip file, images in an array, rows of a Parquet table: a few bytes may stand for many, each of
which takes up to a kilobyte of memory."""

LARGEST_DIRECTORY = 1 << 28
"""Bytes of the directory at the end of a zip file."""

LARGEST_IMAGE = 1 << 29
"""Bytes of one image file in an archive, or of one image in an array."""

LARGEST_TEXT = 1 << 26
"""Bytes of a text in an archive."""

LONGEST_LABEL = 1 << 16
"""Bytes of a label in a table or a shard."""

LARGEST_RECORD = 1 << 20
"""Bytes of an object in JSON that holds a label."""

LARGEST_HEADER = 1 << 20
"""Bytes of a header of a tar file: a long name, or extended attributes."""

MOST_GROWTH = 200
"""How many times larger than a compressed archive its entries may be. Image files hardly shrink."""

ALLOWED_GROWTH = 1 << 30
"""Bytes that may come out of any archive, however small it is."""

LEAST_PACKED = 8
"""Bytes of a compressed tar file for each of its entries. No image file is so small."""

ALLOWED_PACKED = 10_000
"""Entries that a compressed tar file may have, however small it is."""

_ZIP64_ENDS = 56 + 20
"""Bytes of the end of the directory of a large zip file, and of what leads to it."""

_EXTENDED = frozenset(
    {
        tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
    }
)  # fmt: skip
"""Types of entries that tarfile reads into memory as a whole."""


class BoundedTarInfo(tarfile.TarInfo):
    """An entry of a tar file whose header is not believed blindly."""

    def _proc_member(self, file: tarfile.TarFile) -> tarfile.TarInfo:
        """Refuse sizes that would lead backwards, without end, or into the memory."""
        if self.size < 0 or (self.type in _EXTENDED and self.size > LARGEST_HEADER):
            raise tarfile.ReadError(f"one of its headers has {self.size} bytes")
        found: tarfile.TarInfo = super()._proc_member(file)  # type: ignore[misc]
        return found


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip file, unless its directory would fill the memory.

    Raises:
        DataError: Then.
        zipfile.BadZipFile: If it is none, or one that cannot be read.
    """
    with path.open("rb") as file:
        record = zipfile._EndRecData(file)  # type: ignore[attr-defined]
        if record is not None:
            _check_directory(path, file, record)
    try:
        return zipfile.ZipFile(path)
    except NotImplementedError as error:  # an entry asks for a later version of the format
        raise zipfile.BadZipFile(str(error)) from error


def _check_directory(path: Path, file: IO[bytes], record: Sequence[Any]) -> None:
    """Count the entries in the directory of a zip file as :mod:`zipfile` will find it, whatever it says."""
    signature, size, place = record[0], record[5], record[9]
    if size > LARGEST_DIRECTORY:
        raise DataError(
            f"cannot read '{path}': its directory has {size >> 20:,} MiB, at most {LARGEST_DIRECTORY >> 20} "
            "MiB are read. Unpack it."
        )
    ends = _ZIP64_ENDS if signature == b"PK\6\6" else 0
    file.seek(max(place - size - ends, 0))
    check_entries(path, file.read(size).count(b"PK\1\2"), MOST_ITEMS)


def read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int = LARGEST_IMAGE) -> bytes:
    """Return an entry of a zip file; more than it says that it has is never unpacked.

    Raises:
        ValueError: If it says that it has more than `most` bytes.
        zipfile.BadZipFile: If it has another content than it says.
    """
    if info.file_size > most:
        raise ValueError(
            f"its entry '{info.filename}' has {info.file_size:,} bytes, at most {most:,} are read"
        )
    with archive.open(info) as file:
        content = file.read(info.file_size)
        if len(content) < info.file_size or file.read(1):
            raise zipfile.BadZipFile(f"'{info.filename}' has not the {info.file_size:,} bytes that it says")
    return content


def read_array(file: IO[bytes], size: int) -> NDArray[np.generic]:
    """Read a `.npy` file.

    Args:
        file: At its beginning.
        size: Its bytes.

    Raises:
        ValueError: If it claims more than there is, or is no array of numbers or text.
    """
    read_header(file, size)
    file.seek(0)
    array: NDArray[np.generic] = npy.read_array(file, allow_pickle=False)
    return array


def read_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Read the shape, the order and the type of a `.npy` file.

    Args:
        file: At its beginning.
        size: Its bytes.

    Raises:
        ValueError: If it claims more than there is, or is no array of numbers or text.
    """
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if any(extent < 0 for extent in shape):
        raise ValueError(f"it claims the shape {list(shape)}")
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which could run code")
    if math.prod(shape) * max(dtype.itemsize, 1) > size - file.tell():
        raise ValueError(f"it claims {dtype} {list(shape)}, and has {size:,} bytes")
    return shape, fortran, dtype


def check_entries(path: Path, count: int, most: int | None = None) -> None:
    """Refuse an archive, or an array, with too many entries.

    Args:
        path: The file.
        count: Its entries.
        most: How many it may have; by default what every file may.

    Raises:
        DataError: Then.
    """
    most = MOST_ENTRIES if most is None else min(most, MOST_ENTRIES)
    if count > most:
        raise DataError(f"cannot read '{path}': it has more than {most:,} entries. Unpack it.")


def most_packed(path: Path) -> int:
    """Return how many entries a compressed tar file may have."""
    return max(ALLOWED_PACKED, path.stat().st_size // LEAST_PACKED)


def check_label(where: object, column: str, size: int, most: int | None = None) -> None:
    """Refuse a label that is too long for the name of a class.

    Args:
        where: What the user calls the data.
        column: Where in it the label is.
        size: Its bytes.
        most: How many it may have; by default what a name may.

    Raises:
        DataError: Then.
    """
    most = most or LONGEST_LABEL
    if size > most:
        raise DataError(
            f"cannot use '{where}': a label in its '{column}' has {size:,} bytes, at most {most:,} are read. "
            "Give it a shorter one."
        )


def check_size(path: Path, name: str, size: int) -> None:
    """Refuse an image that is too large.

    Raises:
        DataError: Then.
    """
    if size > LARGEST_IMAGE:
        raise DataError(
            f"cannot read '{path}': its image '{name}' has {size / 2**20:.0f} MiB, at most "
            f"{LARGEST_IMAGE >> 20} MiB are read from an archive. Remove it."
        )


def check_pixels(path: Path, name: str, shape: tuple[int, ...]) -> None:
    """Refuse images [H, W] or [H, W, C] in an array that are too large.

    Raises:
        DataError: Then.
    """
    check_size(path, name, math.prod(shape))
    if math.prod(shape[:2]) > MOST_PIXELS:
        raise DataError(
            f"cannot read '{path}': its image '{name}' has {shape[1]}x{shape[0]} pixels, at most "
            f"{MOST_PIXELS / 1e6:.0f} million are decoded. Remove it."
        )


def check_growth(path: Path, total: int) -> None:
    """Refuse an archive whose entries are much larger than it is.

    Raises:
        DataError: Then.
    """
    if total > most_growth(path):
        raise overgrown(path, total)


def most_growth(path: Path) -> int:
    """Return how many bytes may come out of an archive."""
    return max(ALLOWED_GROWTH, MOST_GROWTH * path.stat().st_size)


def overgrown(path: Path, total: int) -> DataError:
    """Return the error for an archive out of which more comes."""
    return DataError(
        f"cannot read '{path}': its entries unpack to more than {total / 2**30:.1f} GiB, over "
        f"{MOST_GROWTH} times its own size. It was made to fill the memory; if not, unpack it."
    )
