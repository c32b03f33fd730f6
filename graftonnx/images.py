"""Labelled image folders: what is in them, which images validate, and how one is decoded.

NumPy and Pillow only. Training, evaluation and prediction decode with the same function, so that a network
meets the same pixels everywhere.

A data folder has one folder per class, or the same inside `train/`, `val/` and `test/`:

    data/cat/1.jpg          data/train/cat/1.jpg
    data/dog/1.jpg          data/val/cat/2.jpg
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from graftonnx.errors import DataError

EXTENSIONS = frozenset(
    {
        ".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
        ".tif", ".tiff", ".webp",
    }
)  # fmt: skip
"""The file names that count as images, lower case."""

PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Folder names that mean a predefined split, and the part each one is."""

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma of ITU-R BT.601."""

Pixels = npt.NDArray[np.uint8]
Planes = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    Attributes:
        path: Relative to the data folder, with forward slashes.
        label: Index into the classes.
    """

    path: str
    label: int


@dataclass(frozen=True)
class ImageFolder:
    """The labelled images of a data folder, in natural order of their names.

    Attributes:
        root: The data folder.
        classes: Class names; a sample's label indexes them.
        samples: All images, or those of `train/` where the folder comes split.
        val: The images of `val/`; empty where there is no such folder.
        test: The images of `test/`; empty where there is no such folder.
    """

    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    val: tuple[Sample, ...] = ()
    test: tuple[Sample, ...] = ()


@dataclass(frozen=True)
class Split:
    """Which images train, which validate, and which are left for a final test.

    Attributes:
        root: The data folder that the samples' paths are relative to.
        classes: Class names; a sample's label indexes them.
        train: Images to learn from.
        val: Images to choose the best epoch by.
        test: Images that training never sees; may be empty.
    """

    root: Path
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...] = ()

    def reordered(self, classes: Sequence[str]) -> Split:
        """Return the same split with labels that index `classes`, a permutation of its own.

        Raises:
            ValueError: If `classes` is not a permutation.
        """
        if sorted(classes) != sorted(self.classes):
            raise ValueError(f"{list(classes)} is not a permutation of {list(self.classes)}")
        position = [list(classes).index(name) for name in self.classes]
        parts = (
            tuple(Sample(s.path, position[s.label]) for s in part)
            for part in (self.train, self.val, self.test)
        )
        return Split(self.root, tuple(classes), *parts)

    def to_json(self) -> str:
        """Return the split as JSON: for each part and class the relative paths."""
        parts = {
            name: {c: [s.path for s in part if s.label == k] for k, c in enumerate(self.classes)}
            for name, part in (("train", self.train), ("val", self.val), ("test", self.test))
        }
        return json.dumps({"classes": self.classes, **parts}, indent=1, ensure_ascii=False) + "\n"


def scan(root: Path) -> ImageFolder:
    """List the labelled images of a data folder. Hidden files and files that are no images are ignored.

    Raises:
        DataError: If the folder is missing, holds no images, has fewer than two classes, an empty class, or
            a validation or test class without training images.
    """
    if not root.is_dir():
        raise DataError(f"cannot read images from '{root}': there is no such folder.")
    folders = _subfolders(root)
    parts = {PARTS[name.lower()]: name for name in folders if name.lower() in PARTS}
    if "train" not in parts or len(parts) != len(folders) or not _subfolders(root / parts["train"]):
        classes = _classes(root, root)
        return ImageFolder(root, classes, _samples(root, "", classes))
    classes = _classes(root, root / parts["train"])
    samples = {part: _samples(root, f"{name}/", classes) for part, name in parts.items()}
    return ImageFolder(root, classes, samples["train"], samples.get("val", ()), samples.get("test", ()))


