"""What the door refuses before anything works on a model: each case is a small network with one lie in it."""

from __future__ import annotations

import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import plain_cnn, saved
from onnx import ModelProto, TensorProto, helper, numpy_helper

from graftonnx import cli, limits
from graftonnx.admission import admit
from graftonnx.conversion import to_torch
from graftonnx.errors import ModelError
from graftonnx.model import from_proto, load
from graftonnx.normalise.constants import constants_to_initializers
from graftonnx.tensors import Spread

Change = Callable[[ModelProto], None]
LIES: dict[str, tuple[Change, str]] = {}


def lie(message: str) -> Callable[[Change], Change]:
    """Enter a change, and what is said of it, under its function's name."""

    def enter(change: Change) -> Change:
        LIES[change.__name__] = change, message
        return change

    return enter


def weight(model: ModelProto) -> TensorProto:
    return next(t for t in model.graph.initializer if t.name == "fc.bias")


def conv(model: ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == "Conv")


@lie(r"'fc.bias' holds 16 bytes, expected 4,398,046,511,104 for float \[1099511627776\]")
def a_shape_of_more_elements_than_there_are(model: ModelProto) -> None:
    weight(model).dims[:] = [1 << 40]


@lie(r"the number of elements of the tensor 'fc.bias' is 85,070,591,730,234,615,847,396,907,784,232,501,249")
def a_shape_whose_product_leaves_64_bits(model: ModelProto) -> None:
    weight(model).dims[:] = [(1 << 63) - 1, (1 << 63) - 1]


@lie(r"'fc.bias' has the shape \[-4\]; expected no negative extent")
def a_negative_extent(model: ModelProto) -> None:
    weight(model).dims[:] = [-4]


@lie(r"'fc.bias' has a rank of 70; the limit is 32")
def a_rank_that_nobody_computes_with(model: ModelProto) -> None:
    weight(model).dims[:] = [1] * 69 + [4]


@lie(r"'fc.bias' holds 9 bytes, expected 16")
def truncated_elements(model: ModelProto) -> None:
    weight(model).raw_data = weight(model).raw_data[:9]


@lie(r"'fc.bias' has the element type 99")
def an_unknown_element_type(model: ModelProto) -> None:
    weight(model).data_type = 99


@lie(r"'fc.bias' has its elements twice")
def elements_in_two_fields(model: ModelProto) -> None:
    weight(model).float_data.extend([1, 2, 3, 4])


@lie(r"'fc.bias' is stored in segments")
def a_segment(model: ModelProto) -> None:
    weight(model).segment.begin = 1 << 40


@lie(r"has its elements twice")
def empty_raw_data_beside_numbers(model: ModelProto) -> None:
    tensor = weight(model)
    tensor.raw_data = b""
    tensor.float_data.extend([1, 2, 3, 4])


@lie(r"two of its initializers have one name")
def an_initializer_twice(model: ModelProto) -> None:
    model.graph.initializer.append(weight(model))


@lie(r"two of its inputs have one name")
def an_input_twice(model: ModelProto) -> None:
    model.graph.input.append(model.graph.input[0])


@lie(r"its value 'r0' is made by two nodes")
def a_value_that_two_nodes_make(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Relu", ["image"], ["r0"]))


@lie(r"its value 'fc.bias' is an input or initializer, and a node makes it too")
def an_initializer_that_a_node_makes(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Relu", ["image"], ["fc.bias"]))


@lie(r"its node 'node_r0.conv' \(Conv\) reads 'absent', which nothing makes")
def an_input_that_nothing_makes(model: ModelProto) -> None:
    conv(model).input[0] = "absent"


@lie(r"its graph has a cycle through node 'node_r0.conv' \(Conv\)")
def nodes_that_read_each_other(model: ModelProto) -> None:
    conv(model).input[0] = "r0"


def nested(model: ModelProto, reads: str) -> None:
    """Add an `If` that makes 'chosen', whose graphs read a value."""
    graphs = [
        helper.make_graph(
            [helper.make_node("Identity", [reads], [name])], name, [], [onnx.ValueInfoProto(name=name)]
        )
        for name in ("yes", "no")
    ]
    node = helper.make_node("If", ["when"], ["chosen"], then_branch=graphs[0], else_branch=graphs[1])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "when"))
    model.graph.node.append(node)


@lie(r"its graph has a cycle through node 'chosen' \(If\)")
def a_graph_that_reads_what_its_own_node_makes(model: ModelProto) -> None:
    nested(model, "chosen")


