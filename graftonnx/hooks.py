"""A user's own surgery on a fused graph, and what the graph must still be afterwards."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import onnx_graphsurgeon as gs

from graftonnx.errors import GraftError, PlanError
from graftonnx.graph import GraphView, sort_nodes
from graftonnx.model import check_valid
from graftonnx.normalise.constants import constants_to_initializers, drop_dead, replace
from graftonnx.normalise.inference import infer_shapes
from graftonnx.normalise.opset import IR_VERSION, OPSET, check_operators, inline_functions
from graftonnx.shapes import Shape, spelled
from graftonnx.spine import find_head
from graftonnx.weights import Weights, split, whole

Hook = Callable[[gs.Graph], gs.Graph | None]
"""Changes the graph it gets, or returns another; the weights are in it."""


def run_hook(hook: Hook, skeleton: onnx.ModelProto, weights: Weights) -> tuple[onnx.ModelProto, Weights]:
    """Let a user's hook change a fused network.

    The graph must keep its inputs and its output. What the hook itself raises is not caught.

    Args:
        hook: The user's function.
        skeleton: The fused network, every shape inferred.
        weights: Its large tensors.

    Returns:
        The skeleton that the hook made, every shape inferred, and its large tensors.

    Raises:
        PlanError: If the hook gives something else than a graph of the same opset, inputs and output.
        ModelError: If its graph is not valid ONNX.
    """
    interface = _interface(skeleton.graph)
    graph = gs.import_onnx(whole(skeleton, weights))
    returned = hook(graph)
    graph = graph if returned is None else returned
    if not isinstance(graph, gs.Graph):
        raise PlanError(
            f"the hook returned {type(graph).__name__}; expected an onnx_graphsurgeon.Graph, or None for the "
            "one it was given."
        )
    if graph.opset != OPSET:
        raise PlanError(f"the hook's graph is of opset {graph.opset}; expected {OPSET}, as it was given.")
    try:
        return _finished(_exported(graph), skeleton, interface)
    except GraftError as error:
        raise error.at("the hook broke the graph") from error


def _exported(graph: gs.Graph) -> onnx.ModelProto:
    try:
        graph.tensors(check_duplicates=True)
        model: onnx.ModelProto = gs.export_onnx(graph, ir_version=IR_VERSION)
    except Exception as error:  # of graphsurgeon, NumPy or protobuf: the graph may hold anything
        raise PlanError(f"onnx-graphsurgeon cannot write it: {' '.join(str(error).split())}") from error
    return inline_functions(model)


def _finished(
    model: onnx.ModelProto, before: onnx.ModelProto, interface: dict[str, tuple[int, Shape]]
) -> tuple[onnx.ModelProto, Weights]:
    """Check a changed model, and bring it to the form in which it came."""
    model, weights = split(model)
    check_operators(model, OPSET)
    replace(model.opset_import, [onnx.helper.make_opsetid("", OPSET)])
    replace(model.graph.node, sort_nodes(model.graph.node))
    constants_to_initializers(model, weights)
    check_valid(model, weights)
    drop_dead(model, weights)
    model = infer_shapes(model)
    found = _interface(model.graph)
    if found != interface:
        raise PlanError(
            f"its input and output are {_spelled(found)}; expected {_spelled(interface)}, as they were "
            "given. Change what lies between them."
        )
    view = GraphView(model.graph)
    find_head(view, view.inputs)
    model.producer_name = before.producer_name
    model.metadata_props.extend(before.metadata_props)
    _restore_annotations(model.graph, before.graph)
    return model, weights


def _interface(graph: onnx.GraphProto) -> dict[str, tuple[int, Shape]]:
    """Return the element type and the shape of every input and output."""
    shapes = GraphView(graph).shapes
    return {
        value.name: (value.type.tensor_type.elem_type, shapes.get(value.name, ()))
        for value in (*graph.input, *graph.output)
    }


def _spelled(interface: dict[str, tuple[int, Shape]]) -> str:
    kinds = onnx.TensorProto.DataType.Name
    return ", ".join(f"'{name}' {kinds(kind).lower()} {spelled(s)}" for name, (kind, s) in interface.items())


def _restore_annotations(graph: onnx.GraphProto, before: onnx.GraphProto) -> None:
    """Give nodes that are still there their doc strings and metadata, which graphsurgeon drops."""
    known = {node.output[0]: node for node in before.node}
    for node in graph.node:
        source = known.get(node.output[0])
        if source is not None and source.op_type == node.op_type:
            if source.HasField("doc_string"):
                node.doc_string = source.doc_string
            node.metadata_props.extend(source.metadata_props)
