"""Where data sets and pretrained networks are: below one folder, `shared/` by default."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import zipfile
from pathlib import Path

from PIL import Image

from graftonnx.data.opening import open_data
from graftonnx.data.splits import split
from graftonnx.errors import GraftError
from graftonnx.files import write_bytes, write_text
from graftonnx.images import decode_stream

ROOT = Path(__file__).resolve().parent.parent.parent

DATA = {"cifar100": "cifar100", "mnist": "mnist", "natural-images": "natural_images"}
"""Data set -> folder below `data/`."""


HELD_BACK = 0.2

UNLABELLED, SIDE = 256, 96
"""Images for `--calibrate`, and their height and width in pixels."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how many runs there are, and where things are."""
    shared = Path(os.environ.get("GRAFTONNX_SHARED", ROOT.parent / "shared"))
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="runs of each network (default: as the file says)"
    )
    parser.add_argument("--shared", type=Path, default=shared, help="folder with data/ and models/")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("paper-out"), help="folder for all that is made"
    )


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


def unlabelled(data: Path, folder: Path) -> Path:
    """Write training images, as many of each class and without their labels, as PNG files.

    Args:
        data: As :func:`data_set` returns it.
        folder: An existing folder for them.
    """
    target = folder / "images"
    if target.is_dir():
        return target
    images = open_data(data)
    step = max(1, len(images.train) // UNLABELLED)
    names = [sample.name for sample in images.train[::step]]
    partial = folder / "images.part"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for image in decode_stream(images.store.contents(names), (SIDE, SIDE), workers=1):
        if image.pixels is not None:
            Image.fromarray(image.pixels).save(partial / f"{image.position}.png")
    return partial.rename(target)


def fixed_split(data: Path, folder: Path) -> Path:
    """Write which images validate whatever the seed: a fifth of each class, as seed 0 draws them.

    Args:
        data: As :func:`data_set` returns it.
        folder: An existing folder for the file.
    """
    path = folder / "split.json"
    if not path.is_file():
        write_text(path, split(open_data(data), HELD_BACK, 0).to_json())
    return path


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
