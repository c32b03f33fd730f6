"""Any mode of an image as 8-bit grey or RGB, in little memory whatever its size and the number of threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from graftonnx.machine import return_memory

STRIP = 1 << 20
"""Pixels of an image that are converted together."""

LARGE = 1 << 23
"""Pixels of an image whose memory goes back to the system at once."""


def eight_bits(image: Image.Image) -> Image.Image:
    """Convert any mode to 8-bit grey or RGB.

    Raises:
        ValueError: If the range of its numbers is unknown.
    """
    if image.mode.startswith("I"):
        return _in_strips(image, "L", _from_sixteen_bits)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if image.has_transparency_data:
        return _in_strips(image, "RGB", _on_white)
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    """Return the nearest of 0..255 for each of 0..65535."""
    values = np.asarray(image, np.int32)
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise ValueError("its values do not fit 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    """Lay transparent pixels on white."""
    if image.mode != "RGBA":
        image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _in_strips(image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert an image to another mode, a large one strip by strip: what lies between takes little memory."""
    if image.width * image.height <= STRIP:
        return convert(image)
    whole = Image.new(mode, image.size)
    rows = max(STRIP // image.width, 1)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        whole.paste(convert(strip), (0, top))
    return whole


class Allowance:
    """Pixels that all threads together may hold decoded; who wants more waits until others are done."""

    def __init__(self, pixels: int) -> None:
        self._most = pixels
        self._left = pixels
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Hold so many pixels during the block, or all; those of a small image are not counted."""
        if pixels <= STRIP:
            yield
            return
        pixels = min(pixels, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= pixels)
            self._left -= pixels
        try:
            yield
        finally:
            if pixels > LARGE:
                return_memory()
            with self._changed:
                self._left += pixels
                self._changed.notify_all()
