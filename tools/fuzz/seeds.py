"""What the mutations begin with: small networks made here, and small files that the onnx package ships."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

if TYPE_CHECKING:
    from onnx.backend.test.case.test_case import TestCase

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from builders import Builder, plain_cnn, residual_cnn, token_net  # noqa: E402 # the tests are no package

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
CASES = ("simple", "pytorch-operator", "pytorch-converted")
SHARED = Path(os.environ.get("GRAFTONNX_SHARED", ROOT.parent / "shared")) / "models"
LARGEST_CASE = 4_096
"""Bytes of an official case that serves as a seed."""

LARGEST_FILE = 700_000
"""Likewise of a file."""


@functools.cache
def networks() -> list[bytes]:
    """Return small classifiers of every kind that the door takes, encoded."""
    return [make().SerializeToString() for make in _NETWORKS]


@functools.cache
def operators(*, quick: bool = False) -> list[bytes]:
    """Return the models of the official cases of single operators, encoded.

    Args:
        quick: Whether to leave out those that take seconds to make, most of them.
    """
    paths = [path for kind in CASES for path in sorted((LIGHT.parent / kind).glob("*/model.onnx"))]
    found = {path.read_bytes() for path in paths if path.stat().st_size <= LARGEST_CASE}
    if not quick:
        models = [case.model for case in official_cases()]
        found |= {content for model in models if len(content := model.SerializeToString()) <= LARGEST_CASE}
    return sorted(found)


@functools.cache
def official_cases() -> list[TestCase]:
    """Return the official cases of single operators that come as models; to make them takes seconds."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators overflow and divide by zero on purpose
        return [case for case in collect_testcases(None) if case.model is not None]


@functools.cache
def files() -> list[bytes]:
    """Return real files: those of the package, of `models/`, and of the shared folder where there is one."""
    paths = [
        LIGHT / "light_squeezenet.onnx",
        LIGHT / "light_shufflenet.onnx",
        *(ROOT / "models").glob("*.onnx"),
    ]
    paths += sorted(SHARED.glob("*.onnx")) if SHARED.is_dir() else []
    large = [path for path in paths if path.stat().st_size > LARGEST_FILE]
    return [path.read_bytes() for path in paths if path not in large]


def _with_text(text: str, **weights: np.ndarray) -> ModelProto:
    model = parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return model


def _looping() -> ModelProto:
    net = Builder()
    value = net.block("image", "r0", 3, 4)
    steps, going = net.ints("steps", 2), "going"
    net.initializers.append(numpy_helper.from_array(np.array(True), going))
    body = helper.make_graph(
        [
            helper.make_node("Relu", ["before"], ["after"]),
            helper.make_node("Identity", ["cond"], ["still"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("cond", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    value = net.node("Loop", [steps, going, value], "looped", body=body)
    value = net.block(value, "r1", 4, 4)
    return _headed(net, value, 4)


def _branching() -> ModelProto:
    net = Builder()
    value = net.block("image", "r0", 3, 4)
    net.initializers.append(numpy_helper.from_array(np.array(True), "which"))
    graphs = {
        name: helper.make_graph(
            [helper.make_node(kind, [value], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        )
        for name, kind in (("then_branch", "Relu"), ("else_branch", "Sigmoid"))
    }
    value = net.node("If", ["which"], "chosen", **graphs)
    return _headed(net, net.block(value, "r1", 4, 4), 4)


def _headed(net: Builder, value: str, width: int, opset: int = 16) -> ModelProto:
    value = net.node("GlobalAveragePool", [value], "pooled")
    value = net.node("Flatten", [value], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc", 4, width)], "scores", transB=1)
    return net.model("scores", ["batch", 4], opset=opset)


def _function() -> ModelProto:
    model = plain_cnn(opset=15)
    imports = [*model.opset_import, helper.make_opsetid("own", 1)]
    inner = helper.make_function(
        "own", "Inner", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], imports
    )
    outer = helper.make_function(
        "own", "Act", ["x"], ["y"], [helper.make_node("Inner", ["x"], ["y"], domain="own")], imports
    )
    model.functions.extend([outer, inner])
    model.opset_import.append(imports[-1])
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type, node.domain = "Act", "own"
    return model


def _half() -> ModelProto:
    model = plain_cnn()
    for tensor in model.graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
        )
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


def _quantised() -> ModelProto:
    model = plain_cnn()
    nodes = []
    for tensor in list(model.graph.initializer):
        array = np.clip(numpy_helper.to_array(tensor) * 50, -127, 127).astype(np.int8)
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(array, f"{name}_q"))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [name]))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.02), "scale"))
    model.graph.initializer.append(numpy_helper.from_array(np.int8(0), "zero"))
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _shape_arithmetic() -> ModelProto:
    return _with_text(
        """<ir_version: 8, opset_import: ["" : 13]>
        net (float[batch, 3, 16, 16] image) => (float[batch, 4] scores) {
            conv = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(image, w)
            act = Relu(conv)
            shape = Shape(act)
            zero = Constant<value = int64[1] {0}>()
            first = Gather<axis = 0>(shape, zero)
            rest = Constant<value = int64[1] {-1}>()
            target = Concat<axis = 0>(first, rest)
            flat = Reshape(act, target)
            mixed = MatMul(flat, m)
            act2 = Relu(mixed)
            scores = Gemm<transB = 1>(act2, fc)
        }""",
        w=np.ones((4, 3, 3, 3), np.float32),
        m=np.ones((1024, 8), np.float32) / 1024,
        fc=np.ones((4, 8), np.float32),
    )


