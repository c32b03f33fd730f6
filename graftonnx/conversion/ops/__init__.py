"""The operators, one file per family; importing this package registers all of them."""

from __future__ import annotations

from graftonnx.conversion.ops import (
    activation,
    bits,
    constant,
    control,
    conv,
    linear,
    logic,
    math,
    norm,
    pool,
    quantize,
    recurrent,
    reduce,
    resize,
    scatter,
    shape,
    sort,
    tensor,
)

FAMILIES = (
    activation,
    bits,
    constant,
    control,
    conv,
    linear,
    logic,
    math,
    norm,
    pool,
    quantize,
    recurrent,
    reduce,
    resize,
    scatter,
    shape,
    sort,
    tensor,
)
"""Every family, listed by name."""
