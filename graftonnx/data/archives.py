"""Class folders in a zip or tar file, read in place: nothing is unpacked to the disk.

Only regular files count; links, devices and encrypted entries do not. What an archive may hold is limited, so
that a small file made to unpack to a large one is refused before it fills the memory.
"""

from __future__ import annotations

import bisect
import functools
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from graftonnx.data import tars
from graftonnx.data.bounds import check_growth, check_size, open_zip, read_entry
from graftonnx.data.catalogue import Data, Store, catalogue
from graftonnx.data.folders import class_folders, is_image
from graftonnx.data.tars import described, entries, is_compressed, open_tar
from graftonnx.images import natural_key

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
"""The file names that count as archives, lower case."""

ENCRYPTED = 1
"""The flag of an encrypted entry of a zip file."""

KIND = "zip or tar"
DAMAGED = (*tars.DAMAGED, zipfile.BadZipFile)
"""What reading a damaged archive raises."""


class ArchiveTree:
    """The folders that the names of an archive's images stand for."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = sorted(names)

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly below `prefix`, in natural order."""
        found = []
        place, end = self._range(prefix)
        while place < end:
            name, slash, _ = self._names[place][len(prefix) :].partition("/")
            if slash:
                found.append(name)
                _, place = self._range(f"{prefix}{name}/")
            else:
                place += 1
        return sorted(found, key=natural_key)

    def images(self, prefix: str) -> list[str]:
        """Return the images at any depth below `prefix`, in natural order."""
        return sorted(self._names[slice(*self._range(prefix))], key=natural_key)

    def _range(self, prefix: str) -> tuple[int, int]:
        """Return where the names that start with `prefix` begin and end."""
        if not prefix:
            return 0, len(self._names)
        after = prefix[:-1] + chr(ord("/") + 1)
        return bisect.bisect_left(self._names, prefix), bisect.bisect_left(self._names, after)


class ArchiveStore(Store, Protocol):
    """A store that knows the names of its images."""

    @property
    def names(self) -> Iterable[str]:
        """The names of the images."""
        ...


class ZipStore:
    """The images of a zip file, read in the decoding threads."""

    def __init__(self, path: Path) -> None:
        self._archive = open_zip(path)
        self._infos: dict[str, zipfile.ZipInfo] = {}
        total = 0
        for info in self._archive.infolist():
            name = _image_name(info.filename)
            if name is not None and _is_plain(info):
                check_size(path, name, info.file_size)
                self._infos[name] = info
                total += info.file_size
        check_growth(path, total)

    @property
    def names(self) -> Iterable[str]:
        """The names of the images."""
        return self._infos

    def contents(self, names: Sequence[str]) -> Iterator[tuple[int, Callable[[], bytes]]]:
        """Give what reads each image, in the order of the file."""
        infos = [self._infos[name] for name in names]
        for place in sorted(range(len(names)), key=lambda i: infos[i].header_offset):
            yield place, functools.partial(self._read, infos[place])

    def _read(self, info: zipfile.ZipInfo) -> bytes:
        try:
            return read_entry(self._archive, info)
        except (*DAMAGED, NotImplementedError) as error:
            raise ValueError(f"its entry in the zip file is damaged ({error})") from error


class TarStore:
    """The images of an uncompressed tar file, each read where it lies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._extents: dict[str, tuple[int, int]] = {}
        with open_tar(path) as archive:
            for name, entry in _images(path, archive):
                self._extents[name] = entry.offset_data, entry.size
            if archive.offset >= path.stat().st_size:
                raise tarfile.ReadError("it was cut off between two entries")

    @property
    def names(self) -> Iterable[str]:
        """The names of the images."""
        return self._extents

    def contents(self, names: Sequence[str]) -> Iterator[tuple[int, bytes]]:
        """Give each image, in the order of the file."""
        extents = [self._extents[name] for name in names]
        with self._path.open("rb") as file:
            for place in sorted(range(len(names)), key=lambda i: extents[i]):
                offset, size = extents[place]
                file.seek(offset)
                yield place, file.read(size)


class CompressedTarStore:
    """The images of a compressed tar file, which can be read from its beginning only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with open_tar(path) as archive:
            self._names = {name: None for name, _ in _images(path, archive)}

    @property
    def names(self) -> Iterable[str]:
        """The names of the images."""
        return self._names

    def contents(self, names: Sequence[str]) -> Iterator[tuple[int, bytes]]:
        """Give each image, in the order of the file."""
        places = {name: place for place, name in enumerate(names)}
        with described(self._path, KIND, DAMAGED), open_tar(self._path) as archive:
            for name, entry in _images(self._path, archive):
                place = places.pop(name, None)
                if place is not None:
                    file = archive.extractfile(entry)
                    assert file is not None
                    yield place, file.read()
                if not places:
                    return


def open_archive(path: Path) -> Data:
    """List the labelled images of class folders in an archive; one folder around all of them is looked into.

    Raises:
        DataError: If the archive is damaged or unpacks to too much, or as
            :func:`graftonnx.data.folders.open_folder`.
    """
    with described(path, KIND, DAMAGED):
        store = _store(path)
    tree = ArchiveTree(store.names)
    prefix = ""
    while len(inner := tree.folders(prefix)) == 1 and len(tree.folders(f"{prefix}{inner[0]}/")) >= 1:
        prefix = f"{prefix}{inner[0]}/"
    return catalogue(str(path), class_folders(str(path), tree, prefix), store)


def _store(path: Path) -> ArchiveStore:
    """Open an archive by its content, whatever its name is."""
    if zipfile.is_zipfile(path):
        return ZipStore(path)
    return CompressedTarStore(path) if is_compressed(path) else TarStore(path)


def _images(path: Path, archive: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Yield the images of a tar file with their names."""
    for entry in entries(path, archive):
        name = _image_name(entry.name)
        if name is not None and entry.isreg() and not entry.issparse():
            check_size(path, name, entry.size)
            yield name, entry


def _image_name(name: str) -> str | None:
    """Return an entry's path without a leading `./`; None if it is hidden, no image, or leads outside."""
    pieces = name.removeprefix("./").split("/")
    if any(piece in ("", "__MACOSX") or piece.startswith(".") for piece in pieces):
        return None
    return "/".join(pieces) if is_image(pieces[-1]) else None


def _is_plain(info: zipfile.ZipInfo) -> bool:
    """Return whether an entry is a file that can be read: neither a link nor encrypted."""
    mode = info.external_attr >> 16
    return (not stat.S_IFMT(mode) or stat.S_ISREG(mode)) and not info.flag_bits & ENCRYPTED
