"""A user's own surgery between the splice and the proofs."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_graphsurgeon as gs
import pytest
import torch
from builders import plain_cnn, residual_cnn
from onnx import TensorProto, numpy_helper

from graftonnx.conversion import to_torch
from graftonnx.errors import GraftError, ModelError, ParityError, PlanError
from graftonnx.fusion import fuse
from graftonnx.hooks import Hook
from graftonnx.model import from_proto
from graftonnx.network import Network

COMPARED = (
    "branch a equals a.onnx as it was loaded, bit for bit",
    "branch b equals b.onnx as it was loaded, bit for bit",
)


@pytest.fixture
def a() -> Network:
    return from_proto(residual_cnn(depth=2), "a.onnx")


@pytest.fixture
def b() -> Network:
    return from_proto(plain_cnn((8, 16, 64), seed=1), "b.onnx")


def node(graph: gs.Graph, name: str) -> gs.Node:
    return next(node for node in graph.nodes if node.name == name)


def arrays(network: Network) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in network.proto.graph.initializer}


def silu_head(graph: gs.Graph) -> None:
    """Turn the head's Relu into x * sigmoid(x)."""
    relu = node(graph, "head/relu")
    gate = gs.Variable("head/gate", np.float32)
    graph.nodes.append(gs.Node("Sigmoid", "head/sigmoid", {}, [relu.inputs[0]], [gate]))
    relu.op, relu.name = "Mul", "head/silu"
    relu.inputs.append(gate)


def changed_b(graph: gs.Graph) -> None:
    """Change what branch b computes, and say so by another name of its feature."""
    relu = node(graph, "b/node_r2")
    relu.op = "Sigmoid"
    relu.outputs[0].name = "b/changed"


def test_without_changes_the_network_is_the_same(a: Network, b: Network) -> None:
    plain, hooked = fuse(a, b, classes=3), fuse(a, b, classes=3, hook=lambda graph: None)
    assert list(hooked.proto.graph.node) == list(plain.proto.graph.node)
    assert list(hooked.proto.metadata_props) == list(plain.proto.metadata_props)
    assert hooked.view.shapes == plain.view.shapes
    assert arrays(hooked).keys() == arrays(plain).keys()
    assert all((array == arrays(plain)[name]).all() for name, array in arrays(hooked).items())
    assert hooked.notes == plain.notes


def test_it_sees_shapes_and_weights_and_may_change_the_graph(a: Network, b: Network) -> None:
    seen = {}

    def hook(graph: gs.Graph) -> None:
        tensors = graph.tensors()
        seen["shape"] = tensors["head/features"].shape
        seen["weight"] = tensors["b/r2.conv.weight"].values.copy()
        silu_head(graph)

    fused = fuse(a, b, classes=3, hook=hook)
    assert seen["shape"][1] == 72
    np.testing.assert_array_equal(seen["weight"], arrays(b)["r2.conv.weight"])
    assert "Mul" in {node.op_type for node in fused.view.nodes if node.name.startswith("head/")}
    assert fused.notes[2:] == COMPARED
    assert to_torch(fused)(torch.rand(2, 3, 16, 16)).shape == (2, 3)


def test_it_may_return_another_graph(a: Network, b: Network) -> None:
    def hook(graph: gs.Graph) -> gs.Graph:
        copy = graph.copy()
        silu_head(copy)
        return copy

    assert "head/gate" in fuse(a, b, classes=3, hook=hook).view.producer


def test_large_weights_may_be_renamed_replaced_and_removed(a: Network, b: Network) -> None:
    def hook(graph: gs.Graph) -> None:
        weight = graph.tensors()["b/r2.conv.weight"]
        assert weight.values.nbytes > 10_000
        weight.name = "b/renamed"
        hidden = node(graph, "head/hidden").inputs[1]
        hidden.values = np.full_like(hidden.values, 0.25)

    fused = fuse(a, b, classes=3, hook=hook)
    weights = arrays(fused)
    assert "b/r2.conv.weight" not in weights
    assert weights["b/renamed"].shape == (64, 16, 3, 3)
    assert (weights["head/hidden/weight"] == 0.25).all()
    assert fused.notes[2:] == COMPARED


