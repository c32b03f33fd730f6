"""Nodes that make a large value of a small one, and loops: how large and how many, before anybody runs them.

An extent and a number of steps must follow from the file and the size of the input. What depends on the
numbers in an image counts as any number.

| node | is taken where |
|---|---|
| grows a value | its extents are constants or follow from shapes, at the size at which the network runs |
| loop with a number of steps | likewise |
| loop without one | its condition follows from constants and the steps that were taken, and ends |
| scan | a step for each piece of what it reads |
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper

from graftonnx import limits
from graftonnx.declarations import shortened
from graftonnx.fragility import MOST_AXES
from graftonnx.graph import bodies, integer, ints, subgraphs, value_shapes
from graftonnx.normalise.computing import Work
from graftonnx.normalise.opset import inline_functions
from graftonnx.normalise.probing import Around, around, body_probe, probe, settled
from graftonnx.normalise.whiles import ANY, constants, first, simulated_steps
from graftonnx.shapes import Shape, spelled

GROWING: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("ConstantOfShape", "BlackmanWindow", "HannWindow", "HammingWindow"), (0,)),
    **dict.fromkeys(
        ("Expand", "Tile", "Pad", "OneHot", "CenterCropPad", "AffineGrid", "Col2Im", "DFT"), (1,)
    ),
    **dict.fromkeys(("Upsample", "STFT"), (1,)),
    "Range": (0, 1, 2),
    "Resize": (1, 2, 3),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1),
}
"""Operators that make a large value of a small one, and the inputs that say how large."""

NUMBERS = frozenset({"ConstantOfShape", "Expand", "Tile"})
"""Those of which the numbers are extents or factors of them."""

RANDOM = frozenset({"RandomNormal", "RandomUniform"})
"""Operators that make a value of an attribute `shape`."""

ARRANGING = frozenset({"Cast", "Concat", "Equal", "Identity", "Min", "Not", "Where"})
"""Operators that make no number larger."""

CHOSEN = frozenset(
    {"Gather", "Slice", "Split", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "ReduceMax", "ReduceMin"}
)
"""Likewise, of their first input."""

COUNTED = frozenset({"Shape", "SequenceLength"})
"""Operators that count what is there."""

MOST_NAMES = 1 << 10
"""Values that are followed from a size back to the shapes that it comes from; real networks have some ten."""

KINDS = frozenset({*GROWING, *RANDOM, "Loop", "If", "Scan"})
"""Operators because of which :func:`check_growth` has something to do."""


def check_shapes(shapes: Mapping[str, Shape]) -> None:
    """Refuse shapes of which one takes more than the limit, with extents that are open counted as 1.

    Raises:
        ModelError: Naming the first such value.
    """
    most = limits.limits().value // 4
    for name, shape in shapes.items():
        count = math.prod([extent for extent in shape if extent is not None])
        if count > most:
            limits.check(
                "value", 4 * count, f"the bytes of its value '{shortened(name)}' {spelled(shape)} are"
            )


def check_growth(model: onnx.ModelProto, size: tuple[int, ...] | None = None) -> None:
    """Refuse nodes that make a large value of a small one, and loops that take too many steps or never end.

    Args:
        model: A model or a skeleton, in any form.
        size: The extents of images whose file leaves them open.

    Raises:
        ModelError: Naming the first such node.
    """
    if any(_is_open(function, {}) for function in model.functions):
        model = inline_functions(model)
    work = Work()
    if _is_open(model.graph, {}):
        model = settled(probe(model, size), work)
        check_shapes(value_shapes(model.graph))
    _check(model, 1, work)


def _check(model: onnx.ModelProto, times: int, work: Work) -> None:
    """Check a graph that runs so many times."""
    graph, shapes = model.graph, value_shapes(model.graph)
    tensors = constants(graph)
    makers = {name: node for node in graph.node for name in node.output if name}
    outside: Around | None = None
    for node in graph.node:
        _check_growing(node, tensors, shapes, makers)
        steps = times
        if node.op_type in ("Loop", "Scan"):
            is_scan = node.op_type == "Scan"
            taken = _scanned(model, node, shapes) if is_scan else _steps(node, tensors, makers, model, work)
            steps = times * taken
            where = f"the steps of its loop '{shortened(node.name or node.output[0])}' are"
            if steps > 1:
                limits.check("steps", steps, where)
        if subgraphs(node):
            outside = outside or around(model)
            if node.op_type == "Loop" and steps > 1:
                _check_states(outside, shapes, node, steps // times, work)
            _check_inside(outside, node, steps, work)


def _check_inside(outside: Around, node: NodeProto, steps: int, work: Work) -> None:
    """Check the graphs inside a node, which run so many times."""
    for body in subgraphs(node):
        if _has_kinds(body):
            inner = settled(body_probe(outside, node, body, steps), work)
            check_shapes(value_shapes(inner.graph))
            _check(inner, steps, work)


def _check_states(
    outside: Around, shapes: Mapping[str, Shape], node: NodeProto, steps: int, work: Work
) -> None:
    """Refuse a loop whose states grow, or whose results of all steps do not fit into memory together."""
    body = subgraphs(node)[0]
    states: list[Shape | None] = [shapes.get(name) for name in node.input[2:]]
    sizes = [_sizes(states)]
    for _ in range(2):
        inner = value_shapes(settled(body_probe(outside, node, body, steps, states), work).graph)
        states = [inner.get(value.name) for value in body.output[1 : 1 + len(states)]]
        sizes.append(_sizes(states))
    for name, before, once, twice in zip(node.output, *sizes, strict=False):
        if before and once and twice and twice > once:
            where = f"the bytes of its value '{shortened(name)}' after {steps:,} steps are about"
            limits.check("value", 4 * _last(before, once, twice, steps), where)
    results = zip(node.output[len(states) :], body.output[1 + len(states) :], strict=False)
    for name, value in results:
        (size,) = _sizes([inner.get(value.name)])
        where = f"the bytes of its value '{shortened(name)}', of {steps:,} steps, are"
        limits.check("value", 4 * steps * (size or 1), where)


def _sizes(shapes: Iterable[Shape | None]) -> list[int | None]:
    """Return how many elements there are; None where that is not known."""
    return [
        None if shape is None or None in shape else math.prod(extent for extent in shape if extent)
        for shape in shapes
    ]


def _last(before: int, once: int, twice: int, steps: int) -> int:
    """Return how large a state becomes that grows by the same number in each step, or by the same factor."""
    if twice - once <= once - before:
        return before + (once - before) * steps
    doublings = math.log2(twice / once) * (steps - 2)
    return ANY if doublings > 60 else int(twice * 2**doublings)


def _scanned(model: onnx.ModelProto, node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    """Return how many steps a `Scan` takes, an extent of what it reads in pieces; 1 if that is not known."""
    count = min(max(integer(node, "num_scan_inputs", 0), 0), len(node.input))
    opset = next((entry.version for entry in model.opset_import if not entry.domain), 0)
    axes = ints(node, "scan_input_axes") or [1 if opset < 9 else 0] * count
    extents = []
    for name, axis in zip(node.input[len(node.input) - count :], axes, strict=False):
        shape = shapes.get(name, ())
        if -len(shape) <= axis < len(shape):
            extents.append(shape[axis] or 1)
    return max([1, *extents])


def _has_kinds(graph: GraphProto) -> bool:
    return any(node.op_type in KINDS for node in graph.node)


def _is_open(graph: GraphProto | onnx.FunctionProto, outer: dict[str, TensorProto]) -> bool:
    """Return whether a number that decides about a size is no constant, here or in graphs inside."""
    if not any(node.op_type in KINDS for node in graph.node):
        return False
    known = outer | constants(graph)
    for node in graph.node:
        decisive = _decisive(node)
        if node.op_type in ("Loop", "Scan"):
            return True
        if any(name not in known for name in decisive):
            return True
    return any(_is_open(body, known) for body in bodies(graph))


def _decisive(node: NodeProto) -> list[str]:
    """Return the inputs of a node that say how large its result is."""
    places = GROWING.get(node.op_type, ())
    return [node.input[place] for place in places if place < len(node.input) and node.input[place]]


def _steps(
    node: NodeProto,
    tensors: dict[str, TensorProto],
    makers: dict[str, NodeProto],
    model: onnx.ModelProto,
    work: Work,
) -> int:
    """Return how many steps a loop takes at most.

    Raises:
        ModelError: If it never ends.
    """
    most = node.input[0] if node.input else ""
    if not most:
        return simulated_steps(node, tensors, model, work)
    if most not in tensors and not _follows([most], tensors, makers):
        where = f"the steps of its loop '{shortened(node.name or node.output[0])}'"
        limits.check("steps", ANY, f"{where} depend on what the input shows: they may be")
    return max(1, int(first(tensors.get(most)) or 0))


def _check_growing(
    node: NodeProto,
    tensors: dict[str, TensorProto],
    shapes: Mapping[str, Shape],
    makers: dict[str, NodeProto],
) -> None:
    """Refuse a node whose result is too large, or may be of any size."""
    decisive = _decisive(node)
    where = f"the bytes of its value '{shortened(node.output[0])}'"
    if node.op_type in RANDOM:
        _check_extents(ints(node, "shape"), where)
    if node.op_type in NUMBERS and decisive and decisive[0] in tensors:
        wanted = numpy_helper.to_array(tensors[decisive[0]])
        _check_extents(wanted.ravel().tolist() if wanted.dtype.kind in "iu" else (), where)
    unknown = [name for name in decisive if name not in tensors]
    if unknown and None in shapes.get(node.output[0], (None,)) and not _follows(unknown, tensors, makers):
        limits.check("value", ANY, f"{where} depend on what the input shows: they may be")


def _check_extents(extents: Iterable[int], where: str) -> None:
    limits.check("value", 4 * math.prod(max(extent, 1) for extent in extents), f"{where} are at least")


def _follows(names: list[str], tensors: dict[str, TensorProto], makers: dict[str, NodeProto]) -> bool:
    """Return whether numbers are extents of values that are there, arranged, and no large constants."""
    waiting, seen, factor = list(names), set(names), 1.0
    while waiting:
        name = waiting.pop()
        if len(seen) > MOST_NAMES:
            return False
        if name in tensors:
            array = numpy_helper.to_array(tensors[name])
            if array.dtype.kind not in "iubf" or array.size > MOST_AXES:
                return False
            factor *= float(np.prod(np.maximum(np.abs(array.astype(np.float64)), 1)))
            continue
        node = makers.get(name)
        if node is None or node.domain or node.op_type not in {*ARRANGING, *CHOSEN, *COUNTED}:
            return False
        given = {**dict.fromkeys(COUNTED, 0), **dict.fromkeys(CHOSEN, 1)}.get(node.op_type, len(node.input))
        waiting += [item for item in node.input[:given] if item and item not in seen]
        seen.update(node.input)
    return 4 * factor <= limits.limits().value
