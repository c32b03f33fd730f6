"""Small ONNX networks, made in code, for tests of the door, matching, surgery and proofs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graftonnx.graph import value_shapes
from graftonnx.normalise.inference import infer_shapes


class Builder:
    """Collects nodes and initializers; every method returns the name of the value it makes."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def weight(self, name: str, *shape: int) -> str:
        fan_in = max(int(np.prod(shape[1:])), 1)
        array = (self.rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, name: str, *values: int) -> str:
        self.initializers.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=f"node_{output}", **attributes))
        return output

    def conv(
        self, source: str, name: str, inner: int, outer: int, *, kernel: int = 3, stride: int = 1
    ) -> str:
        weight = self.weight(f"{name}.weight", outer, inner, kernel, kernel)
        pad = kernel // 2
        attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
        return self.node("Conv", [source, weight], name, **attributes)

    def block(self, source: str, name: str, inner: int, outer: int, *, stride: int = 1) -> str:
        return self.node("Relu", [self.conv(source, f"{name}.conv", inner, outer, stride=stride)], name)

    def model(
        self,
        output: str,
        shape: Sequence[int | str],
        *,
        image: Sequence[int | str] = ("batch", 3, 16, 16),
        opset: int = 13,
        producer: str = "",
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, list(image))],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, list(shape))],
            self.initializers,
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, producer_name=producer
        )


def plain_cnn(
    widths: Sequence[int] = (8, 16),
    *,
    classes: int = 4,
    size: int = 16,
    channels: int = 3,
    opset: int = 13,
    seed: int = 0,
    batch: int | str = "batch",
    strides: Sequence[int] = (),
) -> onnx.ModelProto:
    """Blocks r0, r1, …; each but the first halves the map; GlobalAveragePool, Flatten, Gemm -> `scores`."""
    strides = strides or [1] + [2] * (len(widths) - 1)
    net = Builder(seed)
    value, inner = "image", channels
    for index, (width, stride) in enumerate(zip(widths, strides, strict=True)):
        value = net.block(value, f"r{index}", inner, width, stride=stride)
        inner = width
    value = net.node("GlobalAveragePool", [value], "pooled")
    value = net.node("Flatten", [value], "flat", axis=1)
    weight, bias = net.weight("fc.weight", classes, inner), net.weight("fc.bias", classes)
    net.node("Gemm", [value, weight, bias], "scores", transB=1)
    return net.model("scores", [batch, classes], image=[batch, channels, size, size], opset=opset)


