"""What the values of a network take, before anybody allocates them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx

from graftonnx.graph import reads, value_shapes
from graftonnx.normalise.divisions import check_divisions, divides
from graftonnx.normalise.growth import check_growth, check_shapes
from graftonnx.normalise.opset import inline_functions
from graftonnx.normalise.probing import inferred, probe

ELEMENT = 4
"""Bytes of an element."""


@dataclass(frozen=True)
class Sizes:
    """What the values take that a network computes of one input; what is not known counts as the largest.

    Attributes:
        largest: Bytes of the largest one.
        total: Bytes of all of them.
    """

    largest: int
    total: int


def check_sizes(model: onnx.ModelProto, size: tuple[int, ...] | None = None) -> Sizes:
    """Refuse a network of which a value would not fit into memory, a loop not end or a division fail.

    Args:
        model: A model or a skeleton, in any form; shapes that onnx cannot infer are not known.
        size: The extents of images whose file leaves them open.

    Raises:
        ModelError: Naming the first such value, loop or division.
    """
    if any(divides(function) for function in model.functions):
        model = inline_functions(model)
    known = inferred(probe(model, size))
    check_divisions(known)
    check_shapes(value_shapes(known.graph))
    check_growth(model, size)
    held = {tensor.name for tensor in (*model.graph.initializer, *known.graph.initializer)}
    held |= {sparse.values.name for sparse in model.graph.sparse_initializer}
    return _sizes(known.graph, held)


def _sizes(graph: onnx.GraphProto, held: set[str]) -> Sizes:
    """Return what the values take that depend on the input; the file holds the others."""
    shapes = value_shapes(graph)
    values = [value.name for value in graph.input if value.name not in held]
    found = set(values)
    for node in graph.node:
        if not found.isdisjoint(reads(node)):
            made = [name for name in node.output if name]
            values += made
            found.update(made)
    counts = [
        math.prod(extent for extent in shapes[name] if extent is not None) if name in shapes else None
        for name in values
    ]
    largest = max((count for count in counts if count is not None), default=1)
    return Sizes(ELEMENT * largest, ELEMENT * sum(largest if count is None else count for count in counts))
