"""Awkward but legal pairs, each fused and proven clean: valid, the numbers of the files, nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import Builder, plain_cnn, residual_cnn, saved
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper, numpy_helper

import graftonnx
from graftonnx.errors import ModelError
from graftonnx.fusion import fuse
from graftonnx.metadata import PRESETS, Preprocess, read_metadata
from graftonnx.model import from_proto, load, save
from graftonnx.network import Network
from graftonnx.runtime import open_session, with_outputs

Pair = tuple[ModelProto, ModelProto]
CASES: dict[str, Callable[[], Pair]] = {}


def case(build: Callable[[], Pair]) -> Callable[[], Pair]:
    """Enter a pair under its function's name."""
    CASES[build.__name__] = build
    return build


def renamed(model: ModelProto, names: dict[str, str]) -> ModelProto:
    """Rename values and initializers, in place."""
    graph = model.graph
    for item in (*graph.input, *graph.output, *graph.initializer):
        item.name = names.get(item.name, item.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return model


def all_names(model: ModelProto) -> list[str]:
    graph = model.graph
    made = [name for node in graph.node for name in node.output if name]
    return [value.name for value in graph.input] + [t.name for t in graph.initializer] + made


def weights_by(model: ModelProto, op: str, **attributes: object) -> ModelProto:
    """Make every weight the output of a node of kind `op` over the initializer `<weight>_held`, in place."""
    nodes = []
    for tensor in model.graph.initializer:
        held = f"{tensor.name}_held"
        nodes.append(helper.make_node(op, [held], [tensor.name], **attributes))
        tensor.name = held
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def narrow(kind: int) -> ModelProto:
    """Return a network whose weights are of type `kind`, cast to float32 by nodes."""
    model = plain_cnn(opset=19)
    model.ir_version = 9
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(helper.make_tensor(tensor.name, kind, array.shape, array.ravel()))
    return weights_by(model, "Cast", to=TensorProto.FLOAT)


@case
def metadata_of_equal_keys_and_different_values() -> Pair:
    one, two = plain_cnn(), residual_cnn()
    one.metadata_props.add(key="author", value="one")
    two.metadata_props.add(key="author", value="two")
    return one, two


@case
def resizes_of_opsets_11_and_18() -> Pair:
    def resized(opset: int, **attributes: object) -> ModelProto:
        net = Builder(opset)
        value = net.block("image", "r0", 3, 8)
        roi = numpy_helper.from_array(np.zeros(0, np.float32), "roi")
        scales = numpy_helper.from_array(np.float32([1, 1, 1.5, 1.5]), "scales")
        net.initializers += [roi, scales]
        value = net.node("Resize", [value, "roi", "scales"], "up", mode="linear", **attributes)
        return net_head(net, net.block(value, "r1", 8, 8), opset=opset)

    return resized(11, coordinate_transformation_mode="align_corners"), resized(18, antialias=0)


def net_head(net: Builder, value: str, *, width: int = 8, opset: int = 13) -> ModelProto:
    value = net.node("GlobalAveragePool", [value], "pooled")
    value = net.node("Flatten", [value], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc", 4, width)], "scores", transB=1)
    return net.model("scores", ["batch", 4], opset=opset)


@case
def functions_of_equal_names_and_different_bodies() -> Pair:
    def acting(body: str) -> ModelProto:
        model = plain_cnn(opset=15)
        nodes = [helper.make_node(body, ["x"], ["y"])]
        model.functions.append(helper.make_function("own", "Act", ["x"], ["y"], nodes, model.opset_import))
        model.opset_import.append(helper.make_opsetid("own", 1))
        for node in model.graph.node:
            if node.op_type == "Relu":
                node.op_type, node.domain = "Act", "own"
        return model

    return acting("Relu"), acting("Sigmoid")


@case
def sparse_initializers() -> Pair:
    model = plain_cnn()
    tensor = next(t for t in model.graph.initializer if t.name == "r1.conv.weight")
    dense = numpy_helper.to_array(tensor).ravel()
    kept = np.arange(0, dense.size, 7)
    sparse = helper.make_sparse_tensor(
        helper.make_tensor(tensor.name, TensorProto.FLOAT, [len(kept)], dense[kept]),
        helper.make_tensor("indices", TensorProto.INT64, [len(kept)], kept),
        list(tensor.dims),
    )
    model.graph.initializer.remove(tensor)
    model.graph.sparse_initializer.append(sparse)
    return model, residual_cnn()


@case
def bfloat16_initializers() -> Pair:
    return narrow(TensorProto.BFLOAT16), residual_cnn()


@case
def float8_initializers() -> Pair:
    return narrow(TensorProto.FLOAT8E4M3FN), narrow(TensorProto.FLOAT8E5M2)


@case
def int4_initializers() -> Pair:
    model = plain_cnn(opset=21)
    model.ir_version = 10
    for tensor in list(model.graph.initializer):
        array = np.clip(np.round(numpy_helper.to_array(tensor) * 7), -8, 7)
        tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.INT4, array.shape, array.ravel()))
    names = [tensor.name for tensor in model.graph.initializer]
    model = weights_by(model, "DequantizeLinear")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1 / 7), "step"))
    for node in model.graph.node[: len(names)]:
        node.input.append("step")
    return model, residual_cnn()


