r"""The paper's custom network: a residual CNN of 16 weight layers.

The paper gives 16 layers, batch normalisation, ReLU, a max pool in every stage and a residual connection
after every 4th block; the rest is chosen here. Three stages of five blocks (convolution, batch
normalisation, ReLU) make 15 convolutions, the dense layer is the 16th. The first block of a stage sets its
width and is followed by the max pool; the residual connection spans the other four, so that it is the
identity and costs no weights:

    entry -> max pool -> block -> block -> block -> conv, norm -> add -> ReLU
                    \___________________________________________/
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BASE_CHANNELS = 32
"""Channels of the first stage at width 1; the second has twice, the third four times as many."""


class Block(nn.Module):
    """Convolution 3x3, batch normalisation, ReLU: `[N, C, H, W]` -> `[N, channels, H, W]`."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Return the block's output; a shortcut of its shape is added before the ReLU."""
        y: Tensor = self.bn(self.conv(x))
        if shortcut is not None:
            y = y + shortcut
        out: Tensor = self.relu(y)
        return out


class Stage(nn.Module):
    """Five blocks, a max pool, a residual connection: `[N, C, H, W]` -> `[N, channels, H // 2, W // 2]`."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.entry = Block(in_channels, channels)
        self.pool = nn.MaxPool2d(kernel_size=2)
        self.blocks = nn.ModuleList(Block(channels, channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the stage's last block."""
        first, second, third, fourth = self.blocks
        shortcut: Tensor = self.pool(self.entry(x))
        out: Tensor = fourth(third(second(first(shortcut))), shortcut)
        return out


class Custom16(nn.Module):
    """The 16-layer residual CNN: `[N, in_channels, H, W]` with H, W >= 8 -> logits `[N, classes]`.

    Args:
        classes: Number of classes.
        width: Multiplies the 32, 64 and 128 channels of the three stages.
        in_channels: Channels of the image.
    """

    def __init__(self, *, classes: int = 10, width: float = 1.0, in_channels: int = 3) -> None:
        super().__init__()
        base = max(1, round(BASE_CHANNELS * width))
        self.stages = nn.Sequential(
            Stage(in_channels, base), Stage(base, 2 * base), Stage(2 * base, 4 * base)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(4 * base, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits `[N, classes]` of images `[N, in_channels, H, W]`."""
        logits: Tensor = self.classifier(torch.flatten(self.pool(self.stages(x)), 1))
        return logits
