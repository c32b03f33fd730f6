"""What networks are fed with: random numbers, or images in the shape that each network takes."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftonnx import limits
from graftonnx.data.opening import open_data
from graftonnx.errors import DataError, ModelError
from graftonnx.feeds import preprocessed
from graftonnx.images import Pixels, as_input, decode_stream, to_input
from graftonnx.preprocessing import check_preprocess
from graftonnx.runtime import Session

Extents = tuple[int | str | None, ...]


def shapes(session: Session, batch: int, input_size: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """Return the shapes of a network's inputs at a batch size.

    Args:
        session: The network; the first extent of each input is its batch.
        batch: Images at once.
        input_size: The other dynamic extents of every input, in their order.

    Raises:
        ModelError: If the network takes another number at once only, or an extent is neither fixed nor given.
    """
    return [_shape(session.name, shape, batch, input_size) for shape in session.input_shapes]


def _shape(name: str, shape: Extents, batch: int, input_size: tuple[int, ...]) -> tuple[int, ...]:
    if shape and isinstance(shape[0], int) and shape[0] != batch:
        raise ModelError(
            f"cannot run '{name}' with {batch} images at once: its input is {list(shape)}. "
            f"Give --batch {shape[0]}."
        )
    given = iter(input_size)
    found = [batch, *(extent if isinstance(extent, int) else next(given, None) for extent in shape[1:])]
    known = [extent for extent in found if extent is not None]
    if len(known) < len(found):
        raise ModelError(f"cannot run '{name}': its input is {list(shape)}. Give --input-size.")
    try:
        limits.check("value", 4 * math.prod(known[1:]), f"the bytes of an image {known[1:]} are")
    except ModelError as error:
        raise error.at(f"cannot run '{name}'") from error
    return tuple(known[: len(shape)])


def random_inputs(session: Session, shapes: list[tuple[int, ...]]) -> tuple[NDArray[Any], ...]:
    """Return random arrays for a network: floats in 0..1, bytes in 0..255, zeros for any other type."""
    draw = np.random.default_rng(0)
    return tuple(_random(draw, shape, kind) for shape, kind in zip(shapes, session.input_types, strict=True))


def _random(draw: np.random.Generator, shape: tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
    if kind.kind == "f":
        return draw.random(shape, np.float32).astype(kind)
    if kind == np.uint8:
        return draw.integers(0, 256, shape, np.uint8)
    return np.zeros(shape, kind)


def pictures(where: str | Path, count: int, size: tuple[int, int]) -> Pixels:
    """Return images of labelled data, from the first one on, again from the front where there are too few.

    Args:
        where: The data, as `--data` takes it; test images are taken, else validation images, else any.
        count: Number of images.
        size: Height and width in pixels.

    Returns:
        RGB, uint8 [count, H, W, 3].

    Raises:
        DataError: If the data cannot be read, or none of its images.
    """
    data = open_data(where)
    names = [sample.name for sample in (data.test or data.val or data.train)[:count]]
    decoded = [image.pixels for image in decode_stream(data.store.contents(names), size)]
    good = [pixels for pixels in decoded if pixels is not None]
    if not good:
        raise DataError(
            f"cannot read images from '{where}': none of the first {len(names)} can be decoded. "
            "Give other images."
        )
    return np.stack(list(itertools.islice(itertools.cycle(good), count)))


def picture_inputs(
    session: Session, shapes: list[tuple[int, ...]], images: Pixels
) -> tuple[NDArray[Any], ...]:
    """Return images as a network takes them, normalised as far as its file says how.

    Args:
        session: The network.
        shapes: Of its inputs: [N, C, H, W] or [N, H, W, 3].
        images: RGB, uint8 [M, H, W, 3] with M >= N.

    Raises:
        ModelError: If an input takes no images.
    """
    return tuple(
        _picture(session, shape, kind, images)
        for shape, kind in zip(shapes, session.input_types, strict=True)
    )


def _picture(session: Session, shape: tuple[int, ...], kind: np.dtype[Any], images: Pixels) -> NDArray[Any]:
    layout = image_layout(shape)
    if layout is None or kind.kind not in "fu":
        raise ModelError(
            f"cannot feed images to '{session.name}': its input is {kind} {list(shape)}, expected "
            "[N, C, H, W] or [N, H, W, 3]. Leave --data out."
        )
    channels, height, width = layout
    planes = as_input(to_input(images[: shape[0]]), (channels, height, width))
    convention = session.metadata.input
    if kind == np.uint8:
        planes = np.rint(planes * 255)
    elif convention is not None:
        planes = preprocessed(planes, check_preprocess(convention.preprocess, channels))
    if shape[1] != channels:
        planes = planes.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(planes, kind)


def image_layout(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Return C, H and W of an image input of either layout; None if it takes no images."""
    if len(shape) != 4:
        return None
    if shape[1] in (1, 3):
        return shape[1], shape[2], shape[3]
    return (3, shape[1], shape[2]) if shape[3] == 3 else None