def split(folder: ImageFolder, val_fraction: float, seed: int) -> Split:
    """Choose the validation images: those of `val/` if there is one, else the same share of each class.

    The choice within a class depends on the seed and on that class's files alone.

    Args:
        folder: What :func:`scan` found.
        val_fraction: Share of each class that validates, between 0 and 1; at least one image, never all.
        seed: Seed of the choice.

    Raises:
        DataError: If a class has fewer than two images and must be divided.
        ValueError: If `val_fraction` is not between 0 and 1.
    """
    if folder.val:
        return Split(folder.root, folder.classes, folder.samples, folder.val, folder.test)
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction must be between 0 and 1, not {val_fraction}")
    train: list[Sample] = []
    val: list[Sample] = []
    for label, name in enumerate(folder.classes):
        members = [s for s in folder.samples if s.label == label]
        if len(members) < 2:
            raise DataError(
                f"cannot split '{folder.root}': class '{name}' has {len(members)} image, at least 2 are "
                "needed (one to train, one to validate). Add images, or give a val/ folder."
            )
        share = min(max(round(len(members) * val_fraction), 1), len(members) - 1)
        chosen = set(np.random.default_rng([seed, label]).permutation(len(members))[:share].tolist())
        train += [s for i, s in enumerate(members) if i not in chosen]
        val += [s for i, s in enumerate(members) if i in chosen]
    return Split(folder.root, folder.classes, tuple(train), tuple(val), folder.test)


def read_split(path: Path, root: Path) -> Split:
    """Read a split that :meth:`Split.to_json` wrote, for the images under `root`.

    Raises:
        DataError: If the file cannot be read, is not a split, or names an image that is not under `root`.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        classes = tuple(str(name) for name in table["classes"])
        train, val, test = (
            tuple(Sample(str(p), k) for k, name in enumerate(classes) for p in table[part][name])
            for part in ("train", "val", "test")
        )
    except OSError as error:
        raise DataError(f"cannot read the split '{path}': {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot read the split '{path}': it is not a split that graftonnx wrote ({error!r})."
        ) from error
    for sample in (*train, *val, *test):
        if not (root / sample.path).is_file():
            raise DataError(
                f"cannot use the split '{path}': it names '{sample.path}', which is not under '{root}'. "
                "Give the data folder that the split was made from."
            )
    return Split(root, classes, train, val, test)


def decode(path: str | Path, size: tuple[int, int]) -> Pixels:
    """Decode an image file and stretch it to `size` with an antialiased bilinear filter.

    EXIF orientation is applied. Palette, grey, CMYK and 16-bit images become 8-bit RGB; transparent pixels
    are laid on white; of an animation the first frame is taken. A JPEG more than twice as large as `size` is
    reduced while it is decoded, which is many times faster.

    Args:
        path: The image file.
        size: Height and width of the result, in pixels.

    Returns:
        RGB pixels, uint8 [H, W, 3].

    Raises:
        DataError: If the file is no image, is damaged, or holds numbers whose range is unknown.
    """
    height, width = size
    try:
        with Image.open(path) as file:
            largest = 2 * max(size)
            file.draft(None, (largest, largest))
            image = _to_rgb(ImageOps.exif_transpose(file))
            image = image.resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, UnidentifiedImageError):
            reason = "it is not an image that Pillow can read"
        raise DataError(
            f"cannot decode '{path}': {reason.rstrip('.')}. Remove it, or save it anew."
        ) from error
    return np.asarray(image)


def decode_many(
    paths: Sequence[str | Path],
    size: tuple[int, int],
    *,
    out: Pixels | None = None,
    workers: int = 0,
    on_image: Callable[[], object] | None = None,
) -> Pixels:
    """Decode images in threads; Pillow decodes outside of Python's lock.

    Args:
        paths: The image files.
        size: Height and width of every result, in pixels.
        out: Array to fill, uint8 [N, H, W, 3] (a memory map, for instance); by default a new one.
        workers: Threads; 0 means one per core.
        on_image: Called in the calling thread after each image, for a progress bar.

    Returns:
        RGB pixels, uint8 [N, H, W, 3].

    Raises:
        DataError: As :func:`decode`, for the first file (in order) that fails.
    """
    pixels = np.empty((len(paths), *size, 3), np.uint8) if out is None else out
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        try:
            for i, image in enumerate(pool.map(lambda path: decode(path, size), paths)):
                pixels[i] = image
                if on_image is not None:
                    on_image()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return pixels


def to_input(images: Pixels) -> Planes:
    """Turn pixels [N, H, W, 3] in 0..255 into a network's input [N, 3, H, W] in 0..1."""
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32)
    planes /= np.float32(255)
    return planes


