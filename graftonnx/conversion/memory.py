"""Let activations overwrite what they activate, where nobody else needs it, as hand-written networks do."""

from __future__ import annotations

import operator

import torch
from torch import fx, nn
from torch.nn import functional as F

_ACTIVATIONS = frozenset({F.relu, F.relu6})
"""Functions whose backward needs their result alone."""

_FRESH_CALLS = frozenset(
    {F.conv1d, F.conv2d, F.conv3d, F.linear, F.batch_norm, torch.addmm, torch.matmul, torch.cat, operator.add}
)
"""Functions that return a new tensor and whose backward does not read it."""

_FRESH_LAYERS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.Linear,
)  # fmt: skip
"""Layers of which the same is true."""


def activate_in_place(graph: fx.Graph, root: nn.Module) -> None:
    """Make activations write into their input, where that is a layer's result that nothing else reads.

    Before: `y = conv(x); z = relu(y)`. After: `y = conv(x); z = relu(y, inplace=True)`.
    """
    for node in graph.nodes:
        if node.op != "call_function" or node.target not in _ACTIVATIONS:
            continue
        (source, *_) = node.args
        if isinstance(source, fx.Node) and len(source.users) == 1 and _is_fresh(source, root):
            node.kwargs = {**node.kwargs, "inplace": True}


def _is_fresh(node: fx.Node, root: nn.Module) -> bool:
    if node.op == "call_module":
        return isinstance(root.get_submodule(str(node.target)), _FRESH_LAYERS)
    if node.op != "call_function" or node.target not in _FRESH_CALLS:
        return False
    operands = [a for a in node.args if isinstance(a, fx.Node)]
    return node.target is not operator.add or len(operands) == 2
