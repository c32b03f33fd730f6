"""Names: every node has one of its own, and what is inserted takes none that is in use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from onnx import GraphProto

from graftonnx.graph import bodies


def name_nodes(graph: GraphProto, kinds: Collection[str] | None = None) -> None:
    """Give every node a name that no other node of its graph has, in place; names that are unique stay.

    Args:
        graph: The graph; those inside it are treated likewise.
        kinds: The operators of its nodes, if they are known.
    """
    taken = Counter([node.name for node in graph.node])
    if "" in taken or len(taken) < len(graph.node):
        for node in graph.node:
            if not node.name or taken[node.name] > 1:
                taken[node.name] -= 1
                node.name = fresh(node.name or next(filter(None, node.output), node.op_type), taken)
    for body in bodies(graph, kinds):
        name_nodes(body)


def fresh(name: str, taken: Counter[str]) -> str:
    """Return `name`, or `name` and a number, so that it is not `taken`; it is from now on."""
    found, count = name, 0
    while taken[found]:
        count += 1
        found = f"{name}_{count}"
    taken[found] += 1
    return found


def value_names(graph: GraphProto) -> Counter[str]:
    """Return the names that values and initializers of a graph have."""
    names = Counter(value.name for value in graph.input)
    names.update(tensor.name for tensor in graph.initializer)
    names.update(name for node in graph.node for name in node.output if name)
    return names
