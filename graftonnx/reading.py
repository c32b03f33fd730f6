"""Read files of strangers: regular ones, up to a size, and the reason in words where nothing can be read."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from graftonnx.errors import DataError
from graftonnx.spelling import did_you_mean, is_like

LARGEST_TEXT = 1 << 30
"""Bytes of a table, a list, a plan or a record."""


def missing(path: Path, what: str = "file or folder") -> str | None:
    """Return why nothing can be read at `path`, as part of a sentence; None if something is there.

    Args:
        path: What was given.
        what: What is expected there.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return f"there is no such {what}"
    except OSError as error:
        return error.strerror or str(error)
    return None


def beside(path: Path) -> str:
    """Return ` Did you mean 'fused.onnx'?` for a missing file whose folder holds one of a similar name."""
    try:
        names = [] if os.path.exists(path) else os.listdir(path.parent)
    except OSError:  # no such folder, or one that may not be listed
        return ""
    return did_you_mean(path.name, [name for name in names if is_like(path.stem, Path(name).stem)])


@contextlib.contextmanager
def opened(path: Path, largest: int = LARGEST_TEXT) -> Iterator[io.BufferedReader]:
    """Open a regular file for the block: a device, a pipe would never end.

    Args:
        path: The file.
        largest: Bytes that it may have.

    Raises:
        OSError: If it cannot be opened, is no regular file, or is larger.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        if status.st_size > largest:
            reason = f"it has {status.st_size >> 20} MiB, at most {largest >> 20} MiB are read"
            raise OSError(errno.EFBIG, reason, str(path))
        yield file


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe is opened without waiting for somebody who writes into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_bytes(path: Path, largest: int = LARGEST_TEXT) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: As :func:`opened`.
    """
    with opened(path, largest) as file:
        return file.read(os.fstat(file.fileno()).st_size)


def read_text(path: Path, encoding: str = "utf-8", longest: int = -1) -> str:
    """Return the text in a regular file; every end of a line is a line feed.

    Args:
        path: The file.
        encoding: How it is written.
        longest: Characters that are read at most; all if negative.

    Raises:
        OSError: As :func:`opened`.
        UnicodeDecodeError: If it is no such text.
    """
    with opened(path) as file, io.TextIOWrapper(file, encoding) as text:
        return text.read(longest)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a regular file as 64 hexadecimal digits; raises as :func:`opened`."""
    with opened(path, sys.maxsize) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_labels(path: Path) -> tuple[str, ...]:
    """Read class names, one on each line; empty lines at the end do not count.

    Raises:
        DataError: If the file cannot be read as UTF-8 text, or a name is empty or occurs twice.
    """
    try:
        lines = read_text(path, "utf-8-sig").rstrip().splitlines()
    except OSError as error:
        raise DataError(f"cannot read labels from '{path}': {error.strerror}.{beside(path)}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read labels from '{path}': it is not UTF-8 text. Save it so.") from error
    names = tuple(line.strip() for line in lines)
    seen: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if not name:
            raise DataError(
                f"cannot read labels from '{path}': line {number} is empty. Give one name a line."
            )
        if name in seen:
            raise DataError(
                f"cannot read labels from '{path}': '{name}' stands in lines {seen[name]} and {number}. "
                "Give each class a name of its own."
            )
        seen[name] = number
    if not names:
        raise DataError(f"cannot read labels from '{path}': it is empty. Give one name a line.")
    return names
