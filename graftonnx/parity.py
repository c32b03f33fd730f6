"""Do ONNX Runtime and the PyTorch module give the same numbers; and if not, where do they part?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from graftonnx.errors import ParityError
from graftonnx.runtime import open_session, with_outputs

if TYPE_CHECKING:
    from torch import fx

Array = NDArray[Any]

RTOL = 1e-4
"""Float32 sums in another order differ by about 1e-6 of the largest number, a network adds to that."""

_SHOWN_INPUTS = 4


@dataclass(frozen=True)
class Difference:
    """Where two arrays differ most.

    Attributes:
        index: Of the element.
        onnx: Its number in ONNX Runtime.
        torch: Its number in PyTorch.
        relative: The distance, as a share of the largest magnitude in the array of ONNX Runtime.
    """

    index: tuple[int, ...]
    onnx: float
    torch: float
    relative: float

    def __str__(self) -> str:
        where = list(self.index)
        return f"at {where} ONNX Runtime has {self.onnx:.7g}, PyTorch {self.torch:.7g} ({self.relative:.1e})"


def compare_module(model: ModelProto, module: fx.GraphModule, *inputs: Array, rtol: float = RTOL) -> float:
    """Run a model in ONNX Runtime and its module in PyTorch, on the same inputs, and compare all outputs.

    Args:
        model: The ONNX model; for a trained module, what `write_back` gives.
        module: What `to_torch` made of it; it runs in evaluation mode and keeps its own mode.
        inputs: One array for each input of the graph.
        rtol: The largest distance allowed, as a share of the largest magnitude in an output.

    Returns:
        The largest such share over all outputs.

    Raises:
        ParityError: If an output differs by more; the message names the first value in the graph that does,
            its node and inputs, and both numbers.
    """
    from graftonnx.conversion.evaluation import run_module

    theirs = open_session(model, provider="cpu").run(*inputs)
    ours = run_module(module, *inputs)
    names = [value.name for value in model.graph.output]
    worst = 0.0
    for name, expected, found in zip(names, theirs, ours, strict=True):
        difference = farthest(expected, found)
        if difference is not None and difference.relative > rtol:
            raise ParityError(_report(model, module, inputs, rtol, f"output '{name}' {difference}"))
        worst = max(worst, difference.relative if difference else 0.0)
    return worst


def farthest(expected: Array, found: Array) -> Difference | None:
    """Return where two arrays differ most; None if they are equal (two NaN are).

    Args:
        expected: From ONNX Runtime.
        found: From PyTorch; another shape counts as an infinite distance.
    """
    if expected.shape != found.shape:
        return Difference((), float(expected.size), float(found.size), np.inf)
    if expected.size == 0:
        return None
    a, b = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return None
    finite = np.isfinite(a) & np.isfinite(b)
    distance = np.where(same, 0.0, np.inf)
    np.subtract(a, b, out=distance, where=finite)
    distance = np.abs(distance)
    scale = float(np.max(np.abs(a[np.isfinite(a)]), initial=0.0))
    place = np.unravel_index(int(np.argmax(distance)), a.shape)
    largest = float(distance[place])
    relative = largest / scale if scale > 0 else np.inf
    return Difference(tuple(int(i) for i in place), float(a[place]), float(b[place]), relative)


def first_difference(
    model: ModelProto, module: fx.GraphModule, *inputs: Array, rtol: float = RTOL
) -> tuple[str, Difference] | None:
    """Compare every value that both sides compute, in order; return the first that differs, and where.

    ONNX Runtime runs without its optimizer here, so that every value exists.
    """
    from graftonnx.conversion.evaluation import intermediate_values

    ours = intermediate_values(module, *inputs)
    made = {name for node in model.graph.node for name in node.output}
    shared = [name for name in ours if name in made]
    session = open_session(with_outputs(model, shared), provider="cpu", optimise=False)
    theirs = session.run(*inputs, outputs=shared)
    for name, expected in zip(shared, theirs, strict=True):
        difference = farthest(expected, ours[name])
        if difference is not None and difference.relative > rtol:
            return name, difference
    return None


def _report(
    model: ModelProto, module: fx.GraphModule, inputs: Sequence[Array], rtol: float, seen: str
) -> str:
    """Return the message for a difference that was seen at an output."""
    opening = f"ONNX Runtime and PyTorch disagree by more than {rtol:g}: {seen}."
    first = first_difference(model, module, *inputs, rtol=rtol)
    if first is None:
        return f"{opening} Without ONNX Runtime's optimizer no value differs."
    name, difference = first
    node = next(node for node in model.graph.node if name in node.output)
    return f"{opening} The first value that differs is '{name}' of {_described(model, node)}: {difference}."


def _described(model: ModelProto, node: NodeProto) -> str:
    """Return a node with its inputs, for a person."""
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    inputs = [f"'{name}'" + (f" {shapes[name]}" if name in shapes else "") for name in node.input if name]
    more = f" and {len(inputs) - _SHOWN_INPUTS} more" if len(inputs) > _SHOWN_INPUTS else ""
    attributes = ", ".join(
        f"{item.name}={onnx.helper.get_attribute_value(item)!r}"
        for item in node.attribute
        if item.type not in (onnx.AttributeProto.TENSOR, onnx.AttributeProto.GRAPH)
    )
    described = f"'{node.name or node.output[0]}' ({node.op_type}{', ' if attributes else ''}{attributes})"
    return f"{described} with inputs {', '.join(inputs[:_SHOWN_INPUTS])}{more}"
