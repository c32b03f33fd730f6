"""How large values become and how long loops take, where the file does not say it in constants."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from builders import plain_cnn
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graftonnx.errors import ModelError
from graftonnx.model import from_proto
from graftonnx.normalise import growth, inference
from graftonnx.normalise.computing import Work
from graftonnx.normalise.sizes import check_sizes
from graftonnx.normalise.whiles import EVALUATION, simulated_steps

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
ANY = r"depend on what the input shows: they may be 9,223,372,036,854,775,807; the limit"


def behind(model: ModelProto, nodes: Sequence[NodeProto], result: str, **constants: Any) -> ModelProto:
    """Put nodes between the input `image` and the first convolution, which reads `result` then."""
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    conv.input[0] = result
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(a), name) for name, a in constants.items()
    )
    return model


def grown(*first: NodeProto, factor: int, source: str = "image") -> list[NodeProto]:
    """Return nodes that make so many times as many numbers as `source` has, and add the largest."""
    return [
        *first,
        helper.make_node("Size", [source], ["size"]),
        helper.make_node("Constant", [], ["factor"], value_int=factor),
        helper.make_node("Mul", ["size", "factor"], ["count"]),
        helper.make_node("Constant", [], ["axes"], value_ints=[0]),
        helper.make_node("Unsqueeze", ["count", "axes"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceMax", ["huge"], ["most"], keepdims=0),
        helper.make_node("Add", ["image", "most"], ["z"]),
    ]


def in_a_branch(nodes: Sequence[NodeProto]) -> NodeProto:
    """Return an `If` with nodes in one branch."""
    value = helper.make_tensor_value_info("z", FLOAT, None)
    other = [helper.make_node("Identity", ["image"], ["other"])]
    return helper.make_node(
        "If",
        ["is"],
        ["w"],
        then_branch=helper.make_graph(nodes, "then", [], [value]),
        else_branch=helper.make_graph(
            other, "else", [], [helper.make_tensor_value_info("other", FLOAT, None)]
        ),
    )


def looped(steps: str, body: GraphProto, *states: str) -> NodeProto:
    outputs = ["z", *(f"end{index}" for index in range(len(states)))]
    return helper.make_node("Loop", [steps, "", "image", *states], outputs, name="loop", body=body)


def body_of(condition: Sequence[NodeProto], *states: tuple[str, str]) -> GraphProto:
    """Return a body that doubles the image; `condition` makes `going`, and of each state the next one."""
    counted = [helper.make_tensor_value_info(name, INT64, []) for name, _ in states]
    following = [helper.make_tensor_value_info(name, INT64, []) for _, name in states]
    image, after = (helper.make_tensor_value_info(name, FLOAT, None) for name in ("before", "after"))
    was, going = (helper.make_tensor_value_info(name, BOOL, []) for name in ("was", "going"))
    step = helper.make_tensor_value_info("step", INT64, [])
    return helper.make_graph(
        [*condition, helper.make_node("Add", ["before", "before"], ["after"])],
        "body",
        [step, was, image, *counted],
        [going, after, *following],
    )


ALWAYS = [helper.make_node("Identity", ["was"], ["going"])]
WHILE_POSITIVE = [
    helper.make_node("ReduceMax", ["before"], ["most"], keepdims=0),
    helper.make_node("Less", ["least", "most"], ["going"]),
]
COUNTED = [
    helper.make_node("Constant", [], ["one"], value_int=1),
    helper.make_node("Constant", [], ["end"], value_int=7),
    helper.make_node("Add", ["i", "one"], ["j"]),
    helper.make_node("Less", ["j", "end"], ["going"]),
]


def net(nodes: Sequence[NodeProto], result: str = "z", **constants: Any) -> Callable[[], ModelProto]:
    return lambda: behind(plain_cnn(opset=17), nodes, result, **constants)


BRIGHTEST = [
    helper.make_node("ReduceMax", ["image"], ["brightest"], keepdims=0),
    helper.make_node("Cast", ["brightest"], ["whole"], to=INT64),
]
CHOSEN = helper.make_node("NonZero", ["image"], ["places"])
IF_BRIGHT = [*BRIGHTEST, helper.make_node("Greater", ["whole", "zero"], ["is"])]
LISTED = [
    *BRIGHTEST,
    helper.make_node("Mul", ["whole", "factor"], ["end"]),
    helper.make_node("Range", ["zero", "end", "one"], ["range"]),
    helper.make_node("ReduceMax", ["range"], ["last"], keepdims=0),
    helper.make_node("Cast", ["last"], ["number"], to=FLOAT),
    helper.make_node("Add", ["image", "number"], ["z"]),
]
PIXELS = [
    helper.make_node("Size", ["image"], ["pixels"]),
    helper.make_node("Mul", ["pixels", "factor"], ["steps"]),
]


def joined(*parts: str) -> GraphProto:
    """Return a body that puts parts beside each other as the next state."""
    body = body_of(ALWAYS)
    del body.node[-1]
    body.node.append(helper.make_node("Concat", parts, ["after"], axis=3))
    return body


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (net(grown(factor=1_500_000)), r"value 'huge' \[1152000000\] are 4,608,000,000; the limit"),
        (net(grown(CHOSEN, factor=1_500_000, source="places")), r"'huge' \[4608000000\] are 18,432,000,000;"),
        (net([in_a_branch(grown(factor=1_500_000))], "w", **{"is": True}), r"huge' \[1152000000\] are 4,608"),
        (
            net([*IF_BRIGHT, in_a_branch(grown(factor=1_500_000))], "w", zero=0),
            r"huge' \[1152000000\] are 4,608",
        ),
        (net(LISTED, factor=1 << 33, zero=0, one=1), rf"the bytes of its value 'range' {ANY}"),
        (
            net([*PIXELS, looped("steps", body_of(ALWAYS))], factor=1 << 40),
            r"the steps of its loop 'loop' are 844,424,930,131,968; the limit",
        ),
        (net([*BRIGHTEST, looped("whole", body_of(ALWAYS))]), rf"the steps of its loop 'loop' {ANY}"),
        (
            net([looped("steps", joined("before", "before"))], steps=21),
            r"the bytes of its value 'z' after 21 steps are about 6,442,450,944; the limit",
        ),
        (
            net([looped("steps", joined("before", "image", "image", "image"))], steps=99_999),
            r"the bytes of its value 'z' after 99,999 steps are about 921,593,856;",
        ),
        (net([looped("", body_of(WHILE_POSITIVE))], least=np.float32(-1)), rf"loop 'loop' {ANY}"),
        (net([looped("", body_of(COUNTED, ("i", "j")), "begin")], begin=-(1 << 40)), rf"loop 'loop' {ANY}"),
    ],
)  # fmt: skip
def test_a_size_that_comes_from_the_input_is_refused(make: Callable[[], ModelProto], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check_sizes(make())
    with pytest.raises(ModelError, match=message):
        from_proto(make(), "model.onnx")


REPEATED = [
    helper.make_node("Shape", ["image"], ["extents"]),
    helper.make_node("Constant", [], ["first"], value_ints=[0]),
    helper.make_node("Gather", ["extents", "first"], ["batch"]),
    helper.make_node("Constant", [], ["rest"], value_ints=[3, 16, 16]),
    helper.make_node("Concat", ["batch", "rest"], ["target"], axis=0),
    helper.make_node("Expand", ["plane", "target"], ["planes"]),
    helper.make_node("Add", ["image", "planes"], ["z"]),
]
ENLARGED = [
    helper.make_node("Shape", ["image"], ["extents"]),
    helper.make_node("Constant", [], ["twos"], value_ints=[1, 1, 2, 2]),
    helper.make_node("Mul", ["extents", "twos"], ["target"]),
    helper.make_node("Resize", ["image", "", "", "target"], ["z"]),
]


@pytest.mark.parametrize(
    "make",
    [
        net(grown(factor=15)),
        net(REPEATED, plane=np.zeros((1, 16, 16), np.float32)),
        net(ENLARGED),
        net([in_a_branch(grown(factor=15))], "w", **{"is": True}),
        net([*PIXELS, looped("steps", body_of(ALWAYS))], factor=2),
        net([looped("steps", joined("before", "image"))], steps=9),
        net([looped("steps", body_of(WHILE_POSITIVE))], steps=9, least=np.float32(-1)),
        net([looped("", body_of(COUNTED, ("i", "j")), "begin")], begin=0),
    ],
)
def test_sizes_that_follow_from_shapes_and_counters_are_taken(make: Callable[[], ModelProto]) -> None:
    check_sizes(make())


def test_open_extents_are_looked_at_in_the_size_that_is_given() -> None:
    model = plain_cnn()
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.ClearField("dim_value")
    check_sizes(model)
    with pytest.raises(
        ModelError, match=r"^the bytes of its value 'r0.conv' .* are 8,192,000,000; the limit"
    ):
        check_sizes(model, (16_000, 16_000))


@pytest.mark.parametrize(
    ("op", "inputs"),
    [("Loop", ["steps", "is", "image"]), ("Loop", []), ("Scan", []), ("If", ["is"]), ("If", [])],
)
def test_a_node_without_the_graph_that_it_should_hold_is_none_of_ours(op: str, inputs: list[str]) -> None:
    node = helper.make_node(op, inputs, ["z"])
    check_sizes(net([node], **{"is": True, "steps": 3})())


def test_the_steps_of_a_loop_with_a_counter_are_counted() -> None:
    model = behind(plain_cnn(opset=17), [looped("", body_of(COUNTED, ("i", "j")), "begin")], "z", begin=2)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    assert simulated_steps(model.graph.node[0], tensors, model) == 5
    onnx.checker.check_model(model)


def test_a_condition_that_is_made_of_large_values_is_not_simulated() -> None:
    """Its states are a thousand numbers, and what is compared a billion."""
    axes = [f"axis{index}" for index in range(3)]
    condition = [
        helper.make_node("Unsqueeze", ["v", "axis1"], ["column"]),
        helper.make_node("Add", ["column", "v"], ["table"]),
        helper.make_node("Unsqueeze", ["table", "axis2"], ["plane"]),
        helper.make_node("Add", ["plane", "v"], ["cube"]),
        helper.make_node("Less", ["cube", "axis2"], ["going"]),
        helper.make_node("Identity", ["v"], ["next"]),
    ]
    loop = looped("", body_of(condition, ("v", "next")), "begin")
    constants = {name: [index] for index, name in enumerate(axes)}
    model = behind(plain_cnn(opset=17), [loop], "z", begin=np.zeros(1_000, np.int64), **constants)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    tracemalloc.start()
    with pytest.raises(ModelError, match=rf"^the steps of its loop 'loop' {ANY}"):
        simulated_steps(model.graph.node[0], tensors, model)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_all_loops_share_the_work_that_conditions_may_take() -> None:
    nodes = [
        helper.make_node(
            "Loop", ["", "", "image", "begin"], [f"z{i}", f"end{i}"], body=body_of(COUNTED, ("i", "j"))
        )
        for i in range(3)
    ]
    model = behind(plain_cnn(opset=17), nodes, "z0", begin=2)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    work = Work(60 * EVALUATION)  # five steps of five evaluations, twice
    for node in nodes[:2]:
        assert simulated_steps(node, tensors, model, work) == 5
    with pytest.raises(ModelError, match=r"^the steps of its loop 'z2' are too many to count with those of"):
        simulated_steps(nodes[2], tensors, model, work)


def test_a_number_that_whoever_runs_the_network_chooses_is_no_danger() -> None:
    nodes = [helper.make_node("Expand", ["image", "target"], ["y"])]
    values = [("image", FLOAT, [1, 3]), ("target", INT64, [2])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*value) for value in values],
        [helper.make_tensor_value_info("y", FLOAT, None)],
    )
    check_sizes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


def chained(count: int) -> ModelProto:
    """Return a network whose image goes through so many loops, with another node behind each."""
    nodes, last = [], "image"
    for index in range(count):
        loop = helper.make_node("Loop", ["steps", "", last], [f"z{index}"], body=body_of(ALWAYS))
        nodes += [loop, helper.make_node("Neg", [f"z{index}"], [f"n{index}"])]
        last = f"n{index}"
    return net(nodes, last, steps=2)()


def test_many_loops_in_a_chain_do_not_take_quadratic_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is looked at as often as with one loop, not once for each."""
    passes: list[str] = []

    def counted(module: Any, name: str) -> None:
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given: passes.append(name) or function(*given))

    for module, name in ((inference, "_inferred"), (growth, "around"), (growth, "value_shapes")):
        counted(module, name)
    network = from_proto(chained(30), "model.onnx")
    assert network.view.shapes["n29"] == (None, 3, 16, 16)
    assert passes.count("around") == 1
    assert passes.count("_inferred") <= 5
    assert passes.count("value_shapes") <= 2 + 2 * 30
