"""From any image to 8-bit RGB pixels.

NumPy and Pillow only. Training, evaluation and prediction decode with the same function, so that a network
meets the same pixels everywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from graftonnx.decoders import MOST_PIXELS, UNREADABLE, check_pixels, open_image, pixels_held
from graftonnx.errors import DataError
from graftonnx.pixels import Allowance, eight_bits
from graftonnx.reading import read_bytes

EXTENSIONS = frozenset(
    {
        ".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
        ".tif", ".tiff", ".webp",
    }
)  # fmt: skip
"""The file names that count as images, lower case."""

PIXELS_AT_ONCE = 2 * MOST_PIXELS
"""Of all images that threads decode at a time."""

LARGEST_FILE = 1 << 29
"""Bytes of an image file."""

CHUNK = 16
"""Most images that one task of a thread decodes."""

CHUNK_BYTES = 1 << 20
"""Bytes of images in hand at which a task is full."""

AHEAD_BYTES = 1 << 28
"""Bytes of images in hand at which no more are read ahead."""

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma of ITU-R BT.601."""

_AT_ONCE = Allowance(PIXELS_AT_ONCE)

Pixels = npt.NDArray[np.uint8]
Planes = npt.NDArray[np.float32]

Content = Path | bytes | Pixels | Callable[[], bytes]
"""How an image is got: its file, the file's bytes, pixels [H, W] or [H, W, C], or what reads the bytes."""


class Decoded(NamedTuple):
    """What became of one image.

    Attributes:
        position: Where the caller wants it.
        pixels: RGB, uint8 [H, W, 3]; None if it cannot be decoded.
        digest: Equal for identical files, or for identical pixels where those were given; empty if the file
            cannot be read.
        reason: Why it cannot be decoded, without a full stop; else empty.
    """

    position: int
    pixels: Pixels | None
    digest: bytes
    reason: str = ""


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
    image = _decode_one(0, Path(path), size)
    if image.pixels is None:
        raise undecodable(path, image.reason)
    return image.pixels


def undecodable(name: object, reason: str) -> DataError:
    """Return the error for an image that cannot be decoded."""
    return DataError(f"cannot decode '{name}': {reason}. Remove it, or save it anew.")


def decode_stream(
    contents: Iterable[tuple[int, Content]], size: tuple[int, int], *, workers: int = 0, chunk: int = CHUNK
) -> Iterator[Decoded]:
    """Decode images in threads, a bounded number ahead; Pillow decodes outside of Python's lock.

    Args:
        contents: The images, each with a position of the caller's.
        size: Height and width of every result, in pixels.
        workers: Threads; 0 means one per core.
        chunk: Most images that one task of a thread decodes.

    Yields:
        Each image, in the order given; one that cannot be decoded with the reason.
    """
    threads = workers or os.cpu_count() or 1
    pieces = _chunks(contents, chunk)
    with ThreadPoolExecutor(threads) as pool:
        queue: deque[tuple[int, Future[list[Decoded]]]] = deque()
        try:
            while True:
                while len(queue) < threads + 2 and sum(ahead for ahead, _ in queue) < AHEAD_BYTES:
                    held, piece = next(pieces, (0, []))
                    if not piece:
                        break
                    queue.append((held, pool.submit(_decode_chunk, piece, size)))
                if not queue:
                    return
                yield from queue.popleft()[1].result()
        finally:
            pool.shutdown(cancel_futures=True)


def decode_many(
    paths: Sequence[str | Path],
    size: tuple[int, int],
    *,
    out: Pixels | None = None,
    workers: int = 0,
    on_image: Callable[[], object] | None = None,
) -> Pixels:
    """Decode image files into one array.

    Args:
        paths: The image files.
        size: Height and width of every result, in pixels.
        out: Array to fill, uint8 [N, H, W, 3] (a memory map, for instance); by default a new one.
        workers: As in :func:`decode_stream`.
        on_image: Called in the calling thread after each image, for a progress bar.

    Returns:
        RGB pixels, uint8 [N, H, W, 3].

    Raises:
        DataError: As :func:`decode`, for the first file (in order) that fails.
    """
    pixels = np.empty((len(paths), *size, 3), np.uint8) if out is None else out
    for image in decode_stream(enumerate(map(Path, paths)), size, workers=workers):
        if image.pixels is None:
            raise undecodable(paths[image.position], image.reason)
        pixels[image.position] = image.pixels
        if on_image is not None:
            on_image()
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
    return [_number_key(p) if p.isdecimal() else (-1, p) for p in pieces if p], name


def _number_key(digits: str) -> tuple[int, str]:
    """Return a sort key for a number of any length."""
    digits = digits.lstrip("0")
    return len(digits), digits


def _chunks(
    contents: Iterable[tuple[int, Content]], most: int
) -> Iterator[tuple[int, list[tuple[int, Content]]]]:
    """Cut the images into pieces of work, each large enough to be worth a task and small enough to wait.

    Yields:
        The bytes that a piece has in hand, and the piece.
    """
    chunk: list[tuple[int, Content]] = []
    held = 0
    for item in contents:
        chunk.append(item)
        held += len(item[1]) if isinstance(item[1], bytes) else getattr(item[1], "nbytes", 0)
        if len(chunk) == most or held >= CHUNK_BYTES:
            yield held, chunk
            chunk, held = [], 0
    if chunk:
        yield held, chunk


def _decode_chunk(chunk: list[tuple[int, Content]], size: tuple[int, int]) -> list[Decoded]:
    return [_decode_one(position, content, size) for position, content in chunk]


def _decode_one(position: int, content: Content, size: tuple[int, int]) -> Decoded:
    """Read, hash and decode one image; a reason instead of pixels where that fails."""
    digest = b""
    try:
        if isinstance(content, Path):
            content = read_bytes(content, LARGEST_FILE)
        elif callable(content):
            content = content()
        raw = content if isinstance(content, bytes) else content.data
        digest = hashlib.blake2b(raw, digest_size=16).digest()
        return Decoded(position, _stretched(content, size), digest)
    except UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, UnidentifiedImageError):
            reason = "it is not an image that Pillow can read"
        return Decoded(position, None, digest, reason.rstrip(".") or type(error).__name__)


def _stretched(content: bytes | Pixels, size: tuple[int, int]) -> Pixels:
    """Decode `content` to RGB at `size`, uint8 [H, W, 3]."""
    height, width = size
    if isinstance(content, np.ndarray):
        check_pixels(content.shape[1], content.shape[0])
        with _AT_ONCE.taken(content.shape[0] * content.shape[1]):
            image = eight_bits(Image.fromarray(content)).resize((width, height), Image.Resampling.BILINEAR)
    else:
        file = open_image(content, 2 * max(size))
        with _AT_ONCE.taken(pixels_held(file)), contextlib.closing(file):
            ImageOps.exif_transpose(file, in_place=True)
            image = eight_bits(file).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