@lie(r"its graph has a cycle through node 'chosen' \(If\)")
def a_graph_that_reads_what_comes_of_its_own_node(model: ModelProto) -> None:
    nested(model, "after")
    model.graph.node.append(helper.make_node("Relu", ["chosen"], ["after"]))


@lie(r"its output 'absent' is made by nothing")
def an_output_that_nothing_makes(model: ModelProto) -> None:
    model.graph.output[0].name = "absent"


@lie(r"its node 'node_r0.conv' \(Conv\) has 1 inputs; expected 2 to 3")
def too_few_inputs(model: ModelProto) -> None:
    del conv(model).input[1:]


@lie(r"lacks its input 2")
def an_empty_name_for_what_must_be_there(model: ModelProto) -> None:
    conv(model).input[1] = ""


@lie(r"has the equation 'ij, jk -> ik\+'; expected letters, spaces")
def an_equation_at_which_inference_never_ends(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Einsum", ["image"], ["y"], equation="ij, jk -> ik+"))


@lie(r"has max_skip_count 1099511627776; expected 65,536 tokens or fewer")
def gaps_that_no_row_of_tokens_has(model: ModelProto) -> None:
    grams = {"ngram_counts": [0], "ngram_indexes": [0], "pool_int64s": [1], "mode": "TF"}
    sizes = {"min_gram_length": 1, "max_gram_length": 1, "max_skip_count": 1 << 40}
    model.graph.node.append(helper.make_node("TfIdfVectorizer", ["image"], ["y"], **grams, **sizes))


@lie(r"has the attribute 'strides' twice")
def an_attribute_twice(model: ModelProto) -> None:
    conv(model).attribute.append(helper.make_attribute("strides", [1, 1]))


@lie(r"has the attribute 'strides' of another type")
def an_attribute_of_another_type(model: ModelProto) -> None:
    next(item for item in conv(model).attribute if item.name == "strides").CopyFrom(
        helper.make_attribute("strides", 1.5)
    )


@lie(r"its function 'Act' calls itself")
def a_function_that_calls_itself(model: ModelProto) -> None:
    add_function(model, "Act", ["Act"])


@lie(r"its function '(Ping|Pong)' calls itself")
def functions_that_call_each_other(model: ModelProto) -> None:
    add_function(model, "Ping", ["Pong"])
    add_function(model, "Pong", ["Ping"])


@lie(r"the nodes of its function 'f6', expanded, are 1,000,000; the limit is 500,000")
def functions_that_multiply(model: ModelProto) -> None:
    add_function(model, "f1", ["Relu"] * 10, "")
    for index in range(2, 10):
        add_function(model, f"f{index}", [f"f{index - 1}"] * 10)


@lie(r"its functions that call functions is at least 17")
def functions_that_nest_deeply(model: ModelProto) -> None:
    for index in range(40):
        add_function(model, f"f{index}", [f"f{index + 1}"])


@lie(r"its function 'Act' is defined twice")
def a_function_twice(model: ModelProto) -> None:
    add_function(model, "Act", ["Relu"], "")
    add_function(model, "Act", ["Relu"], "")


@lie(r"the depth of its graphs inside graphs is 17")
def graphs_in_graphs(model: ModelProto) -> None:
    graph = model.graph
    for _ in range(20):
        node = graph.node.add(op_type="If", input=["fc.bias"], output=["y"])
        node.attribute.add(name="else_branch", type=onnx.AttributeProto.GRAPH).g.SetInParent()
        branch = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
        branch.g.SetInParent()
        graph = branch.g


@lie(r"the depth of the type of 'image' is at least 17")
def a_deep_type(model: ModelProto) -> None:
    kind = model.graph.input[0].type
    for _ in range(20):
        kind = kind.sequence_type.elem_type
    kind.tensor_type.elem_type = TensorProto.FLOAT


@lie(r"its value 'image' has the element type 77")
def a_value_of_an_unknown_type(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = 77


@lie(r"the length of the name of a node or value is 70,000")
def a_name_of_seventy_thousand_letters(model: ModelProto) -> None:
    conv(model).name = "x" * 70_000


def sparse_tensor(name: str, extent: int) -> onnx.SparseTensorProto:
    found = onnx.SparseTensorProto(dims=[extent])
    found.values.CopyFrom(numpy_helper.from_array(np.float32([1]), name))
    found.indices.CopyFrom(numpy_helper.from_array(np.int64([0]), "indices"))
    return found


@lie(r"the bytes of its sparse tensors, made dense, are 1,610,612,736; the limit is 1,073,741,824")
def sparse_tensors_that_are_small_alone(model: ModelProto) -> None:
    model.graph.sparse_initializer.extend(sparse_tensor(f"sparse{index}", 1 << 27) for index in range(2))
    sparse = sparse_tensor("constant", 1 << 27)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["constant"], sparse_value=sparse))


