"""Random weights to train from."""

from __future__ import annotations

from torch import nn


def initialise(module: nn.Module) -> None:
    """Draw every weight anew from PyTorch's global random state.

    Convolutions get He's normal initialisation (variance 2 / inputs), which keeps the size of activations
    behind ReLU whatever the depth; dense layers a normal one of deviation 0.01; biases zero; batch
    normalisation starts as the identity.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.reset_parameters()
