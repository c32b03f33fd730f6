"""Which weights learn at which rate: the branches by depth, the skips between them, and the head."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor, nn
from torch.fx import GraphModule, Node

from graftonnx import metadata
from graftonnx.conversion import onnx_name
from graftonnx.training.config import TrainConfig

Group = Literal["branches", "skips", "head"]
GROUPS: tuple[Group, ...] = ("branches", "skips", "head")

LEVELS = 12
"""Equal parts into which the depth of a branch is cut, as many as a base-size transformer has blocks."""


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
    norms = dict(branch_norms(network)) if config.freeze != "none" else {}
    for key, weight in network.named_parameters():
        of_norm = key.rpartition(".")[0] in norms
        kept = of_norm or (config.freeze == "branches" and group_of(key) == "branches")
        if kept or is_preprocessing(key):
            weight.requires_grad_(False)
    return list(norms.values())


def branch_norms(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the branches' modules that keep statistics, with their names."""
    return [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(getattr(module, "running_mean", None), Tensor)
        and group_of(f"{name}.running_mean") == "branches"
    ]


def levels(network: GraphModule) -> dict[str, int]:
    """Return how deep each trainable weight of the branches lies, in twelfths of its branch.

    The depth of an operator is the largest number of operators with weights on a path that ends with it.

    Returns:
        `state_dict` key -> 0 (at the image) ... 11 (at the head).
    """
    depths: dict[Node, int] = {}
    found: dict[str, int] = {}
    owners = owners_of(network, "branches")
    for node in network.graph.nodes:
        own = weights_of(node, owners)
        depths[node] = bool(own) + max((depths[source] for source in node.all_input_nodes), default=0)
        for key in own:
            found.setdefault(key, depths[node])
    deepest: dict[str, int] = {}
    for key, depth in found.items():
        branch = _branch(key)
        deepest[branch] = max(deepest.get(branch, 1), depth)
    return {key: (depth * LEVELS - 1) // deepest[_branch(key)] for key, depth in found.items()}


def owners_of(network: nn.Module, group: Group) -> dict[str, list[str]]:
    """Return the keys of a group's trainable weights by the names under which nodes refer to them.

    These are the key itself, and the module that holds the weight.
    """
    owners: dict[str, list[str]] = defaultdict(list)
    for key, weight in network.named_parameters():
        if weight.requires_grad and group_of(key) == group:
            owners[key.rpartition(".")[0]].append(key)
            owners[key].append(key)
    return owners


def weights_of(node: Node, owners: dict[str, list[str]]) -> list[str]:
    """Return the keys of the weights that a node computes with."""
    if node.op == "call_module":
        return owners.get(str(node.target), [])
    sources = (source for source in node.all_input_nodes if source.op == "get_attr")
    return [key for source in sources for key in owners.get(str(source.target), [])]


def _branch(key: str) -> str:
    return onnx_name(key).split("/", 1)[0]


def release(network: nn.Module, depths: dict[str, int], unfreeze: int, epoch: int) -> list[nn.Module]:
    """Let the branches' weights that are due learn, from the head backwards, and hold back the others.

    Args:
        network: Any network.
        depths: What :func:`levels` says of it.
        unfreeze: Epochs until all of them learn.
        epoch: The epoch that begins, counted from 0.

    Returns:
        The batch norms that are still held back.
    """
    due = LEVELS * (1 - epoch / unfreeze) if epoch < unfreeze else 0
    held: set[str] = set()
    for key, level in depths.items():
        learns = level >= due
        network.get_parameter(key).requires_grad_(learns)
        if not learns:
            held.add(key.rpartition(".")[0])
    return [module for name, module in branch_norms(network) if name in held]


def parameter_groups(
    network: nn.Module,
    depths: dict[str, int],
    config: TrainConfig,
    factors: Mapping[str, float] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Return the optimiser's groups: for each rate, of the branches, skips and head, those that decay or not.

    Biases and the scales of norms do not decay: everything with one axis longer than 1 at most.

    Args:
        network: After :func:`freeze`.
        depths: What :func:`levels` says of it.
        config: Rates and decays.
        factors: `state_dict` key -> by what the weight's rate is multiplied; 1 where nothing is said.
    """
    rates = {"branches": config.lr_branches, "skips": config.lr_skips, "head": config.lr_head}
    varied = config.layer_decay < 1
    members: dict[tuple[Group, float, bool], list[nn.Parameter]] = defaultdict(list)
    for key, weight in network.named_parameters():
        if weight.requires_grad:
            decays = weight.numel() > max(weight.shape, default=1)
            level = depths.get(key, LEVELS - 1) if varied else LEVELS - 1
            factor = factors.get(key, 1.0) * config.layer_decay ** (LEVELS - 1 - level)
            members[group_of(key), factor, decays].append(weight)
    return [
        {
            "name": group,
            "params": weights,
            "lr": rates[group] * factor,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (group, factor, decays), weights in sorted(members.items(), key=_order)
    ]


def _order(item: tuple[tuple[Group, float, bool], object]) -> tuple[int, float, bool]:
    """Sort groups: branches, skips, head; the fastest first; those that decay first."""
    (group, factor, decays), _ = item
    return GROUPS.index(group), -factor, not decays