@case
def weights_listed_as_inputs() -> Pair:
    def listed(model: ModelProto) -> ModelProto:
        model.graph.input.extend(
            helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in model.graph.initializer
        )
        model.ir_version = 3
        return model

    return listed(plain_cnn(opset=9)), listed(residual_cnn())


@case
def unnamed_nodes() -> Pair:
    pair = plain_cnn(), residual_cnn()
    for model in pair:
        for node in model.graph.node:
            node.ClearField("name")
    return pair


@case
def equal_names_of_several_nodes() -> Pair:
    pair = plain_cnn(), residual_cnn()
    for model in pair:
        for node in model.graph.node:
            node.name = "node"
    return pair


@case
def empty_optional_inputs_and_outputs() -> Pair:
    net = Builder()
    value = net.conv("image", "c0", 3, 8)
    net.initializers.append(numpy_helper.from_array(np.float32(6), "six"))
    value = net.node("Clip", [value, "", "six"], "r0")
    value = net.node("Dropout", [value, "", ""], "kept")
    net.nodes[-1].output.append("")
    value = net.node("MaxPool", [value], "halved", kernel_shape=[2, 2], strides=[2, 2])
    net.nodes[-1].output.append("")
    return net_head(net, net.block(value, "r1", 8, 8)), residual_cnn()


def branch_graph(name: str, node: onnx.NodeProto) -> GraphProto:
    value = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
    return helper.make_graph([node], name, [], [value])


@case
def conditions_that_read_outer_tensors() -> Pair:
    def conditional() -> ModelProto:
        net = Builder()
        value = net.block("image", "r0", 3, 8)
        total = net.node("ReduceSum", [value], "total", keepdims=0)
        net.initializers.append(numpy_helper.from_array(np.float32(1e6), "limit"))
        large = net.node("Greater", [total, "limit"], "large")
        scale = net.weight("outer_scale", 8, 1, 1)
        yes = branch_graph("yes", helper.make_node("Mul", [value, scale], ["inner"]))
        no = branch_graph("no", helper.make_node("Add", [value, scale], ["inner"]))
        value = net.node("If", [large], "chosen", then_branch=yes, else_branch=no)
        return net_head(net, net.block(value, "r1", 8, 8))

    return conditional(), conditional()


