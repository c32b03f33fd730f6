"""The values that every path from the image to the output goes through, and where the classifier begins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnx import NodeProto

from graftonnx.errors import ModelError
from graftonnx.graph import GraphView, ints
from graftonnx.shapes import Shape, spelled

RESHAPING = frozenset(
    {"Softmax", "LogSoftmax", "Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"}
    | {"Dropout"}
)
"""Operators that neither mix channels nor pool: passed on the way back from the output."""

ELEMENTWISE = frozenset(
    {"Add", "Sub", "Mul", "Div", "Sum", "Pow", "Sqrt", "Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu"}
    | {"HardSigmoid", "HardSwish", "Sigmoid", "Tanh", "Gelu", "Erf", "Mish", "Softplus", "BatchNormalization"}
    | {"LayerNormalization", "Celu", "Exp", "Min", "Max"}
)
"""Operators that may stand between the dense layers of a head."""

NORMALISING = ELEMENTWISE | {"ReduceMean"}
"""Operators of which a normalisation of a vector consists, spelled out."""

POOLS = frozenset(
    {"GlobalAveragePool", "GlobalMaxPool", "AveragePool", "MaxPool", "ReduceMean", "ReduceMax", "ReduceSum"}
)

NOT_DATA = frozenset({"Shape", "Size"})
"""What these read is an extent, not the data: they are no path for the image."""


@dataclass(frozen=True)
class Spine:
    """The dominators of the output, in order.

    Attributes:
        values: The (first) input first, the output last.
        segments: `segments[k]` holds the nodes after `values[k - 1]` up to the maker of `values[k]`.
        data: Every value that depends on the image.
    """

    values: tuple[str, ...]
    segments: tuple[tuple[NodeProto, ...], ...]
    data: frozenset[str]


@dataclass(frozen=True)
class Head:
    """Where a network stops seeing and starts deciding.

    Attributes:
        output: The output that holds one number each class.
        classes: How many.
        feature: The last value before global pooling or flattening: `[N, C, H, W]`, `[N, T, C]` or `[N, C]`.
    """

    output: str
    classes: int
    feature: str


def find_spine(view: GraphView, sources: Sequence[str], target: str) -> Spine:
    """Find the values through which every path from an input to `target` leads.

    A node is on every path if, in a topological order, no edge leaps over it; only nodes between an input and
    `target` count, and only paths of data.

    Args:
        view: Of the graph.
        sources: Its inputs.
        target: Where the paths end.

    Raises:
        ModelError: If `target` does not depend on them.
    """
    read, made = view.read, view.made
    data = set(sources)
    positions: list[int] = []
    for position in view.ancestry(target):
        if view.kinds[position] not in NOT_DATA and not data.isdisjoint(read[position]):
            data.update(made[position])
            positions.append(position)
    data.discard("")
    if target not in data:
        raise ModelError(
            f"its output '{target}' does not depend on its input {_quoted(sources)}. Export it again."
        )
    last_read = {name: position for position in positions for name in read[position]}
    values = [sources[0]]
    segments: list[tuple[NodeProto, ...]] = [()]
    segment: list[NodeProto] = []
    open_until = max(last_read.get(source, 0) for source in sources)
    for position in positions:
        segment.append(view.nodes[position])
        outputs = [name for name in made[position] if name in last_read or name == target]
        if open_until <= position and len(outputs) == 1:
            values.append(outputs[0])
            segments.append(tuple(segment))
            segment = []
        for name in outputs:
            open_until = max(open_until, last_read.get(name, 0))
    return Spine(tuple(values), tuple(segments), frozenset(data))


def find_head(view: GraphView, sources: Sequence[str]) -> tuple[Head, Spine, tuple[str, ...]]:
    """Find the output that holds the classes, and the feature tensor in front of its head.

    Returns:
        The head, the spine up to its output, and the names of other outputs, which are auxiliary: of several
        that fit, the head is the one that the most nodes work for.

    Raises:
        ModelError: If no output is a vector of classes, or there is no convolutional or token trunk.
    """
    fitting = [name for name in view.outputs if _classes(view.shapes.get(name)) is not None]
    if not fitting:
        found = ", ".join(f"'{name}' {spelled(view.shapes.get(name))}" for name in view.outputs)
        raise ModelError(
            f"it is not a classifier: its outputs are {found}; expected one of shape [N, classes]. "
            "Only classifiers can be fused."
        )
    output = max(fitting, key=lambda name: len(view.ancestry(name)) if len(fitting) > 1 else 0)
    others = tuple(name for name in view.outputs if name != output)
    classes = _classes(view.shapes[output]) or 0
    spine = find_spine(view, sources, output)
    position = _feature_position(view, spine, classes)
    if position == 0:
        raise ModelError(
            f"nothing but a head stands between its input {_quoted(sources)} and its output '{output}'. "
            "Only networks with convolutions or attention in front of the classifier can be fused."
        )
    feature = spine.values[position]
    shape = view.shapes.get(feature)
    if shape is None:
        raise ModelError(
            f"the shape of '{feature}', the feature in front of its classifier, does not follow from that of "
            f"its input {_quoted(sources)}{_blamed(view, feature)}. Export it without that."
        )
    return Head(output, classes, feature), spine, others


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _blamed(view: GraphView, value: str) -> str:
    """Name the first node before `value` whose output has no shape."""
    for node in view.ancestors(value):
        if any(name and view.shapes.get(name) is None for name in node.output):
            return f" because of node '{node.name}' ({node.op_type})"
    return ""


def _classes(shape: Shape | None) -> int | None:
    if shape is None or len(shape) < 2 or any(extent != 1 for extent in shape[2:]):
        return None
    return shape[1] if shape[1] is not None and shape[1] >= 2 else None


def _feature_position(view: GraphView, spine: Spine, classes: int) -> int:
    """Walk back from the output over everything that belongs to the head."""
    classified = False
    position = len(spine.values) - 1
    while position > 0:
        segment = spine.segments[position]
        before, shape = (view.shapes.get(name) or () for name in spine.values[position - 1 : position + 1])
        kinds = {node.op_type for node in segment}
        node = segment[-1]
        if kinds <= RESHAPING:
            pass
        elif len(segment) == 1 and _pools_all(view, node):
            if classified:
                return position - 1
        elif _classifies(view, segment, classes, classified):
            classified = True
        elif not (
            (kinds <= ELEMENTWISE and (len(shape) <= 2 or not classified))
            or (kinds <= NORMALISING and len(shape) == 2 == len(before))
        ):
            break
        position -= 1
    return position


def _classifies(view: GraphView, segment: tuple[NodeProto, ...], classes: int, classified: bool) -> bool:
    """Return whether a segment is a dense layer, or the one convolution that gives a map for each class."""
    if len(segment) != 1:
        return False
    node = segment[0]
    shape = view.shapes.get(node.output[0]) or ()
    if node.op_type in ("Gemm", "MatMul"):
        return len(shape) == 2 and view.is_constant(node.input[1])
    return node.op_type == "Conv" and not classified and shape[1] == classes


def _pools_all(view: GraphView, node: NodeProto) -> bool:
    """Return whether a node reduces every position (or token) to one."""
    if node.op_type not in POOLS:
        return False
    before, after = view.shapes.get(node.input[0]), view.shapes.get(node.output[0])
    if before is None or after is None:
        return False
    if node.op_type.startswith("Reduce") and len(after) == 2 and len(before) == 3:
        return True
    if node.op_type.startswith("Reduce"):
        return len(before) > 2 and math.prod(extent or 0 for extent in after[2:]) == 1
    return all(extent == 1 for extent in after[2:]) and (
        node.op_type.startswith("Global") or bool(ints(node, "kernel_shape"))
    )


def unflattened(view: GraphView, value: str) -> str:
    """Return the value that `value` is a mere reshaping of."""
    node = view.producer.get(value)
    while node is not None and node.op_type in ("Flatten", "Identity", "Reshape", "Squeeze"):
        value = node.input[0]
        node = view.producer.get(value)
    return value


def final_softmax(view: GraphView, output: str) -> NodeProto | None:
    """Return the Softmax that an output comes from, reshaped at most; None if it comes from anything else."""
    node = view.producer.get(unflattened(view, output))
    return node if node is not None and node.op_type == "Softmax" else None
