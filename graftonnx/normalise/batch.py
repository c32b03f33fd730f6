"""Free the batch extent that old exporters baked into the targets of `Reshape` and the operands of `Concat`.

The batch is followed through the graph as an axis: it starts as axis 0 of the input, moves with `Transpose`,
and merges with its neighbour in a `Reshape`, where it stays the outer one. A constant target then gets -1 at
that axis, and a constant that is concatenated to a batch (a class token) is expanded to it. Whether the
result is right is proven later, by running it with batch 1 and batch 3.
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from graftonnx.graph import GraphView, integer, ints, sort_nodes
from graftonnx.normalise.constants import replace
from graftonnx.weights import Weights, add_initializer


def may_fix_batch(graph: onnx.GraphProto) -> bool:
    """Return whether there is anything for :func:`free_batch`: a constant target or a constant operand."""
    constant = {tensor.name for tensor in graph.initializer}
    return any(
        node.op_type in ("Reshape", "Concat") and not constant.isdisjoint(node.input) for node in graph.node
    )


def free_batch(model: onnx.ModelProto, weights: Weights, name: str) -> int:
    """Make constant `Reshape` targets independent of the batch, in place.

    Args:
        model: A skeleton whose shapes were inferred with batch 1.
        weights: The large tensors of the model.
        name: The image input.

    Returns:
        The number of targets and operands that were rewritten.
    """
    view = GraphView(model.graph)
    first = len(model.graph.node)
    axis: dict[str, int] = {name: 0}
    rewritten = 0
    for node in view.nodes:
        carrier = next((item for item in node.input if item in axis), None)
        if carrier is None:
            continue
        position = axis[carrier]
        if node.op_type == "Shape":
            continue
        if node.op_type == "Transpose":
            position = ints(node, "perm").index(position)
        elif node.op_type == "Reshape" and node.input[0] == carrier:
            source, target = view.shapes.get(carrier), view.shapes.get(node.output[0])
            if source is None or target is None or None in source or None in target:
                continue
            position = _carried([s or 0 for s in source], [t or 0 for t in target], position)
            rewritten += _free_target(model, weights, view, node, position)
        elif node.op_type == "Concat":
            for index, operand in enumerate(node.input):
                if operand not in axis:
                    rewritten += _expand_operand(model, weights, view, node, index, carrier, position)
        for output in node.output:
            axis[output] = position
    if len(model.graph.node) > first:
        replace(model.graph.node, sort_nodes(model.graph.node))
    return rewritten


def _carried(source: list[int], target: list[int], position: int) -> int:
    """Return the axis of `target` that holds the batch, which is axis `position` of `source`."""
    outer = math.prod(source[:position])
    return next((axis for axis in range(len(target)) if math.prod(target[:axis]) == outer), 0)


def _free_target(
    model: onnx.ModelProto, weights: Weights, view: GraphView, node: onnx.NodeProto, position: int
) -> int:
    given = view.constant(node.input[1])
    shape = view.shapes[node.output[0]]
    if given is None or position >= len(shape):
        return 0
    freed = [-1 if index == position else int(extent or 0) for index, extent in enumerate(shape)]
    if [int(extent) for extent in given.ravel()] == freed:
        return 0
    target = f"{node.output[0]}/free_batch"
    add_initializer(model, weights, target, np.array(freed, dtype=np.int64))
    replace(node.input, [node.input[0], target])
    replace(node.attribute, [item for item in node.attribute if item.name != "allowzero"])
    return 1


def _expand_operand(
    model: onnx.ModelProto,
    weights: Weights,
    view: GraphView,
    node: onnx.NodeProto,
    index: int,
    carrier: str,
    position: int,
) -> int:
    """Expand a batchless operand of a Concat to the batch of its neighbour `carrier`.

    constant ─ Concat     becomes     constant ─ Expand(1, …, batch, …, 1) ─ Concat
    """
    operand = node.input[index]
    shape = view.shapes.get(operand)
    if shape is None or position >= len(shape) or shape[position] != 1:
        return 0
    if integer(node, "axis", 0) % len(shape) == position:
        return 0
    name = f"{node.output[0]}/expand{index}"
    before, after = f"{name}/before", f"{name}/after"
    add_initializer(model, weights, before, np.ones(position, np.int64))
    add_initializer(model, weights, after, np.ones(len(shape) - position - 1, np.int64))
    model.graph.node.extend(
        [
            onnx.helper.make_node(
                "Shape", [carrier], [f"{name}/batch"], name=f"{name}/batch", start=position, end=position + 1
            ),
            onnx.helper.make_node(
                "Concat", [before, f"{name}/batch", after], [f"{name}/target"], name=f"{name}/target", axis=0
            ),
            onnx.helper.make_node("Expand", [operand, f"{name}/target"], [name], name=name),
        ]
    )
    node.input[index] = name
    return 1
