"""Why ONNX Runtime does not run a fused network: the branch, the node and its shapes, or a fault of ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from builders import Builder, residual_cnn, saved
from click.testing import CliRunner
from PIL import Image

from graftonnx.cli import graftonnx
from graftonnx.errors import ModelError
from graftonnx.fusion import fuse
from graftonnx.model import from_proto, resize
from graftonnx.network import Network

BAKED = "It is not made for this size: another one is baked into it, or the image is too small. Leave out"


def positions(tokens: int) -> onnx.ModelProto:
    """Tokens of a 4 x 4 grid and a class token, whose table of positions no shape inference sees through."""
    net = Builder()
    weight = net.weight("embed.weight", 12, 3, 4, 4)
    value = net.node("Conv", ["image", weight], "embed", kernel_shape=[4, 4], strides=[4, 4])
    value = net.node("Reshape", [value, net.ints("target", 0, 12, -1)], "columns")
    value = net.node("Transpose", [value], "patches", perm=[0, 2, 1])
    bounds = net.ints("zero", 0), net.ints("one", 1)
    rows = net.node("Slice", [net.node("Shape", [value], "shape"), *bounds], "rows")
    extents = net.node("Concat", [rows, net.ints("token", 1, 12)], "extents", axis=0)
    hidden = net.node("Abs", [extents], "hidden")
    token = net.node("Expand", [net.weight("class", 1, 1, 12), hidden], "class_token")
    value = net.node("Concat", [token, value], "tokens", axis=1)
    value = net.node("Add", [value, net.weight("table", 1, tokens, 12)], "positions")
    inner = net.node("MatMul", [value, net.weight("mix", 12, 12)], "mixed")
    value = net.node("Add", [value, net.node("Relu", [inner], "active")], "t0")
    value = net.node("ReduceMean", [value], "pooled", axes=[1], keepdims=0)
    net.node("Gemm", [value, net.weight("fc", 4, 12)], "scores", transB=1)
    return net.model("scores", ["batch", 4])


def one_row() -> onnx.ModelProto:
    """A batch of 1 baked into the target of a Reshape, where no shape inference sees it."""
    net = Builder()
    value = net.block("image", "r0", 3, 8)
    extents = net.node("Abs", [net.node("Shape", [value], "shape")], "hidden")
    tail = net.node("Slice", [extents, net.ints("one", 1), net.ints("four", 4)], "tail")
    target = net.node("Concat", [net.ints("row", 1), tail], "target", axis=0)
    value = net.block(net.node("Reshape", [value, target], "shaped"), "r1", 8, 8)
    value = net.node("Flatten", [net.node("GlobalAveragePool", [value], "pooled")], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc", 4, 8)], "scores", transB=1)
    return net.model("scores", ["batch", 4])


def unpadded() -> onnx.ModelProto:
    """A 5 x 5 convolution without padding, which makes nothing of less than 5 x 5 pixels."""
    net = Builder()
    value = net.node("Conv", ["image", net.weight("conv.weight", 8, 3, 5, 5)], "conv", kernel_shape=[5, 5])
    value = net.node("Relu", [value], "r0")
    value = net.node("Flatten", [net.node("GlobalAveragePool", [value], "pooled")], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc", 4, 8)], "scores", transB=1)
    return net.model("scores", ["batch", 4])


@pytest.fixture
def a() -> Network:
    return from_proto(residual_cnn(), "a.onnx")


def refusal(*parents: Network) -> str:
    with pytest.raises(ModelError) as caught:
        fuse(*parents, classes=3)
    return caught.value.message


def test_a_table_of_positions_for_another_size(a: Network) -> None:
    network = from_proto(positions(17), "vit.onnx")
    assert fuse(a, network, classes=3).notes
    assert refusal(a, resize(network, (24, 24))).startswith(
        "cannot run branch 'b' ('vit.onnx') at 24x24: its node 'node_positions' (Add) gets [1, 37, 12] and "
        "[1, 17, 12]; ONNX Runtime says: Attempting to broadcast an axis by a dimension other than 1. 17 by "
        f"37. {BAKED}"
    )


def test_an_image_that_is_smaller_than_a_kernel(a: Network) -> None:
    assert refusal(a, resize(from_proto(unpadded(), "b.onnx"), (1, 1))) == (
        "cannot run branch 'b' ('b.onnx') at 1x1: its node 'node_conv' (Conv) gets [1, 3, 1, 1] and "
        f"[8, 3, 5, 5]; ONNX Runtime says: Invalid input shape: {{1,1}}. {BAKED} --input-size, choose "
        "another, or export it for this one."
    )


def test_a_file_that_runs_at_no_size(a: Network) -> None:
    message = refusal(a, from_proto(positions(10), "b.onnx"))
    assert "cannot run branch 'b' ('b.onnx') at 16x16: its node 'node_positions' (Add) gets" in message
    assert message.endswith("10 by 17. The file does not run on its own either: export it again.")


def test_a_batch_that_is_baked_in(a: Network) -> None:
    message = refusal(a, from_proto(one_row(), "b.onnx"))
    assert message.startswith(
        "cannot run branch 'b' ('b.onnx') at 16x16 with a batch of 3: its node 'node_shaped' (Reshape) gets "
        "[3, 8, 16, 16] and [4]; ONNX Runtime says: The input tensor cannot be reshaped"
    )
    assert message.endswith("A batch of 1 is baked into it: export it with a dynamic batch.")


def test_what_no_parent_is_to_blame_for_is_to_be_reported(a: Network) -> None:
    def hook(graph: gs.Graph) -> None:
        relu = next(node for node in graph.nodes if node.name == "head/relu")
        shape, hidden, rows = (gs.Variable(f"head/{name}", np.int64) for name in ("shape", "hidden", "rows"))
        found = gs.Variable("head/reshaped", np.float32)
        graph.nodes += [
            gs.Node("Shape", "head/shape", {}, [relu.inputs[0]], [shape]),
            gs.Node("Abs", "head/hidden_shape", {}, [shape], [hidden]),
            gs.Node("Add", "head/rows", {}, [hidden, gs.Constant("head/one", np.array([0, 1]))], [rows]),
            gs.Node("Reshape", "head/reshape", {}, [relu.inputs[0], rows], [found]),
        ]
        relu.inputs = [found]

    with pytest.raises(ModelError) as caught:
        fuse(a, a, classes=3, hook=hook)
    assert caught.value.message.startswith(
        "after the hook: ONNX Runtime does not run the fused graph, although it runs every parent: it stops "
        "at node 'head/reshape' (Reshape) because: The input tensor cannot be reshaped"
    )
    assert caught.value.message.endswith(
        "Please report this, unless a head file or a hook of yours put that there."
    )


def test_the_command_prints_the_sentence_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(positions(17), tmp_path / "vit.onnx")
    saved(residual_cnn(), tmp_path / "a.onnx")
    for place in range(32):
        Image.new("RGB", (24, 24), (8 * place, 0, 0)).save(tmp_path / f"{place}.png")
    for more in ([], ["--calibrate", "."]):
        arguments = ["fuse", "a.onnx", "vit.onnx", "--input-size", "24", "-o", "fused.onnx", *more]
        result = CliRunner().invoke(graftonnx, arguments)
        assert (result.exit_code, Path("fused.onnx").exists()) == (1, False)
        assert (
            "Error: cannot run branch 'b' ('vit.onnx') at 24x24: its node 'node_positions'" in result.stderr
        )