def _channels_last() -> ModelProto:
    return _with_text(
        """<ir_version: 8, opset_import: ["" : 13]>
        net (float[batch, 16, 16, 3] image) => (float[batch, 4] scores) {
            first = Transpose<perm = [0, 3, 1, 2]>(image)
            conv = Conv<kernel_shape = [3, 3], auto_pad = "SAME_UPPER">(first, w)
            back = Transpose<perm = [0, 2, 3, 1]>(conv)
            sum = Add(back, b)
            act = Relu(sum)
            again = Transpose<perm = [0, 3, 1, 2]>(act)
            pooled = GlobalAveragePool(again)
            flat = Flatten(pooled)
            scores = Gemm<transB = 1>(flat, fc)
        }""",
        w=np.ones((4, 3, 3, 3), np.float32),
        b=np.ones(4, np.float32),
        fc=np.ones((4, 4), np.float32),
    )


def _old() -> ModelProto:
    net = Builder()
    value = net.block("image", "r0", 3, 4)
    scales = net.weight("scales", 4)
    net.initializers[-1].CopyFrom(numpy_helper.from_array(np.float32([1, 1, 2, 2]), scales))
    value = net.node("Upsample", [value, scales], "up", mode="nearest")
    value = net.block(value, "r1", 4, 4)
    model = _headed(net, value, 4, opset=9)
    model.ir_version = 3
    model.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer
    )
    return model


def _recurrent() -> ModelProto:
    return _with_text(
        """<ir_version: 8, opset_import: ["" : 14]>
        net (float[1, 3, 16] sound) => (float[1, 4] scores) {
            conv = Conv<kernel_shape = [3], pads = [1, 1]>(sound, w)
            act = Relu(conv)
            steps = Transpose<perm = [2, 0, 1]>(act)
            y, h = LSTM<hidden_size = 3>(steps, lw, lr, lb, , h0, h0)
            last = Squeeze(h, axis)
            scores = Gemm<transB = 1>(last, fc)
        }""",
        w=np.ones((4, 3, 3), np.float32),
        lw=np.ones((1, 12, 4), np.float32),
        lr=np.ones((1, 12, 3), np.float32),
        lb=np.ones((1, 24), np.float32),
        h0=np.zeros((1, 1, 3), np.float32),
        axis=np.array([0], np.int64),
        fc=np.ones((4, 3), np.float32),
    )


def _normalised() -> ModelProto:
    return _with_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[batch, 1, 8, 8] image) => (float[batch, 3] probabilities) {
            centred = Sub(image, mean)
            scaled = Div(centred, deviation)
            conv = Conv<kernel_shape = [3, 3], group = 1, strides = [2, 2]>(scaled, w, b)
            norm = BatchNormalization(conv, s, s, z, s)
            act = Clip(norm, low, high)
            pooled = ReduceMean<axes = [2, 3], keepdims = 0>(act)
            dropped = Dropout(pooled)
            scores = Gemm<transB = 1>(dropped, fc)
            probabilities = Softmax<axis = 1>(scores)
        }""",
        mean=np.float32(0.5),
        deviation=np.float32(0.25),
        w=np.ones((4, 1, 3, 3), np.float32),
        b=np.zeros(4, np.float32),
        s=np.ones(4, np.float32),
        z=np.zeros(4, np.float32),
        low=np.float32(0),
        high=np.float32(6),
        fc=np.ones((3, 4), np.float32),
    )


_NETWORKS: list[Callable[[], ModelProto]] = [
    plain_cnn,
    residual_cnn,
    lambda: plain_cnn(batch=1, opset=21),
    token_net,
    _looping,
    _branching,
    _function,
    _half,
    _quantised,
    _shape_arithmetic,
    _channels_last,
    _old,
    _recurrent,
    _normalised,
]
