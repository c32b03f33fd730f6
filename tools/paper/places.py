"""Where data sets and pretrained networks are: below one folder, `shared/` by default."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from graftonnx.errors import GraftError
from graftonnx.files import write_bytes

DATA = {"cifar100": "cifar100", "mnist": "mnist", "natural-images": "natural_images"}
"""Data set -> folder below `data/`."""


def data_set(shared: Path, name: str) -> Path:
    """Return what `--data` takes: the folder, or the one archive of class folders in it.

    Raises:
        GraftError: If it is not there.
    """
    if name not in DATA:
        raise GraftError(f"there is no data set '{name}'. Choose from {', '.join(DATA)}.")
    folder = shared / "data" / DATA[name]
    if not folder.is_dir():
        raise GraftError(f"cannot find {name}: there is no folder '{folder}'. Give another --shared.")
    files = list(folder.iterdir())
    return files[0] if len(files) == 1 and files[0].suffix == ".zip" else folder


def fingerprint(data: Path) -> str:
    """Return a digest of the names and sizes of all files of a data set."""
    files = sorted(path for path in data.rglob("*") if path.is_file()) if data.is_dir() else [data]
    listing = "\n".join(f"{path.relative_to(data.parent)} {path.stat().st_size}" for path in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def pretrained(shared: Path, name: str, cache: Path) -> Path:
    """Return a pretrained network; one in an archive is unpacked into `cache`.

    Args:
        shared: The folder that holds `models/`.
        name: A file in it, or `archive.zip/name`.
        cache: An existing folder.

    Raises:
        GraftError: If it is not there.
    """
    archive, _, member = name.rpartition("/")
    path = shared / "models" / (archive or member)
    if not path.is_file():
        raise GraftError(f"cannot find '{name}': there is no file '{path}'. Give another --shared.")
    if not archive:
        return path
    target = cache / member
    if not target.is_file():
        with zipfile.ZipFile(path) as files:
            if member not in files.namelist():
                raise GraftError(f"cannot find '{name}': '{path}' has no '{member}' in it.")
            write_bytes(target, files.read(member))
    return target
