"""How Lightning shares the work of a step among processes."""

from __future__ import annotations

from typing import Literal

from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from graftonnx.training.config import TrainConfig
from graftonnx.training.world import World

SHARD = 1 << 20
"""Weights from which on a layer is gathered and freed by itself; smaller ones go together."""


def make_strategy(world: World, config: TrainConfig) -> DDPStrategy | ModelParallelStrategy | Literal["auto"]:
    """Return the strategy of `config`; Lightning's own choice where one process trains."""
    if world.size == 1:
        return "auto"
    if config.strategy == "fsdp":
        return ModelParallelStrategy(world.size, 1, save_distributed_checkpoint=False)
    # Batch norms look at all processes: their statistics are the same everywhere, without a broadcast.
    return DDPStrategy(
        find_unused_parameters=bool(config.unfreeze), gradient_as_bucket_view=True, broadcast_buffers=False
    )


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Share the weights, gradients and optimiser state out among the processes of a mesh (FSDP2)."""
    for module in network.modules():
        own = sum(weight.numel() for weight in module.parameters(recurse=False))
        if module is not network and own >= SHARD:
            fully_shard(module, mesh=mesh)
    fully_shard(network, mesh=mesh)


def full_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the `state_dict` of a module with whole tensors; all processes must call this."""
    return {
        key: value.full_tensor() if isinstance(value, DTensor) else value
        for key, value in module.state_dict().items()
    }
