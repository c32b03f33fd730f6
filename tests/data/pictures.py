"""Small images, and the ways to pack them."""

from __future__ import annotations

import errno
import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from graftonnx.data.catalogue import Data
from graftonnx.images import decode_stream

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (200, 50, 40)}


def save(path: Path, colour: object = (255, 0, 0), mode: str = "RGB", size: tuple[int, int] = (8, 6)) -> Path:
    """Write an image of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)  # type: ignore[arg-type]
    return path


def picture(name: str, number: int) -> np.ndarray:
    """Return the image of a class with a number, uint8 [6, 8, 3]; no two are alike."""
    pixels = np.full((6, 8, 3), COLOURS[name], np.uint8)
    pixels[0, 0] = [number, number // 256, 0]
    return pixels


def encoded(pixels: np.ndarray) -> bytes:
    """Return an image as PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def labelled(counts: Mapping[str, int]) -> dict[str, bytes]:
    """Return PNG files `<class>/<number>.png`."""
    return {
        f"{name}/{i}.png": encoded(picture(name, i)) for name, count in counts.items() for i in range(count)
    }


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    """Pack files, compressed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """Pack files, compressed as the name of the archive says."""
    kind = path.name.rpartition(".")[2]
    with tarfile.open(path, "w:" if kind == "tar" else f"w:{kind}") as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def closed_to_all(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make listing a folder fail as for a user who may not read it; the superuser may read every one."""

    def refusing(listing: Callable[..., Any]) -> Callable[..., Any]:
        def listed(place: Any = ".") -> Any:
            if os.path.realpath(place) == os.path.realpath(folder):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(place))
            return listing(place)

        return listed

    monkeypatch.setattr(os, "scandir", refusing(os.scandir))
    monkeypatch.setattr(os, "listdir", refusing(os.listdir))


NAMES = ["red", "green", "blue", "green", "red", "blue"]
"""The classes of six rows."""

PICTURES = [encoded(picture(name, row)) for row, name in enumerate(NAMES)]
"""Their images."""


def check_rows(data: Data, classes: tuple[str, ...] = ("blue", "green", "red")) -> None:
    """Compare all of the training part with the six rows."""
    assert data.classes == classes
    assert [s.name for s in data.train] == [f"train/{row}" for row in range(6)]
    wanted = ["train/5", "train/0", "train/3"]
    for image in decode_stream(data.store.contents(wanted), (6, 8), workers=1):
        row = int(wanted[image.position].removeprefix("train/"))
        assert image.pixels is not None
        np.testing.assert_array_equal(image.pixels, picture(NAMES[row], row))
