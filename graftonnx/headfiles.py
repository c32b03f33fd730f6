"""A head from its user's ONNX file: checked, and inlined behind the branches' features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from graftonnx import reading
from graftonnx.errors import GraftError, ModelError
from graftonnx.graph import GraphView
from graftonnx.model import check_valid
from graftonnx.normalise.batch import BATCH
from graftonnx.normalise.constants import constants_to_initializers
from graftonnx.normalise.dtypes import widen
from graftonnx.normalise.inference import infer_shapes, set_extents
from graftonnx.normalise.opset import check_operators, convert_opset, declared_opset, inline_functions
from graftonnx.shapes import spelled
from graftonnx.spine import final_softmax
from graftonnx.weights import Weights, read, whole

JOINED = "head/features"
"""The value z that the branches' features are joined to."""

FILE_PREFIX = "head/file/"
"""In front of the names of a user's own head; branches have one letter, so nothing of ours is called so."""


@dataclass(frozen=True)
class OwnHead:
    """A user's head file, in the internal form.

    Attributes:
        name: The file's name, without its folder.
        sha256: Of the file's bytes.
        model: Inputs [N, C] and one output [N, classes].
    """

    name: str
    sha256: str
    model: onnx.ModelProto

    @property
    def classes(self) -> int | None:
        """What the file says of its output's width; None if it leaves that open."""
        shape = GraphView(self.model.graph).shapes.get(self.model.graph.output[0].name)
        return shape[1] if shape is not None and len(shape) == 2 else None


@dataclass(frozen=True)
class Vector:
    """What one branch hands over: a variable [N, width]."""

    branch: str
    variable: gs.Variable
    width: int


def read_head(path: str | Path) -> OwnHead:
    """Read a user's head and bring it to the internal form.

    Args:
        path: An ONNX file of opset 7 or newer whose inputs are [N, C] and whose one output is [N, classes].

    Raises:
        ModelError: If the file cannot be read, or ends in a Softmax.
        UnsupportedOpError: If it holds operators that ONNX does not define.
    """
    path = Path(path)
    model, weights = read(path)
    try:
        model = infer_shapes(_normalised(model, weights))
        outputs = [value.name for value in model.graph.output]
        if len(outputs) != 1:
            raise ModelError(
                f"it has {len(outputs)} outputs ({', '.join(outputs)}); expected one, [N, classes]."
            )
        softmax = final_softmax(GraphView(model.graph), outputs[0])
        if softmax is not None:
            raise ModelError(
                f"its output '{outputs[0]}' comes from Softmax node '{softmax.name or softmax.output[0]}'; "
                "training needs the scores in front of it. Export it without."
            )
    except GraftError as error:
        raise error.at(f"cannot use head '{path}'") from error
    return OwnHead(path.name, reading.sha256(path), whole(model, weights))


def inlined(own: OwnHead, vectors: Sequence[Vector], classes: int, logits: gs.Variable) -> list[gs.Node]:
    """Make the nodes of a user's head between the branches' vectors and the logits."""
    try:
        model = _fitted(own.model, vectors, classes)
    except ModelError as error:
        raise error.at(f"cannot use head '{own.name}'") from error
    graph = gs.import_onnx(model)
    _prefix_names(graph, FILE_PREFIX)
    nodes: list[gs.Node] = []
    sources = [vector.variable for vector in vectors]
    if len(graph.inputs) < len(sources):
        joined = gs.Variable(JOINED, np.float32)
        nodes.append(gs.Node("Concat", "head/concat", {"axis": 1}, sources, [joined]))
        sources = [joined]
    for source, variable in zip(sources, graph.inputs, strict=True):
        nodes.append(gs.Node("Identity", variable.name, {}, [source], [variable]))
    return [*nodes, *graph.nodes, gs.Node("Identity", "head/logits", {}, list(graph.outputs), [logits])]


def _fitted(model: onnx.ModelProto, vectors: Sequence[Vector], classes: int) -> onnx.ModelProto:
    """Return a user's head with the shapes it has behind these branches.

    Raises:
        ModelError: If it takes or gives something else.
    """
    fitted = onnx.ModelProto()
    fitted.CopyFrom(model)
    inputs = list(fitted.graph.input)
    total = sum(vector.width for vector in vectors)
    expected = {f"branch {vector.branch}": vector.width for vector in vectors}
    if len(inputs) == 1 < len(vectors):
        expected = {"all branches together": total}
    if len(inputs) != len(expected):
        each = ", ".join(f"[N, {width}] of {what}" for what, width in expected.items())
        names = ", ".join(f"'{value.name}'" for value in inputs) or "none"
        raise ModelError(f"its inputs are {names}; expected {each}, or one [N, {total}] for all together.")
    for value, (what, width) in zip(inputs, expected.items(), strict=True):
        _check_input(value, what, width)
        set_extents(fitted, value.name, (BATCH, width))
    fitted = infer_shapes(fitted)
    output = fitted.graph.output[0].name
    shape = GraphView(fitted.graph).shapes.get(output)
    if shape != (None, classes):
        found = str(list(shape)) if shape and shape[0] is not None else spelled(shape)
        raise ModelError(
            f"its output '{output}' is {found}; expected [N, {classes}]: one score for each class and image."
        )
    return fitted


def _check_input(value: onnx.ValueInfoProto, what: str, width: int) -> None:
    kind = value.type.tensor_type
    shape = tuple(dim.dim_value or None for dim in kind.shape.dim)
    if kind.elem_type != onnx.TensorProto.FLOAT or len(shape) != 2 or shape[1] not in (None, width):
        found = f"{onnx.TensorProto.DataType.Name(kind.elem_type).lower()} {spelled((None, *shape[1:]))}"
        raise ModelError(
            f"its input '{value.name}' is {found}; expected float [N, {width}], the features of {what}."
        )


def _normalised(model: onnx.ModelProto, weights: Weights) -> onnx.ModelProto:
    """Bring the skeleton of a head to the opset inside, with float32 weights as initializers."""
    opset = declared_opset(model)
    model = inline_functions(model)
    check_operators(model, opset)
    check_valid(model, weights)
    constants_to_initializers(model, weights)
    widen(model, weights)
    model = convert_opset(model, opset)
    constants_to_initializers(model, weights)
    return model


def _prefix_names(graph: gs.Graph, prefix: str) -> None:
    """Put a prefix before every name in a graph and in the bodies of its control flow."""
    graphs = [graph, *graph.subgraphs(recursive=True)]
    tensors = {id(tensor): tensor for part in graphs for tensor in part.tensors().values()}
    for part in graphs:
        for node in part.nodes:
            node.name = prefix + (node.name or node.outputs[0].name)
    for tensor in tensors.values():
        if tensor.name:
            tensor.name = prefix + tensor.name
