"""Tar files, plain or compressed: what comes out of one is counted, images, other files and headers alike."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import itertools
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from graftonnx.data.bounds import BoundedTarInfo, check_entries, most_growth, most_packed, overgrown
from graftonnx.errors import DataError

COMPRESSED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
"""How compressed files begin, and what opens them."""

DAMAGED = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError)
"""What reading a damaged tar file raises."""


@contextlib.contextmanager
def described(
    path: Path, kind: str = "tar", damaged: tuple[type[Exception], ...] = DAMAGED
) -> Iterator[None]:
    """Turn what a damaged archive raises into a sentence.

    Args:
        path: The archive.
        kind: What it should be, for the message.
        damaged: What reading it raises.

    Raises:
        DataError: Then.
    """
    try:
        yield
    except damaged as error:
        raise DataError(
            f"cannot read '{path}': it is no {kind} file, or a damaged one ({error}). Get it anew."
        ) from error


class Counted:
    """A file that is unpacked, and refused where more comes out of it than may."""

    def __init__(self, path: Path, stream: Any) -> None:
        self._path = path
        self._stream = stream
        self._total = 0
        self._most = most_growth(path)

    def read(self, size: int) -> bytes:
        """Return the next bytes.

        Raises:
            DataError: If they are too many.
        """
        content: bytes = self._stream.read(size)
        self._total += len(content)
        if self._total > self._most:
            raise overgrown(self._path, self._total)
        return content


def is_compressed(path: Path) -> bool:
    """Return whether a file begins as a compressed one, whatever its name is."""
    return _unpacker(path) is not None


@contextlib.contextmanager
def open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar file; a compressed one is a stream that ends with an error where the file was cut off.

    Raises:
        DataError: When more comes out of it than may.
        tarfile.TarError, and others that unpacking raises: If it is none, or damaged.
    """
    unpack = _unpacker(path)
    if unpack is None:
        with tarfile.open(path, "r:", tarinfo=BoundedTarInfo) as archive:
            yield archive
        return
    with unpack(path) as stream:
        counted = cast(IO[bytes], Counted(path, stream))
        with tarfile.open(fileobj=counted, mode="r|", tarinfo=BoundedTarInfo) as archive:
            yield archive


def entries(path: Path, archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield what a tar file holds, without remembering what was passed.

    Raises:
        DataError: If there is too much of it.
    """
    most = most_packed(path) if is_compressed(path) else None
    for count in itertools.count(1):
        entry = archive.next()
        if entry is None:
            return
        archive.members = []  # type: ignore[attr-defined]  # else it keeps every entry
        check_entries(path, count, most)
        yield entry


def _unpacker(path: Path) -> Callable[..., Any] | None:
    with path.open("rb") as file:
        start = file.read(6)
    return next((unpack for magic, unpack in COMPRESSED.items() if start.startswith(magic)), None)
