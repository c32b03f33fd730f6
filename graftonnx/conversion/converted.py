"""The class of converted modules: an fx GraphModule that survives pickling whole."""

from __future__ import annotations

import linecache
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, cast

from torch import fx, nn
from torch.fx import graph_module
from torch.fx.graph import PythonCode
from torch.fx.node import map_aggregate


@dataclass(frozen=True)
class _Reference:
    """Stands for the node of this name."""

    name: str


class ConvertedModule(fx.GraphModule):
    """A module whose graph, with everything noted at its nodes, is pickled as it is.

    `fx.GraphModule` pickles its code and traces that again, which forgets names and notes, and fails where
    code decides by extents.
    """

    def recompile(self) -> PythonCode:
        """Make `forward` of the graph; its source is forgotten with the module, not with the process."""
        made = super().recompile()
        forward = cast("FunctionType", type(self).forward)
        weakref.finalize(self, _forget, forward.__code__.co_filename).atexit = False
        return made

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Return how to build the module again: its attributes, and its nodes as plain records."""
        state = self.__dict__.copy()
        graph: fx.Graph = state.pop("_graph")
        return _restored, (state, [_record(node) for node in graph.nodes])


def _forget(file: str) -> None:
    """Drop the source of a `forward` that is no more, which fx keeps for tracebacks in two places."""
    linecache.cache.pop(file, None)
    graph_module._loader.eval_cache.pop(file, None)


def _record(node: fx.Node) -> tuple[Any, ...]:
    def referred(argument: Any) -> Any:
        return _Reference(argument.name) if isinstance(argument, fx.Node) else argument

    args, kwargs = map_aggregate((node.args, node.kwargs), referred)
    return node.op, node.target, args, kwargs, node.name, dict(node.meta)


def _restored(state: dict[str, Any], records: list[tuple[Any, ...]]) -> ConvertedModule:
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}

    def resolved(argument: Any) -> Any:
        return nodes[argument.name] if isinstance(argument, _Reference) else argument

    for op, target, args, kwargs, name, meta in records:
        new_args, new_kwargs = map_aggregate((args, kwargs), resolved)
        node = graph.create_node(op, target, new_args, new_kwargs, name=name)
        node.meta.update(meta)
        nodes[name] = node
    module = ConvertedModule(nn.Module(), fx.Graph())
    module.__dict__.update(state)
    module.graph = graph
    return module
