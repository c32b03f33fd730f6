"""Free the extents that exporters baked into the targets of `Reshape`, so that the input can change its size.

Source and target of a reshape are split into the smallest groups of axes with equal products. An axis that is
kept, or the product of several, is then read from the source; an axis that is split keeps its constants.

    x ─ Reshape(-1, 4, 34, 28, 28)     becomes     x ─ Reshape(Concat(-1, 4, 34, Shape(x)[2], Shape(x)[3]))

Constant folding turns the arithmetic into constants again, once the new size is known.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto

from graftonnx.graph import GraphView, sort_nodes
from graftonnx.normalise.constants import replace
from graftonnx.normalise.names import fresh, value_names
from graftonnx.shapes import Shape
from graftonnx.weights import Weights, add_initializer

Recipe = int | tuple[int, ...]
"""An extent of a target: a number, or the axes of the source whose product it is."""


def free_extents(model: onnx.ModelProto, weights: Weights) -> None:
    """Make constant `Reshape` targets follow the shape of what is reshaped, in place.

    Args:
        model: A skeleton whose shapes were inferred; the batch, and nothing else, is unknown.
        weights: The large tensors of the model.
    """
    view, taken = GraphView(model.graph), value_names(model.graph)
    added: list[NodeProto] = []
    for node in view.nodes:
        if node.op_type != "Reshape" or view.constant(node.input[1]) is None:
            continue
        source, target = view.shapes.get(node.input[0]), view.shapes.get(node.output[0])
        recipe = follow(source, target) if source is not None and target is not None else None
        if recipe is None or not any(isinstance(part, tuple) for part in recipe):
            continue
        name = fresh(f"{node.output[0]}/extents", taken)
        added += _arithmetic(model, weights, node.input[0], recipe, name)
        replace(node.input, [node.input[0], name])
        replace(node.attribute, [item for item in node.attribute if item.name != "allowzero"])
    replace(model.graph.node, sort_nodes([*view.nodes, *added]))


def follow(source: Shape, target: Shape) -> list[Recipe] | None:
    """Return how the extents of a reshape's target follow from its source; None if the batch was merged.

    Args:
        source: Its shape, None for the batch.
        target: Likewise.
    """
    if source.count(None) != 1 or target.count(None) != 1:
        return None
    at, to = source.index(None), target.index(None)
    left = _groups(source[:at], target[:to], 0)
    right = _groups(source[at + 1 :], target[to + 1 :], at + 1)
    return None if left is None or right is None else [*left, -1, *right]


def _groups(source: Shape, target: Shape, first: int) -> list[Recipe] | None:
    """Return the recipe of axes without a batch; `first` is the number of the first source axis."""
    known, wanted = [extent or 0 for extent in source], [extent or 0 for extent in target]
    if math.prod(known) != math.prod(wanted) or 0 in known:
        return None
    recipe: list[Recipe] = []
    i = j = 0
    while j < len(wanted):
        start, begin, taken, made = i, j, 1, wanted[j]
        j += 1
        while taken != made:
            if taken < made:
                taken *= known[i]
                i += 1
            else:
                made *= wanted[j]
                j += 1
        if j - begin == 1 and i > start:
            recipe.append(tuple(range(first + start, first + i)))
        else:
            recipe += wanted[begin:j]
    return recipe


def _arithmetic(
    model: onnx.ModelProto, weights: Weights, source: str, recipe: list[Recipe], name: str
) -> list[NodeProto]:
    """Return nodes that compute the value `name`, a target for a reshape of `source`."""
    nodes: list[NodeProto] = []
    parts: list[str] = []

    def node(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(onnx.helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    for index, part in enumerate(recipe):
        if isinstance(part, int):
            add_initializer(model, weights, f"{name}/{index}", np.array([part], np.int64))
            parts.append(f"{name}/{index}")
            continue
        factors = [
            node("Shape", [source], f"{name}/{index}/{axis}", start=axis, end=axis + 1) for axis in part
        ]
        product = factors[0]
        for count, factor in enumerate(factors[1:]):
            product = node("Mul", [product, factor], f"{name}/{index}/product{count}")
        parts.append(product)
    node("Concat", parts, name, axis=0)
    return nodes
