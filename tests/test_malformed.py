"""Small files that once ended in a traceback, a crash or a full memory; each is made in a few lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from builders import plain_cnn, saved
from click.testing import CliRunner
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graftonnx.cli import graftonnx
from graftonnx.conversion import to_torch
from graftonnx.conversion.evaluation import intermediate_values
from graftonnx.conversion.formulas import cast
from graftonnx.conversion.recurrent import gru, lstm
from graftonnx.errors import GraftError, ModelError
from graftonnx.exporting.pictures import random_pictures
from graftonnx.folding.operators import fold_operators
from graftonnx.folding.rewriting import Graph
from graftonnx.metadata import read_metadata
from graftonnx.model import from_proto
from graftonnx.normalise.computing import Work, compute, operand
from graftonnx.normalise.constants import fold
from graftonnx.normalise.sizes import check_sizes
from graftonnx.parity import farthest
from graftonnx.weights import split

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


ML = "ai.onnx.ml"


def one_node(
    op: str, *inputs: str | np.ndarray, opset: int = 18, domain: str = "", **attributes: object
) -> ModelProto:
    """Return a model of one node, `op(x, …) -> y`, where `x` is computed and has no stated type."""
    held = {f"c{index}": item for index, item in enumerate(inputs) if isinstance(item, np.ndarray)}
    names = [item if isinstance(item, str) else f"c{index}" for index, item in enumerate(inputs)]
    node = helper.make_node(op, names, ["y"], domain=domain, **attributes)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["a"], ["x"]), node],
        "g",
        [helper.make_tensor_value_info("a", FLOAT, [2, 2])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in held.items()],
    )
    opsets = {"": 18, domain: opset}
    imports = [helper.make_opsetid(name, version) for name, version in opsets.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: one_node("EyeLike", "x"), r"\(EyeLike\) reads a value whose type the file does not state"),
        (lambda: one_node("RegexFullMatch", "x", opset=20, pattern="a"), r"\(RegexFullMatch\)"),
        (lambda: one_node("TreeEnsemble", "x", domain=ML, opset=5), r"\(TreeEnsemble\) reads a value whose"),
        (lambda: one_node("LabelEncoder", "x", domain=ML, opset=1), r"\(LabelEncoder\) reads a value whose"),
        (lambda: one_node("DictVectorizer", domain=ML, opset=1), r"\(DictVectorizer\) has 0 inputs"),
        (lambda: one_node("LayerNormalization", "x", "x", ""), r"lists an input without a name at the end"),
        (lambda: one_node("DFT", "x", "", "", opset=20), r"\(DFT\) lists an input without a name at the end"),
        (lambda: one_node("STFT", "x", "x", "", ""), r"\(STFT\) lists an input without a name at the end"),
        (lambda: one_node("Max", "x", ""), r"\(Max\) lacks one of its inputs, which may be any number"),
        (lambda: one_node("Sum", "x", "", "x"), r"\(Sum\) lacks one of its inputs"),
        (lambda: one_node("Concat", "x", "", axis=0), r"\(Concat\) lacks one of its inputs"),
        (lambda: one_node("MaxUnpool", "x", "x", kernel_shape=[2, -(1 << 63)]), r"kernel_shape -9223372036"),
        (lambda: one_node("Div", "x", domain="own"), r"\(Div\) has 1 inputs; the operator of that"),
        (lambda: one_node("GatherND", "x", "x", batch_dims=-1), r"\(GatherND\) has batch_dims -1"),
        (lambda: one_node("GatherND", "x", "x", batch_dims=1 << 40), r"has batch_dims 1099511627776"),
        (lambda: one_node("LayerNormalization", "x", "x", axis=(1 << 63) - 1), r"axis 9223372036854775807"),
        (lambda: one_node("Flatten", "x", axis=(1 << 31) - 1), r"has axis 2147483647; expected the number"),
        (lambda: one_node("Transpose", "x", perm=[0, -(1 << 63)]), r"has perm -9223372036854775808"),
        (lambda: one_node("Split", "x", "x", num_outputs=1), r"\(Split\) has 1 outputs and num_outputs 1"),
        (lambda: one_node("Split", "x", num_outputs=1 << 30), r"1 outputs and num_outputs 1073741824"),
    ],
)  # fmt: skip
def test_what_crashes_onnx_is_refused_before(model: Callable[[], ModelProto], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        to_torch(model())


def computed(node: NodeProto, inputs: dict[str, np.ndarray], work: Work | None = None) -> object:
    return compute(node, {name: operand(np.asarray(a)) for name, a in inputs.items()}, 18, 1 << 28, work)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("Expand", {"a": np.float32([1]), "shape": np.int64([1 << 40])}, {}),
        ("Tile", {"a": np.float32([1]), "repeats": np.int64([1 << 40])}, {}),
        ("ConstantOfShape", {"shape": np.int64([1 << 20, 1 << 20])}, {}),
        ("Range", {"a": np.int64(0), "b": np.int64(1 << 40), "c": np.int64(1)}, {}),
        ("Range", {"a": np.int64(0), "b": np.int64(5), "c": np.int64(0)}, {}),
        ("Pad", {"a": np.float32([1]), "pads": np.int64([0, 1 << 40])}, {}),
        ("OneHot", {"a": np.int64([1]), "depth": np.int64(1 << 40), "v": np.int64([0, 1])}, {}),
        (
            "MatMul",
            {"a": np.zeros((3_000, 3_000), np.float32), "b": np.zeros((3_000, 3_000), np.float32)},
            {},
        ),
        ("Resize", {"a": np.zeros((1, 1, 300, 300), np.float32), "s": np.float32([1, 1, 2, 2])}, {}),
        ("Reshape", {"a": np.float32([1, 2]), "shape": np.int64([3])}, {}),
        ("Add", {"a": np.float32([1, 2]), "b": np.float32([1, 2, 3])}, {}),
        ("Transpose", {"a": np.float32([[1]])}, {"perm": [7, 9]}),
        ("Gather", {"a": np.float32([1]), "i": np.int64([5])}, {}),
        ("Add", {"a": np.ones(1, ml_dtypes.float8_e8m0fnu), "b": np.ones(1, ml_dtypes.float8_e8m0fnu)}, {}),
        ("ConstantOfShape", {"a": np.int64([2])}, {"value": helper.make_tensor("v", FLOAT, [0], [])}),
        ("MatMul", dict.fromkeys("ab", np.zeros((1_000, 1_000), np.int32)), {}),
        ("Erf", {"a": np.zeros(10_000_000, np.float32)}, {}),
        ("Mod", {"a": np.full(1 << 20, 1e300), "b": np.float64(1e-300)}, {"fmod": 1}),
        ("Einsum", dict.fromkeys("abcde", np.zeros(2_000, np.float32)), {"equation": "a,b,c,d,e->"}),
        ("Einsum", dict.fromkeys("ab", np.zeros(2, np.float32)), {"equation": "...,...->"}),
        ("Cast", {"a": np.zeros(100_000, np.float32)}, {"to": TensorProto.STRING}),
        (
            "AveragePool",
            {"a": np.zeros((1, 1, 4, 4), np.float32)},
            {"kernel_shape": [20_001] * 2, "pads": [10_000] * 4, "strides": [1_000] * 2},
        ),
        (
            "RoiAlign",
            {"a": np.zeros((1, 1, 4, 4), np.float32), "rois": np.float32([[0, 0, 3, 3]]), "i": np.int64([0])},
            {"sampling_ratio": 100_000},
        ),
    ],
)
def test_what_is_too_large_or_wrong_is_not_computed(
    op: str, inputs: dict[str, np.ndarray], attributes: dict[str, object]
) -> None:
    begin = time.process_time()
    node = helper.make_node(op, list(inputs), ["y"], **attributes)
    assert computed(node, inputs) is None
    assert time.process_time() - begin < 5


def test_the_work_that_constants_may_take_is_shared_by_all_of_them() -> None:
    """What is left over is neither read nor computed."""
    model = plain_cnn()
    zeros = helper.make_tensor("v", FLOAT, [1], [0])
    nodes = [helper.make_node("ConstantOfShape", ["large"], ["zeros"], value=zeros)]
    nodes += [helper.make_node("ReduceSum", ["zeros"], [f"sum{i}"], keepdims=0) for i in range(9)]
    model.graph.node.extend([*nodes, helper.make_node("Sum", [f"sum{i}" for i in range(9)], ["total"])])
    model.graph.output.append(helper.make_tensor_value_info("total", FLOAT, None))
    model.graph.initializer.append(numpy_helper.from_array(np.int64([1 << 16]), "large"))
    skeleton, weights = split(model)
    work = Work(10 << 16)
    fold(skeleton, weights, work=work)
    left = [node.op_type for node in skeleton.graph.node if node.op_type == "ReduceSum"]
    assert len(left) == 5  # made once, and each sum reads what it is given and adds it
    assert work.left < 2 << 16


def test_a_vector_of_open_extents_does_not_double_without_end() -> None:
    model = plain_cnn()
    nodes = [helper.make_node("Shape", ["image"], ["v0"])]
    nodes += [helper.make_node("Concat", [f"v{i}", f"v{i}"], [f"v{i + 1}"], axis=0) for i in range(60)]
    nodes.append(helper.make_node("Gather", ["v0", "none"], ["beyond"]))
    model.graph.node.extend([*nodes, helper.make_node("Identity", ["v60"], ["extents"])])
    model.graph.output.append(helper.make_tensor_value_info("extents", TensorProto.INT64, None))
    model.graph.initializer.append(numpy_helper.from_array(np.int64([9]), "none"))
    count = len(model.graph.node)
    assert fold(*split(model)) == 0
    assert len(model.graph.node) == count


def test_what_is_small_is_computed() -> None:
    node = helper.make_node("Expand", ["a", "shape"], ["y"])
    (found,) = computed(node, {"a": np.float32([2]), "shape": np.int64([3])}) or [np.zeros(0)]
    np.testing.assert_array_equal(found, np.float32([2, 2, 2]))


@pytest.mark.parametrize(
    ("op", "constants", "message"),
    [
        (
            "Range",
            {"s": np.int64(0), "l": np.int64(1 << 40), "d": np.int64(1)},
            r"are 8,796,093,022,208; the",
        ),
        ("Range", {"s": np.int64(0), "l": np.int64(5), "d": np.int64(0)}, r"its step is zero"),
        ("ConstantOfShape", {"s": np.int64([1 << 20, 1 << 20])}, r"of its result are 4,398,046,511,104;"),
    ],
)
def test_the_converter_makes_no_constant_larger_than_memory(
    op: str, constants: dict[str, np.ndarray], message: str
) -> None:
    model = one_node(op, *constants)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items())
    with pytest.raises(ModelError, match=message):
        to_torch(model)


@pytest.mark.parametrize("op", ["Expand", "Tile"])
def test_a_value_larger_than_memory_is_refused(op: str) -> None:
    model = one_node(op, "single", "extents")
    model.graph.initializer.append(numpy_helper.from_array(np.float32([1]), "single"))
    model.graph.initializer.append(numpy_helper.from_array(np.int64([1 << 31]), "extents"))
    with pytest.raises(
        ModelError, match=r"the bytes of its value 'y' .*8,589,934,592; the limit is 536,870,912"
    ):
        check_sizes(model)


def test_the_network_is_refused_where_one_of_its_values_is_larger_than_memory() -> None:
    model = plain_cnn(size=40_000)
    with pytest.raises(
        ModelError, match=r"the bytes of its value 'r0.conv' .* are 51,200,000,000; the limit is"
    ):
        from_proto(model, "model.onnx")


@pytest.mark.parametrize(
    "entry",
    [
        {"format": "٤"}, {"format": "9" * 5_000}, {"format": ""}, {"labels": "[" * 100_000},
        {"labels": '{"a":' * 9_000}, {"labels": "9" * 5_000}, {"labels": "1e999"}, {"input": "NaN"},
        {"head": "\\"}, {"parents": '"x"'},
    ],
)  # fmt: skip
def test_metadata_that_is_none_is_refused(entry: dict[str, str]) -> None:
    model = ModelProto()
    for key, value in entry.items():
        model.metadata_props.add(key=f"graftonnx.{key}", value=value)
    with pytest.raises(ModelError, match=r"^its (graftonnx )?metadata"):
        read_metadata(model)


def test_a_function_whose_body_does_not_fit_is_refused() -> None:
    model = plain_cnn(opset=15)
    imports = [*model.opset_import, helper.make_opsetid("own", 1)]
    body = [helper.make_node("Relu", ["x"], ["y"])]
    model.functions.append(helper.make_function("own", "Act", ["x"], ["y"], body, imports))
    model.opset_import.append(imports[-1])
    node = next(node for node in model.graph.node if node.op_type == "Relu")
    node.op_type, node.domain = "Act", "own"
    node.input.extend(["image"] * 3)
    with pytest.raises(ModelError, match=r"its local functions cannot be expanded: .*\. Export it again\.$"):
        from_proto(model, "model.onnx")


@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_a_chain_that_doubles_does_not_take_exponential_time(op: str) -> None:
    nodes = [helper.make_node(op, [f"v{i}", f"v{i}"], [f"v{i + 1}"]) for i in range(300)]
    graph = helper.make_graph(
        [helper.make_node("ReduceMax", ["a"], ["v0"], keepdims=0), *nodes],
        "g",
        [helper.make_tensor_value_info("a", FLOAT, [2])],
        [helper.make_tensor_value_info("v300", FLOAT, [])],
    )
    begin = time.process_time()
    to_torch(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
    assert time.process_time() - begin < 30


def test_a_long_chain_of_numbers_does_not_exhaust_the_stack() -> None:
    nodes = [helper.make_node("Add", [f"v{i}", "one"], [f"v{i + 1}"]) for i in range(1_500)]
    graph = helper.make_graph(
        [helper.make_node("ReduceMax", ["a"], ["v0"], keepdims=0), *nodes],
        "g",
        [helper.make_tensor_value_info("a", FLOAT, [2])],
        [helper.make_tensor_value_info("v1500", FLOAT, [])],
        [numpy_helper.from_array(np.float32(1), "one")],
    )
    to_torch(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


def test_an_attribute_that_is_no_text_ends_in_a_sentence(tmp_path: Path) -> None:
    model = plain_cnn()
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    conv.attribute.append(helper.make_attribute("auto_pad", b"\xff\xfe"))
    result = CliRunner().invoke(graftonnx, ["check", str(saved(model, tmp_path / "model.onnx"))])
    assert result.exit_code == 1
    assert "'auto_pad' is not UTF-8" in result.output


def test_a_channel_count_that_is_unknown_is_refused(tmp_path: Path) -> None:
    model = plain_cnn()
    weight = next(t for t in model.graph.initializer if t.name == "r1.conv.weight")
    weight.CopyFrom(numpy_helper.from_array(np.zeros((0, 8, 3, 3), np.float32), weight.name))
    path = saved(model, tmp_path / "model.onnx")
    arguments = ["fuse", str(path), "-o", str(tmp_path / "fused.onnx"), "--classes", "3"]
    result = CliRunner().invoke(graftonnx, arguments)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert not (tmp_path / "fused.onnx").exists()


def test_an_error_is_one_line_of_bearable_length(tmp_path: Path) -> None:
    model = plain_cnn()
    model.graph.output[0].name = "a\nb\x1b[31m" + "c" * 60_000
    model.graph.node[-1].output[0] = model.graph.output[0].name
    model.graph.node[-1].op_type = "Nonesuch"
    result = CliRunner().invoke(graftonnx, ["inspect", str(saved(model, tmp_path / "model.onnx"))])
    assert result.exit_code == 1
    assert len(result.output) < 4_200
    assert result.output.count("\n") == 1
    assert "\x1b" not in result.output


def test_a_model_with_an_input_of_no_type_is_refused_by_check(tmp_path: Path) -> None:
    model = one_node("Relu", "x")
    model.graph.input[0].type.tensor_type.elem_type = 0
    result = CliRunner().invoke(graftonnx, ["check", str(saved(model, tmp_path / "model.onnx"))])
    assert result.exit_code == 1
    assert "cannot make up the input 'a': the file leaves its type open." in result.output


def test_predict_looks_at_a_file_before_native_code_does(tmp_path: Path) -> None:
    path = saved(one_node("EyeLike", "x"), tmp_path / "model.onnx")
    result = CliRunner().invoke(graftonnx, ["predict", str(path), str(path)])
    assert result.exit_code == 1
    assert "(EyeLike) reads a value whose type the file does not state" in result.output


def test_a_file_of_strings_is_refused_in_a_sentence() -> None:
    graph = helper.make_graph(
        [helper.make_node("StringNormalizer", ["a"], ["y"])],
        "g",
        [helper.make_tensor_value_info("a", STRING, [2])],
        [helper.make_tensor_value_info("y", STRING, None)],
    )
    with pytest.raises(GraftError, match=r"holds strings, PyTorch has none\.$"):
        to_torch(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


def looping(steps: object, going: object = True, *, ends: bool = False) -> ModelProto:
    """Return a classifier with a loop of so many steps; None for no number of them."""
    model = plain_cnn(opset=16)
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    still = helper.make_node("Not" if ends else "Identity", ["cond"], ["still"])
    values = [("step", INT64, []), ("cond", TensorProto.BOOL, []), ("before", FLOAT, None)]
    body = helper.make_graph(
        [helper.make_node("Relu", ["before"], ["after"]), still],
        "body",
        [helper.make_tensor_value_info(*value) for value in values],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", FLOAT, None),
        ],
    )
    names = []
    for name, number in (("steps", steps), ("going", going)):
        if number is not None:
            model.graph.initializer.append(numpy_helper.from_array(np.array(number), name))
        names.append("" if number is None else name)
    relu.CopyFrom(helper.make_node("Loop", [*names, relu.input[0]], [relu.output[0]], name="loop", body=body))
    return model


@pytest.mark.parametrize(
    ("steps", "going", "message"),
    [
        ((1 << 63) - 1, True, r"the steps of its loop 'loop' are 9,223,372,036,854,775,807; the limit"),
        ([1 << 40], None, r"the steps of its loop 'loop' are 1,099,511,627,776"),
        (None, None, r"its loop 'loop' has no number of steps, .*never changes: it does not end"),
        (None, True, r"its loop 'loop' has no number of steps, and its condition never changes"),
    ],
)  # fmt: skip
def test_a_loop_without_end_is_refused(steps: object, going: object, message: str) -> None:
    model = looping(steps, going)
    with pytest.raises(ModelError, match=message):
        from_proto(model, "model.onnx")
    with pytest.raises(ModelError, match=message):
        check_sizes(model)


def test_a_random_value_that_is_too_large_is_refused_although_its_type_contradicts_the_file() -> None:
    model = one_node("RandomNormal", shape=[50_000, 50_000])
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(
        ModelError, match=r"the bytes of its value 'y' are at least 10,000,000,000; the limit"
    ):
        check_sizes(model)


def test_types_that_nest_deeper_than_a_file_can_say_are_refused() -> None:
    model = one_node("Identity", "s99")
    lists = [helper.make_node("Optional", [f"s{i}" if i else "x"], [f"s{i + 1}"]) for i in range(99)]
    nodes = [model.graph.node[0], *lists, model.graph.node[1]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    with pytest.raises(ModelError, match=r"^onnx's shape inference makes types that nest too deeply"):
        check_sizes(model)


def test_loops_with_an_end_are_taken() -> None:
    check_sizes(looping(3))
    check_sizes(looping(None, True, ends=True))
    check_sizes(looping(None, False))
    from_proto(looping(3), "model.onnx")


def test_recurrent_shapes_that_contradict_each_other_never_reach_pytorchs_kernel() -> None:
    """It writes behind the end of its buffers."""
    x, w, r = torch.zeros(16, 3, 1), torch.zeros(1, 12, 4), torch.zeros(1, 12, 3)
    for run in (lambda: lstm(x, w, r, None, None, None, False), lambda: gru(x, w, r, None, None, False)):
        with pytest.raises(ValueError, match=r"^the shape of the weights is \[1, 12, 4\], expected"):
            run()
    with pytest.raises(ValueError, match=r"^the shape of the first state is \[1, 1, 3\], expected"):
        lstm(x, w[..., :1], r, None, torch.zeros(1, 1, 3), None, False)


def test_complex_numbers_are_compared_as_pairs() -> None:
    found = farthest(np.complex64([1 + 2j, 3]), np.complex64([1 + 2j, 3 + 1j]))
    assert found is not None
    assert (found.index, found.onnx, found.torch) == ((1, 1), 0.0, 1.0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: one_node("Reshape", "x", np.complex64([4])),
            r"\(Reshape, opset 18\): shape is of type complex64, expected integers",
        ),
        (
            lambda: one_node("RotaryEmbedding", "x", "x", "x", opset=23, rotary_embedding_dim=-(1 << 63)),
            r"rotary_embedding_dim is -9223372036854775808, expected a number of features",
        ),
    ],
)
def test_settings_that_are_no_numbers_of_their_kind_are_refused(
    model: Callable[[], ModelProto], message: str
) -> None:
    with pytest.raises(GraftError, match=message):
        to_torch(model())


def test_a_computed_list_of_settings_cannot_fill_the_graph() -> None:
    model = one_node("Reshape", "x", "shape")
    model.graph.input.append(helper.make_tensor_value_info("shape", TensorProto.INT64, [1 << 16]))
    with pytest.raises(GraftError, match=r"shape has 65,536 computed elements, at most 4,096"):
        to_torch(model)


def test_a_value_of_more_axes_than_an_array_has_is_told() -> None:
    model = one_node("Unsqueeze", "x", "axes")
    model.graph.input.append(helper.make_tensor_value_info("axes", TensorProto.INT64, [99]))
    module = to_torch(model)
    with pytest.raises(ModelError, match=r"^PyTorch cannot compute 'y': number of dimensions"):
        intermediate_values(module, np.zeros((2, 2), np.float32), np.arange(99))


def test_a_list_in_the_place_of_a_tensor_is_told() -> None:
    model = one_node("Cast", "s", to=FLOAT)
    model.graph.node.insert(1, helper.make_node("SequenceConstruct", ["x", "x"], ["s"]))
    with pytest.raises(ModelError, match=r"^PyTorch cannot compute 'y': 'list' object"):
        intermediate_values(to_torch(model), np.zeros((2, 2), np.float32))


def test_complex_numbers_do_not_become_real_ones_with_a_warning() -> None:
    with pytest.raises(TypeError, match=r"^complex numbers cannot become real ones$"):
        cast(torch.zeros(2, dtype=torch.complex64), torch.float32)


def test_an_input_that_is_divided_by_infinity_gives_no_warning() -> None:
    model = plain_cnn()
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    model.graph.node.insert(0, helper.make_node("Div", [conv.input[0], "endless"], ["nothing"]))
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    conv.input[0] = "nothing"
    model.graph.initializer.append(numpy_helper.from_array(np.float32([np.inf]), "endless"))
    assert from_proto(model, "model.onnx").preprocess.scale == 1.0


def test_a_lower_bound_that_is_a_list_is_none() -> None:
    model = plain_cnn()
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type = "Clip"
    relu.input.append("bounds")
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(2, np.float32), "bounds"))
    from_proto(model, "model.onnx", dequantize=True)


@pytest.mark.parametrize(("outputs", "message"), [(["y"], "has 0 inputs"), ([], "makes no value")])
def test_an_operator_of_another_domain_has_nothing_of_its_namesake(outputs: list[str], message: str) -> None:
    model = one_node("Identity", domain="own")
    model.graph.node[1].output[:] = outputs
    with pytest.raises(GraftError, match=message):
        to_torch(model)


def test_a_weight_that_is_infinite_is_folded_nowhere_and_gives_no_warning() -> None:
    model = plain_cnn()
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    model.graph.node.insert(0, helper.make_node("Mul", [conv.input[0], "nothing"], ["moved"]))
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    conv.input[0] = "moved"
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == conv.input[1])
    array = numpy_helper.to_array(weight).copy()
    array.flat[0] = np.inf
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    nothing = numpy_helper.from_array(np.zeros((1, 3, 1, 1), np.float32), "nothing")
    model.graph.initializer.append(nothing)
    assert fold_operators(model)[1].preprocessing == 0


def test_a_truth_value_that_is_declared_as_uint64_is_refused() -> None:
    value = helper.make_tensor_value_info("y", TensorProto.UINT64, [])
    graph = helper.make_graph([helper.make_node("OptionalHasElement", [], ["y"])], "graph", [], [value])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    with pytest.raises(GraftError, match="its output 'y' is declared as uint64, and is bool"):
        to_torch(model)


def test_a_quantised_operator_of_too_few_inputs_is_refused() -> None:
    model = plain_cnn()
    last = next(node for node in model.graph.node if node.op_type == "Gemm")
    last.op_type, last.domain = "QGemm", "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(ModelError, match=r"\(QGemm\) has 3 inputs, which are too few"):
        from_proto(model, "model.onnx", dequantize=True)


def test_a_weight_that_is_a_signalling_nan_is_read() -> None:
    model = plain_cnn()
    weight = next(item for item in model.graph.initializer if item.name == "fc.bias")
    weight.raw_data = bytes.fromhex("0100a07f") * 4
    graph = Graph(model, {})
    found = graph.array(graph.view(), "fc.bias")
    assert found is not None
    assert np.isnan(found).all()


def test_of_large_random_images_there_are_few() -> None:
    pictures = random_pictures()
    assert [sum(len(pixels) for pixels, _ in pictures.read(size)) for size in ((8, 8), (16, 1 << 16))] == [
        64,
        3,
    ]