def as_input(images: Planes, shape: tuple[int, int, int]) -> Planes:
    """Bring images to the shape of a network's input.

    Args:
        images: RGB in 0..1, [N, 3, H, W].
        shape: C, H' and W' of the input; with C = 1 it gets the luma. Another size is reached by the
            antialiased bilinear filter that :func:`decode` uses, which PyTorch's
            `interpolate(mode="bilinear", antialias=True)` computes as well.

    Returns:
        [N, C, H', W'].
    """
    channels, *size = shape
    if channels == 1:
        images = np.tensordot(images, np.array(GREY, np.float32), axes=(1, 0))[:, None]
    if images.shape[2:] == tuple(size):
        return images
    rows, columns = (_bilinear(n, m) for n, m in zip(images.shape[2:], size, strict=True))
    return np.ascontiguousarray(rows @ images @ columns.T)


def _bilinear(source: int, target: int) -> Planes:
    """Return the matrix [target, source] of an antialiased bilinear filter: triangles that sum to 1."""
    scale = source / target
    centres = (np.arange(target)[:, None] + 0.5) * scale
    distances = np.abs(np.arange(source) + 0.5 - centres) / max(scale, 1.0)
    weights = np.maximum(1.0 - distances, 0.0)
    matrix: Planes = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return a sort key under which `img2` comes before `img10`."""
    pieces = re.split(r"([0-9]+)", name)
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in pieces if p], name


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to 8-bit RGB; refuse a mode whose range is unknown."""
    if image.mode.startswith("I"):
        values = np.asarray(image, np.int64)
        if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise ValueError("its values do not fit 16 bits")
        return Image.fromarray((values / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _subfolders(folder: Path) -> list[str]:
    """Return the names of the visible folders in `folder`, in natural order."""
    names = (entry.name for entry in folder.iterdir() if entry.is_dir())
    return sorted((name for name in names if not name.startswith(".")), key=natural_key)


def _image_files(folder: Path) -> Iterable[Path]:
    """Yield the visible image files at any depth below `folder`."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural_key)
        for name in sorted(files, key=natural_key):
            if not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS:
                yield Path(place) / name


def _classes(root: Path, folder: Path) -> tuple[str, ...]:
    """Return the class names: the folders in `folder`, at least two."""
    classes = _subfolders(folder)
    if len(classes) >= 2:
        return tuple(classes)
    if not any(_image_files(folder)):
        raise DataError(
            f"cannot read images from '{root}': no image file is in it "
            f"(looked for {', '.join(sorted(EXTENSIONS))})."
        )
    expected = "Put the images of each class into a folder named after it: DIR/<class>/<image>."
    if not classes:
        raise DataError(f"cannot learn from '{folder}': its images are not in class folders. {expected}")
    inner = _subfolders(folder / classes[0])
    hint = f"Did you mean '{folder / classes[0]}'?" if len(inner) >= 2 else expected
    raise DataError(
        f"cannot learn from '{folder}': it has only one class, '{classes[0]}', at least 2 are needed. {hint}"
    )


def _samples(root: Path, prefix: str, classes: tuple[str, ...]) -> tuple[Sample, ...]:
    """List the images of one part of a data folder; `prefix` is "" or the part's folder and a slash."""
    folder = root / prefix
    known = {name: label for label, name in enumerate(classes)}
    samples = []
    for name in _subfolders(folder):
        if name not in known:
            raise DataError(
                f"cannot use '{folder / name}': class '{name}' has no training images. "
                f"Training classes are {', '.join(repr(c) for c in classes)}."
            )
        found = [path.relative_to(root).as_posix() for path in _image_files(folder / name)]
        if not found:
            raise DataError(
                f"cannot use '{folder / name}': no image file is in it. Add images, or remove the folder."
            )
        samples += [Sample(path, known[name]) for path in found]
    if not samples:
        raise DataError(f"cannot use '{folder}': no image file is in it. Add images, or remove the folder.")
    return tuple(samples)
