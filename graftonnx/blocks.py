"""The ONNX pieces that graftonnx inserts in front of branches and between them: preprocessing, projections.

Every function returns onnx-graphsurgeon nodes, wired to each other and to the variables given; whoever
calls puts them into a graph. Trainable tensors end in `weight` or `bias`; others are constants.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graftonnx.metadata import Preprocess
from graftonnx.plan import Projection

SkipInit = Literal["zero", "paper"]

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma of ITU-R BT.601."""

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
    sizes: tuple[tuple[int, int], tuple[int, int]],
) -> list[gs.Node]:
    """Turn the shared image into what a branch was trained on.

        source ─ (Resize) ─ (channel order) ─ (Mul) ─ (Add) ─ target

    Args:
        source: The fused graph's input, [N, 3, H, W], RGB in 0..1.
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
    if convention.order == "bgr" and channels == 3:
        indices = gs.Constant(f"{prefix}/bgr", np.array([2, 1, 0], np.int64))
        steps.append(Step("Gather", f"{prefix}/order", {"axis": 1}, (indices,)))
    if channels == 1:
        luma = gs.Constant(f"{prefix}/luma", np.array(GREY, np.float32).reshape(1, 3, 1, 1))
        steps.append(Step("Conv", f"{prefix}/grey", {"kernel_shape": [1, 1]}, (luma,)))
    mean, std = (np.array(v, np.float64).reshape(1, -1, 1, 1) for v in (convention.mean, convention.std))
    scale, offset = (convention.scale / std).astype(np.float32), (-mean / std).astype(np.float32)
    if np.any(scale != 1):
        steps.append(Step("Mul", f"{prefix}/mul", operands=(gs.Constant(f"{prefix}/scale", scale),)))
    if np.any(offset != 0):
        steps.append(Step("Add", f"{prefix}/add", operands=(gs.Constant(f"{prefix}/offset", offset),)))
    return chained(steps or [Step("Identity", f"{prefix}/identity")], source, target)


def projection(
    source: gs.Variable,
    shapes: tuple[tuple[int, int, int], tuple[int, int, int]],
    plan: Projection,
    name: str,
    init: SkipInit,
    rng: np.random.Generator,
) -> tuple[list[gs.Node], gs.Variable]:
    """Make what a skip adds to its target.

        equal    source (paper), or source ─ Conv 1x1 (zero)
        conv     source ─ Conv
        resize   source ─ Conv 1x1 ─ Resize

    A 1x1 Conv and a Resize commute, so the Conv comes first where the map is smaller: fewer MACs.

    Args:
        source: The tap that is read, [N, C, H, W].
        shapes: (C, H, W), and (C', H', W') of the tap that is added to.
        plan: The projection's kind and window.
        name: Prefix of the names.
        init: `zero`: the skip adds nothing before training; `paper`: plain Add, or He-initialised Conv.
        rng: For the weights.

    Returns:
        The nodes, and the variable to add to the target.
    """
    (inner, *_), (outer, *size) = shapes
    if plan.kind == "equal" and init == "paper":
        return [], source
    weight_shape = (outer, inner, *plan.kernel)
    weight = np.zeros(weight_shape, np.float32) if init == "zero" else he_normal(weight_shape, rng)
    steps = [
        Step(
            "Conv",
            f"{name}/conv",
            {"kernel_shape": list(plan.kernel), "strides": list(plan.stride), "pads": list(plan.pads)},
            (gs.Constant(f"{name}/weight", weight),),
        )
    ]
    if plan.kind == "resize":
        resize = _resize(f"{name}/resize", (size[0], size[1]))
        steps = [*steps, resize] if math.prod(size) >= math.prod(shapes[0][1:]) else [resize, *steps]
    result = gs.Variable(f"{name}/projected", np.float32)
    return chained(steps, source, result), result


def he_normal(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Draw weights [out, in, ...] for a layer before a ReLU (He et al., arXiv 1502.01852)."""
    deviation = math.sqrt(2 / math.prod(shape[1:]))
    return (rng.standard_normal(shape) * deviation).astype(np.float32)


def _resize(name: str, size: tuple[int, int]) -> Step:
    """Resize the last two axes to exact sizes; scales would round (55 x 56/55 gives 55)."""
    sizes = gs.Constant(f"{name}/sizes", np.array(size, np.int64))
    attributes = {"axes": [2, 3], "mode": "linear", "coordinate_transformation_mode": "half_pixel"}
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
