"""The ONNX pieces that graftonnx inserts in front of branches and between them: preprocessing, projections.

Every function returns onnx-graphsurgeon nodes, wired to each other and to the variables given; whoever
calls puts them into a graph. Trainable tensors end in `weight` or `bias`; others are constants.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graftonnx.images import GREY
from graftonnx.layouts import Layout
from graftonnx.metadata import Preprocess
from graftonnx.plan import Projection
from graftonnx.projections import is_product, resizes_first

SkipInit = Literal["zero", "paper", "lsq"]
"""How skips begin; for `lsq` zeros are built, and the fitted weights put in their place."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Step:
    """A node of a chain, before it is wired: what flows through the chain is its first input."""

    op: str
    name: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    operands: tuple[gs.Tensor, ...] = ()


def preprocessing(
    source: gs.Variable,
    target: gs.Variable,
    branch: str,
    convention: Preprocess,
    channels: int,
    sizes: tuple[tuple[int, ...], tuple[int, ...]],
) -> list[gs.Node]:
    """Turn an input of the fused network into what a branch was trained on.

        source ─ (Resize) ─ (channel order) ─ (Mul) ─ (Add) ─ target

    Args:
        source: The fused graph's input: [N, 3, H, W], RGB in 0..1, or [N, 1, H, W], its luma; sound and video
            as the parents take them.
        target: The branch's input, [N, C, H', W'].
        branch: Prefix of the names.
        convention: What the branch expects.
        channels: C.
        sizes: (H, W) and (H', W').
    """
    prefix = f"preprocess/{branch}"
    steps: list[Step] = []
    if sizes[0] != sizes[1]:
        steps.append(_resize(f"{prefix}/resize", sizes[1]))
    is_image = len(sizes[0]) == 2
    if is_image and convention.order == "bgr" and channels == 3:
        indices = gs.Constant(f"{prefix}/bgr", np.array([2, 1, 0], np.int64))
        steps.append(Step("Gather", f"{prefix}/order", {"axis": 1}, (indices,)))
    if is_image and channels == 1 != source.shape[1]:
        luma = gs.Constant(f"{prefix}/luma", np.array(GREY, np.float32).reshape(1, 3, 1, 1))
        steps.append(Step("Conv", f"{prefix}/grey", {"kernel_shape": [1, 1]}, (luma,)))
    along = (1, -1, *(1 for _ in sizes[0]))
    mean, std = (np.array(v, np.float64).reshape(along) for v in (convention.mean, convention.std))
    scale, offset = (convention.scale / std).astype(np.float32), (-mean / std).astype(np.float32)
    if np.any(scale != 1):
        steps.append(Step("Mul", f"{prefix}/mul", operands=(gs.Constant(f"{prefix}/scale", scale),)))
    if np.any(offset != 0):
        steps.append(Step("Add", f"{prefix}/add", operands=(gs.Constant(f"{prefix}/offset", offset),)))
    return chained(steps or [Step("Identity", f"{prefix}/identity")], source, target)


def projection(
    source: gs.Variable,
    layouts: tuple[Layout, Layout],
    plan: Projection,
    name: str,
    init: SkipInit,
    rng: np.random.Generator,
) -> tuple[list[gs.Node], gs.Variable]:
    """Make what a skip adds to its target.

        equal    source (paper), or source ─ Conv 1x1 (zero)
        conv     source ─ Conv
        pool     source ─ AveragePool ─ Conv 1x1
        resize   source ─ Conv 1x1 ─ Resize, or source ─ Resize ─ Conv 1x1

    Where channels come last on both sides and the positions agree, a MatMul is the 1x1 Conv; else such a
    tensor is brought to channels first for the Conv, without its class tokens, which then get nothing.

    Args:
        source: The tap that is read.
        layouts: Of the source, and of the tap that is added to.
        plan: The projection's kind and window.
        name: Prefix of the names.
        init: `paper`: plain Add, or He-initialised weights; else the weights are zero, and the skip adds
            nothing.
        rng: For the weights.

    Returns:
        The nodes, and the variable to add to the target.
    """
    inner, outer = layouts
    if plan.kind == "equal" and init == "paper" and inner == outer:
        return [], source
    if is_product(plan, inner, outer):
        steps = [_weighted("MatMul", name, (inner.channels, outer.channels), init, rng)]
    else:
        steps = [*_to_maps(inner, name), *_on_maps(layouts, plan, name, init, rng), *_from_maps(outer, name)]
    result = gs.Variable(f"{name}/projected", np.float32)
    return chained(steps, source, result), result


