"""The window through which onnx-graphsurgeon sees a large skeleton."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from builders import Builder, plain_cnn, residual_cnn
from onnx import version_converter

import graftonnx
from graftonnx import surgery
from graftonnx.graph import GraphView
from graftonnx.model import from_proto
from graftonnx.proofs import check_structure
from graftonnx.surgery import Part, Window
from graftonnx.tensors import Made
from graftonnx.weights import write


def test_a_window_holds_makers_and_readers_only():
    view = from_proto(plain_cnn([4] * 30), "net").view
    window = Window([Part(view)], ["r7"])
    assert {node.outputs[0].name for node in window.nodes} == {"r7", "r8.conv"}
    assert [node.outputs[0].name for node in window.values["r7"].outputs] == ["r8.conv"]


def test_closing_a_window_rewires_its_readers_and_keeps_all_else():
    network = from_proto(plain_cnn([4] * 6), "net")
    for node in network.skeleton.graph.node:
        node.metadata_props.add(key="kept", value=node.name)
    view = GraphView(network.skeleton.graph)
    window = Window([Part(view)], ["r2", "image"])
    doubled = gs.Variable("doubled", np.float32)
    tap = window.values["r2"]
    (reader,) = tap.outputs
    reader.inputs = [doubled if tensor is tap else tensor for tensor in reader.inputs]
    added = [gs.Node("Add", "twice", {}, [tap, tap], [doubled])]
    image = window.values["image"]
    scores = gs.Variable("doubled/relu", np.float32)
    last = gs.Node("Relu", "last", {}, [doubled], [scores])
    model, _ = window.close([*added, last], [image], [scores])
    nodes = {node.name: node for node in model.graph.node}
    assert len(nodes) == len(view.nodes) + 2
    assert list(nodes["node_r3.conv"].input) == ["doubled", "r3.conv.weight"]
    kept = {name: node.metadata_props[0].value for name, node in nodes.items() if node.metadata_props}
    assert kept == {node.name: node.name for node in view.nodes}


def test_a_part_takes_what_its_output_depends_on_under_other_names():
    network = from_proto(plain_cnn([4] * 6), "net")
    whole, part = Part(network.view), Part(network.view, "a/", "r3")
    assert whole.makes("r4")
    assert part.makes("r3")
    assert not part.makes("r4")
    assert set(part.infos) == {n for i in part.positions for n in network.view.made[i]}
    assert "r4.conv.weight" in whole.initializers
    assert "r4.conv.weight" not in part.initializers
    (maker,) = part.around("a/r3")
    assert (list(maker.input), list(maker.output)) == (["a/r3.conv"], ["a/r3"])
    assert part.around("r3") == []


def test_onnx_graphsurgeon_sees_as_much_of_a_deep_network_as_of_a_flat_one(monkeypatch):
    seen = []
    whole = surgery.gs.import_onnx
    monkeypatch.setattr(surgery.gs, "import_onnx", lambda m: seen.append(len(m.graph.node)) or whole(m))
    for depth in (5, 600):
        parents = [from_proto(residual_cnn(depth=depth, seed=seed), "net") for seed in (0, 1)]
        fused = graftonnx.fuse(*parents, max_skips=2, classes=4, prove=False)
        check_structure(fused.skeleton, fused.weights)
    assert seen[1] <= 2 * seen[0]


def test_the_structure_is_proven_without_reading_weights():
    fused = graftonnx.fuse(from_proto(plain_cnn([16, 32]), "net"), classes=4, prove=False)
    unread = dict.fromkeys(fused.weights)
    check_structure(fused.skeleton, unread)
    broken = onnx.ModelProto()
    broken.CopyFrom(fused.skeleton)
    broken.graph.node[1].input[0] = "nobody"
    with pytest.raises(graftonnx.errors.ModelError, match="not valid ONNX"):
        check_structure(broken, unread)


def test_a_window_whose_border_does_not_fit_is_not_closed():
    network = from_proto(plain_cnn([16, 32]), "net")
    tap = network.view.nodes[-4].output[0]
    part = surgery.Part(network.view, "a/")
    window = surgery.Window([part], [f"a/{tap}"])
    part.infos[tap].type.tensor_type.shape.dim[1].dim_value += 1
    with pytest.raises(graftonnx.errors.ModelError, match=f"changes the type of 'a/{tap}'"):
        window.close([], [], [])


def test_what_means_the_same_is_not_converted(monkeypatch):
    def refuse(*_):
        raise AssertionError("converted")

    monkeypatch.setattr(version_converter, "convert_version", refuse)
    network = from_proto(plain_cnn(opset=17), "net")
    assert network.skeleton.opset_import[0].version == 18
    net = Builder()
    value = net.node("ReduceMean", [net.block("image", "r", 3, 4)], "pooled", axes=[2, 3], keepdims=0)
    net.node("Gemm", [value, net.weight("fc", 4, 4)], "scores", transB=1)
    with pytest.raises(AssertionError, match="converted"):
        from_proto(net.model("scores", ["batch", 4], opset=17), "net")


def test_elements_of_our_own_are_written_as_protobuf_does(tmp_path):
    array = np.arange(2000, dtype=np.float32)
    stub = onnx.TensorProto(name="w", data_type=1, dims=[2000], doc_string="ours")
    model = plain_cnn()
    model.graph.initializer.append(stub)
    write(model, {"w": Made(array)}, tmp_path / "m.onnx")
    model.graph.initializer[-1].raw_data = array.tobytes()
    assert (tmp_path / "m.onnx").read_bytes() == model.SerializeToString(deterministic=True)
