"""Write files so that a reader sees the old one or the new one, never half of either."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from graftonnx.errors import DataError, GraftError
from graftonnx.spelling import did_you_mean, is_like

MODEL_FILE = "model.onnx"
"""The trained network in a run folder."""

SPLIT_FILE = "split.json"
"""The images that trained and validated it, likewise."""


def check_writable(path: Path, *, force: bool) -> None:
    """Refuse a target that cannot or should not be written, before any work is done.

    Args:
        path: The file (or folder) to be written.
        force: Whether an existing target may be replaced.

    Raises:
        GraftError: If the target exists and `force` is false, if its folder is missing, or if the folder
            does not let us write.
    """
    if path.exists() and not force:
        raise GraftError(f"cannot write '{path}': it exists. Choose another -o, or pass --force.")
    if path.is_dir():
        raise GraftError(f"cannot write '{path}': it is a folder. Give the name of a file in it.")
    folder = path.parent
    if not folder.is_dir():
        raise GraftError(f"cannot write '{path}': the folder '{folder}' does not exist. Create it first.")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise GraftError(
            f"cannot write '{path}': {error.strerror} in '{folder}'. Choose a folder you can write to."
        ) from error


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends without an error.

    The data is flushed to disk before the rename. On an error the temporary file is removed and `path` is
    what it was.

    Raises:
        GraftError: If the file system refuses (no space, no permission).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise GraftError(f"cannot write '{path}': {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` atomically, as UTF-8."""
    write_bytes(path, content.encode())


def beside(path: Path) -> str:
    """Return ` Did you mean 'fused.onnx'?` for a missing file whose folder holds one of a similar name."""
    if path.exists() or not path.parent.is_dir():
        return ""
    near = [name for name in os.listdir(path.parent) if is_like(path.stem, Path(name).stem)]
    return did_you_mean(path.name, near)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_labels(path: Path) -> tuple[str, ...]:
    """Read class names, one on each line; empty lines at the end do not count.

    Raises:
        DataError: If the file cannot be read as UTF-8 text, or a name is empty or occurs twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
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
