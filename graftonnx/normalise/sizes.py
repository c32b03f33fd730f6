"""What the values of a network take, before anybody allocates them."""

from __future__ import annotations

import math

import onnx
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper, shape_inference

from graftonnx import limits
from graftonnx.declarations import shortened
from graftonnx.errors import ModelError
from graftonnx.graph import ints, is_stub, subgraphs, value_shapes
from graftonnx.shapes import Shape, spelled

GROWING = frozenset({"ConstantOfShape", "Expand", "Tile"})
"""Operators that make a large value of a small one, as their last input says."""

RANDOM = frozenset({"RandomNormal", "RandomUniform"})
"""Operators that make a value of an attribute `shape`."""


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
    check_growth(inferred.graph)


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


def check_growth(graph: GraphProto) -> None:
    """Refuse nodes that make a large value of a small one, and loops that take too many steps or never end.

    Raises:
        ModelError: Naming the first such node.
    """
    waiting = [(graph, 1)]
    while waiting:
        current, times = waiting.pop()
        tensors = _constants(current)
        _check_growing(current, tensors)
        for node in current.node:
            steps = times * (_steps(node, tensors) if node.op_type == "Loop" else 1)
            if steps > 1:
                where = f"the steps of its loop '{shortened(node.name or node.output[0])}' are"
                limits.check("steps", steps, where)
            waiting += [(body, steps) for body in subgraphs(node)]


def _constants(graph: GraphProto) -> dict[str, TensorProto]:
    """Return the small constants of a graph."""
    tensors = {tensor.name: tensor for tensor in graph.initializer if not is_stub(tensor)}
    for node in graph.node:
        if node.op_type == "Constant":
            tensors.update((node.output[0], item.t) for item in node.attribute if item.HasField("t"))
    return tensors


def _steps(node: NodeProto, tensors: dict[str, TensorProto]) -> int:
    """Return how many steps a loop takes, as far as the file says; 1 where that depends on data.

    Raises:
        ModelError: If it never ends.
    """
    given = _first(tensors.get(node.input[0]))
    body = next((item.g for item in node.attribute if item.name == "body"), None)
    if node.input[0] or body is None or not body.output:
        return max(1, int(given or 0))
    makers = {name: child for child in body.node for name in child.output if name}
    going = body.output[0].name
    while going in makers and makers[going].op_type == "Identity":
        going = makers.pop(going).input[0]
    begins = _first(tensors.get(node.input[1])) if len(node.input) > 1 and node.input[1] else True
    passed = going in {value.name for value in body.input}
    if begins is not False and (passed or _first(_constants(body).get(going) or tensors.get(going))):
        raise ModelError(
            f"its loop '{shortened(node.name or node.output[0])}' has no number of steps, and its condition "
            "never changes: it does not end."
        )
    return 1


def _first(tensor: TensorProto | None) -> int | bool | None:
    """Return the first element of a constant of integers or truth values; None if it is none."""
    if tensor is None:
        return None
    array = numpy_helper.to_array(tensor)
    if array.dtype.kind not in "iub" or not array.size:
        return None
    element: int | bool = array.ravel()[0].item()
    return element


def _check_growing(graph: GraphProto, tensors: dict[str, TensorProto]) -> None:
    for node in graph.node:
        if node.op_type in RANDOM:
            extents = ints(node, "shape")
        elif node.op_type in GROWING and node.input and node.input[-1] in tensors:
            wanted = numpy_helper.to_array(tensors[node.input[-1]])
            extents = tuple(wanted.ravel().tolist()) if wanted.dtype.kind in "iu" else ()
        else:
            continue
        count = math.prod(max(extent, 1) for extent in extents)
        limits.check("value", 4 * count, f"the bytes of its value '{shortened(node.output[0])}' are at least")
