"""What the values of a network are at the size at which it runs: a copy with fixed extents, folded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx
from onnx import (
    GraphProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    compose,
    defs,
    numpy_helper,
    shape_inference,
)

from graftonnx import limits
from graftonnx.fragility import MOST_AXES
from graftonnx.graph import bodies, is_stub, stated_shape, subgraphs, value_shapes
from graftonnx.normalise.computing import Work
from graftonnx.normalise.constants import fold, replace
from graftonnx.normalise.loops import outer_values
from graftonnx.shapes import Shape
from graftonnx.weights import Weights

SUITED = {1: (16_000,), 2: (224, 224), 3: (16, 112, 112)}
"""The extents at which a network is looked at whose file leaves them open, by their number."""

SMALL = 1 << 12
"""Elements of a constant that may decide about a shape."""

SETTINGS = frozenset(
    {TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL}
    | {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
)
"""Types of inputs that may say how large a value is; who runs the network chooses these numbers."""

CHOOSING = frozenset({"NonZero", "Compress", "Unique"})
"""Operators that choose some of the elements they are given."""

BUDGET = 1 << 24
"""Bytes that a probe may compute."""

MOST_PASSES = 16
"""Times that shapes are inferred because of constants that were computed; real networks need three."""


def probe(model: onnx.ModelProto, size: tuple[int, ...] | None = None) -> onnx.ModelProto:
    """Return a light copy of a model in which every input has a fixed shape; what was inferred is dropped.

    Args:
        model: A model or a skeleton, in any form.
        size: The extents of images whose file leaves them open.
    """
    copy = _without_large(model)
    held = {tensor.name for tensor in (*copy.graph.initializer, *model.graph.initializer)}
    for value in copy.graph.input:
        if value.name not in held:
            _fix(value, size)
    _forget(copy.graph)
    settings = [value for value in copy.graph.input if value.name not in held and _is_setting(value)]
    copy.graph.initializer.extend(map(_ones, settings))
    return copy


def settled(model: onnx.ModelProto, work: Work) -> onnx.ModelProto:
    """Return a probe with all shapes that follow, and what depends on them computed while there is work."""
    weights: Weights = {}
    model = inferred(model)
    for _ in range(MOST_PASSES):
        folded = fold(model, weights, budget=BUDGET, work=work)
        if not (folded or _choose_branches(model.graph) or _bound(model.graph)):
            break
        model = inferred(model)
    return model


def inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with what onnx knows of its shapes; where operators contradict it, that is little."""
    try:
        with limits.bounded("onnx's shape inference"):
            return shape_inference.infer_shapes(model, data_prop=True)
    except (shape_inference.InferenceError, ValueError, RuntimeError):
        return model


class Around(NamedTuple):
    """What graphs inside a graph may read of it.

    Attributes:
        model: The graph, settled.
        values: Every value with a type.
        tensors: Its small constants.
    """

    model: onnx.ModelProto
    values: dict[str, ValueInfoProto]
    tensors: dict[str, TensorProto]


def around(model: onnx.ModelProto) -> Around:
    """Return what graphs inside the graph of a settled model may read."""
    graph = model.graph
    values = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
    values |= {tensor.name: _declared(tensor) for tensor in graph.initializer}
    return Around(model, values, {t.name: t for t in graph.initializer if not _is_large(t)})


def body_probe(
    outside: Around,
    node: NodeProto,
    body: GraphProto,
    steps: int,
    states: Sequence[Shape | None] = (),
) -> onnx.ModelProto:
    """Return a probe of a graph inside a node.

    Args:
        outside: The graph around it.
        node: That holds it.
        body: The graph.
        steps: How often it runs; the number of a step is taken as the last one.
        states: The shapes of a loop's states in front of the step; by default those in front of the first.
    """
    model, known, tensors = outside
    found = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    found.graph.CopyFrom(body)
    for name in outer_values(body):
        if name in tensors:
            found.graph.initializer.add().CopyFrom(tensors[name])
        else:
            found.graph.input.add().CopyFrom(known.get(name, ValueInfoProto(name=name)))
    if node.op_type == "Loop" and body.input:
        for state, source in zip(found.graph.input[2 : len(body.input)], node.input[2:], strict=False):
            if source in known:
                state.type.CopyFrom(known[source].type)
        for state, shape in zip(found.graph.input[2 : len(body.input)], states, strict=False):
            if shape is not None:
                kind = state.type.tensor_type.elem_type
                state.CopyFrom(onnx.helper.make_tensor_value_info(state.name, kind, shape))
        found.graph.initializer.append(numpy_helper.from_array(np.array(steps), body.input[0].name))
    return found


