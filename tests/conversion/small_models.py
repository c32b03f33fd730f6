"""Small ONNX models as text, for the tests of the converter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper


def model(
    body: str,
    weights: Mapping[str, NDArray[Any]] | None = None,
    *,
    inputs: str = "float[N, 3, 8, 8] x",
    outputs: str = "y",
    opset: int = 18,
) -> onnx.ModelProto:
    """Parse the nodes of a graph; `weights` become initializers, in order."""
    declared = ", ".join(f"float {name}" for name in outputs.split())
    header = f'<ir_version: 8, opset_import: ["" : {opset}]>'
    proto = onnx.parser.parse_model(f"{header} g ({inputs}) => ({declared}) {{ {body} }}")
    for name, array in (weights or {}).items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return proto


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Normal random numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
