"""Images decoded once, at the size that training needs, into memory or into a mapped file."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from graftonnx.data.catalogue import Data, Sample
from graftonnx.data.splits import Split
from graftonnx.errors import DataError
from graftonnx.images import Decoded, Pixels, decode_stream

GIB = 2**30

IN_MEMORY = 2 * GIB
"""Bytes of pixels that are kept in memory; more go to a memory-mapped file."""

SHOWN = 3
"""Bad images that a message names before it says how many more there are."""


class Images(NamedTuple):
    """Decoded images: pixels uint8 [N, H, W, 3], labels int64 [N]."""

    pixels: Pixels
    labels: npt.NDArray[np.int64]


class BadImage(NamedTuple):
    """An image that cannot be decoded, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Loaded:
    """What training works on.

    Attributes:
        split: The images that could be decoded.
        train: Their pixels and labels.
        val: Likewise.
        bad: The images that could not be decoded.
        twins: For each validation image that trains as well, byte for byte, its name and that of its twin.
    """

    split: Split
    train: Images
    val: Images
    bad: tuple[BadImage, ...]
    twins: tuple[tuple[str, str], ...]


def load(
    data: Data,
    split: Split,
    train_size: tuple[int, int],
    val_size: tuple[int, int],
    *,
    folder: Path,
    skip_bad: bool = False,
    cache_limit: float = float("inf"),
    workers: int = 0,
    on_image: Callable[[], object] | None = None,
) -> Loaded:
    """Decode the images that train and those that validate.

    Args:
        data: Where they are.
        split: Which they are.
        train_size: Height and width of training images, in pixels.
        val_size: Likewise of validation images.
        folder: Where many images are kept, in a file without a name.
        skip_bad: Whether images that cannot be decoded are left out.
        cache_limit: Most that the decoded images may take, in GiB.
        workers: Threads that decode; 0 means one per core.
        on_image: Called after each image.

    Raises:
        DataError: If images cannot be decoded and may not be left out, all images of a class or all that
            validate cannot be decoded, or the disk or the limit has no room.
    """
    shapes = (len(split.train), *train_size, 3), (len(split.val), *val_size, 3)
    _check_limit(data.where, sum(map(math.prod, shapes)), cache_limit)
    parts = []
    for samples, shape in zip((split.train, split.val), shapes, strict=True):
        out = _allocate(shape, folder)
        parts.append(_decode(data, samples, out, workers, on_image))
    train, val = parts
    bad = (*train.bad, *val.bad)
    if bad and not skip_bad:
        raise bad_images(data.where, bad, shapes[0][0] + shapes[1][0])
    kept = replace(split, train=train.samples, val=val.samples)
    _check_classes(data.where, split, kept)
    return Loaded(kept, train.images, val.images, bad, _twins(train, val))


def decode_samples(
    data: Data, samples: Sequence[Sample], size: tuple[int, int], workers: int
) -> Iterator[Decoded]:
    """Decode each sample once, in the order that is cheapest to read.

    Args:
        data: Where they are.
        samples: What to decode; the position of an image is its place among them.
        size: Height and width, in pixels.
        workers: Threads that decode; 0 means one per core.

    Yields:
        Each image, or the reason why it cannot be decoded.
    """
    missing = np.ones(len(samples), bool)
    contents = data.store.contents([sample.name for sample in samples])
    for image in decode_stream(contents, size, workers=workers):
        missing[image.position] = False
        yield image
    for place in np.flatnonzero(missing).tolist():
        yield Decoded(place, None, b"", "it is gone since the images were listed")


def bad_images(where: str, bad: Sequence[BadImage], count: int) -> DataError:
    """Return the error for images that cannot be decoded, out of `count`."""
    what = "an image" if len(bad) == 1 else f"{len(bad)} of {count} images"
    return DataError(
        f"cannot decode {what} of '{where}': {described(bad)}. Remove or mend what is damaged, or pass "
        "--on-bad-image skip."
    )


def described(bad: Sequence[BadImage]) -> str:
    """Name the first few images that cannot be decoded, and say how many more there are."""
    more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    return ", ".join(f"'{image.name}' ({image.reason})" for image in bad[:SHOWN]) + more


class _Part(NamedTuple):
    """One part, decoded: the samples that could be, their digests, and those that could not."""

    images: Images
    samples: tuple[Sample, ...]
    digests: tuple[bytes, ...]
    bad: tuple[BadImage, ...]


def _decode(
    data: Data,
    samples: Sequence[Sample],
    out: Pixels,
    workers: int,
    on_image: Callable[[], object] | None,
) -> _Part:
    """Decode `samples` into `out`, and close the gaps that bad images leave."""
    digests = [b""] * len(samples)
    reasons: dict[int, str] = {}
    height, width = out.shape[1:3]
    for image in decode_samples(data, samples, (height, width), workers):
        if image.pixels is None:
            reasons[image.position] = image.reason
        else:
            out[image.position] = image.pixels
            digests[image.position] = image.digest
        if on_image is not None:
            on_image()
    good = [place for place in range(len(samples)) if place not in reasons]
    if reasons:
        for target, place in enumerate(good):
            out[target] = out[place]
    kept = tuple(samples[place] for place in good)
    labels = np.array([sample.label for sample in kept], np.int64)
    bad = tuple(BadImage(samples[place].name, reasons[place]) for place in sorted(reasons))
    return _Part(Images(out[: len(good)], labels), kept, tuple(digests[place] for place in good), bad)


def _twins(train: _Part, val: _Part) -> tuple[tuple[str, str], ...]:
    """Return the validation images that train as well, each with its twin."""
    seen = {digest: sample.name for digest, sample in zip(train.digests, train.samples, strict=True)}
    return tuple(
        (sample.name, seen[digest])
        for digest, sample in zip(val.digests, val.samples, strict=True)
        if digest in seen
    )


def _check_classes(where: str, before: Split, after: Split) -> None:
    """Refuse to go on where bad images leave a class without training images, or nothing that validates."""
    left = {sample.label for sample in after.train}
    gone = [before.classes[s.label] for s in before.train if s.label not in left]
    if gone:
        raise DataError(
            f"cannot learn from '{where}': no training image of class '{gone[0]}' can be decoded. "
            "Mend its images, or remove the class."
        )
    if not after.val:
        raise DataError(f"cannot learn from '{where}': no validation image can be decoded. Mend them.")


def _check_limit(where: str, size: int, limit: float) -> None:
    if size > limit * GIB:
        raise DataError(
            f"cannot keep the decoded images of '{where}': they take {size / GIB:.1f} GiB, --cache-limit is "
            f"{limit:g}. Raise it, or train on less with --shots."
        )


def _allocate(shape: tuple[int, ...], folder: Path) -> Pixels:
    """Return room for `shape` bytes: in memory, or in an unnamed file whose room on the disk is reserved."""
    size = math.prod(shape)
    if size <= IN_MEMORY:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise DataError(
                f"cannot keep {shape[0]} decoded images in '{folder}': {error.strerror}, "
                f"{size / GIB:.1f} GiB are needed. Free disk space, or choose another -o."
            ) from error
        return np.memmap(file, np.uint8, "r+", shape=shape)
