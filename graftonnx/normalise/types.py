"""The element types of values."""

from __future__ import annotations

import onnx


def element_types(graph: onnx.GraphProto) -> dict[str, int]:
    """Return the element type of every value that is known to be a tensor."""
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        if value.type.tensor_type.elem_type:
            types[value.name] = value.type.tensor_type.elem_type
    return types
