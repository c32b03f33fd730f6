"""What the values of a network take, before anybody allocates them."""

from __future__ import annotations

import math

import onnx
from onnx import GraphProto, numpy_helper, shape_inference

from graftonnx import limits
from graftonnx.declarations import shortened
from graftonnx.graph import bodies, is_stub, value_shapes
from graftonnx.shapes import Shape, spelled

GROWING = frozenset({"ConstantOfShape", "Expand", "Tile"})
"""Operators that make a large value of a small one, as their last input says."""


def check_sizes(model: onnx.ModelProto) -> None:
    """Refuse a network of which one value would not fit into memory.

    Args:
        model: A model or a skeleton, in any form; shapes that onnx cannot infer are not known.

    Raises:
        ModelError: Naming the first such value.
    """
    try:
        with limits.bounded("onnx's shape inference"):
            inferred = shape_inference.infer_shapes(model, data_prop=True)
    except (shape_inference.InferenceError, ValueError, RuntimeError):
        inferred = model
    check_shapes(value_shapes(inferred.graph))
    waiting = [inferred.graph]
    while waiting:
        graph = waiting.pop()
        _check_growing(graph)
        waiting += bodies(graph)


def check_shapes(shapes: dict[str, Shape]) -> None:
    """Refuse shapes of which one takes more than the limit, with extents that are open counted as 1.

    Raises:
        ModelError: Naming the first such value.
    """
    most = limits.limits().value // 4
    for name, shape in shapes.items():
        count = math.prod([extent for extent in shape if extent is not None])
        if count > most:
            limits.check(
                "value", 4 * count, f"the bytes of its value '{shortened(name)}' {spelled(shape)} are"
            )


def _check_growing(graph: GraphProto) -> None:
    tensors = {tensor.name: tensor for tensor in graph.initializer if not is_stub(tensor)}
    for node in graph.node:
        if node.op_type == "Constant":
            tensors.update((node.output[0], item.t) for item in node.attribute if item.HasField("t"))
        if node.op_type not in GROWING or not node.input or node.input[-1] not in tensors:
            continue
        wanted = numpy_helper.to_array(tensors[node.input[-1]])
        if wanted.dtype.kind not in "iu" or not wanted.size:
            continue
        count = math.prod(max(int(extent), 1) for extent in wanted.ravel())
        limits.check("value", 4 * count, f"the bytes of its value '{shortened(node.output[0])}' are at least")
