"""`SHA256SUMS`: the SHA-256 of every other file in a folder, as `sha256sum --check` reads it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from graftonnx.errors import GraftError
from graftonnx.reading import read_bytes, sha256

SUMS = "SHA256SUMS"

LARGEST = 1 << 24
"""Bytes of `SHA256SUMS`: the sums of a hundred thousand files."""

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write_sums(folder: Path) -> None:
    """Write the sums of all files in a folder."""
    (folder / SUMS).write_bytes(_rendered(_sums(folder)))


def check_sums(folder: Path) -> frozenset[str]:
    """Compare every file in a folder with its sum.

    Returns:
        The files by their paths there, that with the sums included.

    Raises:
        GraftError: If the sums are missing or damaged, a file was changed, is missing or has no sum, or there
            is a link or an empty folder.
    """
    try:
        content = read_bytes(folder / SUMS, LARGEST)
        found = _sums(folder)
    except OSError as error:
        raise GraftError(
            f"cannot verify '{folder}': cannot read '{error.filename}': {error.strerror}. Give the folder of "
            "a bundle."
        ) from error
    expected = _parsed(folder, content)
    _refuse(
        folder,
        f"changed since {SUMS} was written",
        (n for n in expected if found.get(n, expected[n]) != expected[n]),
    )
    _refuse(folder, f"missing, but in {SUMS}", expected.keys() - found.keys())
    _refuse(folder, f"not in {SUMS}", found.keys() - expected.keys())
    if content != _rendered(found):
        raise _damaged(folder, "it is not as graftonnx writes it")
    return frozenset({*found, SUMS})


def _rendered(sums: dict[str, str]) -> bytes:
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode()


def _parsed(folder: Path, content: bytes) -> dict[str, str]:
    """Return the sum of each named file."""
    sums = {}
    for number, line in enumerate(content.decode("utf-8", "backslashreplace").split("\n")[:-1], 1):
        found = _LINE.fullmatch(line)
        if found is None:
            raise _damaged(folder, f"line {number} is no sum")
        sums[found[2]] = found[1]
    return sums


def _sums(folder: Path) -> dict[str, str]:
    """Return the sum of each file in a folder, by its path there.

    Raises:
        GraftError: If there is a link, which may lead anywhere, a device, or an empty folder.
    """
    return {
        path.relative_to(folder).as_posix(): sha256(path) for path in _walk(folder) if path != folder / SUMS
    }


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder, onerror=_raise):
        entries = [Path(place, name) for name in (*folders, *files)]
        if not entries:
            _refuse(folder, "an empty folder", [str(Path(place).relative_to(folder))])
        strange = [path for path in entries if path.is_symlink() or not (path.is_dir() or path.is_file())]
        _refuse(folder, "a link or a device", (str(path.relative_to(folder)) for path in strange))
        yield from (path for path in entries if path.is_file())


def _refuse(folder: Path, what: str, names: Iterable[str]) -> None:
    """Raise if there are any names."""
    found = ", ".join(f"'{name}'" for name in sorted(names))
    if found:
        raise GraftError(
            f"cannot trust '{folder}': {what}: {found}. Copy the bundle anew from where it came from."
        )


def _damaged(folder: Path, why: str) -> GraftError:
    return GraftError(
        f"cannot trust '{folder}': {SUMS} is damaged: {why}. Copy the bundle anew from where it came from."
    )


def _raise(error: OSError) -> None:
    raise error
