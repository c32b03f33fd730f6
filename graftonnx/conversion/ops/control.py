"""Control flow."""

from __future__ import annotations

import numpy as np
from onnx import GraphProto

from graftonnx.conversion.builder import Builder
from graftonnx.conversion.registry import op
from graftonnx.conversion.values import Result, Value
from graftonnx.errors import UnsupportedOpError


@op("If", since=1)
def if_(g: Builder, cond: Value, *, else_branch: GraphProto, then_branch: GraphProto) -> Result:
    """One of two graphs, chosen while converting."""
    if not isinstance(cond, np.ndarray):
        raise UnsupportedOpError("its condition is computed when the model runs, expected a constant.")
    return g.inline(then_branch if cond.item() else else_branch)
