"""Which float tensors of a file are no weights: settings of operators, and numbers of formulas."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable

from onnx import GraphProto, ModelProto, NodeProto

from graftonnx.graph import reads, subgraphs

_ARITHMETIC = frozenset({"Add", "Div", "Expand", "Max", "Mean", "Min", "Mul", "Pow", "Sub", "Sum", "Where"})
"""Operators by which an exporter writes what a program computes with a number."""

_SETTINGS: dict[str, tuple[int, ...]] = {
    "Clip": (1, 2),
    "Dropout": (1, 2),
    "Pad": (2,),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
}
"""Operator -> its float inputs that steer it; no gradient flows into them."""

_MOVES = frozenset(
    {"Cast", "Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze"}
)
"""Operators of which exporters build settings."""

_KIND = "pkg.torch.export.graph_signature.InputSpec.kind"
_SIGNATURE = "pkg.torch.export.ExportedProgram.graph_signature"
_FOLDED = "pkg.onnxscript.optimizer.folded_from"


def steering(nodes: Iterable[NodeProto], outputs: Iterable[str]) -> frozenset[str]:
    """Return the names of the values that reach settings of operators, and nothing else.

    `scales = Concat(ones, factors); y = Resize(x, , scales)` gives `ones`, `factors` and `scales`.

    Args:
        nodes: In topological order.
        outputs: Names of the graph's outputs.
    """
    found: set[str] = set()
    others = set(outputs)
    for node in reversed(list(nodes)):
        moves = node.op_type in _MOVES and found.issuperset(node.output)
        settings = _SETTINGS.get(node.op_type, ())
        for index, name in enumerate(node.input):
            (found if moves or index in settings else others).add(name)
        others.update(name for graph in subgraphs(node) for child in graph.node for name in reads(child))
        others.update(value.name for graph in subgraphs(node) for value in graph.output)
        found -= others
    return frozenset(found)


def scalars(model: ModelProto) -> frozenset[str]:
    """Return the initializers of one element that are numbers of a formula, and no weights.

    PyTorch's dynamo exporter keeps the numbers of a program as initializers, but says which of them it made
    of parameters. Those, and what it computed from them, are weights, and so is what has dimensions and no
    note. Where a file says nothing, none is a number for sure; and what another operator than plain
    arithmetic reads is a weight, such as the slope of PRelu.
    """
    graph = model.graph
    parameters, kinds = _stated(graph)
    if not kinds:
        return frozenset()
    readers: dict[str, set[str]] = defaultdict(set)
    for node in graph.node:
        for name in reads(node):
            readers[name].add(node.op_type)
    return frozenset(
        tensor.name
        for tensor in graph.initializer
        if math.prod(tensor.dims) == 1
        and readers[tensor.name] <= _ARITHMETIC
        and tensor.name not in parameters
        and (not tensor.dims or tensor.name in kinds)
    )


def _stated(graph: GraphProto) -> tuple[set[str], set[str]]:
    """Return the initializers that were parameters or come from them, and all whose kind the file tells."""
    notes = {value.name: {p.key: p.value for p in value.metadata_props} for value in graph.value_info}
    kinds = {name: note[_KIND] for name, note in notes.items() if _KIND in note}
    parameters = {name for name, kind in kinds.items() if kind == "PARAMETER"}
    for prop in graph.metadata_props:
        if prop.key == _SIGNATURE:
            parameters.update(re.findall(r"PARAMETER target='([^']*)'", prop.value))
    for name, note in notes.items():
        if parameters.intersection(re.findall(r"'([^']*)'", note.get(_FOLDED, ""))):
            parameters.add(name)
    return parameters, set(kinds)
