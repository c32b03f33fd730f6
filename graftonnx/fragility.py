"""Nodes that end the whole process in native code, or pass it although they contradict themselves.

The standard forbids most of them, and onnx's shape inference reads memory that is not there. They were
found by giving every operator missing types, odd shapes and extreme attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from onnx import AttributeProto, NodeProto

from graftonnx.errors import ModelError
from graftonnx.graph import integer

Typed: TypeAlias = Mapping[str, int | None]
"""The values whose types a graph states; of those that it holds, with the number of axes."""


def _needs_type(node: NodeProto, typed: Typed) -> None:
    """Inference reads the type of the input, whether it is known or not."""
    states = any(item.name == "dtype" for item in node.attribute)
    if not states and node.input[0] not in typed:
        raise ModelError(
            f"{_where(node)} reads a value whose type the file does not state. Export it with that type."
        )


def _batch_dimensions(node: NodeProto, typed: Typed) -> None:
    """Inference indexes a shape by this attribute."""
    count = integer(node, "batch_dims", 0)
    if count < 0:
        raise ModelError(f"{_where(node)} has batch_dims {count}; expected 0 or a few. Export it again.")


def _parts(node: NodeProto, typed: Typed) -> None:
    """Inference makes so many parts, and divides by their number."""
    for item in node.attribute:
        if item.name == "num_outputs" and (len(node.input) > 1 or item.i != len(node.output)):
            raise ModelError(
                f"{_where(node)} has {len(node.output)} outputs and num_outputs {item.i}; expected the same, "
                "and no second input. Export it again."
            )


def _equation(node: NodeProto, typed: Typed) -> None:
    """Inference never ends at a character that no equation has, or at one in another's place."""
    text = "".join(item.s.decode(errors="replace") for item in node.attribute if item.name == "equation")
    terms, _, result = text.partition("->")
    for term in (*terms.split(","), result):
        letters = term.replace("...", "", 1).replace(" ", "")
        if letters and not (letters.isascii() and letters.isalpha()):
            raise ModelError(
                f"{_where(node)} has the equation '{text[:60]}'; expected letters, spaces, '...', commas "
                "and one '->'. Export it again."
            )


MOST_AXES = 64
"""NumPy's and PyTorch's."""

MOST_STEPS = (1 << 31) - 1
"""Of a kernel: what fits into the integers of its loops."""

MOST_SKIPS = 1 << 16
"""Tokens between two of an n-gram; ONNX Runtime tries every number of them, in rows of any length."""

BOUNDED = (
    {"max_skip_count": (MOST_SKIPS, f"{MOST_SKIPS:,} tokens or fewer")}
    | dict.fromkeys(
        (
            "axes",
            "axis",
            "batch_axis",
            "batch_dims",
            "perm",
            "time_axis",
            "scan_input_axes",
            "scan_output_axes",
        ),
        (MOST_AXES, "the number of an axis"),
    )
    | dict.fromkeys(
        (
            "blocksize",
            "dilations",
            "group",
            "kernel_shape",
            "output_padding",
            "output_shape",
            "pads",
            "strides",
        ),
        (MOST_STEPS, "what fits into 32 bits"),
    )
)
"""Attribute of integers -> the largest magnitude, and what is expected."""


def check_bounded(node: NodeProto, item: AttributeProto) -> None:
    """Refuse axes and extents that no tensor has: inference adds to them, counts up to them and indexes."""
    most, expected = BOUNDED[item.name]
    for number in item.ints[:] or [item.i]:
        if not -most <= number <= most:
            raise ModelError(
                f"{_where(node)} has {item.name} {number}; expected {expected}. Export it again."
            )


def _kernel(node: NodeProto, typed: Typed) -> None:
    """Inference does not compare the axes of the weights with those of the input."""
    axes = typed.get(node.input[1])
    if axes is not None and axes < 3:
        raise ModelError(
            f"{_where(node)} has weights of {axes} axes; expected 3 or more: filters, channels, extents. "
            "Export it again."
        )


def _no_empty_end(node: NodeProto, typed: Typed) -> None:
    """ONNX Runtime reads the third input, and those behind, wherever they are listed."""
    if len(node.input) > 2 and not any(node.input[2:]):
        raise ModelError(
            f"{_where(node)} lists an input without a name at the end, which ONNX Runtime would read. "
            "Export it again."
        )


FRAGILE: dict[str, Callable[[NodeProto, Typed], None]] = {
    "Conv": _kernel,
    "ConvTranspose": _kernel,
    "Einsum": _equation,
    "EyeLike": _needs_type,
    **dict.fromkeys(("DFT", "LayerNormalization", "STFT"), _no_empty_end),
    "RegexFullMatch": _needs_type,
    "DictVectorizer": _needs_type,
    "LabelEncoder": _needs_type,
    "TreeEnsemble": _needs_type,
    "GatherND": _batch_dimensions,
    "Split": _parts,
}
"""Operator -> what refuses it."""


LEAST = dict.fromkeys(("Add", "Div", "Gather", "Mul", "Sub"), 2) | dict.fromkeys(
    ("Identity", "Size", "Squeeze", "Unsqueeze"), 1
)
"""Operators that are known by their name alone, in ONNX Runtime and here, and how many inputs are read."""


def check_namesake(node: NodeProto) -> None:
    """Refuse an operator of another domain that has the name of one of ONNX's, and too few inputs for it."""
    least = LEAST.get(node.op_type, 0)
    if len(node.input) < least:
        raise ModelError(
            f"{_where(node)} has {len(node.input)} inputs; the operator of that name in ONNX has {least} or "
            "more, and ONNX Runtime takes the one for the other. Give it another name."
        )


def _where(node: NodeProto) -> str:
    return f"its node '{node.name or node.output[0]}' ({node.op_type})"