def _on_maps(
    layouts: tuple[Layout, Layout], plan: Projection, name: str, init: SkipInit, rng: np.random.Generator
) -> list[Step]:
    """Project [N, C, *grid] to [N, C', *grid']."""
    if plan.kind == "equal" and init == "paper":
        return []
    inner, outer = layouts
    window = {"kernel_shape": list(plan.kernel), "strides": list(plan.stride), "pads": list(plan.pads)}
    of_conv = window if plan.kind == "conv" else {"kernel_shape": [1 for _ in plan.kernel]}
    shape = (outer.channels, inner.channels, *of_conv["kernel_shape"])
    conv = dataclasses.replace(_weighted("Conv", name, shape, init, rng), attributes=of_conv)
    if plan.kind == "pool":
        return [Step("AveragePool", f"{name}/pool", window), conv]
    if plan.kind == "resize":
        resize = _resize(f"{name}/resize", outer.grid)
        return [resize, conv] if resizes_first(inner, outer) else [conv, resize]
    return [conv]


def _weighted(op: str, name: str, shape: tuple[int, ...], init: SkipInit, rng: np.random.Generator) -> Step:
    """Return a Conv [out, in, ...] or a MatMul [in, out], with its weight."""
    if init == "paper":
        weight = he_normal(shape, rng) if op == "Conv" else he_normal(shape[::-1], rng).T.copy()
    else:
        weight = np.zeros(shape, np.float32)
    return Step(op, f"{name}/{op.lower()}", operands=(gs.Constant(f"{name}/weight", weight),))


def _to_maps(layout: Layout, name: str) -> list[Step]:
    """Bring a tensor of any layout to [N, C, *grid]; class tokens are left out."""
    dimensions = len(layout.grid)
    if layout.kind == "channels_first":
        return []
    if layout.kind == "channels_last":
        order = [0, dimensions + 1, *range(1, dimensions + 1)]
        return [Step("Transpose", f"{name}/channels_first", {"perm": order})]
    steps = []
    if layout.prefix:
        bounds = {"starts": layout.prefix, "ends": layout.prefix + layout.positions, "axes": 1}
        operands = tuple(_integers(f"{name}/{key}", [value]) for key, value in bounds.items())
        steps.append(Step("Slice", f"{name}/patches", operands=operands))
    steps.append(Step("Transpose", f"{name}/channels_first", {"perm": [0, 2, 1]}))
    if dimensions > 1:
        steps.append(_reshape(f"{name}/maps", [0, layout.channels, *layout.grid]))
    return steps


def _from_maps(layout: Layout, name: str) -> list[Step]:
    """Bring [N, C, *grid] to a tensor of any layout; its class tokens are zeros."""
    dimensions = len(layout.grid)
    if layout.kind == "channels_first":
        return []
    if layout.kind == "channels_last":
        order = [0, *range(2, dimensions + 2), 1]
        return [Step("Transpose", f"{name}/channels_last", {"perm": order})]
    steps = []
    if dimensions > 1:
        steps.append(_reshape(f"{name}/positions", [0, layout.channels, layout.positions]))
    steps.append(Step("Transpose", f"{name}/tokens", {"perm": [0, 2, 1]}))
    if layout.prefix:
        # Without `axes`: ONNX Runtime 1.31 moves transposes across a Pad as if it had none.
        pads = _integers(f"{name}/pads", [0, layout.prefix, 0, 0, 0, 0])
        steps.append(Step("Pad", f"{name}/class_tokens", operands=(pads,)))
    return steps


def _reshape(name: str, target: list[int]) -> Step:
    return Step("Reshape", name, operands=(_integers(f"{name}/target", target),))


def _integers(name: str, values: list[int]) -> gs.Constant:
    return gs.Constant(name, np.array(values, np.int64))


def he_normal(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Draw weights [out, in, ...] for a layer before a ReLU (He et al., arXiv 1502.01852)."""
    deviation = math.sqrt(2 / math.prod(shape[1:]))
    return (rng.standard_normal(shape) * deviation).astype(np.float32)


def _resize(name: str, size: Sequence[int]) -> Step:
    """Resize the axes behind the channels to exact sizes; scales would round (55 x 56/55 gives 55)."""
    sizes = _integers(f"{name}/sizes", list(size))
    axes = list(range(2, 2 + len(size)))
    attributes = {"axes": axes, "mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    empty = gs.Variable.empty()
    return Step("Resize", name, attributes, (empty, empty, sizes))


def chained(steps: list[Step], source: gs.Variable, target: gs.Variable) -> list[gs.Node]:
    """Make nodes that feed one another: `source` goes into the first, the last makes `target`."""
    nodes: list[gs.Node] = []
    current = source
    for step in steps:
        output = target if step is steps[-1] else gs.Variable(f"{step.name}/output", np.float32)
        inputs = [current, *step.operands]
        nodes.append(gs.Node(step.op, step.name, dict(step.attributes), inputs, [output]))
        current = output
    return nodes
