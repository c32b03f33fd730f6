"""The one door to labelled images: which of the formats is this?"""

from __future__ import annotations

import os
from pathlib import Path

from graftonnx.data import archives, arrays, folders, hub, manifests, saved, shards, strips
from graftonnx.data.catalogue import Data
from graftonnx.errors import DataError
from graftonnx.images import natural_key
from graftonnx.reading import beside, missing

EXPECTED = "a folder, a .csv, .parquet, .npz, .zip or .tar file, or hf:NAME"


def open_data(where: str | Path) -> Data:
    """List labelled images.

    Args:
        where: A folder of class folders, of `train/`, `val/` and `test/`, of MNIST's idx files, of Parquet
            files, of WebDataset shards, or one that the `datasets` library saved; a table `.csv` or
            `.parquet`; images in `.parquet`, `.npz` or a tar shard; a zip or tar file of class folders; or
            `hf:NAME`.

    Raises:
        DataError: If it is none of these, or cannot be used.
    """
    if str(where).startswith(hub.PREFIX):
        return hub.open_hub(str(where))
    path = Path(where)
    try:
        return _open_folder(path) if os.path.isdir(path) else _open_file(path)
    except OSError as error:
        raise DataError(f"cannot read '{where}': {error.strerror or error}.") from error


def absolute(where: str) -> str:
    """Return what a later command, run elsewhere, calls the data."""
    return where if where.startswith(hub.PREFIX) else str(Path(where).resolve())


def is_remote(where: str | Path) -> bool:
    """Return whether data is on the hub, so that reading it opens a connection."""
    return str(where).startswith(hub.PREFIX)


def is_there(where: str) -> bool:
    """Return whether the data is still where it was; a name on the hub is asked when it is opened."""
    return where.startswith(hub.PREFIX) or os.path.exists(where)


def _open_folder(folder: Path) -> Data:
    """Open a folder by the files in it, hidden ones and text aside."""
    if saved.is_saved(folder):
        _check_regular(*folder.rglob("*"))
        return hub.open_saved(folder)
    if arrays.holds_idx(folder):
        return arrays.open_idx(folder)
    files = _files(folder)
    _check_regular(*files)
    suffixes = {file.suffix.lower() for file in files}
    if suffixes == {".parquet"}:
        return hub.open_parquet(files, str(folder))
    if suffixes == {".tar"}:
        return shards.open_shards(files, str(folder))
    if suffixes == {".zip"} and all(map(strips.is_strips, files)):
        return strips.open_strips(files, str(folder))
    return folders.open_folder(folder)


def _files(folder: Path) -> list[Path]:
    """Return the visible files of a folder without subfolders, texts aside; none where there are any."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    if any(entry.is_dir() for entry in entries):
        return []
    files = (entry for entry in entries if entry.suffix.lower() not in (".md", ".txt", ".json", ".yaml"))
    return sorted(files, key=lambda file: natural_key(file.name))


def _check_regular(*paths: Path) -> None:
    """Refuse devices and pipes, which never end."""
    for path in paths:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise DataError(f"cannot read '{path}': it is no regular file. Give a file.")


def _open_file(path: Path) -> Data:
    name = path.name.lower()
    reason = missing(path)
    if reason is not None:
        raise DataError(f"cannot read images from '{path}': {reason}.{beside(path)}")
    _check_regular(path)
    if name.endswith(".csv"):
        return manifests.open_csv(path)
    if name.endswith(".parquet"):
        return hub.open_parquet([path], str(path))
    if name.endswith(".npz"):
        return arrays.open_npz(path)
    if name.endswith(archives.SUFFIXES):
        if strips.is_strips(path):
            return strips.open_strips([path], str(path))
        return shards.open_shards([path], str(path)) if shards.is_shard(path) else archives.open_archive(path)
    raise DataError(f"cannot read images from '{path}': its format is unknown; expected {EXPECTED}.")