@case
def loops_that_read_outer_tensors() -> Pair:
    def looping() -> ModelProto:
        net = Builder()
        value = net.block("image", "r0", 3, 8)
        net.initializers += [
            numpy_helper.from_array(np.array(3), "times"), numpy_helper.from_array(np.array(True), "go"),
        ]  # fmt: skip
        scale = net.weight("outer_scale", 8, 1, 1)
        inputs = [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ]
        outputs = [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ]
        steps = [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("Add", ["state", "r0"], ["sum"]),
            helper.make_node("Mul", ["sum", scale], ["next"]),
        ]
        body = helper.make_graph(steps, "body", inputs, outputs)
        value = net.node("Loop", ["times", "go", value], "looped", body=body)
        return net_head(net, net.block(value, "r1", 8, 8))

    return looping(), looping()


@case
def sequences() -> Pair:
    net = Builder()
    one, two = net.block("image", "one", 3, 4), net.block("image", "two", 3, 4)
    listed = net.node("SequenceConstruct", [one, two], "listed")
    value = net.node("ConcatFromSequence", [listed], "r0", axis=1)
    return net_head(net, net.block(value, "r1", 8, 8)), plain_cnn()


@case
def constants_as_nodes() -> Pair:
    model = residual_cnn()
    constants = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    nodes = [*constants, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    return model, plain_cnn()


@case
def twice_the_same_names() -> Pair:
    return residual_cnn(seed=0), residual_cnn(seed=1)


@case
def dots_slashes_colons_and_other_alphabets() -> Pair:
    odd = ["é", "名前", "a.b", "a/b:0", "x y", "é\u0301", "🙂", "a\\b", 'q"', "%s{0}", ".", "/", ":"]
    pair = plain_cnn(), residual_cnn()
    for model in pair:
        names = all_names(model)
        renamed(model, {name: f"{name}/{odd[i % len(odd)]}" for i, name in enumerate(names)})
        for index, node in enumerate(model.graph.node):
            node.name = f"{odd[index % len(odd)]}{index}"
    return pair


@case
def names_of_values_that_are_names_of_nodes() -> Pair:
    pair = plain_cnn(), residual_cnn()
    for model in pair:
        outputs = [node.output[0] for node in model.graph.node]
        for node, name in zip(model.graph.node, reversed(outputs), strict=True):
            node.name = name
    return pair


@case
def names_that_graftonnx_gives() -> Pair:
    given = ["input", "head/logits", "skips/0/a/sum", "skips/0/b/add", "a/r0", "b/b", "preprocess/a/scale"]
    given += ["head/features", "logits", "a/", "/", "head/hidden/weight", "skips/0/a/weight", "batch"]
    pair = plain_cnn(), residual_cnn()
    for model in pair:
        names = all_names(model)
        renamed(model, dict(zip(names, given, strict=False)))
    return pair


@case
def very_long_names() -> Pair:
    pair = plain_cnn(), residual_cnn()
    for model in pair:
        renamed(model, {name: name * 3000 for name in all_names(model)})
    return pair


@case
def oldest_and_newest_opset_and_format() -> Pair:
    old, new = plain_cnn(opset=7), residual_cnn()
    old.ir_version = 3
    old.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in old.graph.initializer
    )
    new.opset_import[0].version = onnx.defs.onnx_opset_version()
    new.ir_version = onnx.IR_VERSION
    return old, new


@case
def nodes_in_any_order() -> Pair:
    pair = plain_cnn(), residual_cnn()
    for model in pair:
        nodes = list(reversed(model.graph.node))
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return pair


@case
def an_input_that_is_an_output() -> Pair:
    model = plain_cnn()
    model.graph.output.append(model.graph.input[0])
    return model, residual_cnn()


@case
def an_initializer_that_is_an_output() -> Pair:
    model = plain_cnn()
    model.graph.output.insert(0, helper.make_tensor_value_info("fc.weight", TensorProto.FLOAT, [4, 16]))
    return model, residual_cnn()


@case
def domains_that_nobody_uses() -> Pair:
    one, two = plain_cnn(), residual_cnn()
    one.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    one.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    two.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    two.opset_import.insert(0, helper.make_opsetid("own", 7))
    return one, two


