"""Where a module comes from: the ONNX model without its weights, into which write back puts them again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from graftonnx.conversion import quantization
from graftonnx.conversion.values import Array, to_array, to_tensor
from graftonnx.errors import ModelError
from graftonnx.tensors import data_field


@dataclass(frozen=True)
class Separated:
    """A running statistic that a node shared with other readers, and of which it got a copy.

    Attributes:
        node: The first output of the node that reads it.
        index: Which input of the node it is.
        read: What the node read there in the file.
        shared: The initializer behind that.
        copy: The node's own initializer.
    """

    node: str
    index: int
    read: str
    shared: str
    copy: str


@dataclass(frozen=True, eq=False)
class Origin:
    """An ONNX model whose weights are elsewhere, in a module.

    Attributes:
        skeleton: The model; the initializers that the module holds have no data.
        encodings: Name of each such initializer -> the field in which the file keeps its numbers.
        separated: The running statistics that have copies in the skeleton.
    """

    skeleton: ModelProto
    encodings: dict[str, str]
    separated: tuple[Separated, ...]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the same object: an origin never changes."""
        return self

    def restore(self, arrays: dict[str, Array]) -> ModelProto:
        """Return the model with these arrays in the place of its weights.

        An initializer keeps its encoding, so unchanged numbers give unchanged bytes. A weight that a
        `Constant` node holds is written into the node; one that other nodes compute from constants becomes
        an initializer, if it changed. A statistic that equals the one from which it was separated is
        joined with it again.

        Args:
            arrays: Name -> numbers, of every tensor that the module holds; converted to the file's types.

        Raises:
            ModelError: If a weight is gone, or has another shape.
        """
        model = ModelProto()
        model.CopyFrom(self.skeleton)
        for tensor in model.graph.initializer:
            if tensor.name in self.encodings:
                _check_shape(tensor, arrays)
                fill(tensor, arrays[tensor.name], self.encodings[tensor.name])
        nodes = {node.output[0]: node for node in model.graph.node if len(node.output) == 1}
        for name in arrays.keys() - self.encodings.keys():
            if name not in nodes:
                raise ModelError(f"the file has no '{name}' to write to.")
            _write_constant(model, nodes[name], arrays[name])
        if self.separated:
            self._join(model)
        return model

    def _join(self, model: ModelProto) -> None:
        """Let nodes read the shared statistics again, where their copies have the same numbers."""
        graph = model.graph
        nodes = {node.output[0]: node for node in graph.node if node.output}
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        joined: set[str] = set()
        for one in self.separated:
            copy, shared = tensors[one.copy], tensors[one.shared]
            if numpy_helper.to_array(copy).tobytes() != numpy_helper.to_array(shared).tobytes():
                continue
            nodes[one.node].input[one.index] = one.read
            joined.add(one.copy)
        for values in (graph.initializer, graph.input):
            for index in reversed(range(len(values))):
                if values[index].name in joined:
                    del values[index]


def constant_tensor(node: NodeProto) -> TensorProto | None:
    """Return the tensor that a `Constant` node holds, if it holds one."""
    held: TensorProto | None = None
    for item in node.attribute:
        if node.op_type == "Constant" and item.name == "value":
            held = item.t
    return held


def fill(tensor: TensorProto, array: Array, field: str) -> None:
    """Write numbers into a tensor, in the encoding that `field` names."""
    wanted = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    array = np.ascontiguousarray(array, dtype=wanted)
    if field == "raw_data":
        tensor.raw_data = array.tobytes()
        return
    tensor.ClearField(field)
    flat = array.view(np.uint16) if array.itemsize == 2 else array
    getattr(tensor, field).extend(flat.ravel().tolist())


def _check_shape(tensor: TensorProto, arrays: dict[str, Array]) -> None:
    """Refuse a weight that is gone, or has another shape than the file's."""
    found = arrays.get(tensor.name)
    if found is None:
        raise ModelError(f"'{tensor.name}' is not in the module any more.")
    if found.shape != tuple(tensor.dims):
        raise ModelError(f"'{tensor.name}' has shape {list(found.shape)}, expected {list(tensor.dims)}.")


def _write_constant(model: ModelProto, node: NodeProto, array: Array) -> None:
    """Write a weight that nodes hold or compute, if it changed."""
    held = constant_tensor(node)
    if held is not None:
        if numpy_helper.to_array(held).tobytes() != array.tobytes():
            fill(held, array, data_field(held))
        return
    initial = computed_constant(model, node, array)
    if initial is not None and initial.tobytes() == array.tobytes():
        return
    name = node.output[0]
    model.graph.node.remove(node)
    model.graph.initializer.append(numpy_helper.from_array(array, name))
    if model.ir_version < 4:
        model.graph.input.append(
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
        )


def computed_constant(model: ModelProto, node: NodeProto, like: Array) -> Array | None:
    """Return what a `ConstantOfShape` or `DequantizeLinear` node gives, with the shape and type of `like`."""
    if node.op_type == "DequantizeLinear":
        return _dequantized(model, node, like)
    if node.op_type != "ConstantOfShape":
        return None
    value = next((numpy_helper.to_array(a.t) for a in node.attribute if a.name == "value"), np.zeros(1))
    return np.full(like.shape, value.item(), like.dtype)


def _dequantized(model: ModelProto, node: NodeProto, like: Array) -> Array | None:
    """Return the numbers that stored integers stand for; None if the integers or their grid are computed."""
    parts = [_stored(model, name) if name else None for name in node.input]
    if any(part is None and name for part, name in zip(parts, node.input, strict=True)):
        return None
    integers, scale, *rest = (None if part is None else to_tensor(part) for part in parts)
    if integers is None or scale is None:
        return None
    settings = {item.name: item.i for item in node.attribute}
    axis, block = settings.get("axis", 1), settings.get("block_size", 0)
    block = block if scale.ndim > 1 else 0
    grid = [
        quantization.align(t, integers.ndim, axis, block, integers.shape[axis] if block else None)
        for t in (scale, *rest)
        if t is not None
    ]
    zero = grid[1].to(torch.int64) if len(grid) > 1 and not integers.is_floating_point() else 0
    wanted: torch.dtype = getattr(torch, like.dtype.name)
    return to_array(quantization.dequantize(integers, grid[0], zero, wanted))


def _stored(model: ModelProto, name: str) -> Array | None:
    """Return the numbers of an initializer or of a `Constant` node; None if there is neither."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            return numpy_helper.to_array(tensor)
    for node in model.graph.node:
        if name in node.output:
            held = constant_tensor(node)
            return None if held is None else numpy_helper.to_array(held)
    return None
