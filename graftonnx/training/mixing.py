"""Mixtures of two images and of their labels: mixup and CutMix.

Source: [arXiv 1710.09412](https://arxiv.org/abs/1710.09412) and
[arXiv 1905.04899](https://arxiv.org/abs/1905.04899).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def mix(
    images: Tensor, targets: Tensor, mixup: float, cutmix: float, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mix each image of a batch with another one of it; each pair has a share of its own.

    Args:
        images: [N, C, H, W].
        targets: Class probabilities [N, K].
        mixup: Parameter of the Beta distribution of the shares; 0: no mixup.
        cutmix: The same for CutMix. With both, the batch takes one of them at random.
        random: For everything that is drawn; the same one gives the same mixtures on every device.

    Returns:
        Images [N, C, H, W] and class probabilities [N, K].
    """
    cuts = bool(cutmix) and (not mixup or random.random() < 0.5)
    alpha = cutmix if cuts else mixup
    share = random.beta(alpha, alpha, len(images)).astype(np.float32)
    partner = torch.from_numpy(random.permutation(len(images))).to(images.device)
    if cuts:
        inside, share = _boxes(share, images.shape[-2:], random)
        images = torch.where(torch.from_numpy(inside).to(images.device), images[partner], images)
    else:
        images = torch.lerp(images[partner], images, _column(share, images, 4))
    return images, torch.lerp(targets[partner], targets, _column(share, targets, 2))


def _boxes(
    share: np.ndarray, size: tuple[int, ...], random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return masks [N, 1, H, W] of boxes that leave about `share` of the image, and what they leave [N]."""
    extents = []
    for length in size:
        half = np.sqrt(1 - share) * length / 2
        centre = random.uniform(0, length, len(share))
        low, high = (np.clip(np.round(centre + sign * half), 0, length) for sign in (-1, 1))
        places = np.arange(length)
        extents.append((places >= low[:, None]) & (places < high[:, None]))
    rows, columns = extents
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return inside, (1 - inside.mean((1, 2, 3))).astype(np.float32)


def _column(share: np.ndarray, like: Tensor, rank: int) -> Tensor:
    """Return shares [N] as a tensor [N, 1, ...] of a rank."""
    return torch.from_numpy(share).to(like).view(-1, *[1] * (rank - 1))
