"""What generated code calls for boxes: pooling inside them, and dropping those that overlap."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graftonnx.conversion.warping import bilinear


@dataclass(frozen=True)
class _Samples:
    """Where one axis is sampled inside each box.

    Attributes:
        places: [R, bins, samples], in pixels.
        used: [R, 1, samples]; boxes have different numbers of samples.
        count: [R], how many samples a bin has.
    """

    places: Tensor
    used: Tensor
    count: Tensor


def roi_align(
    x: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    height: int,
    width: int,
    ratio: int,
    scale: float,
    largest: bool,
    aligned: bool,
) -> Tensor:
    """Pool x inside boxes, from samples that are interpolated linearly.

    Args:
        x: [N, C, H, W].
        rois: [R, 4], x1, y1, x2, y2.
        batch_indices: [R], the sample of x that a box lies in.
        height: Bins of the result along H.
        width: Bins along W.
        ratio: Samples of a bin along each axis; 0 for as many as the bin has pixels.
        scale: From the boxes' coordinates to pixels.
        largest: Whether to take the largest weighted neighbour instead of the mean.
        aligned: Whether coordinates are shifted by half a pixel.

    Returns:
        [R, C, height, width].
    """
    boxes = rois * scale - (0.5 if aligned else 0.0)
    rows = _samples(boxes[:, 1], boxes[:, 3], height, ratio, aligned)
    columns = _samples(boxes[:, 0], boxes[:, 2], width, ratio, aligned)
    planes = x[batch_indices.long()]
    r, c = planes.shape[:2]
    i, j = rows.places.shape[2], columns.places.shape[2]
    y = rows.places.reshape(r, height, i, 1, 1).expand(r, height, i, width, j).reshape(r, -1)
    x_ = columns.places.reshape(r, 1, 1, width, j).expand(r, height, i, width, j).reshape(r, -1)
    used = rows.used.reshape(r, 1, 1, i, 1, 1) & columns.used.reshape(r, 1, 1, 1, 1, j)
    taken = _neighbours(planes, y, x_, largest).reshape(r, c, height, i, width, j)
    if largest:
        lowest = torch.full_like(taken, float("-inf"))
        return torch.where(used, taken, lowest).amax((3, 5))
    total = torch.where(used, taken, torch.zeros_like(taken)).sum((3, 5))
    return total / (rows.count * columns.count).clamp(min=1).reshape(r, 1, 1, 1).to(total.dtype)


def _samples(first: Tensor, last: Tensor, bins: int, ratio: int, aligned: bool) -> _Samples:
    """Return where an axis is sampled in boxes from `first` to `last`: [R]."""
    extent = last - first
    if not aligned:
        extent = extent.clamp(min=1.0)
    size = extent / bins
    count = torch.full_like(extent, ratio) if ratio > 0 else size.ceil()
    most = ratio if ratio > 0 else max(1, int(count.max().item()) if count.numel() else 1)
    step = torch.arange(most, device=first.device, dtype=first.dtype)
    starts = first.reshape(-1, 1, 1) + torch.arange(bins, device=first.device).reshape(-1, 1) * size.reshape(
        -1, 1, 1
    )
    divisor = count.clamp(min=1).reshape(-1, 1, 1)
    places = starts + (step + 0.5) * size.reshape(-1, 1, 1) / divisor
    return _Samples(places, step < count.reshape(-1, 1, 1), count)


def _neighbours(x: Tensor, rows: Tensor, columns: Tensor, largest: bool) -> Tensor:
    """Interpolate x: [R, C, H, W] at places [R, L]; within a pixel of the border the border counts.

    Returns:
        [R, C, L]: the sum of the four weighted neighbours, or the largest of them.
    """
    height, width = x.shape[2:]
    outside = (rows < -1) | (rows > height) | (columns < -1) | (columns > width)
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    y = _largest_share(x, rows, columns) if largest else bilinear(x, rows, columns)
    return torch.where(outside.unsqueeze(1), torch.zeros_like(y), y)


def _largest_share(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    height, width = x.shape[2:]
    flat = x.flatten(2)
    top, left = rows.floor(), columns.floor()
    down, right = rows - top, columns - left
    shares = []
    for below in (0, 1):
        for beside in (0, 1):
            share = (down if below else 1 - down) * (right if beside else 1 - right)
            row = (top + below).clamp(max=height - 1).long()
            places = row * width + (left + beside).clamp(max=width - 1).long()
            shares.append(
                flat.gather(2, places.unsqueeze(1).expand(-1, flat.shape[1], -1)) * share.unsqueeze(1)
            )
    return torch.stack(shares).amax(0)


def max_roi_pool(x: Tensor, rois: Tensor, height: int, width: int, scale: float) -> Tensor:
    """Take the largest pixel in each bin of boxes.

    Args:
        x: [N, C, H, W].
        rois: [R, 5], the sample, then x1, y1, x2, y2, inclusive.
        height: Bins of the result along H.
        width: Bins along W.
        scale: From the boxes' coordinates to pixels.

    Returns:
        [R, C, height, width]; empty bins are zero.
    """
    planes = x[rois[:, 0].long()]
    corners = rois[:, 1:] * scale
    corners = torch.where(corners < 0, (corners - 0.5).ceil(), (corners + 0.5).floor())
    rows = _bins(corners[:, 1], corners[:, 3], height, x.shape[2])
    columns = _bins(corners[:, 0], corners[:, 2], width, x.shape[3])
    lowest = torch.full_like(planes, float("-inf"))
    narrow = torch.stack(
        [torch.where(columns[:, None, None, k], planes, lowest).amax(3) for k in range(width)], 3
    )
    lowest = torch.full_like(narrow, float("-inf"))
    y = torch.stack(
        [torch.where(rows[:, None, k, :, None], narrow, lowest).amax(2) for k in range(height)], 2
    )
    return torch.where(y.isneginf(), torch.zeros_like(y), y)


def _bins(first: Tensor, last: Tensor, bins: int, extent: int) -> Tensor:
    """Return which pixels of an axis belong to which bin of boxes: [R, bins, extent]."""
    size = (last - first + 1).clamp(min=1).reshape(-1, 1, 1) / bins
    number = torch.arange(bins, device=first.device, dtype=first.dtype).reshape(-1, 1)
    starts = (number * size).floor() + first.reshape(-1, 1, 1)
    ends = ((number + 1) * size).ceil() + first.reshape(-1, 1, 1)
    pixel = torch.arange(extent, device=first.device, dtype=first.dtype)
    return (pixel >= starts.clamp(0, extent)) & (pixel < ends.clamp(0, extent))


def non_max_suppression(
    boxes: Tensor,
    scores: Tensor,
    most: Tensor | None,
    overlap: Tensor | None,
    least: Tensor | None,
    centred: bool,
) -> Tensor:
    """Choose boxes by falling score, leaving out those that overlap a chosen one.

    Args:
        boxes: [N, B, 4]: two opposite corners as y, x, y, x; or x, y, width, height if `centred`.
        scores: [N, C, B].
        most: How many boxes each class of each sample may have; None for none.
        overlap: Intersection over union above which a box is left out; None for 0.
        least: A box's score must be larger; None for no limit.
        centred: Whether boxes are given by their centres.

    Returns:
        [chosen, 3], int64: sample, class, box.
    """
    limit = 0 if most is None else int(most)
    corners = _corners(boxes, centred)
    threshold = 0.0 if overlap is None else float(overlap)
    chosen = []
    for n in range(scores.shape[0]):
        overlaps = _overlaps(corners[n]) > threshold
        for c in range(scores.shape[1]):
            order = torch.argsort(scores[n, c], descending=True, stable=True).tolist()
            if least is not None:
                passed = (scores[n, c] > least.reshape(())).tolist()
                order = [box for box in order if passed[box]]
            kept: list[int] = []
            for box in order:
                if len(kept) >= limit:
                    break
                if not kept or not bool(overlaps[box, kept].any()):
                    kept.append(box)
            chosen += [[n, c, box] for box in kept]
    return torch.tensor(chosen, dtype=torch.int64, device=boxes.device).reshape(-1, 3)


def _corners(boxes: Tensor, centred: bool) -> Tensor:
    """Return lower and upper corners. boxes: [N, B, 4] -> [N, B, 4]."""
    if centred:
        x, y, width, height = boxes.unbind(-1)
        return torch.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], -1)
    first, second = boxes[..., :2], boxes[..., 2:]
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], -1)


def _overlaps(corners: Tensor) -> Tensor:
    """Return the intersection over union of each pair of boxes. corners: [B, 4] -> [B, B]."""
    low, high = corners[:, :2], corners[:, 2:]
    shared = (torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)).clamp(min=0).prod(-1)
    area = (high - low).prod(-1)
    union = area[:, None] + area - shared
    empty = (area[:, None] <= 0) | (area <= 0) | (union <= 0) | (shared <= 0)
    return torch.where(
        empty, torch.full_like(shared, -1.0), shared / torch.where(empty, torch.ones_like(union), union)
    )
