"""How a tensor holds features on a grid: which axis has the channels, which have the positions.

| kind | tensor | in |
|---|---|---|
| channels_first | [N, C, *grid] | convolutional networks; one, two or three dimensions |
| channels_last | [N, *grid, C] | Swin, the inside of ConvNeXt |
| tokens | [N, prefix + positions, C] | ViT; `prefix` class tokens in front of the patches |

The axis of the channels is followed through the graph from the image on: a convolution puts it at 1, a matrix
product at the end, a transpose moves it. Whether axis 0 is still the batch is found by inferring the shapes
for two batches: windowed attention merges its windows into that axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import onnx
from onnx import NodeProto

from graftonnx.errors import ModelError
from graftonnx.graph import GraphView, ints, value_shapes
from graftonnx.normalise.inference import infer_shapes, set_extents
from graftonnx.shapes import Shape

MOST_PREFIX = 8
"""Class and register tokens in front of the patches."""

_PROBE = 7
"""A batch that hardly occurs as another extent."""

_CHANNELS_SECOND = frozenset(
    {"Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "GroupNormalization"}
    | {"MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "LRN", "Upsample"}
)
_CHANNELS_AT_THE_END = frozenset({"MatMul", "LayerNormalization", "RMSNormalization", "Attention"})


@dataclass(frozen=True)
class Layout:
    """Where channels and positions of a tensor lie.

    Attributes:
        kind: See the table of the module.
        channels: C.
        grid: Extents of the positions: (L,), (H, W) or (D, H, W).
        prefix: Tokens in front of the grid's.
    """

    kind: Literal["channels_first", "channels_last", "tokens"]
    channels: int
    grid: tuple[int, ...]
    prefix: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """C and the grid."""
        return (self.channels, *self.grid)

    @property
    def positions(self) -> int:
        """Points of the grid."""
        return math.prod(self.grid)

    def __str__(self) -> str:
        """Return the tensor's shape for people: `[N, 1+14x14, 192]`."""
        extents = "x".join(map(str, self.grid))
        if self.kind == "tokens":
            prefix = f"{self.prefix}+" if self.prefix else ""
            return f"[N, {prefix}{extents}, {self.channels}]"
        grid = ", ".join(map(str, self.grid))
        inner = f"{self.channels}, {grid}" if self.kind == "channels_first" else f"{grid}, {self.channels}"
        return f"[N, {inner}]"


def find_layouts(model: onnx.ModelProto, view: GraphView, sources: Sequence[str]) -> dict[str, Layout]:
    """Return the layout of every value that holds features on a grid.

    Args:
        model: A skeleton whose shapes were inferred with an open batch.
        view: Of its graph.
        sources: The inputs, [N, C, *extents].
    """
    dimensions = len(view.shapes[sources[0]]) - 2
    found: dict[str, Layout] = {}
    grids: dict[int, tuple[int, ...]] = {}
    known: dict[tuple[Shape, int], Layout | None] = {}
    unsure: list[str] = []
    for name, axis in _channel_axes(view, sources).items():
        shape = view.shapes.get(name) or ()
        key = (shape, axis)
        if key not in known or len(shape) == 3:  # what tokens stand for depends on what came before
            known[key] = _layout(shape, axis, dimensions, grids)
        layout = known[key]
        if layout is None:
            continue
        found[name] = layout
        if layout.kind != "channels_first":
            unsure.append(name)
        if layout.kind != "tokens":
            grids[layout.positions] = layout.grid
    for name in _other_batches(model, sources, unsure) if unsure else ():
        del found[name]
    return found


def _layout(shape: Shape, axis: int, dimensions: int, grids: dict[int, tuple[int, ...]]) -> Layout | None:
    extents = tuple(extent for extent in shape[1:] if extent is not None)
    if len(extents) != len(shape) - 1 or len(extents) < 2:
        return None
    if len(shape) == dimensions + 2 and axis == 1:
        return Layout("channels_first", extents[0], extents[1:])
    if axis != len(shape) - 1:
        return None
    if len(shape) == 3:
        prefix, grid = _arranged(extents[0], grids)
        return Layout("tokens", extents[1], grid, prefix)
    if len(shape) == dimensions + 2:
        return Layout("channels_last", extents[-1], extents[:-1])
    return None


def _arranged(tokens: int, grids: dict[int, tuple[int, ...]]) -> tuple[int, tuple[int, ...]]:
    """Return how many tokens stand in front of a grid that was seen before, and that grid."""
    for prefix in range(min(MOST_PREFIX, tokens - 1) + 1):
        if tokens - prefix in grids:
            return prefix, grids[tokens - prefix]
    return 0, (tokens,)


def _channel_axes(view: GraphView, sources: Sequence[str]) -> dict[str, int]:
    """Return the axis of the channels for every value where it is known, in topological order."""
    axes = dict.fromkeys(sources, 1)
    for position, (kind, read, made) in enumerate(zip(view.kinds, view.read, view.made, strict=True)):
        carriers = [name for name in read if name in axes]
        if not carriers:
            continue
        axis = 1 if kind in _CHANNELS_SECOND else _channel_axis(view, position, carriers, axes)
        if axis is not None:
            for name in made:
                axes[name] = axis
    axes.pop("", None)
    return axes


def _channel_axis(
    view: GraphView, position: int, carriers: Sequence[str], axes: dict[str, int]
) -> int | None:
    kind, shapes = view.kinds[position], view.shapes
    shape = shapes.get(view.made[position][0])
    if shape is None:
        return None
    carrier = carriers[0]
    if len(carriers) > 1:
        carrier = max(carriers, key=lambda name: len(shapes.get(name) or ()))
    axis, before = axes[carrier], shapes.get(carrier) or ()
    if kind in _CHANNELS_AT_THE_END:
        return len(shape) - 1
    if kind in ("Unsqueeze", "Squeeze"):
        return _moved_axis(view, view.nodes[position], axis, len(shape))
    if kind == "Transpose":
        return ints(view.nodes[position], "perm", reversed(range(len(before)))).index(axis)
    if len(shape) == len(before) and (kind != "Reshape" or shape[axis] == before[axis]):
        return axis
    if kind == "Reshape" and shape and before and shape[-1] == before[-1] and axis == len(before) - 1:
        return len(shape) - 1
    if len(shape) > 1 and axis == 1 and len(before) > 1 and shape[1] == before[1]:
        return 1
    return None


def _moved_axis(view: GraphView, node: NodeProto, axis: int, rank: int) -> int | None:
    """Return where an axis is after axes of one element were put in, or taken out."""
    given = view.constant(node.input[1]) if len(node.input) > 1 else None
    if given is None:
        return None
    grows = node.op_type == "Unsqueeze"
    whole = rank if grows else len(view.shapes.get(node.input[0]) or ())
    named = {int(index) % whole for index in given.ravel()}
    kept = [index for index in range(whole) if index not in named]
    if grows:
        return kept[axis]
    return kept.index(axis) if axis in kept else None


def _other_batches(model: onnx.ModelProto, sources: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return those values whose first extent is not the batch."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    for value in probe.graph.input:
        if value.name in sources:
            extents = [dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]]
            set_extents(probe, value.name, (_PROBE, *extents))
    try:
        shapes = value_shapes(infer_shapes(probe).graph)
    except ModelError:
        return list(names)  # a batch is baked in, which the proofs of a fused network find
    return [name for name in names if (shapes.get(name) or (None,))[0] != _PROBE]
