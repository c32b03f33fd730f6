"""Decoded images that the processes of a node share: one decodes, all map the same file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from graftonnx.data.cache import Images, Loaded
from graftonnx.errors import DataError
from graftonnx.images import Pixels
from graftonnx.training.world import World


def share_images(world: World, decode: Callable[[], Loaded], folder: Path) -> Loaded:
    """Return decoded images in every process.

    Args:
        world: The processes.
        decode: Called by the first process of each node.
        folder: Where the pixels lie until every process has mapped them; must exist on each node.

    Raises:
        DataError: If the disk has no room for the pixels, or `decode` fails.
    """
    if world.size == 1:
        return decode()
    first = world.local_rank == 0
    with tempfile.TemporaryDirectory(dir=folder, prefix=".images.") if first else nullcontext("") as own:
        loaded, places = world.once_per_node(lambda: _put(decode(), Path(own)))
        pixels = [np.load(place, mmap_mode="c") for place in places]
        world.barrier()
    train, val = (Images(p, i.labels) for p, i in zip(pixels, (loaded.train, loaded.val), strict=True))
    return replace(loaded, train=train, val=val)


def _put(loaded: Loaded, folder: Path) -> tuple[Loaded, tuple[Path, ...]]:
    """Write the pixels to files; return everything else, and the files."""
    places = folder / "train.npy", folder / "val.npy"
    try:
        for place, images in zip(places, (loaded.train, loaded.val), strict=True):
            np.save(place, images.pixels)
    except OSError as error:
        raise DataError(
            f"cannot share the decoded images in '{folder.parent}': {error.strerror}. "
            "Free disk space, or choose another -o."
        ) from error
    nothing: Pixels = np.empty((0, 0, 0, 3), np.uint8)
    train, val = (images._replace(pixels=nothing) for images in (loaded.train, loaded.val))
    return replace(loaded, train=train, val=val), places
