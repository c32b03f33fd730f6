"""Find the taps of a network: the outputs of its blocks, which an exchange can read and add to.

A block is convolution (+ normalisation) (+ add) + activation. Its output is

- the output of an activation that is not a gate;
- an Add of two branches (a residual connection) that no activation follows;
- a Concat of several branches along the channels;
- a convolution or normalisation that feeds the next convolution directly (a linear bottleneck).

Taps on the spine, through which every path leads, end whole blocks; others lie inside parallel branches.
Values smaller than the feature (the squeezed vectors of squeeze-and-excitation) are not taps.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import NodeProto

from graftonnx.graph import GraphView, integer
from graftonnx.model import Network
from graftonnx.shapes import Shape

ACTIVATIONS = frozenset(
    {"Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "HardSwish", "Gelu", "Mish", "Softplus"}
    | {"Swish", "Tanh", "ThresholdedRelu", "Softsign"}
)
GATES = frozenset({"Sigmoid", "HardSigmoid", "Clip", "Tanh", "Softplus", "Erf"})
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
LINEAR = frozenset(
    {"Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "GroupNormalization"}
)
FOLLOWING = frozenset(
    {"BatchNormalization", "InstanceNormalization", "GroupNormalization", "Dropout", "Identity"}
)


@dataclass(frozen=True)
class Tap:
    """A value that an exchange can read and add to.

    Attributes:
        name: The value's name in the parent.
        op: The operator that makes it.
        shape: C, H, W for one image.
        stride: Input pixels for each pixel, vertically and horizontally.
        depth: Weight layers up to here, relative to those up to the feature: 0..1.
        spine: Whether every path from the image to the feature leads through it.
        level: Nodes on the longest path to it. Taps are sorted by it, then by name: a topological order that
            does not depend on the order of nodes in the file.
    """

    name: str
    op: str
    shape: tuple[int, int, int]
    stride: tuple[float, float]
    depth: float
    spine: bool
    level: int


def trunk(network: Network) -> list[NodeProto]:
    """Return the nodes up to the feature tensor, in topological order."""
    return network.view.ancestors(network.head.feature)


def find_taps(network: Network) -> list[Tap]:
    """Return the taps of a network, sorted by level and name; the feature itself is not one.

    What is added to the feature would reach the head only, where both features meet anyway.
    """
    view = network.view
    nodes = view.ancestors(network.head.feature)
    depths = _longest(nodes, WEIGHTED)
    deepest = max(depths.get(network.head.feature, 0), 1)
    spine = frozenset(network.spine.values)
    inside = {id(node) for node in nodes}
    if len(network.input_shape) != 3:
        return []
    height, width = network.image_size
    smallest = _image_shape(view.shapes.get(network.head.feature)) or (0, 1, 1)
    taps = []
    levels = _longest(nodes, frozenset())
    for node in nodes:
        name = node.output[0]
        shape = _image_shape(view.shapes.get(name))
        if shape is None or name not in network.spine.data or name == network.head.feature:
            continue
        if shape[1] < smallest[1] or shape[2] < smallest[2]:
            continue
        readers = [reader for reader in view.consumers[name] if id(reader) in inside]
        if depths.get(name, 0) and readers and _ends_block(view, node, readers):
            taps.append(
                Tap(
                    name=name,
                    op=node.op_type,
                    shape=shape,
                    stride=(height / shape[1], width / shape[2]),
                    depth=depths[name] / deepest,
                    spine=name in spine,
                    level=levels[name],
                )
            )
    return sorted(taps, key=lambda tap: (tap.level, tap.name))


def _image_shape(shape: Shape | None) -> tuple[int, int, int] | None:
    if shape is None or len(shape) != 4 or None in shape[1:]:
        return None
    _, channels, height, width = shape
    return (channels or 0, height or 0, width or 0)


def _longest(nodes: list[NodeProto], counted: frozenset[str]) -> dict[str, int]:
    """Return, for every value, how many nodes of the `counted` kinds (all, if empty) lead to it at most."""
    longest: dict[str, int] = {}
    for node in nodes:
        length = max((longest.get(name, 0) for name in node.input), default=0)
        length += not counted or node.op_type in counted
        for name in node.output:
            longest[name] = length
    return longest


def _ends_block(view: GraphView, node: NodeProto, readers: list[NodeProto]) -> bool:
    kinds = {reader.op_type for reader in readers}
    if node.op_type in ACTIVATIONS and not _is_gate(node, readers, view):
        return True
    follower = readers[0] if len(readers) == 1 else None
    if follower is not None and (
        follower.op_type in FOLLOWING
        or (follower.op_type in ACTIVATIONS and not _gates(view, node.output[0]))
    ):
        return False
    if node.op_type in ("Add", "Sum"):
        return len(view.dynamic_inputs(node)) >= 2
    if node.op_type == "Concat":
        return integer(node, "axis", 1) in (1, -3) and len(view.dynamic_inputs(node)) >= 2
    if node.op_type == "Mul":
        return _is_gated_activation(view, node)
    return node.op_type in LINEAR and bool(kinds & {"Conv", "ConvTranspose"})


def _is_gate(node: NodeProto, readers: list[NodeProto], view: GraphView) -> bool:
    """Return whether an activation only scales another value, as in x * sigmoid(x)."""
    if node.op_type not in GATES:
        return False
    return all(
        reader.op_type in ("Mul", "Div") and (len(view.dynamic_inputs(reader)) == 2 or _scales(view, reader))
        for reader in readers
    )


def _scales(view: GraphView, node: NodeProto) -> bool:
    """Return whether a node multiplies one value by a constant and hands it to a multiplication."""
    return len(view.dynamic_inputs(node)) == 1 and all(
        reader.op_type == "Mul" for reader in view.consumers[node.output[0]]
    )


def _gates(view: GraphView, value: str) -> bool:
    """Return whether `value` is multiplied by something made from itself."""
    return len(view.consumers[value]) > 1


def _is_gated_activation(view: GraphView, node: NodeProto) -> bool:
    """Return whether a Mul is x * gate(x): SiLU, or a hard swish spelled out."""
    operands = view.dynamic_inputs(node)
    if len(operands) != 2:
        return False
    for value, gate in (operands, operands[::-1]):
        source: str | None = gate
        for _ in range(4):
            maker = view.producer.get(source or "")
            if maker is None:
                break
            dynamic = view.dynamic_inputs(maker)
            source = dynamic[0] if len(dynamic) == 1 else None
            if source == value:
                return True
    return False