@lie(r"the bytes of its sparse tensors, made dense, are 1,610,612,736; the limit is 1,073,741,824")
def a_function_with_a_sparse_tensor_that_is_called_often(model: ModelProto) -> None:
    constant = helper.make_node("Constant", [], ["y"], sparse_value=sparse_tensor("held", 1 << 27))
    imports = [*model.opset_import, helper.make_opsetid("own", 1)]
    model.functions.append(helper.make_function("own", "Held", [], ["y"], [constant], imports))
    model.opset_import.append(imports[-1])
    for index in range(3):
        model.graph.node.insert(0, helper.make_node("Held", [], [f"held{index}"], domain="own"))


@lie(r"the bytes of the sparse tensor 'sparse', made dense, are")
def a_sparse_tensor_that_is_dense_nowhere(model: ModelProto) -> None:
    sparse = model.graph.sparse_initializer.add(dims=[1 << 20, 1 << 20])
    sparse.values.CopyFrom(numpy_helper.from_array(np.float32([1]), "sparse"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.int64([0]), "indices"))


@lie(r"has nothing in its attribute 'value'")
def a_constant_of_nothing(model: ModelProto) -> None:
    node = model.graph.node.add(op_type="Constant", output=["nothing"])
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)


def add_function(model: ModelProto, name: str, calls: list[str], domain: str = "own") -> None:
    imports = [*model.opset_import, helper.make_opsetid("own", 1)]
    nodes = [
        helper.make_node(call, ["x"], ["y" if index == 0 else f"y{index}"], domain=domain)
        for index, call in enumerate(calls)
    ]
    model.functions.append(helper.make_function("own", name, ["x"], ["y"], nodes, imports))


@lie(r"\(BatchNormalization\) has 1 inputs; expected 5")
def a_function_with_the_name_of_an_operator(model: ModelProto) -> None:
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    body = [helper.make_node("Relu", ["x"], ["y"])]
    opset = [helper.make_opsetid("", model.opset_import[0].version)]
    model.functions.append(helper.make_function("", "BatchNormalization", ["x"], ["y"], body, opset))
    relu.op_type = "BatchNormalization"


@lie(r"\(Conv\) has weights of 1 axes; expected 3 or more")
def a_kernel_that_is_a_list(model: ModelProto) -> None:
    conv(model).input[1] = "fc.bias"


@lie(r"\(Conv\): its attribute 'auto_pad' is not UTF-8")
def a_string_that_is_no_text(model: ModelProto) -> None:
    conv(model).attribute.append(helper.make_attribute("auto_pad", b"\xff"))


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    change, message = LIES[name]
    model = plain_cnn()
    change(model)
    path = saved(model, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=f"^cannot read '{path}': .*{message}"):
        load(path)
    with pytest.raises(ModelError, match=message):
        from_proto(model, "model.onnx")
    with pytest.raises(ModelError, match=message):
        to_torch(model)


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = saved(plain_cnn(), tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes().replace(b"r0.conv", b"r0.\xff\xfe\xff\xfe"))
    with pytest.raises(ModelError, match=r"a name or text in it is not UTF-8"):
        load(path)


def test_graphs_deeper_than_a_parser_goes_are_refused(tmp_path: Path) -> None:
    """Protobuf itself stops at a hundred messages inside each other."""
    path = saved(plain_cnn(), tmp_path / "model.onnx")
    content = b""
    for _ in range(400):
        for field in (6, 5, 1):  # a graph in an attribute in a node in a graph
            length, tag = len(content), bytes([field << 3 | 2])
            while length >= 0x80:
                tag += bytes([length & 0x7F | 0x80])
                length >>= 7
            content = tag + bytes([length]) + content
    length, tag = len(content), bytes([7 << 3 | 2])
    while length >= 0x80:
        tag += bytes([length & 0x7F | 0x80])
        length >>= 7
    path.write_bytes(path.read_bytes() + tag + bytes([length]) + content)
    with pytest.raises(ModelError, match=r"^cannot read .*it is not an ONNX file, or it is truncated"):
        load(path)


def with_choices(count: int) -> ModelProto:
    """Return a network with so many nodes `If`, each with two small graphs inside."""
    model = plain_cnn()
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "is"))
    for index in range(count):
        branches = [
            helper.make_graph(
                [helper.make_node("Identity", ["image"], [f"{side}{index}"])],
                side,
                [],
                [helper.make_tensor_value_info(f"{side}{index}", TensorProto.FLOAT, None)],
            )
            for side in ("then", "else")
        ]
        kept = dict(zip(("then_branch", "else_branch"), branches, strict=True))
        model.graph.node.append(helper.make_node("If", ["is"], [f"chosen{index}"], **kept))
    return model


