"""The image files that a command is given: as files, folders, patterns, or on standard input."""

from __future__ import annotations

import glob
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from graftonnx.data.folders import FolderTree
from graftonnx.errors import DataError
from graftonnx.images import EXTENSIONS, natural_key
from graftonnx.reading import beside, missing

STANDARD_INPUT = "-"
"""The argument that stands for the names on standard input."""

BLOCK = 1 << 16
"""Bytes of names that are read at once."""


@dataclass(frozen=True)
class Listing:
    """Image files in order.

    Attributes:
        names: Their names, to be taken once.
        count: How many; None while standard input has not been read.
    """

    names: Iterator[str]
    count: int | None


def list_images(arguments: Sequence[str], standard_input: Iterable[str] = ()) -> Listing:
    """List the image files that files, folders, patterns and `-` mean, in the order given.

    Args:
        arguments: As on the command line.
        standard_input: The names that `-` stands for; they are not looked at before their turn comes.

    Raises:
        DataError: If an argument means nothing.
    """
    parts = [standard_input if name == STANDARD_INPUT else find_images(name) for name in arguments]
    counts = [len(part) if isinstance(part, list) else None for part in parts]
    known = [count for count in counts if count is not None]
    return Listing(itertools.chain.from_iterable(parts), sum(known) if len(known) == len(counts) else None)


def find_images(argument: str) -> list[str]:
    """List the image files that a file, folder or glob pattern means.

    A folder means every visible image at any depth, in natural order, its own before those of its folders. A
    file is taken whatever its name is.

    Raises:
        DataError: If it means nothing, or a folder in it cannot be read.
    """
    path = Path(argument)
    if os.path.isdir(path):
        inside = [str(path / name) for name in FolderTree(path).images("")]
        if not inside:
            raise DataError(
                f"cannot classify '{argument}': no image file is in this folder "
                f"(looked for {', '.join(sorted(EXTENSIONS))})."
            )
        return inside
    reason = missing(path)
    if reason is None:
        return [argument]
    if not glob.has_magic(argument):
        raise DataError(f"cannot classify '{argument}': {reason}.{beside(path)}")
    matches = sorted(glob.glob(argument, recursive=True), key=natural_key)
    files = [name for name in matches if os.path.isfile(name)]
    if not files:
        raise DataError(f"cannot classify '{argument}': no file matches this pattern.")
    return files


def read_names(stream: io.BufferedIOBase, separator: bytes = b"\n") -> Iterator[str]:
    """Yield the file names in a stream as they come; empty ones do not count.

    Args:
        stream: Standard input, say.
        separator: What ends a name: a newline, or NUL, which may be in no name.
    """
    rest = b""
    while block := stream.read1(BLOCK):
        *names, rest = (rest + block).split(separator)
        yield from _decoded(names, separator)
    yield from _decoded([rest], separator)


def _decoded(names: Iterable[bytes], separator: bytes) -> Iterator[str]:
    for name in names:
        text = os.fsdecode(name.removesuffix(b"\r") if separator == b"\n" else name)
        if text:
            yield text
