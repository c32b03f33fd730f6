"""Pure arithmetic of shapes: what a convolution does to an extent, and which one gives a wanted extent."""

from __future__ import annotations

import math
from typing import TypeAlias

Shape: TypeAlias = tuple[int | None, ...]
"""The extents of a tensor; `None` stands for one that is only known when the graph runs."""


def convolved_extent(extent: int, kernel: int, stride: int = 1, pads: int = 0, dilation: int = 1) -> int:
    """Return the extent after a convolution or pooling (ONNX `Conv`, without `auto_pad`).

    Args:
        extent: Before, in pixels.
        kernel: Of the window.
        stride: Of the window.
        pads: At the beginning and the end together.
        dilation: Of the window.
    """
    return (extent + pads - (dilation * (kernel - 1) + 1)) // stride + 1


def downscaling(source: int, target: int) -> tuple[int, int, int, int] | None:
    """Find the smallest window of a convolution or pooling that turns `source` pixels into `target` pixels.

    The window covers every pixel (kernel >= stride) and is at most 2 * stride + 2 wide; padding is less
    than the kernel and the larger half comes last.

    Returns:
        kernel, stride, padding at the beginning, padding at the end; None if there is no such window
        (then a Resize does it).
    """
    if target > source or target < 1:
        return None
    for stride in sorted({max(1, source // target), math.ceil(source / target)}):
        for kernel in range(stride, 2 * stride + 3):
            pads = (target - 1) * stride + kernel - source
            if 0 <= pads < kernel:
                return kernel, stride, pads // 2, pads - pads // 2
    return None


def edging(source: int, target: int) -> tuple[int, int] | None:
    """Find the padding that turns `source` pixels into a few more, which change the edge alone.

    Returns:
        Padding at the beginning, and at the end, where the larger half is; None if `target` is smaller, or
        larger by more than three pixels or a quarter.
    """
    pads = target - source
    return (pads // 2, pads - pads // 2) if 0 <= pads <= min(3, source // 4) else None


def spelled(shape: Shape | None) -> str:
    """Return a shape for people: `[N, 64, 56, 56]`; an unknown leading extent is the batch."""
    if shape is None:
        return "[unknown]"
    words = ["?" if extent is None else str(extent) for extent in shape]
    if words and words[0] == "?":
        words[0] = "N"
    return f"[{', '.join(words)}]"
