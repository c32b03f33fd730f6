"""A branch as a column of blocks: which operators belong together, and which block reads which.

A block ends at a tap, and holds every operator that leads to this tap and to no tap before it; the last one
ends at the branch's feature. So the blocks part the trunk, and none reads a later one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from graftonnx.costs import FLOATS, macs
from graftonnx.graph import GraphView, ints
from graftonnx.layouts import Layout
from graftonnx.shapes import Shape

WINDOWED = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"})
"""The operators that are told apart by their windows."""


@dataclass(frozen=True)
class Operator:
    """A node.

    Attributes:
        kind: ONNX's name of the operator.
        about: Its window, in words; empty where it has none.
        name: Of the node.
        value: The first value it makes.
        shape: Of that value.
        parameters: Elements of the float weights that it is the first to read.
        macs: Multiply-accumulates for one image.
        reads: The values of other nodes that it reads.
    """

    kind: str
    about: str
    name: str
    value: str
    shape: Shape | None
    parameters: int
    macs: int
    reads: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """Operators up to a tap.

    Attributes:
        tap: The value that the block ends with, as plans call it: `a/relu_3`.
        operators: In topological order.
        before: Indices in the column of the blocks that it reads.
        layout: Of the tap, if it is one.
    """

    tap: str
    operators: tuple[Operator, ...]
    before: tuple[int, ...] = ()
    layout: Layout | None = None

    @property
    def shape(self) -> Shape | None:
        """The shape of the tap: batch, channels, grid; that of the tensor where it is no tap."""
        if self.layout is not None:
            return (None, *self.layout.shape)
        return self.operators[-1].shape if self.operators else None

    @cached_property
    def parameters(self) -> int:
        """Elements of its float weights."""
        return sum(operator.parameters for operator in self.operators)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return sum(operator.macs for operator in self.operators)


@dataclass(frozen=True)
class Column:
    """A branch.

    Attributes:
        letter: Of the branch; empty for a network alone.
        name: The parent's file.
        input: The shape of what it reads: C and the extents.
        blocks: In topological order.
    """

    letter: str
    name: str
    input: tuple[int, ...]
    blocks: tuple[Block, ...]

    @cached_property
    def places(self) -> dict[str, int]:
        """The index of the block that ends with each tap."""
        return {block.tap: index for index, block in enumerate(self.blocks)}


def list_operators(view: GraphView, positions: Iterable[int]) -> list[Operator]:
    """Describe the nodes at some positions of a view, in their order."""
    seen: set[str] = set()
    shapes = view.shapes
    operators = []
    for position in positions:
        weights = [name for name in view.given[position] if name in view.initializers and name not in seen]
        seen.update(weights)
        value = view.made[position][0]
        operators.append(
            Operator(
                kind=view.kinds[position],
                about=_window(view, position),
                name=view.nodes[position].name,
                value=value,
                shape=shapes.get(value),
                parameters=sum(_elements(view, name) for name in weights),
                macs=macs(view, [position]),
                reads=tuple(name for name in view.read[position] if name in view.position),
            )
        )
    return operators


def find_blocks(
    view: GraphView,
    positions: Sequence[int],
    ends: Iterable[str],
    *,
    prefix: str = "",
    same: Mapping[str, str] | None = None,
    layouts: Mapping[str, Layout] | None = None,
) -> tuple[Block, ...]:
    """Part a branch into blocks.

    Args:
        view: Of the graph that holds the branch.
        positions: Of the branch's nodes, ascending.
        ends: Values that end blocks; those that the branch does not make are passed over. What nodes outside
            of the branch read, or none reads, ends a block as well.
        prefix: Put before the values' names to get the names of a plan.
        same: Value read -> the value of the branch that it stands for, as the sum of a skip for its target.
        layouts: Of the values that are maps or sequences of tokens.
    """
    same = same or {}
    places = _stops(view, positions, ends)
    owner = _owners(view, positions, places)
    members: list[list[int]] = [[] for _ in places]
    before: list[set[int]] = [set() for _ in places]
    for position in positions:
        block = owner[position]
        members[block].append(position)
        makers = [view.position.get(same.get(name, name), -1) for name in view.read[position]]
        before[block].update(owner[maker] for maker in makers if owner.get(maker, block) != block)
    operators = dict(zip(positions, list_operators(view, positions), strict=True))
    return tuple(
        Block(
            tap=prefix + view.made[place][0],
            operators=tuple(operators[position] for position in members[index]),
            before=tuple(sorted(before[index])),
            layout=(layouts or {}).get(view.made[place][0]),
        )
        for index, place in enumerate(places)
    )


def _stops(view: GraphView, positions: Sequence[int], ends: Iterable[str]) -> list[int]:
    """Return the positions of the nodes that end blocks, ascending."""
    inside = set(positions)
    read: dict[bool, set[int]] = {True: set(), False: set()}
    for position, sources in enumerate(view.sources):
        read[position in inside].update(sources)
    wanted = {view.position[end] for end in ends if end in view.position} | read[False]
    return sorted((wanted & inside) | (inside - read[True]))


def _owners(view: GraphView, positions: Sequence[int], places: Sequence[int]) -> dict[int, int]:
    """Return the block of every node: the first one whose end it leads to."""
    owner = {place: index for index, place in enumerate(places)}
    inside = set(positions) - owner.keys()
    for position in reversed(positions):
        for source in view.sources[position]:
            if source in inside:
                owner[source] = min(owner.get(source, len(places)), owner[position])
    return owner


def _elements(view: GraphView, name: str) -> int:
    tensor = view.initializers[name]
    return math.prod(tensor.dims) if tensor.data_type in FLOATS else 0


def _window(view: GraphView, position: int) -> str:
    """Return `3x3`, `3x3 /2`, `3x3, 32 groups` of a convolution or a pool."""
    if view.kinds[position] not in WINDOWED:
        return ""
    node = view.nodes[position]
    kernel = ints(node, "kernel_shape")
    if not kernel and len(node.input) > 1:
        kernel = tuple(extent or 0 for extent in view.shapes.get(node.input[1], ())[2:])
    text = "\u00d7".join(map(str, kernel))
    strides = set(ints(node, "strides"))
    if strides - {1}:
        text += f" /{max(strides)}"
    groups = next((item.i for item in node.attribute if item.name == "group"), 1)
    return f"{text}, {groups} groups" if groups > 1 else text
