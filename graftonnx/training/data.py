"""Images decoded once into one array, and batches cut from it.

The order of the images depends on the seed and the epoch alone, and a loader knows where it stands: training
that goes on from a checkpoint, also from the middle of an epoch, sees what an uninterrupted run would see.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graftonnx.errors import DataError
from graftonnx.images import Pixels, Sample, decode_many

IN_MEMORY = 2 * 2**30
"""Bytes of pixels that are kept in memory; more go to a memory-mapped file in the run folder."""


class Batch(NamedTuple):
    """A batch on its way to the network.

    Attributes:
        pixels: uint8 [N, H, W, 3].
        labels: int64 [N].
        step: The optimiser step that the batch is for, counted from 0 over all epochs; random numbers of a
            step depend on it and the seed alone.
    """

    pixels: Tensor
    labels: Tensor
    step: int


class Images(NamedTuple):
    """Decoded images: pixels uint8 [N, H, W, 3], labels int64 [N]."""

    pixels: Pixels
    labels: npt.NDArray[np.int64]


def load_images(
    root: Path,
    samples: Sequence[Sample],
    size: tuple[int, int],
    *,
    folder: Path,
    workers: int = 0,
    on_image: Callable[[], object] | None = None,
) -> Images:
    """Decode `samples` at `size`: into memory, or into an unnamed file in `folder` where they are many.

    Raises:
        DataError: If an image cannot be decoded, or the disk has no room.
    """
    shape = (len(samples), *size, 3)
    out = np.empty(shape, np.uint8) if np.prod(shape) <= IN_MEMORY else _map(shape, folder)
    paths = [root / sample.path for sample in samples]
    pixels = decode_many(paths, size, out=out, workers=workers, on_image=on_image)
    return Images(pixels, np.array([sample.label for sample in samples], np.int64))


class TrainBatches:
    """Shuffled batches of training images; one iteration is (the rest of) one epoch.

    Each batch is full: the last one of an epoch is filled up with images from its beginning.
    """

    def __init__(self, images: Images, batch_size: int, seed: int) -> None:
        self._images = images
        self._batch_size = min(batch_size, len(images.labels))
        self._seed = seed
        self._step = 0

    def __len__(self) -> int:
        return -(-len(self._images.labels) // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        epoch = self._step // len(self)
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._images.labels))
        order = np.resize(order, len(self) * self._batch_size)
        while self._step // len(self) == epoch:
            step = self._step
            self._step += 1
            start = step % len(self) * self._batch_size
            yield _batch(self._images, np.sort(order[start : start + self._batch_size]), step)

    def state_dict(self) -> dict[str, int]:
        """Return where the loader stands: the number of batches given out, over all epochs."""
        return {"step": self._step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the batch at which :meth:`state_dict` was taken."""
        self._step = state["step"]


class ValBatches:
    """Validation images in order; the last batch may be smaller."""

    def __init__(self, images: Images, batch_size: int) -> None:
        self._images = images
        self._batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self._images.labels) // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self._images.labels), self._batch_size):
            stop = min(start + self._batch_size, len(self._images.labels))
            yield _batch(self._images, np.arange(start, stop), 0)


def class_weights(labels: npt.NDArray[np.int64], classes: int) -> Tensor:
    """Return a weight [K] for each class, the inverse of its share of the labels; the mean image weighs 1."""
    counts = np.bincount(labels, minlength=classes)
    return torch.from_numpy(len(labels) / (classes * np.maximum(counts, 1))).float()


def _batch(images: Images, index: npt.NDArray[np.intp], step: int) -> Batch:
    pixels = torch.from_numpy(np.take(images.pixels, index, axis=0))
    return Batch(pixels, torch.from_numpy(images.labels[index]), step)


def _map(shape: tuple[int, ...], folder: Path) -> Pixels:
    """Map an unnamed file of `shape` bytes; its room on the disk is reserved, not promised."""
    size = int(np.prod(shape))
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise DataError(
                f"cannot keep {shape[0]} decoded images in '{folder}': {error.strerror}, "
                f"{size / 2**30:.1f} GiB are needed. Free disk space, or choose another -o."
            ) from error
        return np.memmap(file, np.uint8, "r+", shape=shape)
