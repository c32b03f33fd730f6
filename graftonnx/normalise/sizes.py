"""What the values of a network take, before anybody allocates them."""

from __future__ import annotations

import onnx

from graftonnx.graph import value_shapes
from graftonnx.normalise.growth import check_growth, check_shapes
from graftonnx.normalise.probing import inferred, probe


def check_sizes(model: onnx.ModelProto, size: tuple[int, ...] | None = None) -> None:
    """Refuse a network of which one value would not fit into memory, or a loop would not end.

    Args:
        model: A model or a skeleton, in any form; shapes that onnx cannot infer are not known.
        size: The extents of images whose file leaves them open.

    Raises:
        ModelError: Naming the first such value or loop.
    """
    check_shapes(value_shapes(inferred(probe(model, size)).graph))
    check_growth(model, size)
