#!/usr/bin/env python3
"""Measure fusing large networks against joining them by other means; print Markdown tables.

    .venv/bin/python tools/bench/fuse.py [--quick] [--rounds N] [--folder DIR]

Every job runs in a fresh process that imports its libraries first; then its CPU time and its peak memory
count. The jobs take turns, so that a busy machine disturbs all alike. graftonnx loads, matches, splices,
proves (but for the runs in ONNX Runtime) and saves; the others join two graphs side by side, which is less.
Peers that are not installed are left out; a peer that fails says so.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NODES = (1_000, 5_000, 20_000, 50_000)
ARENA_PEERS = ("onnx.compose", "onnx-graphsurgeon", "snc4onnx")
TIMEOUT = 900
"""Seconds of wall time after which a job counts as failed."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a job took: CPU seconds, wall seconds, and the peak of resident memory in bytes."""

    cpu: float
    wall: float
    peak: int


class Inception:
    """Writes networks of blocks with four parallel branches, 16 nodes a block.

    Args:
        seed: For the weights.
        width: Channels of each branch.
    """

    def __init__(self, seed: int, width: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.width = width
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[TensorProto] = []

    def model(self, nodes: int, classes: int = 10) -> onnx.ModelProto:
        """Return a classifier of [N, 3, 32, 32] images with about so many nodes."""
        inner, value = 3, "image"
        blocks = max(nodes // 16, 3)
        for block in range(blocks):
            value = self._block(f"block{block}", value, inner)
            inner = 4 * self.width
            if block in (blocks // 3, 2 * blocks // 3):
                value = self._node("MaxPool", [value], f"down{block}", kernel_shape=[2, 2], strides=[2, 2])
        value = self._node("GlobalAveragePool", [value], "pool")
        value = self._node("Flatten", [value], "flat")
        operands = [value, self._weight("fc.weight", classes, inner), self._weight("fc.bias", classes)]
        self._node("Gemm", operands, "scores", transB=1)
        return _model(self.nodes, self.tensors, "scores", classes, 32)

    def _block(self, name: str, source: str, inner: int) -> str:
        """1x1, 1x1 - 3x3, 1x1 - 3x3 - 3x3, pool - 1x1, and their Concat."""
        pooled = self._node("MaxPool", [source], f"{name}/pool", kernel_shape=[3, 3], pads=[1] * 4)
        ends = []
        branches = ((source, (1,)), (source, (1, 3)), (source, (1, 3, 3)), (pooled, (1,)))
        for index, (start, kernels) in enumerate(branches):
            value, channels = start, inner
            for step, kernel in enumerate(kernels):
                value = self._conv(f"{name}/b{index}/conv{step}", value, channels, kernel)
                channels = self.width
            ends.append(value)
        return self._node("Concat", ends, name, axis=1)

    def _conv(self, name: str, source: str, inner: int, kernel: int) -> str:
        weight = self._weight(f"{name}.weight", self.width, inner, kernel, kernel)
        attributes = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4}
        operands = [source, weight, self._weight(f"{name}.bias", self.width)]
        return self._node("Relu", [self._node("Conv", operands, name, **attributes)], f"{name}/relu")

    def _node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def _weight(self, name: str, *shape: int) -> str:
        array = self.rng.standard_normal(shape, np.float32) / math.sqrt(math.prod(shape[1:]))
        self.tensors.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name


def heavy(seed: int, size: int, path: Path, *, external: bool) -> None:
    """Write a network of few nodes and `size` bytes of weights, in the file itself or beside it."""
    width = 2048
    layers = max(size // (4 * width * width), 1)
    content = np.random.default_rng(seed).standard_normal((width, width), np.float32) / math.sqrt(width)
    nodes, tensors = [], []
    for layer in range(layers + 1):
        shape = (width, width, 1, 1) if layer else (width, 3, 1, 1)
        array = content.reshape(shape) if layer else content[:, :3].reshape(shape)
        tensors.append(numpy_helper.from_array(np.roll(array, layer, 0), f"conv{layer}.weight"))
        source = f"relu{layer - 1}" if layer else "image"
        nodes.append(helper.make_node("Conv", [source, f"conv{layer}.weight"], [f"conv{layer}"]))
        nodes.append(helper.make_node("Relu", [f"conv{layer}"], [f"relu{layer}"]))
    tensors.append(numpy_helper.from_array(content[:10].copy(), "fc.weight"))
    nodes.append(helper.make_node("GlobalAveragePool", [f"relu{layers}"], ["pool"]))
    nodes.append(helper.make_node("Flatten", ["pool"], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "fc.weight"], ["scores"], transB=1))
    model = _model(nodes, tensors, "scores", 10, 4)
    location = f"{path.name}.data"
    onnx.save_model(model, path, save_as_external_data=external, location=location if external else None)


def _model(
    nodes: list[onnx.NodeProto], tensors: list[TensorProto], output: str, classes: int, size: int
) -> onnx.ModelProto:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, size, size])
    scores = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", classes])
    graph = helper.make_graph(nodes, "net", [image], [scores], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
