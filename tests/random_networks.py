"""Random networks: chains, residual sums, parallel branches with a Concat, strides, pooling, gates."""

from __future__ import annotations

import onnx
from builders import Builder
from hypothesis import strategies as st

WIDTHS = (4, 6, 8)
STAGES = ("block", "stride", "residual", "parallel", "pool", "gate", "depthwise", "bottleneck")


@st.composite
def networks(draw: st.DrawFn, *, most: int = 5) -> onnx.ModelProto:
    """Draw a classifier of images of 16x16 or 12x20 pixels with up to `most` stages."""
    stages = draw(st.lists(st.sampled_from(STAGES), min_size=1, max_size=most))
    widths = draw(st.lists(st.sampled_from(WIDTHS), min_size=len(stages), max_size=len(stages)))
    size = draw(st.sampled_from([(16, 16), (12, 20)]))
    return random_network(stages, widths, size=size, seed=draw(st.integers(0, 9)))


def random_network(
    stages: list[str], widths: list[int], *, size: tuple[int, int], seed: int
) -> onnx.ModelProto:
    """Build the network of these stages; `widths` are their channels."""
    net = Builder(seed)
    value, inner = net.block("image", "stem", 3, 4), 4
    strides = 0
    for index, (stage, width) in enumerate(zip(stages, widths, strict=True)):
        name = f"s{index}"
        if stage in ("stride", "pool"):
            strides += 1
            if strides > 2:
                stage = "block"
        value, inner = _stage(net, stage, value, name, inner, width)
    value = net.block(value, "last", inner, 8)
    value = net.node("GlobalAveragePool", [value], "pooled")
    value = net.node("Flatten", [value], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc.weight", 3, 8)], "scores", transB=1)
    return net.model("scores", ["batch", 3], image=["batch", 3, *size])


def _stage(net: Builder, stage: str, value: str, name: str, inner: int, width: int) -> tuple[str, int]:
    if stage == "residual":
        change = net.conv(net.block(value, f"{name}.a", inner, width), f"{name}.b", width, inner)
        total = net.node("Add", [change, value], f"{name}.sum")
        return net.node("Relu", [total], name), inner
    if stage == "parallel":
        left = net.block(value, f"{name}.left", inner, width)
        right = net.block(net.block(value, f"{name}.mid", inner, 4), f"{name}.right", 4, width)
        return net.node("Concat", [left, right], name, axis=1), 2 * width
    if stage == "pool":
        return net.node("MaxPool", [value], name, kernel_shape=[2, 2], strides=[2, 2]), inner
    if stage == "gate":
        conv = net.conv(value, f"{name}.conv", inner, width)
        return net.node("Mul", [conv, net.node("Sigmoid", [conv], f"{name}.sig")], name), width
    if stage == "depthwise":
        weight = net.weight(f"{name}.weight", inner, 1, 3, 3)
        conv = net.node(
            "Conv", [value, weight], f"{name}.deep", group=inner, kernel_shape=[3, 3], pads=[1] * 4
        )
        return net.node("Relu", [conv], name), inner
    if stage == "bottleneck":
        wide = net.block(value, f"{name}.wide", inner, 2 * width)
        return net.conv(wide, name, 2 * width, width, kernel=1), width
    return net.block(value, name, inner, width, stride=2 if stage == "stride" else 1), width
