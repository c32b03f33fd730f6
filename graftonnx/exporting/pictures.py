"""Images to measure an exported file on, and to take the range of its values from."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from graftonnx.classifier import Classifier
from graftonnx.data.cache import decode_samples
from graftonnx.errors import DataError
from graftonnx.evaluation import Part, Selection, match_labels, select
from graftonnx.images import EXTENSIONS, Pixels, decode_stream, natural_key, undecodable

BATCH = 32
"""Images that are decoded and classified at once."""

CALIBRATION = 256
"""Most images that the range of values is taken from."""

RANDOM = 64
"""Random images, where no others are given."""

RANDOM_PIXELS = RANDOM * 224 * 224
"""In all of them: of larger ones there are fewer, but for the :data:`FEWEST`."""

FEWEST = 2

NAMES: dict[Part, str] = {
    "train": "training images",
    "val": "validation images",
    "test": "test images",
    "all": "images",
}

T = TypeVar("T")

Size = tuple[int, int]
Batch = tuple[Pixels, NDArray[np.int64] | None]


@dataclass(frozen=True)
class Pictures:
    """Images that can be had any number of times.

    Attributes:
        name: What they are, for people: `validation images of photos`.
        count: How many.
        read: Gives them at a height and width, in batches: RGB, uint8 [N, H, W, 3], and the network's output
            that stands for the class of each, int64 [N], or None where nobody knows it.
        random: Whether they are random ones.
    """

    name: str
    count: int
    read: Callable[[Size], Iterator[Batch]]
    random: bool = False


def labelled(
    where: str | Path, part: Part | None, classifier: Classifier, source: Path, split_file: str | Path | None
) -> Pictures:
    """Return the images that :func:`graftonnx.evaluation.select` chooses.

    Raises:
        DataError: If they cannot be listed, or a class has no output.
    """
    selection = select(where, part, source=source, split_file=split_file)
    return _of_selection(selection, match_labels(selection.classes, classifier.labels, classifier.classes))


def for_calibration(where: str | Path, source: Path, split_file: str | Path | None) -> Pictures:
    """Return up to 256 images: of those that trained the network, or of all where no split of them is known.

    Args:
        where: Images as `train` takes them, or a folder with images directly in it.
        source: The network.
        split_file: The split of the run that trained it; the one beside it where omitted.

    Raises:
        DataError: If there are none.
    """
    folder = Path(where)
    files = (
        [path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS] if folder.is_dir() else []
    )
    if files:
        return _of_files(_spread(sorted(files, key=lambda path: natural_key(path.name))), str(where))
    try:
        selection = select(where, "train", source=source, split_file=split_file)
    except DataError:  # the split is of other images, or there is none
        selection = select(where, "all", source=source)
    found = _of_selection(dataclasses.replace(selection, samples=tuple(_spread(selection.samples))), None)
    return dataclasses.replace(found, name=f"calibration images of {where}")


def random_pictures() -> Pictures:
    """Return random images; see :func:`random_images`."""

    def read(size: Size) -> Iterator[Batch]:
        count = max(FEWEST, min(RANDOM, RANDOM_PIXELS // math.prod(size)))
        pixels = random_images(count, *size)
        yield from ((pixels[start : start + BATCH], None) for start in range(0, count, BATCH))

    return Pictures("random images", RANDOM, read, random=True)


def random_images(count: int, height: int, width: int) -> Pixels:
    """Make RGB pixels, uint8 [N, H, W, 3]: a coloured surface at first, then more and more noise."""
    rng = np.random.default_rng(0)
    corners = rng.random((count, 3, 2, 2))
    y, x = (np.linspace(0, 1, n) for n in (height, width))
    surface = np.einsum("ncij,ih,jw->nhwc", corners, np.stack([1 - y, y]), np.stack([1 - x, x]))
    strength = np.linspace(0, 1, count).reshape(-1, 1, 1, 1)
    noise = rng.random((count, height, width, 3))
    pixels: Pixels = np.rint(255 * ((1 - strength) * surface + strength * noise)).astype(np.uint8)
    return pixels


def _of_selection(selection: Selection, outputs: tuple[int, ...] | None) -> Pictures:
    def read(size: Size) -> Iterator[Batch]:
        images = decode_samples(selection.data, selection.samples, size, 0)
        while batch := list(itertools.islice(images, BATCH)):
            samples = [selection.samples[image.position] for image in batch]
            pixels = [
                _decoded(image.pixels, sample.name, image.reason)
                for image, sample in zip(batch, samples, strict=True)
            ]
            labels = None if outputs is None else np.array([outputs[sample.label] for sample in samples])
            yield np.stack(pixels), labels

    return Pictures(f"{NAMES[selection.part]} of {selection.data.where}", len(selection.samples), read)


def _of_files(files: list[Path], where: str) -> Pictures:
    def read(size: Size) -> Iterator[Batch]:
        images = decode_stream(enumerate(files), size)
        while batch := list(itertools.islice(images, BATCH)):
            yield (
                np.stack([_decoded(image.pixels, files[image.position], image.reason) for image in batch]),
                None,
            )

    return Pictures(f"calibration images of {where}", len(files), read)


def _decoded(pixels: Pixels | None, name: object, reason: str) -> Pixels:
    if pixels is None:
        raise undecodable(name, reason)
    return pixels


def _spread(items: Sequence[T]) -> list[T]:
    count = min(len(items), CALIBRATION)
    return [items[place * len(items) // count] for place in range(count)]
