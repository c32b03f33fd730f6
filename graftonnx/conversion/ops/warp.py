"""Sampling and assembling planes at computed places."""

from __future__ import annotations

from collections.abc import Sequence

from graftonnx.conversion import warping
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.ops.conv import kernel_of
from graftonnx.conversion.registry import op
from graftonnx.conversion.values import Result, Value
from graftonnx.errors import UnsupportedOpError

_MODES = {"linear": "bilinear", "bilinear": "bilinear", "nearest": "nearest",
          "cubic": "bicubic", "bicubic": "bicubic"}  # fmt: skip


@op("GridSample", since=16)
def grid_sample_16(
    g: Builder,
    x: Value,
    grid: Value,
    *,
    align_corners: int = 0,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
) -> Result:
    """X sampled at the places of a grid. x: [N, C, H, W], grid: [N, oH, oW, 2] -> [N, C, oH, oW]."""
    return grid_sample(g, x, grid, align_corners=align_corners, mode=mode, padding_mode=padding_mode)


@op("GridSample", since=20)
def grid_sample(
    g: Builder,
    x: Value,
    grid: Value,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
) -> Result:
    """X sampled at the places of a grid. x: [N, C, ...], grid: [N, ..., rank] -> [N, C, ...]."""
    if mode not in _MODES:
        raise UnsupportedOpError(f"mode is '{mode}', expected linear, nearest or cubic.")
    if padding_mode not in ("zeros", "border", "reflection"):
        raise UnsupportedOpError(f"padding_mode is '{padding_mode}', expected zeros, border or reflection.")
    rank = g.rank(x) - 2
    if rank not in (1, 2, 3) or (mode in ("cubic", "bicubic") and rank != 2):
        raise UnsupportedOpError(f"mode '{mode}' over {rank} axes has no PyTorch form.")
    call = warping.grid_sample_line if rank == 1 else warping.grid_sample
    return g.call(call, x, grid, _MODES[mode], padding_mode, bool(align_corners))


@op("AffineGrid", since=20)
def affine_grid(g: Builder, theta: Value, size: Value, *, align_corners: int = 0) -> Result:
    """The grid of an affine map. theta: [N, 2, 3] -> [N, H, W, 2], or [N, 3, 4] -> [N, D, H, W, 3]."""
    extents = g.ints(size, "size")
    if align_corners and 1 in [extent for extent in extents[2:] if isinstance(extent, int)]:
        raise UnsupportedOpError(
            f"size {extents} has an axis of one element, which ONNX Runtime puts elsewhere than PyTorch "
            "with align_corners=1."
        )
    return g.call(warping.affine_grid, theta, extents, bool(align_corners))


@op("Col2Im", since=18)
def col_2_im(
    g: Builder,
    x: Value,
    image_shape: Value,
    block_shape: Value,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Result:
    """Blocks added at their places in an image. x: [N, C * prod(block), L] -> [N, C, *image]."""
    image, block = g.ints(image_shape, "image_shape"), g.ints(block_shape, "block_shape")
    rank = len(image)
    settings = (list(strides or [1] * rank), list(pads or [0] * 2 * rank), list(dilations or [1] * rank))
    return g.call(warping.columns_to_image, x, image, block, *settings)


@op("MaxUnpool", since=9)
def max_unpool(
    g: Builder,
    x: Value,
    i: Value,
    output_shape: Value = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Result:
    """Undo a max pooling. x, i: [N, C, ...] -> [N, C, ...]."""
    rank = len(kernel_shape)
    kernel, stride, pad = list(kernel_shape), list(strides or [1] * rank), list(pads or [0] * 2 * rank)
    if output_shape is not None:
        _check_unpooled(g, x, output_shape, kernel, stride, pad)
    return g.call(warping.unpool, x, i, kernel, stride, pad)


@op("DeformConv", since=19)
def deform_conv(
    g: Builder,
    x: Value,
    w: Value,
    offset: Value,
    b: Value = None,
    mask: Value = None,
    *,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    offset_group: int = 1,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Result:
    """Convolution whose window's elements are moved. x: [N, C, H, W] -> [N, M, oH, oW]."""
    if len(kernel_of(g, w, kernel_shape)) != 2:
        raise UnsupportedOpError("its window has not two axes; only images can be convolved so.")
    stride, pad, dilation = list(strides or [1, 1]), list(pads or [0] * 4), list(dilations or [1, 1])
    return g.call(warping.deform_conv, x, w, offset, b, mask, stride, pad, dilation, group, offset_group)


def _check_unpooled(
    g: Builder, x: Value, wanted: Value, kernel: list[int], strides: list[int], pads: list[int]
) -> None:
    """Refuse a shape that differs from the pooled tensor's: ONNX's case and ONNX Runtime disagree there."""
    shape = g.shape(x)
    given = [int(extent) for extent in g.host(wanted, "output_shape").ravel()]
    if shape is None or None in shape:
        raise UnsupportedOpError("it has an output_shape, and the shape of its input is unknown.")
    pooled = warping.unpooled_shape([extent or 0 for extent in shape], kernel, strides, pads)
    if pooled != given:
        raise UnsupportedOpError(
            f"output_shape is {given}, expected {pooled}: to which of both shapes the indices refer is "
            "not agreed upon."
        )
