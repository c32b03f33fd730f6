"""Local functions and inner graphs of a model: how large they are once calls are replaced by bodies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

from graftonnx.declarations import check_utf8, dense_size, shortened
from graftonnx.errors import ModelError
from graftonnx.graph import bodies
from graftonnx.limits import check, limits

DEFAULT_DOMAINS = ("", "ai.onnx")

Key = tuple[str, str, str]
"""Domain, name and overload of a function."""


def function_sizes(model: ModelProto) -> dict[Key, int]:
    """Return how many nodes each local function becomes once it is expanded.

    Raises:
        ModelError: If two have one name, one calls itself, or they call each other too deeply.
    """
    functions: dict[Key, FunctionProto] = {}
    for function in model.functions:
        check_utf8(function.name, function.domain, function.overload, *function.input, *function.output)
        key = _key(function)
        if key in functions:
            raise ModelError(f"its function '{shortened(function.name)}' is defined twice. Export it again.")
        functions[key] = function
    sizes: dict[Key, int] = {}
    most = limits()
    for start in functions:
        path: list[tuple[Key, Iterator[Key]]] = []
        if start not in sizes:
            path.append((start, iter(_calls(functions[start]))))
        while path:
            key, rest = path[-1]
            called = next((found for found in rest if found in functions and found not in sizes), None)
            if called is None:
                path.pop()
                sizes[key] = sum(sizes.get(found, 1) for found in _calls(functions[key]))
                check("nodes", sizes[key], f"the nodes of its function '{shortened(key[1])}', expanded, are")
                continue
            if any(called == above for above, _ in path):
                raise ModelError(f"its function '{shortened(called[1])}' calls itself. Export it again.")
            if len(path) >= most.depth:
                check("depth", len(path) + 1, "the depth of its functions that call functions is at least")
            path.append((called, iter(_calls(functions[called]))))
    return sizes


def function_bytes(model: ModelProto, sizes: Mapping[Key, int]) -> dict[Key, int]:
    """Return what the sparse tensors of local functions take, made dense, once the functions are expanded.

    Args:
        model: The model.
        sizes: Of its functions, each behind those that it calls.
    """
    functions = {_key(function): function for function in model.functions}
    found: dict[Key, int] = {}
    for key in sizes:
        nodes = list(_all_nodes(functions[key].node))
        found[key] = sum(dense_size(item.sparse_tensor) for node in nodes for item in node.attribute)
        found[key] += sum(found.get(_kind(node), 0) for node in nodes)
        found[key] += sum(dense_size(s) for node in nodes for g in _inner(node) for s in g.sparse_initializer)
    return found


def check_scopes(model: ModelProto, sizes: Mapping[Key, int]) -> None:
    """Refuse many graphs inside a graph of many names: onnx lists the names anew for each inner graph.

    Args:
        model: The model.
        sizes: Of its functions, each behind those that it calls; empty if they are expanded.

    Raises:
        ModelError: If there are too many.
    """
    functions = {_key(function): function for function in model.functions}
    found: dict[Key, int] = {}
    for key in sizes:
        found[key] = _listed(functions[key]) + sum(found.get(kind, 0) for kind in _calls(functions[key]))
    total = _listed(model.graph)
    if any(found.values()):
        total += sum(found.get(_kind(node), 0) for node in _all_nodes(model.graph.node))
    check("scopes", total, "the names that its graphs inside graphs can read, all of them together, are")


def _listed(graph: GraphProto | FunctionProto) -> int:
    """Return how many names the graphs inside a graph can read, each counted once for every such graph."""
    total = 0
    waiting = [(graph, 0)]
    while waiting:
        around, names = waiting.pop()
        inner = bodies(around)
        if inner:
            names += len(around.input) + sum(len(node.output) for node in around.node)
            names += len(around.initializer) if isinstance(around, GraphProto) else 0
            total += names * len(inner)
            waiting += [(body, names) for body in inner]
    return total


def _key(function: FunctionProto) -> Key:
    domain = "" if function.domain in DEFAULT_DOMAINS else function.domain
    return domain, function.name, function.overload


def _calls(function: FunctionProto) -> list[Key]:
    """Return what the nodes of a function and of its inner graphs are, and are called."""
    return [_kind(node) for node in _all_nodes(function.node)]


def _kind(node: NodeProto) -> Key:
    return "" if node.domain in DEFAULT_DOMAINS else node.domain, node.op_type, node.overload


def _all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    waiting = [nodes]
    while waiting:
        for node in waiting.pop():
            yield node
            waiting += [graph.node for graph in _inner(node)]


def _inner(node: NodeProto) -> list[GraphProto]:
    found: list[GraphProto] = []
    for item in node.attribute:
        if item.HasField("g"):
            found.append(item.g)
        found.extend(item.graphs)
    return found
