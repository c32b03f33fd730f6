"""Modules that PyTorch has no class for."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Constant(nn.Module):
    """A tensor that does not train and is no part of the state: indices, masks, tables."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value, persistent=False)

    def forward(self) -> Tensor:
        """Return the tensor."""
        return self.value


class BatchNorm(nn.Module):
    """Batch normalisation whose scale and bias belong to somebody else: they are tied, or computed.

    Args:
        eps: Added to the variance.
        momentum: Share of the new batch in the running statistics.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, running_mean: Tensor, running_var: Tensor, eps: float, momentum: float) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.register_buffer("running_mean", running_mean)
        self.register_buffer("running_var", running_var)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Normalise x: [N, C, ...] by the batch in training, by the running statistics otherwise."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, weight, bias, self.training, self.momentum, self.eps
        )


class DropoutByInput(nn.Module):
    """Dropout whose probability, and perhaps mode, is computed when the model runs."""

    def forward(self, x: Tensor, p: Tensor, active: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return x with dropped elements, and the mask (true where kept).

        Args:
            x: [...].
            p: [], the probability of dropping.
            active: [], whether to drop; None for what `train()` and `eval()` say.
        """
        if active is None and not self.training:
            return x, torch.ones_like(x, dtype=torch.bool)
        p = p.reshape(()) if active is None else p.reshape(()) * active.reshape(())
        mask = torch.rand_like(x, dtype=torch.float32) >= p
        return torch.where(mask, x / (1 - p).to(x.dtype), torch.zeros_like(x)), mask


def ignore_count(layer: nn.Module, problems: Any) -> None:
    """Let a batch norm that counts no batches load a state that has a count, or is a plain dictionary.

    `nn.BatchNorm2d` itself adds the count to a dictionary that does not tell its version.
    """
    counts = [key for key in problems.unexpected_keys if key.endswith("num_batches_tracked")]
    for key in counts:
        problems.unexpected_keys.remove(key)


class DropoutWithMask(nn.Module):
    """Dropout that also tells which elements it kept.

    Args:
        p: Probability of dropping an element.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return x with dropped elements, and the mask (true where kept); both of x's shape."""
        if not self.training or self.p == 0:
            return x, torch.ones_like(x, dtype=torch.bool)
        mask = torch.rand_like(x, dtype=torch.float32) >= self.p
        return torch.where(mask, x / (1 - self.p), torch.zeros_like(x)), mask


class _Frozen(nn.Module):
    """A layer that stays in inference mode."""

    def train(self, mode: bool = True) -> Self:
        """Leave the layer in inference mode, whatever `mode` says."""
        return super().train(False)


class FrozenBatchNorm(_Frozen, BatchNorm):
    """`BatchNorm` that keeps to its running statistics."""


class FrozenBatchNorm1d(_Frozen, nn.BatchNorm1d):
    """`nn.BatchNorm1d` that keeps to its running statistics."""


class FrozenBatchNorm2d(_Frozen, nn.BatchNorm2d):
    """`nn.BatchNorm2d` that keeps to its running statistics."""


class FrozenBatchNorm3d(_Frozen, nn.BatchNorm3d):
    """`nn.BatchNorm3d` that keeps to its running statistics."""


_FROZEN: dict[type[nn.Module], type[nn.Module]] = {
    BatchNorm: FrozenBatchNorm,
    nn.BatchNorm1d: FrozenBatchNorm1d,
    nn.BatchNorm2d: FrozenBatchNorm2d,
    nn.BatchNorm3d: FrozenBatchNorm3d,
}


def freeze_bn(module: nn.Module) -> None:
    """Keep every batch norm of a module in inference mode, also after `module.train()`.

    The layers normalise by their running statistics and leave them as they are; scale and bias still train.
    Small batches want this, and networks whose head alone is trained.
    """
    for layer in module.modules():
        if type(layer) in _FROZEN:
            layer.__class__ = _FROZEN[type(layer)]
            layer.eval()
