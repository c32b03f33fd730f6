"""Batches cut from decoded images.

The order of the images depends on the seed and the epoch alone, and a loader knows where it stands: training
that goes on from a checkpoint, also from the middle of an epoch, sees what an uninterrupted run would see.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graftonnx.data.cache import Images
from graftonnx.training.world import ALONE, World


class Batch(NamedTuple):
    """A batch on its way to the network.

    Attributes:
        pixels: uint8 [N, H, W, 3].
        labels: int64 [N].
        step: Number of the batch, counted from 0 over all epochs; random numbers depend on it and the seed
            alone.
    """

    pixels: Tensor
    labels: Tensor
    step: int


class TrainBatches:
    """Shuffled batches of training images; one iteration is (the rest of) one epoch.

    Each batch is full: the last one of an epoch is filled up with images from its beginning. The batches are
    the same in any world; each process takes its rows of them.
    """

    def __init__(self, images: Images, batch_size: int, seed: int, world: World = ALONE) -> None:
        self._images = images
        self._batch_size = min(batch_size, len(images.labels) // world.size * world.size)
        self._seed = seed
        self._world = world
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
            index = np.sort(order[start : start + self._batch_size])
            yield _batch(self._images, index[self._world.rows], step)

    def state_dict(self) -> dict[str, int]:
        """Return where the loader stands: the number of batches given out, over all epochs."""
        return {"step": self._step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the batch at which :meth:`state_dict` was taken."""
        self._step = state["step"]


class ValBatches:
    """This process's validation images, in order; each is one process's. The last batch has another size.

    All processes have the same number of batches, as those must whose weights are shared out.
    """

    def __init__(self, images: Images, batch_size: int, world: World = ALONE) -> None:
        self._images = images
        self._batch_size = batch_size // world.size
        self._world = world

    def __len__(self) -> int:
        fewest = len(self._images.labels) // self._world.size
        return -(-fewest // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        index = np.arange(len(self._images.labels))[self._world.rows]
        cuts = self._batch_size * np.arange(1, len(self))
        for part in np.split(index, cuts):
            yield _batch(self._images, part, 0)


def class_weights(labels: npt.NDArray[np.int64], classes: int) -> Tensor:
    """Return a weight [K] for each class, the inverse of its share of the labels; the mean image weighs 1."""
    counts = np.bincount(labels, minlength=classes)
    return torch.from_numpy(len(labels) / (classes * np.maximum(counts, 1))).float()


def _batch(images: Images, index: npt.NDArray[np.intp], step: int) -> Batch:
    pixels = torch.from_numpy(np.take(images.pixels, index, axis=0))
    return Batch(pixels, torch.from_numpy(images.labels[index]), step)
