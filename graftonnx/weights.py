"""Take the large initializers out of a model, so that analysis and surgery work on a light skeleton."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

INLINE_BYTES = 1024
"""Initializers up to this size stay in the skeleton: shapes, axes, scales, which analysis has to read."""


PROTOBUF_LIMIT = 2**31 - 2**20
"""Bytes; protobuf refuses messages of 2 GiB, the margin is for structure."""

Weights: TypeAlias = dict[str, TensorProto]
"""The tensors of a model, by initializer name, apart from its graph."""


def exceeds_protobuf(model: onnx.ModelProto) -> bool:
    """Return whether a model is too large for one protobuf message; `ByteSize` raises on such a model."""
    sizes = (len(tensor.raw_data) or tensor.ByteSize() for tensor in model.graph.initializer)
    return sum(sizes) >= PROTOBUF_LIMIT


def stub(tensor: TensorProto) -> TensorProto:
    """Return a tensor with the name, type and shape of `tensor`, but without its data."""
    return TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)


def detach(model: onnx.ModelProto) -> Weights:
    """Move every large initializer of the main graph out of `model`, leaving a stub in its place."""
    weights: Weights = {}
    for tensor in model.graph.initializer:
        if tensor.ByteSize() > INLINE_BYTES:
            whole = TensorProto()
            whole.CopyFrom(tensor)
            light = stub(tensor)
            tensor.Clear()
            tensor.CopyFrom(light)
            weights[whole.name] = whole
    return weights


def attach(model: onnx.ModelProto, weights: Weights) -> None:
    """Put the data back into every stub of `model`, under the stub's name."""
    for tensor in model.graph.initializer:
        whole = weights.get(tensor.name)
        if whole is not None:
            name = tensor.name
            tensor.CopyFrom(whole)
            tensor.name = name


def add_initializer(model: onnx.ModelProto, weights: Weights, name: str, array: NDArray[np.generic]) -> None:
    """Add an initializer to the skeleton `model`; a large one goes to `weights` and leaves a stub."""
    tensor = numpy_helper.from_array(array, name)
    if tensor.ByteSize() > INLINE_BYTES:
        weights[name] = tensor
        tensor = stub(tensor)
    model.graph.initializer.append(tensor)
