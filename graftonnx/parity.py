"""Do ONNX Runtime and the PyTorch module give the same numbers; and if not, where do they part?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from graftonnx import limits
from graftonnx.errors import ModelError, ParityError
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
        shapes: Of both arrays, where they are not the same; the numbers are those of elements then.
    """

    index: tuple[int, ...]
    onnx: float
    torch: float
    relative: float
    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def __str__(self) -> str:
        return self.between("ONNX Runtime", "PyTorch")

    def between(self, a: str, b: str) -> str:
        """Say what both sides have, where their names are `a` and `b`."""
        if self.shapes is not None:
            return f"{a} has the shape {list(self.shapes[0])}, {b} {list(self.shapes[1])}"
        numbers = f"{a} has {self.onnx:.7g}, {b} {self.torch:.7g} ({self.relative:.1e})"
        return f"at {list(self.index)} {numbers}"


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
        return Difference((), float(expected.size), float(found.size), np.inf, (expected.shape, found.shape))
    if expected.size == 0:
        return None
    if np.iscomplexobj(expected) or np.iscomplexobj(found):  # as two numbers, along an axis of their own
        expected, found = (
            np.asarray(x, np.complex128)[..., None].view(np.float64) for x in (expected, found)
        )
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
    return compare_values(model, module, *inputs, rtol=rtol).first


@dataclass(frozen=True)
class Comparison:
    """What came out when two sides computed the same values.

    Attributes:
        values: How many were compared.
        worst: The largest relative distance among those in front of the first that differs.
        first: Name of the first value that differs, and where; None if all agree.
    """

    values: int
    worst: float
    first: tuple[str, Difference] | None = None


def compare_values(
    model: ModelProto, module: fx.GraphModule, *inputs: Array, rtol: float = RTOL
) -> Comparison:
    """Compare every value that ONNX Runtime, without its optimizer, and the module compute, in order."""
    from graftonnx.conversion.evaluation import intermediate_values

    ours = intermediate_values(module, *inputs)
    made = {name for node in model.graph.node for name in node.output}
    shared = [name for name in ours if name in made]
    session = open_session(with_outputs(model, shared), provider="cpu", optimise=False)
    theirs = session.run(*inputs, outputs=shared) if shared else []
    return _compared(shared, theirs, [ours[name] for name in shared], rtol)


def compare_models(a: ModelProto, b: ModelProto, *inputs: Array, rtol: float = RTOL) -> Comparison:
    """Run two models in ONNX Runtime on the same inputs, and compare their outputs by position.

    Values in front of the outputs are compared where both models have one of that name, so that the first
    difference is found where it begins. In a :class:`Difference`, `onnx` is of `a` and `torch` of `b`.

    Raises:
        ParityError: If the models have not the same number of outputs.
    """
    sessions = [open_session(model, provider="cpu") for model in (a, b)]
    names = [session.output_names for session in sessions]
    if len(names[0]) != len(names[1]):
        raise ParityError(f"the models have {len(names[0])} and {len(names[1])} outputs, expected as many.")
    outputs = [session.run(*inputs) for session in sessions]
    seen = _compared(list(names[0]), outputs[0], outputs[1], rtol)
    if seen.first is None:
        return seen
    made = {name for node in b.graph.node for name in node.output}
    shared = [name for node in a.graph.node for name in node.output if name and name in made]
    if not shared:
        return seen
    values = [
        open_session(with_outputs(m, shared), provider="cpu", optimise=False).run(*inputs, outputs=shared)
        for m in (a, b)
    ]
    inner = _compared(shared, values[0], values[1], rtol)
    return inner if inner.first is not None else seen


def _compared(names: list[str], ours: Sequence[Any], theirs: Sequence[Any], rtol: float) -> Comparison:
    worst = 0.0
    for name, expected, found in zip(names, ours, theirs, strict=True):
        if not all(isinstance(side, np.ndarray) and not side.dtype.hasobject for side in (expected, found)):
            continue
        difference = farthest(expected, found)
        if difference is not None and difference.relative > rtol:
            return Comparison(len(names), worst, (name, difference))
        worst = max(worst, difference.relative if difference else 0.0)
    return Comparison(len(names), worst)


def random_inputs(model: ModelProto, *, size: tuple[int, int] | None = None, seed: int = 0) -> list[Array]:
    """Return random inputs that fit a model: floats in 0..1, integers and truth values 0 or 1.

    Free extents are small: 2 for the first axis, 3 channels of 64 x 64 pixels for images, 8 elsewhere; an
    extent of the same name is the same everywhere.

    Args:
        model: Whose inputs these are.
        size: Height and width of images whose extents are free.
        seed: Of the random numbers.

    Raises:
        ModelError: If an input is no tensor, or of a type that has no NumPy counterpart.
    """
    rng = np.random.default_rng(seed)
    held = {tensor.name for tensor in model.graph.initializer}
    named: dict[str, int] = {}
    arrays = []
    for value in model.graph.input:
        if value.name in held:
            continue
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type") or kind.elem_type == onnx.TensorProto.STRING:
            raise ModelError(f"cannot make up the input '{value.name}': it is no tensor of numbers.")
        shape = _small_shape(kind.shape.dim, size or (64, 64), named)
        try:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        except (KeyError, ValueError) as error:
            raise ModelError(
                f"cannot make up the input '{value.name}': the file leaves its type open."
            ) from error
        limits.check("value", 8 * math.prod(shape), f"the bytes of the input '{value.name}' are")
        is_float = dtype.kind == "f" or dtype.name == "bfloat16"
        numbers = rng.random(shape) if is_float else rng.integers(0, 2, shape)
        arrays.append(np.asarray(numbers).astype(dtype))
    return arrays


def _small_shape(dims: Sequence[Any], size: tuple[int, int], named: dict[str, int]) -> list[int]:
    """Return a shape in which free extents are small."""
    is_image = len(dims) == 4
    is_channels_last = is_image and dims[3].dim_value in (1, 3, 4) and dims[1].dim_value not in (1, 3, 4)
    free = [2, *([8] * (len(dims) - 1))]
    if is_image:
        free[1:] = [*size, 3] if is_channels_last else [3, *size]
    shape = []
    for dim, small in zip(dims, free, strict=False):
        if dim.HasField("dim_value") and dim.dim_value > 0:
            shape.append(dim.dim_value)
        else:
            shape.append(named.setdefault(dim.dim_param, small) if dim.dim_param else small)
    return shape


def described_node(model: ModelProto, value: str) -> str:
    """Return the node that computes a value, with its attributes and inputs, for a person."""
    return _described(model, next(node for node in model.graph.node if value in node.output))


def _report(
    model: ModelProto, module: fx.GraphModule, inputs: Sequence[Array], rtol: float, seen: str
) -> str:
    """Return the message for a difference that was seen at an output."""
    opening = f"ONNX Runtime and PyTorch disagree by more than {rtol:g}: {seen}."
    first = first_difference(model, module, *inputs, rtol=rtol)
    if first is None:
        return f"{opening} Without ONNX Runtime's optimizer no value differs."
    name, difference = first
    return (
        f"{opening} The first value that differs is '{name}' of {described_node(model, name)}: {difference}."
    )


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
