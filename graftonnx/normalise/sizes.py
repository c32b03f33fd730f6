"""What the values of a network take, before anybody allocates them."""

from __future__ import annotations

import onnx

from graftonnx.graph import value_shapes
from graftonnx.normalise.divisions import check_divisions, divides
from graftonnx.normalise.growth import check_growth, check_shapes
from graftonnx.normalise.opset import inline_functions
from graftonnx.normalise.probing import inferred, probe


def check_sizes(model: onnx.ModelProto, size: tuple[int, ...] | None = None) -> None:
    """Refuse a network of which a value would not fit into memory, a loop not end or a division fail.

    Args:
        model: A model or a skeleton, in any form; shapes that onnx cannot infer are not known.
        size: The extents of images whose file leaves them open.

    Raises:
        ModelError: Naming the first such value, loop or division.
    """
    if any(divides(function) for function in model.functions):
        model = inline_functions(model)
    known = inferred(probe(model, size))
    check_divisions(known)
    check_shapes(value_shapes(known.graph))
    check_growth(model, size)