def test_graphs_inside_a_graph_share_the_list_of_its_names() -> None:
    """A list for each of them would take 600 MB."""
    model = with_choices(2_500)
    tracemalloc.start()
    admit(model)
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def test_many_graphs_inside_a_graph_of_many_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTONNX_LIMITS", "scopes=10K")
    admit(with_choices(50))
    message = r"the names that its graphs inside graphs can read, .* are \d\d,\d{3}; the limit is 10,240\."
    with pytest.raises(ModelError, match=message):
        admit(with_choices(100))


def test_graphs_inside_functions_count_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    model, choices = plain_cnn(), with_choices(30)
    nodes = [node for node in choices.graph.node if node.op_type == "If"]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "f", ["is", "image"], ["chosen0"], nodes, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "is"))
    monkeypatch.setenv("GRAFTONNX_LIMITS", "scopes=10K")
    calls = [helper.make_node("f", ["is", "image"], [f"y{index}"], domain="own") for index in range(10)]
    model.graph.node.extend(calls[:5])
    admit(model)
    model.graph.node.extend(calls[5:])
    with pytest.raises(ModelError, match=r"inside graphs can read, .* are 19,200; the limit is 10,240\."):
        admit(model)


def test_the_environment_raises_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = plain_cnn()
    conv(model).name = "x" * 70_000
    with pytest.raises(ModelError, match=r"If you trust the file, set GRAFTONNX_LIMITS=name=NUMBER"):
        admit(model)
    monkeypatch.setenv("GRAFTONNX_LIMITS", "name=1M nodes=10")
    limits.limits.cache_clear()
    admit(model)
    limits.limits.cache_clear()


@pytest.mark.parametrize("text", ["nodes", "nodes=", "nodse=5", "nodes=-1", "nodes=1e9", "value=٤"])
def test_a_limit_that_means_nothing_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTONNX_LIMITS", text)
    limits.limits.cache_clear()
    with pytest.raises(ModelError, match=r"^GRAFTONNX_LIMITS holds '.*'; expected NAME=NUMBER"):
        limits.limits()


@pytest.fixture(autouse=True)
def _fresh_limits() -> None:
    limits.limits.cache_clear()


def test_a_sparse_tensor_shares_its_limit_with_other_constants() -> None:
    model, weights = plain_cnn(), {"before": Spread(np.zeros(1 << 27, np.float32))}
    model.graph.sparse_initializer.append(sparse_tensor("sparse", 1 << 27))
    constants_to_initializers(model, weights)
    assert isinstance(weights["sparse"], Spread)
    assert weights["sparse"].array()[:2].tolist() == [1, 0]
    model.graph.sparse_initializer.append(sparse_tensor("more", 1 << 10))
    with pytest.raises(ModelError, match=r"^the bytes of 'more', made dense, .* 1,073,745,920; the limit"):
        constants_to_initializers(model, weights)


@pytest.mark.skipif("sys.platform != 'linux'")
def test_native_code_cannot_fill_the_memory() -> None:
    refused = pytest.raises(ModelError, match=r"^onnx takes more memory than the file should need")
    with refused, limits.bounded("onnx"):
        np.empty(1 << 33, np.uint8)
    np.empty(1 << 33, np.uint8)


@pytest.mark.skipif("sys.platform != 'linux'")
@pytest.mark.parametrize(
    ("threads", "is_bounded"), [([], True), (["tqdm_monitor"], True), (["loader"], False)]
)
def test_the_threads_of_a_program_find_memory_while_native_code_works(
    threads: list[str], is_bounded: bool
) -> None:
    program = f"""
import resource, threading
from graftonnx import limits
end = threading.Event()
for name in {threads}:
    threading.Thread(target=end.wait, name=name).start()
with limits.bounded("onnx"):
    print(resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY)
end.set()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"{is_bounded}\n"


@pytest.mark.skipif("sys.platform != 'linux'")
def test_a_command_is_bounded_although_it_has_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits._CONFINEMENT, "owned", False)
    monkeypatch.setattr(sys, "argv", ["graftonnx", "--version"])
    with pytest.raises(SystemExit):
        cli.main()
    others = [threading.Thread(), threading.current_thread()]
    monkeypatch.setattr(threading, "enumerate", lambda: others)
    with pytest.raises(ModelError, match=r"^onnx takes more memory"), limits.bounded("onnx"):
        np.empty(1 << 33, np.uint8)
