"""Shapes of every value, by onnx's shape inference with data propagation, on a skeleton."""

from __future__ import annotations

import re
from collections.abc import Collection

import onnx
from onnx import shape_inference

from graftonnx import limits
from graftonnx.errors import ModelError
from graftonnx.graph import bodies
from graftonnx.normalise.loops import loop_states
from graftonnx.remarks import carry

MOST_PASSES = 16
"""Times that shapes are inferred because of loops behind loops with shape arithmetic between them."""


def infer_shapes(model: onnx.ModelProto, kinds: Collection[str] | None = None) -> onnx.ModelProto:
    """Return the model with the shapes that follow from its input shapes; what stood there before is dropped.

    Args:
        model: A skeleton.
        kinds: The operators of its nodes, if they are known.

    Raises:
        ModelError: If an operator cannot work on the shapes it gets.
    """
    said = onnx.GraphProto(
        value_info=[value for value in model.graph.value_info if value.doc_string or value.metadata_props]
    )
    if kinds is None:
        kinds = {node.op_type for node in model.graph.node}
    _forget_shapes(model.graph, kinds)
    loops = "Loop" in kinds
    try:
        inferred = _inferred(model)
        for _ in range(MOST_PASSES if loops else 0):
            states = _untold(model, loop_states(inferred))
            if not states:
                break
            model.graph.value_info.extend(states)
            inferred = _inferred(model)
    except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise ModelError(f"its shapes do not fit together: {_first_reason(str(error))}") from error
    carry(said, inferred.graph)
    return inferred


def add_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the shapes of values that have none yet; what stands there stays."""
    return shape_inference.infer_shapes(model, data_prop=True)


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    with limits.bounded("onnx's shape inference"):
        return shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


def _untold(model: onnx.ModelProto, values: list[onnx.ValueInfoProto]) -> list[onnx.ValueInfoProto]:
    told = {value.name for value in model.graph.value_info}
    return [value for value in values if value.name not in told]


def _forget_shapes(
    graph: onnx.GraphProto, kinds: Collection[str] | None = None, *, inner: bool = False
) -> None:
    """Drop every shape but those of scalars, and of the main graph's inputs."""
    del graph.value_info[:]
    for value in (*graph.output, *(graph.input if inner else ())):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.ClearField("shape")
    for body in bodies(graph, kinds):
        _forget_shapes(body, inner=True)


def _first_reason(text: str) -> str:
    """Return the first of the errors that onnx lists, as one sentence; the others follow from it."""
    found = re.search(r"\(op_type:(\w+)(?:, node name: ([^)]*))?\): (?:\[\w+\] )?([^\n]*)", text)
    if found is None:
        return f"{' '.join(text.split()).rstrip('.')}."
    op_type, node, reason = found.groups()
    return f"{op_type} node '{node or '?'}': {reason.strip().rstrip('.')}."


def set_extents(model: onnx.ModelProto, name: str, extents: tuple[int | str, ...]) -> None:
    """Give the graph input `name` this shape; a word stands for an extent known at run time."""
    value = next(item for item in model.graph.input if item.name == name)
    shape = value.type.tensor_type.shape
    shape.ClearField("dim")
    for extent in extents:
        if isinstance(extent, str):
            shape.dim.add(dim_param=extent)
        else:
            shape.dim.add(dim_value=extent)
