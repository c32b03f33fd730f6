"""The operators, one file per family; importing this package registers all of them."""

from __future__ import annotations

from graftonnx.conversion.ops import (
    activation,
    constant,
    control,
    conv,
    linear,
    logic,
    math,
    norm,
    pool,
    reduce,
    resize,
    shape,
    tensor,
)

FAMILIES = (
    activation,
    constant,
    control,
    conv,
    linear,
    logic,
    math,
    norm,
    pool,
    reduce,
    resize,
    shape,
    tensor,
)
"""Every family, listed by name."""
