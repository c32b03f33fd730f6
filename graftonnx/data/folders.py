"""Class folders: one folder per class, or the same inside `train/`, `val/` and `test/`.

    data/cat/1.jpg          data/train/cat/1.jpg
    data/dog/1.jpg          data/val/cat/2.jpg

Hidden files and files that are no images are ignored. What holds for a folder on the disk holds for the
folders in an archive: both are a :class:`Tree`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn, Protocol

from graftonnx.data.catalogue import PARTS, Data, Part, catalogue
from graftonnx.errors import DataError
from graftonnx.images import EXTENSIONS, natural_key


class Tree(Protocol):
    """Folders and the images in them; a prefix is "" or ends with a slash.

    Raises:
        DataError: If a folder cannot be read.
    """

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the visible folders directly below `prefix`, in natural order."""
        ...

    def images(self, prefix: str) -> list[str]:
        """Return the visible images at any depth below `prefix`, in natural order, as paths in the tree."""
        ...


class FolderTree:
    """A folder on the disk; also the store of its images."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the visible folders directly below `prefix`, in natural order."""
        try:
            names = [entry.name for entry in (self._root / prefix).iterdir() if entry.is_dir()]
        except OSError as error:
            raise _unreadable(error) from error
        return sorted((name for name in names if not name.startswith(".")), key=natural_key)

    def images(self, prefix: str) -> list[str]:
        """Return the visible images at any depth below `prefix`, in natural order, as paths in the tree."""
        found = []
        top = self._root / prefix
        for place, folders, files in os.walk(top, onerror=_refuse):
            folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural_key)
            inner = Path(place).relative_to(top).as_posix()
            start = prefix if inner == "." else f"{prefix}{inner}/"
            found += [start + name for name in sorted(files, key=natural_key) if is_image(name)]
        return found

    def contents(self, names: Sequence[str]) -> Iterator[tuple[int, Path]]:
        """Give the named files."""
        return ((place, self._root / name) for place, name in enumerate(names))


def _refuse(error: OSError) -> NoReturn:
    raise _unreadable(error) from error


def _unreadable(error: OSError) -> DataError:
    """Return the error for a folder whose images nobody can list."""
    return DataError(
        f"cannot read the folder '{error.filename}': {error.strerror or error}. Let it be read, or remove it."
    )


def open_folder(root: Path) -> Data:
    """List the labelled images of a folder.

    Raises:
        DataError: If the folder cannot be read, or one in it, or holds no images, has fewer than two classes,
            an empty class, or a validation or test class without training images.
    """
    tree = FolderTree(root)
    return catalogue(str(root), class_folders(str(root), tree), tree)


def class_folders(where: str, tree: Tree, prefix: str = "") -> dict[Part, list[tuple[str, str]]]:
    """List the images of each part, each with its class: the folder that it is in.

    Args:
        where: What the user calls the data.
        tree: The folders.
        prefix: Where in the tree they begin.
    """
    folders = tree.folders(prefix)
    parts = {PARTS[name.lower()]: f"{prefix}{name}/" for name in folders if name.lower() in PARTS}
    if "train" not in parts or len(parts) != len(folders) or not tree.folders(parts["train"]):
        parts = {"train": prefix}
    classes = _classes(where, tree, prefix, parts["train"])
    return {part: _samples(where, tree, start, classes) for part, start in parts.items()}


def is_image(name: str) -> bool:
    """Return whether a file's name is visible and that of an image."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


def _classes(where: str, tree: Tree, root: str, prefix: str) -> list[str]:
    """Return the class names: the folders below `prefix`, at least two."""
    classes = tree.folders(prefix)
    if len(classes) >= 2:
        return classes
    if not tree.images(prefix):
        raise DataError(
            f"cannot read images from '{_path(where, root)}': no image file is in it "
            f"(looked for {', '.join(sorted(EXTENSIONS))}). Give the folder that holds them."
        )
    here = _path(where, prefix)
    expected = "Put the images of each class into a folder named after it: DIR/<class>/<image>."
    if not classes:
        raise DataError(f"cannot learn from '{here}': its images are not in class folders. {expected}")
    inner = _path(where, f"{prefix}{classes[0]}/")
    hint = f"Did you mean '{inner}'?" if len(tree.folders(f"{prefix}{classes[0]}/")) >= 2 else expected
    raise DataError(
        f"cannot learn from '{here}': it has only one class, '{classes[0]}', at least 2 are needed. {hint}"
    )


def _samples(where: str, tree: Tree, prefix: str, classes: Sequence[str]) -> list[tuple[str, str]]:
    """List the images of one part."""
    samples: list[tuple[str, str]] = []
    for name in tree.folders(prefix):
        folder = _path(where, f"{prefix}{name}/")
        if name not in classes:
            raise DataError(
                f"cannot use '{folder}': class '{name}' has no training images. "
                f"Training classes are {', '.join(repr(c) for c in classes)}."
            )
        found = tree.images(f"{prefix}{name}/")
        if not found:
            raise DataError(
                f"cannot use '{folder}': no image file is in it. Add images, or remove the folder."
            )
        samples += [(image, name) for image in found]
    if not samples:
        here = _path(where, prefix)
        raise DataError(f"cannot use '{here}': no image file is in it. Add images, or remove the folder.")
    return samples


def _path(where: str, prefix: str) -> str:
    """Return how a message names a folder of the tree."""
    return str(Path(where) / prefix)
