"""Which weights learn at which rate: the branches, the skips between them, and the head."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from graftonnx import metadata
from graftonnx.conversion import onnx_name
from graftonnx.training.config import TrainConfig

Group = Literal["branches", "skips", "head"]
GROUPS: tuple[Group, ...] = ("branches", "skips", "head")


def group_of(key: str) -> Group:
    """Return the group of a weight of the network, given its `state_dict` key."""
    prefix = onnx_name(key).split("/", 1)[0]
    if prefix == "skips":
        return "skips"
    return "head" if prefix == "head" else "branches"


def is_preprocessing(key: str) -> bool:
    """Tell whether a weight belongs to a branch's input normalisation, which is never trained."""
    return metadata.is_preprocessing(onnx_name(key))


def freeze(network: nn.Module, config: TrainConfig) -> list[nn.Module]:
    """Switch off the gradients of weights that stay as they are.

    Returns:
        The batch norms whose statistics stay as well; they must be kept in evaluation mode.
    """
    frozen = config.freeze == "branches"
    for key, weight in network.named_parameters():
        if is_preprocessing(key) or (frozen and group_of(key) == "branches"):
            weight.requires_grad_(False)
    if not frozen:
        return []
    return [
        module
        for name, module in network.named_modules()
        if isinstance(getattr(module, "running_mean", None), Tensor)
        and group_of(f"{name}.running_mean") == "branches"
    ]


def parameter_groups(network: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Return the optimiser's groups: for branches, skips and head one that decays and one that does not.

    Biases and the scales of norms do not decay: everything with one axis longer than 1 at most.
    """
    rates = {"branches": config.lr_branches, "skips": config.lr_skips, "head": config.lr_head}
    members: dict[tuple[Group, bool], list[nn.Parameter]] = {}
    for key, weight in network.named_parameters():
        if weight.requires_grad:
            decays = weight.numel() > max(weight.shape, default=1)
            members.setdefault((group_of(key), decays), []).append(weight)
    return [
        {
            "name": group,
            "params": members[group, decays],
            "lr": rates[group],
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for group in GROUPS
        for decays in (True, False)
        if (group, decays) in members
    ]
