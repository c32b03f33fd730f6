from __future__ import annotations

import random

import numpy as np
import onnx
import pytest
from builders import plain_cnn, residual_cnn
from onnx import TensorProto, helper, numpy_helper

from graftonnx.errors import ModelError
from graftonnx.graph import GraphView, is_stub, sort_nodes
from graftonnx.normalise.dtypes import TYPED
from graftonnx.weights import split, whole


def test_shuffled_nodes_come_back_in_topological_order() -> None:
    nodes = list(residual_cnn(depth=5).graph.node)
    random.Random(0).shuffle(nodes)
    made: set[str] = {"image"}
    for node in sort_nodes(nodes):
        assert all(name in made or name.endswith(("weight", "bias")) for name in node.input)
        made.update(node.output)


def test_sorted_nodes_keep_their_order() -> None:
    nodes = list(residual_cnn().graph.node)
    assert sort_nodes(nodes) == nodes


def test_a_chain_of_ten_thousand_nodes_is_sorted_without_recursion() -> None:
    chain = [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"]) for i in range(10_000)]
    assert sort_nodes(reversed(chain)) == chain


def test_a_cycle_is_refused_by_name() -> None:
    loop = [
        helper.make_node("Relu", ["b"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="second"),
    ]
    with pytest.raises(ModelError, match=r"its graph has a cycle through node 'first' \(Relu\)\."):
        sort_nodes(loop)


def test_values_read_inside_an_if_branch_count_as_reads() -> None:
    inner = helper.make_graph([helper.make_node("Relu", ["outer"], ["r"])], "then", [], [])
    node = helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=inner)
    graph = helper.make_graph([node, helper.make_node("Neg", ["x"], ["outer"])], "g", [], [])
    assert [n.op_type for n in GraphView(graph).nodes] == ["Neg", "If"]


def test_split_weights_leave_stubs_and_come_back_unchanged() -> None:
    model = residual_cnn(width=16)
    before = model.SerializeToString()
    skeleton, weights = split(model)
    assert weights
    assert all(is_stub(t) == (t.name in weights) for t in skeleton.graph.initializer)
    assert skeleton.ByteSize() < len(before) / 4
    assert whole(skeleton, weights).SerializeToString() == before == model.SerializeToString()


def test_an_empty_tensor_is_not_a_stub() -> None:
    assert not is_stub(numpy_helper.from_array(np.zeros((0,), np.float32)))
    assert is_stub(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3]))


def test_a_view_like_another_is_wired_alike() -> None:
    model = plain_cnn([4] * 3)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    first, fresh = GraphView(model.graph), GraphView(copy.graph)
    second = GraphView(copy.graph, first)
    assert [node.name for node in second.nodes] == [node.name for node in fresh.nodes]
    assert second.consumers.keys() == fresh.consumers.keys()
    assert second.ancestry("r2") == fresh.ancestry("r2")
    assert all(node is other for node, other in zip(second.nodes, copy.graph.node, strict=True))


def test_operators_that_state_a_type_are_those_of_the_standard() -> None:
    holds = (onnx.defs.OpSchema.AttrType.TENSOR, onnx.defs.OpSchema.AttrType.TENSORS)
    found = {
        schema.name
        for schema in onnx.defs.get_all_schemas_with_history()
        for name, item in schema.attributes.items()
        if not schema.domain and (name in ("to", "dtype") or item.type in holds)
    }
    assert found == TYPED