@case
def the_default_domain_by_its_long_name() -> Pair:
    model = plain_cnn()
    model.opset_import[0].domain = "ai.onnx"
    for node in model.graph.node:
        node.domain = "ai.onnx"
    return model, residual_cnn()


@case
def wrong_value_infos() -> Pair:
    pair = plain_cnn(), residual_cnn()
    for model, name in zip(pair, ("r0", "stem"), strict=True):
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [7, 7, 7, 7]))
        model.graph.value_info.append(helper.make_tensor_value_info("nobody", TensorProto.INT8, [1]))
    return pair


@case
def symbols_that_clash() -> Pair:
    one = plain_cnn(batch="N")
    two = residual_cnn()
    for dim, name in zip(two.graph.input[0].type.tensor_type.shape.dim, ("N", "", "N", "N"), strict=True):
        if name:
            dim.dim_param = name
    return one, two


@case
def unused_and_equal_initializers() -> Pair:
    model = plain_cnn()
    first = model.graph.initializer[0]
    for index in range(3):
        copy = model.graph.initializer.add()
        copy.CopyFrom(first)
        copy.name = f"copy{index}"
    model.graph.node[0].input[1] = "copy1"
    return model, residual_cnn()


@case
def numbers_outside_raw_data() -> Pair:
    model = plain_cnn()
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.FLOAT, array.shape, array.ravel()))
    return model, residual_cnn()


@case
def names_of_inner_values_that_are_outer_names_elsewhere() -> Pair:
    one, two = CASES["conditions_that_read_outer_tensors"]()
    for node in one.graph.node:
        for item in node.attribute:
            if item.type == AttributeProto.GRAPH:
                item.g.node[0].output[0] = item.g.output[0].name = "r9"
    return one, two


@case
def half_precision() -> Pair:
    model = plain_cnn()
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return model, residual_cnn()


TOLERANCES = {"half_precision": 2e-3}
"""Relative to the largest number, where the file computes in another type; elsewhere every bit is equal."""


def features(network: Network, model: ModelProto, image: np.ndarray) -> np.ndarray:
    """Return what the untouched file computes for images that stand as the branch gets them."""
    for node in model.graph.node:
        node.ClearField("name")  # ONNX Runtime refuses equal ones
    for entry in model.opset_import:
        entry.version = min(entry.version, 22)  # it does not know newer ones, which mean the same here
    model.ir_version = min(model.ir_version, 10)
    session = open_session(
        with_outputs(model, [network.head.feature]), provider="cpu", threads=1, optimise=False
    )
    return session.run(image.astype(session.input_type), outputs=[network.head.feature])[0]


def assert_clean(
    fused: Network, path: Path, originals: list[tuple[Network, ModelProto]], tolerance: float
) -> None:
    """Check a fused file: valid, and each branch gives the numbers of its parent's untouched file."""
    onnx.checker.check_model(path, full_check=True)
    names = [name for parent in fused.metadata.parents for name in (parent.input_value, parent.feature)]
    session = open_session(with_outputs(onnx.load(path), names), provider="cpu", threads=1, optimise=False)
    shape = (3, *fused.input_shape)
    values = session.run(np.random.default_rng(0).random(shape, np.float32), outputs=names)
    for (network, model), image, feature in zip(originals, values[::2], values[1::2], strict=True):
        expected = features(network, model, image)
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(feature, expected, rtol=0, atol=tolerance * float(np.abs(expected).max()))


@pytest.mark.parametrize("name", CASES)
def test_an_awkward_pair_is_fused_clean(name: str, tmp_path: Path) -> None:
    models = CASES[name]()
    parents = [load(saved(model, tmp_path / f"{i}.onnx")) for i, model in enumerate(models)]
    fused = fuse(*parents, classes=3)
    save(fused, tmp_path / "fused.onnx")
    assert_clean(
        fused, tmp_path / "fused.onnx", list(zip(parents, models, strict=True)), TOLERANCES.get(name, 0)
    )


