"""First weights of skips that `graftonnx fuse` does not offer, for studies of what it might."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from graftonnx import GraftError, save

SHARE = 0.1
"""Of He's standard deviation."""


def drawn(source: Path, target: Path, kind: str) -> None:
    """Write a fused file whose skips begin small and random, where those of the source begin at zero.

    Args:
        source: A file of `graftonnx fuse --skip-init zero`.
        target: Where to.
        kind: `small`: He's normal distribution, times :data:`SHARE`.

    Raises:
        GraftError: If there is no such kind.
    """
    if kind != "small":
        raise GraftError(f"there are no first weights '{kind}'. Choose 'small'.")
    model, generator = onnx.load(source), np.random.default_rng(0)
    for weight in model.graph.initializer:
        if weight.name.startswith("skips/") and weight.name.endswith("/weight"):
            fan_in = math.prod(weight.dims[1:])
            values = generator.normal(0, SHARE * math.sqrt(2 / fan_in), weight.dims).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    save(model, target)
