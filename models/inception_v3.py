"""Inception V3 (Szegedy et al., 2015), with torchvision's state_dict keys and shapes.

Each `Inception*` module runs several branches on the same input and concatenates them:

| module | grid at 299x299 | branches |
|---|---|---|
| InceptionA | 35x35 | 1x1, 5x5, double 3x3, average pool |
| InceptionB | 35x35 -> 17x17 | 3x3, double 3x3, max pool |
| InceptionC | 17x17 | 1x1, 7x7 as 1x7 and 7x1, twice that, average pool |
| InceptionD | 17x17 -> 8x8 | 3x3, 7x7 then 3x3, max pool |
| InceptionE | 8x8 | 1x1, 3x3 as 1x3 beside 3x1, double of that, average pool |
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

Pair = int | tuple[int, int]


class InceptionOutputs(NamedTuple):
    """What a network with the auxiliary head returns while it trains: two logits of `[N, classes]`."""

    logits: Tensor
    aux_logits: Tensor


class BasicConv2d(nn.Module):
    """Convolution without bias, batch normalisation, ReLU: `[N, C, H, W]` -> `[N, channels, H', W']`."""

    def __init__(
        self, in_channels: int, channels: int, kernel_size: Pair, *, stride: int = 1, padding: Pair = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel_size, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=0.001)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation."""
        out: Tensor = self.relu(self.bn(self.conv(x)))
        return out


class InceptionA(nn.Module):
    """Keep the grid: `[N, C, H, W]` -> `[N, 224 + pool_features, H, W]`."""

    def __init__(self, in_channels: int, pool_features: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(in_channels, 64, 1)
        self.branch5x5_1 = BasicConv2d(in_channels, 48, 1)
        self.branch5x5_2 = BasicConv2d(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = BasicConv2d(in_channels, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, padding=1)
        self.pool = nn.AvgPool2d(kernel_size=3, stride=1, padding=1)
        self.branch_pool = BasicConv2d(in_channels, pool_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the four branches side by side."""
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch5x5_2(self.branch5x5_1(x)),
                self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
                self.branch_pool(self.pool(x)),
            ],
            dim=1,
        )


class InceptionB(nn.Module):
    """Halve the grid: `[N, C, H, W]` -> `[N, 480 + C, (H - 1) // 2, (W - 1) // 2]`."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.branch3x3 = BasicConv2d(in_channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = BasicConv2d(in_channels, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, stride=2)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the three branches side by side."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, self.pool(x)], dim=1)


class InceptionC(nn.Module):
    """Keep the grid, with 7x7 as 1x7 and 7x1 of `channels` maps: `[N, C, H, W]` -> `[N, 768, H, W]`."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(in_channels, 192, 1)
        self.branch7x7_1 = BasicConv2d(in_channels, channels, 1)
        self.branch7x7_2 = BasicConv2d(channels, channels, (1, 7), padding=(0, 3))
        self.branch7x7_3 = BasicConv2d(channels, 192, (7, 1), padding=(3, 0))
        self.branch7x7dbl_1 = BasicConv2d(in_channels, channels, 1)
        self.branch7x7dbl_2 = BasicConv2d(channels, channels, (7, 1), padding=(3, 0))
        self.branch7x7dbl_3 = BasicConv2d(channels, channels, (1, 7), padding=(0, 3))
        self.branch7x7dbl_4 = BasicConv2d(channels, channels, (7, 1), padding=(3, 0))
        self.branch7x7dbl_5 = BasicConv2d(channels, 192, (1, 7), padding=(0, 3))
        self.pool = nn.AvgPool2d(kernel_size=3, stride=1, padding=1)
        self.branch_pool = BasicConv2d(in_channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the four branches side by side."""
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(self.pool(x))], dim=1)


class InceptionD(nn.Module):
    """Halve the grid: `[N, C, H, W]` -> `[N, 512 + C, (H - 1) // 2, (W - 1) // 2]`."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = BasicConv2d(in_channels, 192, 1)
        self.branch3x3_2 = BasicConv2d(192, 320, 3, stride=2)
        self.branch7x7x3_1 = BasicConv2d(in_channels, 192, 1)
        self.branch7x7x3_2 = BasicConv2d(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = BasicConv2d(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = BasicConv2d(192, 192, 3, stride=2)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the three branches side by side."""
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat(
            [self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(seven), self.pool(x)], dim=1
        )


class InceptionE(nn.Module):
    """Keep the grid, with 3x3 convolutions as 1x3 beside 3x1: `[N, C, H, W]` -> `[N, 2048, H, W]`."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(in_channels, 320, 1)
        self.branch3x3_1 = BasicConv2d(in_channels, 384, 1)
        self.branch3x3_2a = BasicConv2d(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = BasicConv2d(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = BasicConv2d(in_channels, 448, 1)
        self.branch3x3dbl_2 = BasicConv2d(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = BasicConv2d(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = BasicConv2d(384, 384, (3, 1), padding=(1, 0))
        self.pool = nn.AvgPool2d(kernel_size=3, stride=1, padding=1)
        self.branch_pool = BasicConv2d(in_channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the four branches side by side."""
        single = self.branch3x3_1(x)
        single = torch.cat([self.branch3x3_2a(single), self.branch3x3_2b(single)], dim=1)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        double = torch.cat([self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)], dim=1)
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(self.pool(x))], dim=1)


class InceptionAux(nn.Module):
    """The auxiliary head: `[N, C, H, W]` with H, W >= 17 (images from 299x299) -> logits `[N, classes]`."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(kernel_size=5, stride=3)
        self.conv0 = BasicConv2d(in_channels, 128, 1)
        self.conv1 = BasicConv2d(128, 768, 5)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the auxiliary logits."""
        x = self.conv1(self.conv0(self.pool(x)))
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


class InceptionV3(nn.Module):
    """Inception V3: `[N, in_channels, H, W]` with H, W >= 75 -> logits `[N, classes]`.

    With the auxiliary head and in training mode it returns :class:`InceptionOutputs`, and H and W must be at
    least 299.

    Args:
        classes: Number of classes.
        aux: Whether to build the auxiliary head (`AuxLogits`).
        in_channels: Channels of the image.
        dropout: Probability of dropping a feature before the dense layer.
    """

    def __init__(
        self, *, classes: int = 1000, aux: bool = False, in_channels: int = 3, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv2d(in_channels, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3, padding=1)
        self.maxpool1 = nn.MaxPool2d(kernel_size=3, stride=2)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3)
        self.maxpool2 = nn.MaxPool2d(kernel_size=3, stride=2)
        self.Mixed_5b = InceptionA(192, pool_features=32)
        self.Mixed_5c = InceptionA(256, pool_features=64)
        self.Mixed_5d = InceptionA(288, pool_features=64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, channels=128)
        self.Mixed_6c = InceptionC(768, channels=160)
        self.Mixed_6d = InceptionC(768, channels=160)
        self.Mixed_6e = InceptionC(768, channels=192)
        self.AuxLogits = InceptionAux(768, classes) if aux else None
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(p=dropout)
        self.fc = nn.Linear(2048, classes)

    def forward(self, x: Tensor) -> Tensor | InceptionOutputs:
        """Return the logits, with the auxiliary ones while a network that has them trains."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(self.maxpool1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(self.maxpool2(x))))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_6e(self.Mixed_6d(x))
        aux = self.AuxLogits(x) if self.AuxLogits is not None and self.training else None
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        logits: Tensor = self.fc(torch.flatten(self.dropout(self.avgpool(x)), 1))
        return logits if aux is None else InceptionOutputs(logits, aux)