def test_annotations_survive(a: Network, b: Network) -> None:
    skeleton = a.skeleton.__class__()
    skeleton.CopyFrom(a.skeleton)
    skeleton.graph.node[0].doc_string = "the stem"
    documented = dataclasses.replace(a, skeleton=skeleton)
    fused = fuse(documented, b, classes=3, hook=silu_head)
    assert [node.doc_string for node in fused.view.nodes if node.doc_string] == ["the stem"]


def test_a_branch_whose_feature_is_gone_is_not_compared_and_the_notes_say_so(a: Network, b: Network) -> None:
    fused = fuse(a, b, classes=3, hook=changed_b)
    assert fused.notes[2:] == (COMPARED[0], "branch b not compared with b.onnx: no 'b/r2' is left")


def test_a_branch_that_was_changed_under_its_old_name_fails_the_proof(a: Network, b: Network) -> None:
    def hook(graph: gs.Graph) -> None:
        node(graph, "b/node_r2").op = "Sigmoid"

    with pytest.raises(
        ParityError,
        match=r"^after the hook: with zero projections, branch 'b' differs from its parent 'b\.onnx'",
    ):
        fuse(a, b, classes=3, hook=hook)


def test_numbers_that_the_hook_spoils_fail_the_proof(a: Network, b: Network) -> None:
    def hook(graph: gs.Graph) -> None:
        weight = node(graph, "head/logits").inputs[1]
        weight.values = np.full_like(weight.values, np.nan)

    with pytest.raises(ParityError, match="the output is not finite"):
        fuse(a, b, classes=3, hook=hook)


def cycle(graph: gs.Graph) -> None:
    node(graph, "head/relu").inputs = [node(graph, "head/logits").outputs[0]]


def dangling(graph: gs.Graph) -> None:
    node(graph, "head/relu").inputs = [gs.Variable("nobody", np.float32)]


def unfit(graph: gs.Graph) -> None:
    weight = node(graph, "head/hidden").inputs[1]
    weight.values = weight.values[:, :7].copy()


def unknown(graph: gs.Graph) -> None:
    node(graph, "head/relu").op = "Guess"


def foreign(graph: gs.Graph) -> None:
    node(graph, "head/relu").domain = "com.example"


def more_classes(graph: gs.Graph) -> None:
    for tensor in node(graph, "head/logits").inputs[1:]:
        tensor.values = np.concatenate([tensor.values] * 2)


def second_output(graph: gs.Graph) -> None:
    graph.outputs.append(graph.tensors()["head/features"])


def renamed_output(graph: gs.Graph) -> None:
    graph.outputs[0].name = "scores"


def old(graph: gs.Graph) -> None:
    graph.opset = 13


def headless(graph: gs.Graph) -> None:
    graph.outputs[0].inputs.clear()


def untyped(graph: gs.Graph) -> None:
    graph.outputs = [gs.Variable("logits")]


def unwritable(graph: gs.Graph) -> None:
    node(graph, "head/relu").attrs["alpha"] = object()


def twice(graph: gs.Graph) -> None:
    scale = gs.Constant("head/hidden/bias", np.ones(256, np.float32))
    relu = node(graph, "head/relu")
    relu.op = "Mul"
    relu.inputs.append(scale)


def blind(graph: gs.Graph) -> None:
    pooled = gs.Variable("pooled", np.float32)
    flat = gs.Variable("flat", np.float32)
    weight = gs.Constant("w", np.ones((3, 3), np.float32))
    logits = gs.Variable("logits", np.float32, ("batch", 3))
    graph.nodes = [
        gs.Node("GlobalAveragePool", "pool", {}, [graph.inputs[0]], [pooled]),
        gs.Node("Flatten", "flatten", {}, [pooled], [flat]),
        gs.Node("Gemm", "gemm", {}, [flat, weight], [logits]),
    ]
    graph.outputs = [logits]


