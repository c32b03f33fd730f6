"""How fast each skip may learn: what it reads may be of another order of magnitude than what it adds to.

A step of an adaptive optimiser moves every weight by about the learning rate, however small its gradient is;
so it moves the sum behind a skip by the rate times what the skip reads. Activations of one network can be two
hundred times those of another (SqueezeNet's beside Inception's): the first steps of such a skip would drown
what its target says. Its rate is therefore multiplied by

    min(1, rms(target) / rms(source))

and by the square of that where the step grows with the gradient (SGD), which itself grows with the source.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from graftonnx.conversion.builder import VALUE
from graftonnx.training.config import TrainConfig
from graftonnx.training.finetuner import planes
from graftonnx.training.groups import owners_of, weights_of

BATCH = 8
"""Images that go through the network at once."""

DIGITS = 4
"""Significant digits of a rate: it is stored, and a run that goes on learns at the same one."""


def skip_rates(network: GraphModule, pixels: NDArray[np.uint8], config: TrainConfig) -> dict[str, float]:
    """Measure by what the learning rate of each skip's projection is multiplied.

    Args:
        network: A fused one, as :func:`graftonnx.to_torch` makes it.
        pixels: Some training images, uint8 [N, H, W, 3].
        config: Says which optimiser moves the weights.

    Returns:
        `state_dict` key of every trainable weight of the skips -> a factor of at most 1.
    """
    found = list(_skips(network))
    if not found:
        return {}
    squares = _mean_squares(network, pixels, {node for _, *nodes in found for node in nodes})
    power = 1.0 if config.optimizer == "sgd" else 0.5
    rates: dict[str, float] = {}
    for key, source, total in found:
        ratio = squares[total] / squares[source] if squares[source] > 0 else 1.0
        rates[key] = float(f"{min(1.0, ratio) ** power:.{DIGITS}g}")
    return rates


def _skips(network: GraphModule) -> Iterable[tuple[str, Node, Node]]:
    """Yield the key of each projection's weight, the node it reads, and the sum that it goes into."""
    owners = owners_of(network, "skips")
    for node in network.graph.nodes:
        for key in weights_of(node, owners):
            sources = [source for source in node.all_input_nodes if source.op != "get_attr"]
            total = _total(node)
            if sources and total is not None:
                yield key, sources[0], total


def _total(node: Node) -> Node | None:
    """Return the sum in front of the target's readers; None where a hook has taken it away."""
    while not str(node.meta.get(VALUE, "")).endswith("/sum"):
        if not node.users:
            return None
        node = next(iter(node.users))
    return node


def _mean_squares(network: GraphModule, pixels: NDArray[np.uint8], nodes: set[Node]) -> dict[Node, float]:
    """Return the mean square of what each node gives for the images."""
    squares: dict[Node, float] = defaultdict(float)

    class Measuring(Interpreter):
        def run_node(self, node: Node) -> Any:
            result = super().run_node(node)
            if node in nodes:
                squares[node] += float(result.float().pow(2).mean()) * len(result) / len(pixels)
            return result

    device = next(network.parameters()).device
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(pixels), BATCH):
                batch: Tensor = planes(torch.from_numpy(pixels[start : start + BATCH]).to(device))
                Measuring(network).run(batch)
    finally:
        network.train(training)
    return squares