def residual_cnn(width: int = 8, *, depth: int = 2, classes: int = 4, seed: int = 0) -> onnx.ModelProto:
    """A stem, then `depth` residual blocks s0, s1, … of two convolutions, then pool and Gemm."""
    net = Builder(seed)
    value = net.block("image", "stem", 3, width)
    for index in range(depth):
        inner = net.block(value, f"s{index}.inner", width, width)
        second = net.conv(inner, f"s{index}.second", width, width)
        total = net.node("Add", [second, value], f"s{index}.sum")
        value = net.node("Relu", [total], f"s{index}")
    value = net.node("GlobalAveragePool", [value], "pooled")
    value = net.node("Flatten", [value], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc.weight", classes, width)], "scores", transB=1)
    return net.model("scores", ["batch", classes])


def fire_cnn(*, swapped: bool = False, seed: int = 0) -> onnx.ModelProto:
    """A stem, two parallel blocks `left` and `right`, their Concat `joined`, a block, pool and Gemm."""
    net = Builder(seed)
    stem = net.block("image", "stem", 3, 8)
    weights = {name: net.weight(f"{name}.conv.weight", 8, 8, 1, 1) for name in ("left", "right")}
    for name in ("right", "left") if swapped else ("left", "right"):
        conv = net.node("Conv", [stem, weights[name]], f"{name}.conv", kernel_shape=[1, 1])
        net.node("Relu", [conv], name)
    joined = net.node("Concat", ["left", "right"], "joined", axis=1)
    value = net.block(joined, "last", 16, 8, stride=2)
    value = net.node("GlobalAveragePool", [value], "pooled")
    value = net.node("Flatten", [value], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc.weight", 4, 8)], "scores", transB=1)
    return net.model("scores", ["batch", 4])


def saved(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model and return its path."""
    onnx.save_model(model, path)
    return path


def token_net(
    *, size: int = 16, patch: int = 4, width: int = 12, depth: int = 2, prefix: int = 1, seed: int = 0
) -> onnx.ModelProto:
    """Patches, class tokens in front, residual blocks t0, t1, … of two layers; mean of the tokens, Gemm."""
    net = Builder(seed)
    side = size // patch
    weight = net.weight("embed.weight", width, 3, patch, patch)
    value = net.node("Conv", ["image", weight], "embed", kernel_shape=[patch] * 2, strides=[patch] * 2)
    value = net.node("Reshape", [value, net.ints("columns", 0, width, side * side)], "flat_patches")
    value = net.node("Transpose", [value], "patches", perm=[0, 2, 1])
    if prefix:
        net.initializers.append(numpy_helper.from_array(np.ones((1, prefix, width), np.float32), "class"))
        first = net.node("ReduceMean", [value], "mean", axes=[1], keepdims=1)
        tokens = net.node("Add", [first, "class"], "class_tokens")
        value = net.node("Concat", [tokens, value], "tokens", axis=1)
    for index in range(depth):
        inner = net.node("MatMul", [value, net.weight(f"t{index}.in", width, 2 * width)], f"t{index}.hidden")
        inner = net.node("Relu", [inner], f"t{index}.active")
        inner = net.node("MatMul", [inner, net.weight(f"t{index}.out", 2 * width, width)], f"t{index}.change")
        value = net.node("Add", [value, inner], f"t{index}")
    value = net.node("ReduceMean", [value], "pooled", axes=[1], keepdims=0)
    net.node("Gemm", [value, net.weight("fc", 4, width)], "scores", transB=1)
    return net.model("scores", ["batch", 4], image=["batch", 3, size, size])


def windowed_net(*, size: int = 16, width: int = 12, window: int = 2, seed: int = 0) -> onnx.ModelProto:
    """Maps whose channels come last; the inner layer of residual blocks w0, w1 sees one window at a time."""
    net = Builder(seed)
    side = size // 4
    weight = net.weight("embed.weight", width, 3, 4, 4)
    value = net.node("Conv", ["image", weight], "embed", kernel_shape=[4, 4], strides=[4, 4])
    value = net.node("Transpose", [value], "last", perm=[0, 2, 3, 1])
    for index in range(2):
        name, count = f"w{index}", side // window
        split = net.ints(f"{name}.split", -1, count, window, count, window, width)
        inner = net.node("Reshape", [value, split], f"{name}.split_out")
        inner = net.node("Transpose", [inner], f"{name}.grouped", perm=[0, 1, 3, 2, 4, 5])
        inner = net.node(
            "Reshape", [inner, net.ints(f"{name}.to", -1, window * window, width)], f"{name}.windows"
        )
        inner = net.node("MatMul", [inner, net.weight(f"{name}.weight", width, width)], f"{name}.mixed")
        inner = net.node("Add", [inner, f"{name}.windows"], f"{name}.inside")
        back = net.ints(f"{name}.back", -1, count, count, window, window, width)
        inner = net.node("Reshape", [inner, back], f"{name}.unfolded")
        inner = net.node("Transpose", [inner], f"{name}.ungrouped", perm=[0, 1, 3, 2, 4, 5])
        inner = net.node("Reshape", [inner, net.ints(f"{name}.whole", -1, side, side, width)], f"{name}.maps")
        value = net.node("Add", [value, inner], name)
    value = net.node("ReduceMean", [value], "pooled", axes=[1, 2], keepdims=0)
    net.node("Gemm", [value, net.weight("fc", 4, width)], "scores", transB=1)
    return net.model("scores", ["batch", 4], image=["batch", 3, size, size])


def grid_cnn(extents: Sequence[int], *, channels: int = 2, seed: int = 0) -> onnx.ModelProto:
    """Blocks r0, r1, r2 with a kernel axis for each extent; the second halves them; pool, Gemm."""
    net = Builder(seed)
    axes = len(extents)
    value, inner = "image", channels
    for index, (width, stride) in enumerate(((4, 1), (8, 2), (8, 1))):
        weight = net.weight(f"r{index}.weight", width, inner, *[3] * axes)
        attributes = {"kernel_shape": [3] * axes, "pads": [1] * 2 * axes, "strides": [stride] * axes}
        value = net.node("Conv", [value, weight], f"r{index}.conv", **attributes)
        value, inner = net.node("Relu", [value], f"r{index}"), width
    value = net.node("Flatten", [net.node("GlobalAveragePool", [value], "pooled")], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc", 4, inner)], "scores", transB=1)
    return net.model("scores", ["batch", 4], image=["batch", channels, *extents])


def with_random_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give a light topology random weights in the place of those that `ConstantOfShape` makes, in place.

    The onnx package ships topologies whose weights are constants; these overflow on the way.
    """
    rng = np.random.default_rng(0)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    variances = {node.input[4] for node in model.graph.node if node.op_type == "BatchNormalization"}
    for node in [node for node in model.graph.node if node.op_type == "ConstantOfShape"]:
        extents = shapes[node.input[0]]
        scale = np.float32(np.sqrt(max(1, np.prod(extents[1:]))))
        array = rng.standard_normal(extents, dtype=np.float32) / scale
        array = np.abs(array) + np.float32(0.5) if node.output[0] in variances else array
        model.graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
        model.graph.node.remove(node)
    model.ir_version = max(4, model.ir_version)
    return model


def assert_fully_checked(model: onnx.ModelProto) -> None:
    """Check a whole model with onnx, and that it says of every value what inference from nothing gives."""
    onnx.checker.check_model(model, full_check=True)
    inferred = infer_shapes(copy.deepcopy(model)).graph
    assert value_shapes(model.graph) == value_shapes(inferred)
    found = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    assert {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info} == found