BROKEN: list[tuple[Hook, type[GraftError], str]] = [
    (cycle, ModelError, "the hook broke the graph: its graph has a cycle through node"),
    (dangling, ModelError, "the hook broke the graph: it is not valid ONNX: Nodes in a graph must be topol"),
    (unfit, ModelError, "the hook broke the graph: its shapes do not fit together: Gemm node 'head/hidden'"),
    (unknown, ModelError, "node 'head/relu' is operator 'Guess', which ONNX does not define"),
    (foreign, ModelError, "node 'head/relu' is operator 'Relu' of domain 'com.example'"),
    (more_classes, PlanError, "'logits' float [N, 6]; expected 'input' float [N, 3, 16, 16], 'logits' float"),
    (second_output, PlanError, "'head/features' float [N, 72]; expected 'input' float"),
    (renamed_output, PlanError, "'scores' float [N, 3]; expected 'input'"),
    (old, PlanError, "the hook's graph is of opset 13; expected 18, as it was given."),
    (headless, ModelError, "the hook broke the graph: "),
    (untyped, GraftError, "the hook broke the graph: "),
    (unwritable, PlanError, "the hook broke the graph: onnx-graphsurgeon cannot write it: "),
    (twice, PlanError, "onnx-graphsurgeon cannot write it: Found distinct tensors that share the same name"),
    (blind, ModelError, "the hook broke the graph: nothing but a head stands between its input 'input'"),
    (lambda graph: 7, PlanError, "the hook returned int; expected an onnx_graphsurgeon.Graph, or None"),  # type: ignore[list-item,return-value]
]


@pytest.mark.parametrize(("hook", "kind", "message"), BROKEN, ids=lambda v: getattr(v, "__name__", ""))
def test_a_hook_that_breaks_the_graph_gets_a_sentence(
    a: Network, b: Network, hook: Hook, kind: type[GraftError], message: str
) -> None:
    with pytest.raises(kind) as caught:
        fuse(a, b, classes=3, hook=hook)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_what_onnx_allows_but_nobody_runs_gets_a_sentence(a: Network, b: Network) -> None:
    def hook(graph: gs.Graph) -> None:
        relu = node(graph, "head/relu")
        whole, found = gs.Variable("head/whole", np.int32), gs.Variable("head/found", np.int32)
        graph.nodes.append(gs.Node("Cast", "head/cast", {"to": TensorProto.INT16}, relu.inputs, [whole]))
        graph.nodes.append(gs.Node("Relu", "head/whole_relu", {}, [whole], [found]))
        relu.op, relu.attrs, relu.inputs = "Cast", {"to": TensorProto.FLOAT}, [found]

    with pytest.raises(ModelError, match=r"^after the hook: "):
        fuse(a, b, classes=3, hook=hook)


def test_what_the_hook_itself_raises_is_its_users(a: Network, b: Network) -> None:
    def hook(graph: gs.Graph) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        fuse(a, b, classes=3, hook=hook)


def test_a_local_function_is_inlined(a: Network, b: Network) -> None:
    def hook(graph: gs.Graph) -> None:
        x, y = gs.Variable("x"), gs.Variable("y")
        twice = gs.Function(
            "Twice",
            domain="mine",
            nodes=[gs.Node("Add", inputs=[x, x], outputs=[y])],
            inputs=[x],
            outputs=[y],
            opset=18,
        )
        graph.functions.append(twice)
        relu = node(graph, "head/relu")
        relu.op, relu.domain = "Twice", "mine"

    fused = fuse(a, b, classes=3, hook=hook)
    assert not fused.proto.functions
    assert fused.view.producer["head/relu/output"].op_type == "Add"


def test_a_chain_longer_than_the_recursion_limit_is_no_obstacle(a: Network, b: Network) -> None:
    def hook(graph: gs.Graph) -> None:
        relu = node(graph, "head/relu")
        value = relu.inputs[0]
        for index in range(1500):
            output = gs.Variable(f"head/chain/{index}", np.float32)
            graph.nodes.append(gs.Node("Identity", output.name, {}, [value], [output]))
            value = output
        relu.inputs = [value]
        graph.nodes.reverse()

    fused = fuse(a, b, classes=3, hook=hook)
    assert fused.notes[2:] == COMPARED


def test_unproven_when_it_is_told_not_to(a: Network, b: Network) -> None:
    assert fuse(a, b, classes=3, hook=changed_b, prove=False).notes == ()