def test_what_files_say_beside_their_numbers_survives_under_their_branch(tmp_path: Path) -> None:
    def annotated(model: ModelProto, word: str) -> ModelProto:
        graph = model.graph
        model.doc_string, graph.doc_string = f"model of {word}", f"graph of {word}"
        model.metadata_props.add(key="author", value=word)
        graph.metadata_props.add(key="place", value=word)
        graph.value_info.append(
            helper.make_tensor_value_info(
                graph.node[0].output[0], TensorProto.FLOAT, None, f"value of {word}"
            )
        )
        graph.input[0].doc_string = f"input of {word}"
        graph.initializer[0].doc_string = f"weight of {word}"
        for node in graph.node:
            node.doc_string = f"{node.op_type} of {word}"
            node.metadata_props.add(key="namespace", value=f"{word}/{node.name}")
        graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "step"))
        note = graph.quantization_annotation.add(tensor_name=graph.initializer[0].name)
        note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="step")
        return model

    models = annotated(plain_cnn(opset=11), "one"), annotated(residual_cnn(), "two")
    parents = [load(saved(model, tmp_path / f"{i}.onnx")) for i, model in enumerate(models)]
    fused = fuse(*parents, classes=3)
    save(fused, tmp_path / "fused.onnx")
    found = onnx.load(tmp_path / "fused.onnx")
    onnx.checker.check_model(found, full_check=True)

    said = {entry.key: entry.value for entry in found.metadata_props}
    nodes = {node.output[0]: node for node in found.graph.node if node.output[0] != "logits"}
    values = {value.name: value.doc_string for value in found.graph.value_info}
    tensors = {tensor.name: tensor for tensor in found.graph.initializer}
    notes = {note.tensor_name: note for note in found.graph.quantization_annotation}
    for letter, word, model in zip("ab", ("one", "two"), models, strict=True):
        assert said[f"{letter}/author"] == word
        assert said[f"{letter}/doc_string"] == f"model of {word}"
        assert said[f"{letter}/graph.doc_string"] == f"graph of {word}"
        assert {e.key: e.value for e in found.graph.metadata_props}[f"{letter}/place"] == word
        assert values[f"{letter}/image"] == f"input of {word}"
        assert values[f"{letter}/{model.graph.node[0].output[0]}"] == f"value of {word}"
        weight = f"{letter}/{model.graph.initializer[0].name}"
        assert tensors[weight].doc_string == f"weight of {word}"
        (entry,) = notes[weight].quant_parameter_tensor_names
        assert (entry.key, entry.value) == ("SCALE_TENSOR", f"{letter}/step")
        assert numpy_helper.to_array(tensors[entry.value]) == 0.5
        for node in model.graph.node:
            kept = nodes.get(f"{letter}/{node.output[0]}")
            if kept is not None:
                assert kept.doc_string == node.doc_string
                assert [(e.key, e.value) for e in kept.metadata_props] == [
                    ("namespace", f"{word}/{node.name}")
                ]
    module = graftonnx.to_torch(found)
    assert not any("step" in name for name, _ in module.named_parameters())


def test_weights_in_several_files_are_read_from_their_own_folders(tmp_path: Path) -> None:
    models, paths = (plain_cnn((16, 32)), residual_cnn(16)), []
    for letter, model in zip("ab", models, strict=True):
        folder = tmp_path / letter
        (folder / "parts").mkdir(parents=True)
        copy = ModelProto()
        copy.CopyFrom(model)
        for index, tensor in enumerate(copy.graph.initializer):
            part = f"parts/{index % 2}.bin"
            with (folder / part).open("ab") as file:
                file.write(bytes(64))
                offset = file.tell()
                file.write(tensor.raw_data)
            onnx.external_data_helper.set_external_data(tensor, part, offset, len(tensor.raw_data))
            tensor.ClearField("raw_data")
        paths.append(folder / "model.onnx")
        paths[-1].write_bytes(copy.SerializeToString())
    parents = [load(path) for path in paths]
    fused = fuse(*parents, classes=3)
    save(fused, tmp_path / "fused.onnx")
    assert_clean(fused, tmp_path / "fused.onnx", list(zip(parents, models, strict=True)), 0)


