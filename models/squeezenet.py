"""SqueezeNet 1.0 and 1.1 (Iandola et al., 2016), with torchvision's state_dict keys and shapes.

A Fire module squeezes with a 1x1 convolution and expands with 1x1 and 3x3 convolutions side by side. The
networks have no batch normalisation and no dense layer: the last 1x1 convolution gives one map per class.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Version = Literal["1.0", "1.1"]

_STEM: dict[Version, tuple[int, int]] = {"1.0": (96, 7), "1.1": (64, 3)}
"""Channels and kernel of the first convolution."""

_FIRES: dict[Version, tuple[tuple[tuple[int, int], ...], ...]] = {
    "1.0": (((16, 64), (16, 64), (32, 128)), ((32, 128), (48, 192), (48, 192), (64, 256)), ((64, 256),)),
    "1.1": (((16, 64), (16, 64)), ((32, 128), (32, 128)), ((48, 192), (48, 192), (64, 256), (64, 256))),
}
"""Squeeze channels and channels of each expansion, for every Fire module after the first, second and third
max pool."""


class Fire(nn.Module):
    """Squeeze to few channels, expand with 1x1 and with 3x3: `[N, C, H, W]` -> `[N, 2E, H, W]`.

    Args:
        channels: Input channels, C.
        squeeze: Channels between.
        expand: Channels of each of the two expansions, E.
    """

    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, kernel_size=1)
        self.squeeze_activation = nn.ReLU(inplace=True)
        self.expand1x1 = nn.Conv2d(squeeze, expand, kernel_size=1)
        self.expand1x1_activation = nn.ReLU(inplace=True)
        self.expand3x3 = nn.Conv2d(squeeze, expand, kernel_size=3, padding=1)
        self.expand3x3_activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the two expansions side by side."""
        x = self.squeeze_activation(self.squeeze(x))
        return torch.cat(
            [self.expand1x1_activation(self.expand1x1(x)), self.expand3x3_activation(self.expand3x3(x))],
            dim=1,
        )


class SqueezeNet(nn.Module):
    """SqueezeNet: `[N, in_channels, H, W]` -> logits `[N, classes]`.

    Args:
        version: "1.0" (7x7 stem) or "1.1" (3x3 stem, earlier pooling, about 2.4 times cheaper).
        classes: Number of classes.
        width: Multiplies every number of channels but the input's and the classes'; products are rounded to
            multiples of 8. At 1.0 the shapes are torchvision's.
        in_channels: Channels of the image.
        stem_stride: Stride of the first convolution. 2 is the published network; 1 keeps a 32x32 image from
            shrinking to one pixel. It changes no weight's shape.
        dropout: Probability of dropping a feature before the classifier.
    """

    def __init__(
        self,
        version: Version = "1.1",
        *,
        classes: int = 1000,
        width: float = 1.0,
        in_channels: int = 3,
        stem_stride: int = 2,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        stem, kernel = _STEM[version]
        channels = _scaled(stem, width)
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, channels, kernel_size=kernel, stride=stem_stride),
            nn.ReLU(inplace=True),
        ]
        for group in _FIRES[version]:
            layers.append(nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True))
            for squeeze, expand in group:
                layers.append(Fire(channels, _scaled(squeeze, width), _scaled(expand, width)))
                channels = 2 * _scaled(expand, width)
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Dropout(p=dropout),
            nn.Conv2d(channels, classes, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits `[N, classes]` of images `[N, in_channels, H, W]`."""
        return torch.flatten(self.classifier(self.features(x)), 1)


def _scaled(channels: int, width: float) -> int:
    """Return `channels * width` as a multiple of 8, at least 8."""
    return max(8, round(channels * width / 8) * 8)
