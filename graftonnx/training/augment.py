"""Random changes of a batch of images, as tensor operations on the device that trains.

Every random number comes from the generator that is handed in, drawn on the CPU: the same generator gives
the same images on every device. Where several processes train, each draws for the whole batch and takes its
rows, so that the images are the same in any world; but for RandAugment, whose choices are each process's own.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from graftonnx.training.config import Augment
from graftonnx.training.world import ALONE, World

MARGIN = 1.15
"""Images that will be cropped are decoded this much larger than the network's input."""

SHIFT = 8
"""Of how many parts of the height and width one is the furthest shift: 4 of 32 pixels, as is usual for CIFAR
([arXiv 1512.03385](https://arxiv.org/abs/1512.03385))."""

AREA = (0.4, 1.0)
ASPECT = (3 / 4, 4 / 3)
COLOUR = 0.2

OPERATIONS = 2
MAGNITUDE = 9
"""Of RandAugment, as in the table of the paper's ImageNet networks; the magnitude is of 30."""

POLICY_IMAGES = 8
"""Images that share RandAugment's choice of operations; their amounts are their own."""


def stored_size(size: tuple[int, int], kind: Augment) -> tuple[int, int]:
    """Return the height and width at which training images are kept, in pixels."""
    if kind not in ("standard", "strong"):
        return size
    return math.ceil(size[0] * MARGIN), math.ceil(size[1] * MARGIN)


def augment(
    images: Tensor,
    size: tuple[int, int],
    kind: Augment,
    generator: torch.Generator,
    world: World = ALONE,
) -> Tensor:
    """Return changed copies of `images`.

    Args:
        images: Float in 0..1, [N, 3, H, W].
        size: Height and width of the result; equal to H and W unless `kind` is `standard` or `strong`.
        kind: `none`; `flip`; `shift`, where the border goes on as a mirror shows it; `flip-shift`;
            `standard`: random resized crop, flip, brightness, contrast and saturation; `strong`: random
            resized crop, flip and RandAugment.
        generator: On the CPU, in the same state in each process.
        world: The processes that have a part of the batch each.

    Returns:
        Float in 0..1, [N, 3, *size].
    """
    if kind == "none":
        return images
    if kind in ("flip", "flip-shift"):
        images = mirror(images, generator, world)
    if kind in ("shift", "flip-shift"):
        images = shift(images, generator, world)
    if kind not in ("standard", "strong"):
        return images
    images = crop(images, size, generator, world)
    if kind == "standard":
        return change_colour(images, generator, world)
    return rand_augment(images, generator, world)


def _draw(kinds: int, count: int, generator: torch.Generator, world: World) -> Tensor:
    """Return numbers in 0..1 for this process's images, [kinds, count]."""
    return torch.rand(kinds, count * world.size, generator=generator)[:, world.rows]


def mirror(images: Tensor, generator: torch.Generator, world: World = ALONE) -> Tensor:
    """Mirror every other image, left to right. images: [N, 3, H, W]."""
    mirrored = _draw(1, len(images), generator, world)[0].lt(0.5).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def shift(images: Tensor, generator: torch.Generator, world: World = ALONE) -> Tensor:
    """Move each image by up to an eighth of its size each way. images: [N, 3, H, W]."""
    height, width = images.shape[-2:]
    most_y, most_x = height // SHIFT, width // SHIFT
    padded = F.pad(images, (most_x, most_x, most_y, most_y), mode="reflect")
    draws = _draw(2, len(images), generator, world).to(images.device)
    y, x = ((draw * (2 * most + 1)).long() for draw, most in zip(draws, (most_y, most_x), strict=True))
    rows = y[:, None] + torch.arange(height, device=images.device)
    columns = x[:, None] + torch.arange(width, device=images.device)
    image = torch.arange(len(images), device=images.device)
    return padded[image[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def crop(images: Tensor, size: tuple[int, int], generator: torch.Generator, world: World = ALONE) -> Tensor:
    """Cut a random rectangle out of each image, mirror every other one, and stretch it to `size`.

    images: [N, 3, H, W] -> [N, 3, *size].
    """
    n = len(images)
    area, aspect, x, y, mirrored = _draw(5, n, generator, world)
    area = AREA[0] + (AREA[1] - AREA[0]) * area
    aspect = (math.log(ASPECT[0]) + math.log(ASPECT[1] / ASPECT[0]) * aspect).exp()
    width = (area * aspect).sqrt().clamp(max=1.0)
    height = (area / aspect).sqrt().clamp(max=1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = width * torch.where(mirrored < 0.5, -1.0, 1.0)
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (1 - width) * (2 * x - 1)
    theta[:, 1, 2] = (1 - height) * (2 * y - 1)
    grid = F.affine_grid(theta.to(images.device), [n, 3, *size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def change_colour(images: Tensor, generator: torch.Generator, world: World = ALONE) -> Tensor:
    """Scale brightness, contrast and saturation of each image by factors near 1. images: [N, 3, H, W]."""
    factors = 1 + COLOUR * (2 * _draw(3, len(images), generator, world) - 1)
    brightness, contrast, saturation = factors.to(images.device)[..., None, None, None]
    images = images * brightness
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = torch.lerp(mean, images, contrast)
    grey = images.mean(dim=1, keepdim=True)
    return torch.lerp(grey, images, saturation).clamp(0, 1)


def rand_augment(images: Tensor, generator: torch.Generator, world: World = ALONE) -> Tensor:
    """Apply RandAugment ([arXiv 1909.13719](https://arxiv.org/abs/1909.13719)). images: [N, 3, H, W]."""
    from kornia.augmentation.auto import RandAugment  # takes a third of a second to import

    policy = RandAugment(n=OPERATIONS, m=MAGNITUDE)
    seed = int(torch.randint(2**31, (1,), generator=generator))
    with torch.random.fork_rng([]), torch.no_grad():
        torch.manual_seed(seed + world.rank)
        parts = [policy(part) for part in torch.split(images, POLICY_IMAGES)]
    return torch.cat(parts).clamp(0, 1)