def test_a_shape_that_nobody_can_infer_is_refused(tmp_path: Path) -> None:
    model = CASES["loops_that_read_outer_tensors"]()[0]
    (body,) = (item.g for node in model.graph.node for item in node.attribute if item.name == "body")
    body.initializer.append(numpy_helper.from_array(np.int64([0, 0, 1, 1, 0, 0, 0, 0]), "more"))
    body.node[1].CopyFrom(helper.make_node("Pad", ["state", "more"], ["sum"]))
    with pytest.raises(ModelError, match=r"the shape of '\w+', .* because of node 'node_looped' \(Loop\)"):
        load(saved(model, tmp_path / "loop.onnx"))


def test_the_half_type_of_a_parent_is_remembered(tmp_path: Path) -> None:
    parents = [load(saved(model, tmp_path / f"{i}.onnx")) for i, model in enumerate(half_precision())]
    save(fuse(*parents, classes=3), tmp_path / "fused.onnx")
    said = read_metadata(onnx.load(tmp_path / "fused.onnx"))
    assert [parent.weight_type for parent in said.parents] == ["float16", "float32"]


def test_reordered_nodes_and_narrow_weights_are_said(tmp_path: Path) -> None:
    model = CASES["nodes_in_any_order"]()[0]
    assert "nodes brought into topological order" in load(saved(model, tmp_path / "a.onnx")).notes
    model = CASES["int4_initializers"]()[0]
    assert "int4 weights are float32 inside" in load(saved(model, tmp_path / "b.onnx")).notes


CAFFE = PRESETS["caffe"].mean
CONVENTIONS = {
    "grey 0..255": (1, 12, Preprocess(order="grey", scale=255), (255 * 0.4559,)),
    "caffe": (3, 20, PRESETS["caffe"], (255 * 0.9 - CAFFE[0], 255 * 0.5 - CAFFE[1], 255 * 0.2 - CAFFE[2])),
    "inception": (3, 16, PRESETS["inception"], (-0.6, 0.0, 0.8)),
    "raw": (3, 8, PRESETS["raw"], (51, 127.5, 229.5)),
    "own numbers": (
        3,
        32,
        Preprocess(order="bgr", scale=2, mean=(1, 2, 3), std=(4, 5, 6)),
        (0.2, -0.2, -2.6 / 6),
    ),
}
"""Channels, side, convention, and what it makes of the colour (0.2, 0.5, 0.9)."""


@pytest.mark.parametrize("one", CONVENTIONS)
@pytest.mark.parametrize("two", ["grey 0..255", "caffe", "own numbers"])
def test_parents_of_different_sizes_ranges_and_orders_share_one_image(one: str, two: str) -> None:
    given = [CONVENTIONS[one], CONVENTIONS[two]]
    parents = [
        from_proto(plain_cnn(channels=channels, size=side), f"{side}.onnx", preprocess=convention)
        for channels, side, convention, _ in given
    ]
    fused = fuse(*parents, classes=3)
    assert fused.input_shape == (3, *[max(side for _, side, _, _ in given)] * 2)
    names = [parent.input_value for parent in fused.metadata.parents]
    session = open_session(with_outputs(fused.proto, names), provider="cpu", threads=1, optimise=False)
    colour = np.float32([0.2, 0.5, 0.9]).reshape(1, 3, 1, 1)
    image = np.broadcast_to(colour, (1, *fused.input_shape)).copy()
    for found, (channels, side, _, expected) in zip(session.run(image, outputs=names), given, strict=True):
        wanted = np.broadcast_to(np.reshape(expected, (1, channels, 1, 1)), (1, channels, side, side))
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
