"""What generated code calls to sample and assemble planes at computed places."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def grid_sample(x: Tensor, grid: Tensor, mode: str, padding_mode: str, align_corners: bool) -> Tensor:
    """Sample planes of x at the places of a grid, of which -1 and 1 are the borders.

    Args:
        x: [N, C, H, W] or [N, C, D, H, W].
        grid: [N, ..., 2 or 3], the last axis in the order x, y, z.
        mode: bilinear, nearest or bicubic.
        padding_mode: zeros, border or reflection.
        align_corners: Whether the borders are pixel centres.
    """
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    y = F.grid_sample(wide, grid.to(wide.dtype), mode, padding_mode, align_corners)
    return y.to(x.dtype)


def grid_sample_line(x: Tensor, grid: Tensor, mode: str, padding_mode: str, align_corners: bool) -> Tensor:
    """Sample lines of x: [N, C, L] at the places of a grid: [N, M, 1]."""
    flat = torch.cat([grid, torch.zeros_like(grid)], -1).unsqueeze(1)
    return grid_sample(x.unsqueeze(2), flat, mode, padding_mode, align_corners).squeeze(2)


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Return the grid of an affine map. theta: [N, 2, 3] or [N, 3, 4] -> [N, *size[2:], 2 or 3]."""
    return F.affine_grid(theta, list(size), align_corners)


def columns_to_image(
    x: Tensor,
    image: Sequence[int],
    block: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> Tensor:
    """Add blocks at their places in an image; the opposite of taking the blocks out.

    Args:
        x: [N, C * prod(block), L], a column for each of the L places of the block.
        image: Extents of the image.
        block: Extents of the block.
        strides: Steps of the block along each axis.
        pads: Of each axis at the beginning, then of each at the end.
        dilations: Gaps in the block.
    """
    rank = len(image)
    padded = [image[i] + pads[i] + pads[i + rank] for i in range(rank)]
    places = torch.zeros([1] * 2 * rank, dtype=torch.int64, device=x.device)
    for i in range(rank):
        window = dilations[i] * (block[i] - 1) + 1
        inside = torch.arange(block[i], device=x.device) * dilations[i]
        starts = torch.arange((padded[i] - window) // strides[i] + 1, device=x.device) * strides[i]
        at = inside.reshape([-1 if j == i else 1 for j in range(2 * rank)])
        at = at + starts.reshape([-1 if j == i + rank else 1 for j in range(2 * rank)])
        places = places * padded[i] + at
    n, channels = x.shape[0], x.shape[1] // math.prod(block)
    columns = x.reshape(n, channels, -1)
    flat = columns.new_zeros((n, channels, math.prod(padded)))
    flat = flat.scatter_add(2, places.reshape(1, 1, -1).expand(columns.shape), columns)
    y = flat.reshape(n, channels, *padded)
    for i in range(rank):
        y = y.narrow(i + 2, pads[i], image[i])
    return y


def unpooled_shape(
    shape: Sequence[int], kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int]
) -> list[int]:
    """Return the shape of what a tensor of shape [N, C, ...] was pooled from."""
    rank = len(kernel)
    extents = [(shape[i + 2] - 1) * strides[i] + kernel[i] - pads[i] - pads[i + rank] for i in range(rank)]
    return [shape[0], shape[1], *extents]


def unpool(
    x: Tensor, indices: Tensor, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int]
) -> Tensor:
    """Undo a max pooling of x: [N, C, ...]; elements that were not the largest are zero.

    Args:
        x: What was pooled.
        indices: x's shape; they count through all elements of the result.
        kernel: Extents of the window.
        strides: Its steps.
        pads: Of each spatial axis at the beginning, then of each at the end.
    """
    shape = unpooled_shape(x.shape, kernel, strides, pads)
    flat = x.new_zeros(math.prod(shape))
    return flat.scatter(0, indices.reshape(-1), x.reshape(-1)).reshape(shape)


def deform_conv(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    groups: int,
    offset_groups: int,
) -> Tensor:
    """Convolve x with windows whose elements are moved by `offset`, and weighted by `mask`.

    Args:
        x: [N, C, H, W].
        weight: [M, C / groups, kH, kW].
        offset: [N, offset_groups * kH * kW * 2, oH, oW], the last two being y and x.
        bias: [M].
        mask: [N, offset_groups * kH * kW, oH, oW].
        strides: Steps of the window along H and W.
        pads: top, left, bottom, right.
        dilations: Gaps in the window.
        groups: Of the convolution.
        offset_groups: How many groups of channels have an offset of their own.
    """
    n, (kh, kw), (oh, ow) = x.shape[0], weight.shape[2:], offset.shape[2:]
    moved = offset.reshape(n, offset_groups, kh, kw, 2, oh, ow)
    rows, columns = (
        torch.arange(k, device=x.device, dtype=x.dtype).mul(d).reshape(shape)
        + torch.arange(o, device=x.device, dtype=x.dtype).mul(s).sub(p).reshape(out)
        for k, d, o, s, p, shape, out in (
            (kh, dilations[0], oh, strides[0], pads[0], (-1, 1, 1, 1), (-1, 1)),
            (kw, dilations[1], ow, strides[1], pads[1], (-1, 1, 1), (1, -1)),
        )
    )
    y, x_ = moved[:, :, :, :, 0] + rows, moved[:, :, :, :, 1] + columns
    planes = x.reshape(n * offset_groups, -1, *x.shape[2:])
    taken = bilinear(planes, y.reshape(n * offset_groups, -1), x_.reshape(n * offset_groups, -1))
    taken = taken.reshape(n, offset_groups, -1, kh * kw, oh, ow)
    if mask is not None:
        taken = taken * mask.reshape(n, offset_groups, 1, kh * kw, oh, ow)
    taken = taken.reshape(n, groups, -1, oh * ow)
    kernel = weight.reshape(1, groups, weight.shape[0] // groups, -1)
    result = torch.matmul(kernel, taken).reshape(n, -1, oh, ow)
    return result if bias is None else result + bias.reshape(-1, 1, 1)


def bilinear(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Interpolate planes linearly between the four neighbours; outside a plane there are zeros.

    Args:
        x: [N, C, H, W].
        rows: [N, L], in pixels.
        columns: [N, L].

    Returns:
        [N, C, L].
    """
    height, width = x.shape[2:]
    flat = x.flatten(2)
    top, left = rows.floor(), columns.floor()
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        share = (1 - (rows - row).abs()) * (1 - (columns - column).abs())
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        places = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
        picked = flat.gather(2, places.unsqueeze(1).expand(-1, flat.shape[1], -1))
        total = total + picked * torch.where(inside, share, torch.zeros_like(share)).unsqueeze(1)
    return total
