"""What each branch says on its own: the head's answer to its feature, with nothing from the others.

    f_a ─┐                        [f_a, f_b] ─┐
    f_b ─┴─ join ─ head           [2 f_a, 0] ─┼─ head, once over all rows ─ logits, and those of a and of b
                     becomes      [0, 2 f_b] ─┘

Trained jointly, the branch that learns fastest takes the head over, and the others stop learning (Wang et
al., "What makes training multi-modal classification networks hard?", arXiv 1905.12681; Lee et al.,
"Deeply-supervised nets", arXiv 1409.5185). A loss on each branch's own answer keeps all of them at work. It
needs no weights: the head that joins them is asked. With a head without a hidden layer the logits are the
mean of the branches' own.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from graftonnx.conversion.builder import VALUE
from graftonnx.conversion.converted import ConvertedModule
from graftonnx.headfiles import JOINED


def answering_alone(network: GraphModule) -> GraphModule | None:
    """Return a network that answers for each branch as well; it has the same weights, not copies of them.

    Args:
        network: A fused one, as :func:`graftonnx.to_torch` makes it, whose head joins its branches' features
            side by side or adds them.

    Returns:
        A module from images to logits [(1 + B) N, K] of B branches: first the network's own, then those of
        branch a alone, then of b, and so on; None where nothing is joined: one branch alone, attention, or a
        head of its user's.
    """
    graph = Graph()
    copies: dict[Node, Node] = {}
    output = graph.graph_copy(network.graph, copies)
    joint = next((node for node in graph.nodes if node.meta.get(VALUE) == JOINED), None)
    if joint is None:
        return None
    vectors = _vectors(joint)
    if len(vectors) < 2:
        return None
    with graph.inserting_after(joint):
        rows = graph.call_function(alone, (joint, vectors, joint.target is torch.cat))
    joint.replace_all_uses_with(rows, delete_user_cb=lambda user: user is not rows)
    graph.output(output)
    return ConvertedModule(network, graph)


def _vectors(joint: Node) -> list[Node]:
    """Return the branches' vectors that a node joins; none if it does so in another way."""
    if joint.target is torch.cat:
        return list(joint.args[0])  # type: ignore[arg-type]
    if joint.target is operator.add:
        parts: list[Node] = []
        for source in joint.all_input_nodes:
            partial = source.target is operator.add and VALUE not in source.meta
            parts += _vectors(source) if partial else [source]
        return parts
    return []


def alone(joined: Tensor, vectors: Sequence[Tensor], side_by_side: bool) -> Tensor:
    """Put the branches' vectors, each without the others, below what was joined from all.

    Args:
        joined: [N, C].
        vectors: B of them, [N, C_i]; C is the sum of the C_i, or equal to each of them.
        side_by_side: Which of the two.

    Returns:
        [(1 + B) N, C]. A vector that stands alone counts B times, so that the rows' mean is what was joined.
    """
    rows, before = [joined], 0
    for vector in vectors:
        row = vector * len(vectors)
        if side_by_side:
            width = vector.shape[1]
            row = F.pad(row, (before, joined.shape[1] - before - width))
            before += width
        rows.append(row)
    return torch.cat(rows)
