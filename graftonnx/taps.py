"""Find the taps of a network: the outputs of its blocks, which an exchange can read and add to.

A block is convolution (+ normalisation) (+ add) + activation. Its output is

- the output of an activation that is not a gate;
- an Add of two branches (a residual connection) that no activation follows;
- a Concat of several branches along the channels;
- a convolution or normalisation that feeds the next convolution directly (a linear bottleneck).

Of tokens, and of maps whose channels come last, only the sums of residual blocks are taps.
Taps on the spine, through which every path leads, end whole blocks; others lie inside parallel branches.
Values smaller than the feature (the squeezed vectors of squeeze-and-excitation) are not taps.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from onnx import NodeProto

from graftonnx.costs import WEIGHTED
from graftonnx.graph import GraphView, integer
from graftonnx.layouts import Layout
from graftonnx.network import Network

ACTIVATIONS = frozenset(
    {"Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "HardSwish", "Gelu", "Mish", "Softplus"}
    | {"Swish", "Tanh", "ThresholdedRelu", "Softsign"}
)
GATES = frozenset({"Sigmoid", "HardSigmoid", "Clip", "Tanh", "Softplus", "Erf"})
LINEAR = frozenset(
    {"Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "GroupNormalization"}
)
ENDING = ACTIVATIONS | LINEAR | {"Add", "Sum", "Concat", "Mul"}
"""Every operator that may end a block."""

FOLLOWING = frozenset(
    {"BatchNormalization", "InstanceNormalization", "GroupNormalization", "Dropout", "Identity"}
)

_BRANCH = re.compile(r"(?:skips/\d+/)?([a-z])/")


@dataclass(frozen=True)
class Tap:
    """A value that an exchange can read and add to.

    Attributes:
        name: The value's name in the parent.
        op: The operator that makes it.
        layout: Where its channels and positions lie.
        stride: Input pixels for each position, along each dimension of the grid.
        depth: Weight layers up to here, relative to those up to the feature: 0..1.
        spine: Whether every path from the image to the feature leads through it.
        level: Nodes on the longest path to it. Taps are sorted by it, then by name: a topological order that
            does not depend on the order of nodes in the file.
    """

    name: str
    op: str
    layout: Layout
    stride: tuple[float, ...]
    depth: float
    spine: bool
    level: int

    @property
    def shape(self) -> tuple[int, ...]:
        """C and the extents of the grid: (C, H, W) in an image network."""
        return self.layout.shape


def trunk(network: Network) -> Sequence[int]:
    """Return the positions in the network's view of the nodes up to the feature tensor, ascending."""
    return network.view.ancestry(network.head.feature)


def find_taps(network: Network, most: int | None = None) -> list[Tap]:
    """Return the taps of a network, sorted by level and name; the feature itself is not one.

    What is added to the feature would reach the head only, where both features meet anyway.

    Args:
        network: Any network.
        most: How many at most; of more, those on the spine come first, evenly spread.
    """
    view, data, layouts = network.view, network.spine.data, network.layouts
    positions = trunk(network)
    depths, levels = _longest(view, positions)
    deepest = max(depths[positions[-1]] if positions else 0, 1)
    spine = frozenset(network.spine.values)
    inside = {id(view.nodes[position]) for position in positions}
    feature = layouts.get(network.head.feature)
    different = {id(layout): layout for layout in layouts.values()}
    small = {key for key, layout in different.items() if feature and _is_smaller(layout, feature)}
    found: list[tuple[int, str, int]] = []
    for position in positions:
        if view.kinds[position] not in ENDING or not depths[position]:
            continue
        name = view.made[position][0]
        layout = layouts.get(name)
        if layout is None or id(layout) in small or name not in data:
            continue
        readers = [reader for reader in view.consumers[name] if id(reader) in inside]
        if readers and _is_output(view, position, readers, layout):
            found.append((levels[position], name, position))
    found.sort()
    if most is not None and len(found) > most:
        found = _selected(found, spine, most)
    return [
        Tap(
            name=name,
            op=view.kinds[position],
            layout=layouts[name],
            stride=_stride(_extents(network, name), layouts[name].grid),
            depth=depths[position] / deepest,
            spine=name in spine,
            level=level,
        )
        for level, name, position in found
    ]


def _selected(
    found: list[tuple[int, str, int]], spine: frozenset[str], most: int
) -> list[tuple[int, str, int]]:
    kept = _spread([item for item in found if item[1] in spine], most)
    return sorted(kept + _spread([item for item in found if item[1] not in spine], most - len(kept)))


def _spread(items: list[tuple[int, str, int]], most: int) -> list[tuple[int, str, int]]:
    """Return at most `most` of these, evenly spread."""
    if len(items) <= most:
        return items
    return [items[place * len(items) // most] for place in range(most)]


def _is_smaller(layout: Layout, feature: Layout) -> bool:
    """Return whether a map is smaller than the feature in any direction."""
    if len(layout.grid) != len(feature.grid):
        return layout.positions < feature.positions
    return any(extent < least for extent, least in zip(layout.grid, feature.grid, strict=True))


def _extents(network: Network, value: str) -> tuple[int, ...]:
    """Return the extents of the input that a value's branch reads."""
    found = _BRANCH.match(value)
    for name, branch in network.metadata.branch_inputs.items():
        if found is not None and found[1] == branch and name in network.input_shapes:
            return network.input_shapes[name][1:]
    return network.input_shape[1:]


def _stride(extents: tuple[int, ...], grid: tuple[int, ...]) -> tuple[float, ...]:
    if len(extents) != len(grid):
        return (math.prod(extents) / math.prod(grid),)
    return tuple(extent / points for extent, points in zip(extents, grid, strict=True))


def _is_output(view: GraphView, position: int, readers: list[NodeProto], layout: Layout) -> bool:
    node = view.nodes[position]
    if layout.kind == "channels_first":
        return _ends_block(view, node, view.kinds[position], readers)
    whole = view.shapes.get(node.output[0])
    addends = [name for name in view.dynamic_inputs(node) if view.shapes.get(name) == whole]
    return node.op_type in ("Add", "Sum") and len(addends) >= 2


def _longest(view: GraphView, positions: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return, for every position, how many weight layers, and how many nodes, lead to its outputs at most."""
    weighted, all_nodes = [0] * len(view.nodes), [0] * len(view.nodes)
    for position in positions:
        sources = view.sources[position]
        deepest = max([weighted[source] for source in sources], default=0)
        weighted[position] = deepest + (view.kinds[position] in WEIGHTED)
        all_nodes[position] = max([all_nodes[source] for source in sources], default=0) + 1
    return weighted, all_nodes


def _ends_block(view: GraphView, node: NodeProto, kind: str, readers: list[NodeProto]) -> bool:
    if kind in ACTIVATIONS and not (kind in GATES and _is_gate(readers, view)):
        return True
    follower = readers[0] if len(readers) == 1 else None
    if follower is not None:
        after = follower.op_type
        if after in FOLLOWING or (after in ACTIVATIONS and not _gates(view, node.output[0])):
            return False
    if kind in ("Add", "Sum"):
        return len(view.dynamic_inputs(node)) >= 2
    if kind == "Concat":
        return integer(node, "axis", 1) in (1, -3) and len(view.dynamic_inputs(node)) >= 2
    if kind == "Mul":
        return _is_gated_activation(view, node)
    return kind in LINEAR and any(reader.op_type in ("Conv", "ConvTranspose") for reader in readers)


def _is_gate(readers: list[NodeProto], view: GraphView) -> bool:
    """Return whether what these read only scales another value, as in x * sigmoid(x)."""
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
