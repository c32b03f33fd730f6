"""Layers that look at the whole batch, in processes that have some rows of it each.

Batch norms take their statistics over all processes, and dropouts draw for all rows: training gives what one
process with the whole batch gives, but for the order of summation.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from graftonnx.conversion.layers import BatchNorm, ignore_count
from graftonnx.training.config import Device
from graftonnx.training.world import World


def synchronise(network: nn.Module, world: World, device: Device) -> None:
    """Replace batch norms and dropouts by ones that look at the whole batch; parameters stay the same.

    Args:
        network: Any network.
        world: The processes; each takes the same number of rows.
        device: Where the network is; on CUDA plain batch norms become PyTorch's own `SyncBatchNorm`.
    """
    for name, module in list(network.named_modules()):
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            network.set_submodule(name, _norm(module, world, device))
        elif type(module) is BatchNorm:
            network.set_submodule(name, SyncedTiedNorm(module, world))
        elif type(module) is nn.Dropout:
            network.set_submodule(name, SyncedDropout(module.p, world))


def _norm(norm: nn.modules.batchnorm._BatchNorm, world: World, device: Device) -> nn.Module:
    """Return a batch norm with the parameters and statistics of `norm`."""
    made: nn.modules.batchnorm._BatchNorm
    if device == "cuda":
        made = nn.SyncBatchNorm(norm.num_features, norm.eps, norm.momentum or 0.0, device="meta")
    else:
        made = SyncedNorm(norm.num_features, norm.eps, norm.momentum, device="meta")
        made.world = world
    made.weight, made.bias = norm.weight, norm.bias
    made.running_mean, made.running_var = norm.running_mean, norm.running_var
    made.num_batches_tracked = None
    made.register_load_state_dict_post_hook(ignore_count)  # type: ignore[no-untyped-call]  # torch has no types here
    return made.train(norm.training)


class SyncedNorm(nn.modules.batchnorm._BatchNorm):
    """`nn.SyncBatchNorm`, which refuses the CPU, for every device. x: [N, C, ...]."""

    world: World

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any number of axes."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise by the batch of all processes in training, by the running statistics otherwise."""
        if not self.training:
            value: Tensor = super().forward(input)
            return value
        assert self.running_mean is not None
        assert self.running_var is not None
        momentum = self.momentum or 0.0
        normalised: Tensor = batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, momentum, self.eps, self.world
        )
        return normalised


class SyncedTiedNorm(BatchNorm):
    """Batch normalisation over all processes whose scale and bias belong to somebody else."""

    def __init__(self, norm: BatchNorm, world: World) -> None:
        super().__init__(norm.running_mean, norm.running_var, norm.eps, norm.momentum)
        self.world = world
        self.train(norm.training)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Normalise x: [N, C, ...] by the batch in training, by the running statistics otherwise."""
        if not self.training:
            return super().forward(x, weight, bias)
        normalised: Tensor = batch_norm(
            x, self.running_mean, self.running_var, weight, bias, self.momentum, self.eps, self.world
        )
        return normalised


class SyncedDropout(nn.Dropout):
    """Dropout that draws for the rows of all processes and takes those of this one."""

    def __init__(self, p: float, world: World) -> None:
        super().__init__(p)
        self.world = world

    def forward(self, input: Tensor) -> Tensor:
        """Drop elements of x: [N, ...]."""
        if not self.training:
            return input
        whole = torch.ones_like(input).repeat(self.world.size, *[1] * (input.ndim - 1))
        return input * F.dropout(whole, self.p)[self.world.rows]


@torch.compiler.disable  # type: ignore[untyped-decorator]  # torch has no types here
def batch_norm(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    momentum: float,
    eps: float,
    world: World,
) -> Tensor:
    """Normalise by the batch of all processes, and move the running statistics.

    The statistics of the processes are combined from their means and variances, which loses no digits:
    Chan et al., Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.

    Args:
        x: [N, C, ...]; the same number of elements in each process.
        running_mean: [C].
        running_var: [C].
        weight: [C].
        bias: [C].
        momentum: Share of the batch in the running statistics.
        eps: Added to the variance.
        world: The processes.
    """
    axes = [0, *range(2, x.ndim)]
    column = (1, -1, *[1] * (x.ndim - 2))
    wide = x.float()
    own = torch.stack(torch.var_mean(wide, axes, correction=0))
    slots = F.pad(own[None], (0, 0, 0, 0, world.rank, world.size - 1 - world.rank))
    variances, means = _Sum.apply(slots).unbind(1)  # type: ignore[no-untyped-call]  # torch has no types here
    mean = means.mean(0)
    variance = (variances + (means - mean).square()).mean(0)
    count = x.numel() // x.shape[1] * world.size
    with torch.no_grad():
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * (count / (count - 1)), momentum)
    scale = weight * (variance + eps).rsqrt()
    normalised: Tensor = wide * scale.view(column) + (bias - mean * scale).view(column)
    return normalised.to(x.dtype)


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous().clone()
        dist.all_reduce(gradient)
        return gradient