def _without_large(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which large initializers are inputs of their type."""
    copy = onnx.ModelProto(ir_version=max(model.ir_version, 4), opset_import=model.opset_import)
    graph = model.graph
    copy.graph.name = graph.name
    copy.functions.extend(model.functions)
    copy.graph.node.extend(graph.node)
    copy.graph.output.extend(graph.output)
    copy.graph.value_info.extend(graph.value_info)
    large = [tensor for tensor in graph.initializer if _is_large(tensor)]
    names = {tensor.name for tensor in large}
    copy.graph.initializer.extend(t for t in graph.initializer if t.name not in names)
    copy.graph.input.extend(value for value in graph.input if value.name not in names)
    copy.graph.input.extend(map(_declared, large))
    for sparse in graph.sparse_initializer:
        kind = TensorProto(name=sparse.values.name, data_type=sparse.values.data_type, dims=sparse.dims)
        copy.graph.input.append(_declared(kind))
    return copy


def _is_large(tensor: TensorProto) -> bool:
    return is_stub(tensor) or math.prod(tensor.dims) > SMALL


def _declared(tensor: TensorProto) -> ValueInfoProto:
    return onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)


def _fix(value: ValueInfoProto, size: tuple[int, ...] | None) -> None:
    """Fix the open extents of an input: one image, or sound, or clip, of the size that suits it."""
    dims = value.type.tensor_type.shape.dim
    is_last = len(dims) == 4 and dims[3].dim_value in (1, 3, 4) and dims[1].dim_value not in (1, 3, 4)
    first = 1 if is_last else 2
    extents: tuple[int, ...] = SUITED.get(len(dims) - 2, ())
    if size is not None and len(size) == len(extents):
        extents = size
    chosen = dict(enumerate(extents, first))
    for axis, dim in enumerate(dims):
        if dim.dim_value <= 0:
            dim.dim_value = chosen.get(axis, 3 if axis == 1 and len(dims) == 4 else 1)


def _forget(graph: GraphProto) -> None:
    """Drop the shapes that a file states, but those of values of operators that onnx does not know."""
    foreign = [node for node in graph.node if node.domain and not defs.has(node.op_type)]
    own = {name for node in foreign for name in node.output}
    replace(graph.value_info, [value for value in graph.value_info if value.name in own])
    for value in graph.output:
        if value.name not in own:
            value.type.tensor_type.ClearField("shape")
    for body in bodies(graph):
        _forget(body)


def _is_setting(value: ValueInfoProto) -> bool:
    """Return whether an input is a few numbers, which no image, sound or clip is."""
    shape = stated_shape(value.type)
    kind = value.type.tensor_type.elem_type
    is_short = shape is not None and len(shape) < 2 and None not in shape
    return is_short and kind in SETTINGS and math.prod(dim or 0 for dim in shape or ()) <= MOST_AXES


def _ones(value: ValueInfoProto) -> TensorProto:
    """Return the largest numbers that are made up for an input of settings: ones."""
    kind = value.type.tensor_type
    shape = [dim.dim_value for dim in kind.shape.dim]
    return numpy_helper.from_array(
        np.ones(shape, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)), value.name
    )


def _choose_branches(graph: GraphProto) -> bool:
    """Put the branch of every `If` with a constant condition in its place; return if there were any."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[NodeProto] = []
    chosen = False
    for node in graph.node:
        tensor = tensors.get(node.input[0]) if node.op_type == "If" and not node.domain else None
        if tensor is None or is_stub(tensor) or not math.prod(tensor.dims) or len(subgraphs(node)) != 2:
            nodes.append(node)
            continue
        chosen = True
        wanted = "then_branch" if numpy_helper.to_array(tensor).all() else "else_branch"
        branch = next((item.g for item in node.attribute if item.name == wanted), subgraphs(node)[0])
        made = {name for child in branch.node for name in child.output}
        made |= {held.name for held in branch.initializer}
        prefix = f"{node.output[0]}/{wanted}/"
        inner = compose.add_prefix_graph(branch, prefix)
        graph.initializer.extend(inner.initializer)
        nodes += inner.node
        for value, name in zip(branch.output, node.output, strict=False):
            source = f"{prefix}{value.name}" if value.name in made else value.name
            nodes.append(onnx.helper.make_node("Identity", [source], [name]))
    if not chosen:
        return False
    replace(graph.node, nodes)
    return True


def _bound(graph: GraphProto) -> bool:
    """Give values whose extents depend on data the largest that they can have; return if there were any."""
    if not any(node.op_type in CHOOSING for node in graph.node):
        return False
    shapes, kinds = value_shapes(graph), _kinds(graph)
    found: dict[str, ValueInfoProto] = {}
    for node in graph.node:
        most = None if node.op_type not in CHOOSING else _most(node, shapes)
        if most is None or node.domain or None not in shapes.get(node.output[0], (None,)):
            continue
        found[node.output[0]] = onnx.helper.make_tensor_value_info(
            node.output[0], kinds.get(node.output[0], TensorProto.INT64), most
        )
    if found:
        replace(graph.value_info, [v for v in graph.value_info if v.name not in found])
        graph.value_info.extend(found.values())
    return bool(found)


def _most(node: NodeProto, shapes: Mapping[str, Shape]) -> Shape | None:
    """Return the shape of the output if every element is chosen; None if that is not known."""
    given = shapes.get(node.input[0])
    if given is None or None in given:
        return None
    if any(item.name == "axis" for item in node.attribute):
        return given
    count = math.prod(extent for extent in given if extent is not None)
    return (len(given), count) if node.op_type == "NonZero" else (count,)


def _kinds(graph: GraphProto) -> dict[str, int]:
    """Return the element type of every value."""
    return {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
