"""`graftonnx check` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from conversion.small_models import model, random
from onnx import numpy_helper
from torch import fx

from graftonnx import conversion
from graftonnx.cli import graftonnx

WEIGHTS = {"w1": random(4, 3, 3, 3), "w2": random(2, 4, 3, 3, seed=1)}
NETWORK = model("h = Conv(x, w1) i = Relu(h) y = Conv<strides=[2,2]>(i, w2)", WEIGHTS)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(NETWORK, "a.onnx")


def check(*arguments: str) -> Result:
    return CliRunner().invoke(graftonnx, ["check", *arguments])


def saved(proto: onnx.ModelProto, name: str = "m.onnx") -> str:
    onnx.save(proto, name)
    return name


def changed(name: str) -> onnx.ModelProto:
    """The network with another weight."""
    other = onnx.ModelProto()
    other.CopyFrom(NETWORK)
    (tensor,) = (t for t in other.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 2, name))
    return other


def test_equal_values_are_counted() -> None:
    result = check("a.onnx")
    assert result.exit_code == 0, result.output
    words = result.stdout.split()
    assert words[:5] == ["3", "values", "equal", "within", words[4]]
    assert float(words[4]) < 1e-5  # float32
    assert result.stdout.endswith("(ONNX Runtime, PyTorch) on a random input [2, 3, 8, 8]\n")


def test_the_result_as_json_is_complete() -> None:
    facts = json.loads(check("a.onnx", "--json").stdout)
    assert facts.pop("worst") < 1e-5  # float32
    assert facts == {"file": "a.onnx", "inputs": [[2, 3, 8, 8]], "values": 3, "equal": True}


UNKNOWN = 'h = Foo(x) i = Relu(h) j = Resize<mode="linear", nearest_mode="odd">(i, , s) y = Bar(j)'


def test_every_node_that_cannot_be_converted_is_listed() -> None:
    result = check(saved(model(UNKNOWN, {"s": np.ones(4, np.float32)})))
    assert result.exit_code == 1
    rows = [[c.strip() for c in line.split("│")[1:-1]] for line in result.stdout.splitlines() if "│" in line]
    assert [row[:4] for row in rows] == [
        ["h", "Foo", "ai.onnx", "18"],
        ["j", "Resize", "ai.onnx", "18"],
        ["y", "Bar", "ai.onnx", "18"],
    ]
    assert rows[0][4] == "there is no converter for this operator."
    assert result.stderr == (
        "Error: cannot convert 'm.onnx': 3 nodes without an exact counterpart in PyTorch. Export the network "
        "without them.\n"
    )


def test_nodes_that_cannot_be_converted_are_data_in_json() -> None:
    result = check(saved(model("y = Foo(x)")), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["unsupported"] == [
        {"node": "y", "op_type": "Foo", "domain": "", "opset": 18,
         "reason": "there is no converter for this operator."}
    ]  # fmt: skip


@pytest.fixture
def wrong_second_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the converter make a mistake in the second layer."""
    right = conversion.to_torch

    def wrong(source: Any) -> fx.GraphModule:
        module = right(source)
        (weight,) = (p for p in module.parameters() if p.shape == (2, 4, 3, 3))
        weight.data.add_(1)
        return module

    monkeypatch.setattr(conversion, "to_torch", wrong)


@pytest.mark.usefixtures("wrong_second_layer")
def test_the_first_value_that_differs_is_shown_with_its_node() -> None:
    result = check("a.onnx")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "Error: the first value that differs is 'y' of 'y' (Conv, strides=[2, 2]) with inputs 'i', "
        "'w2' [2, 4, 3, 3]: at ["
    )
    assert "] ONNX Runtime has " in result.stderr
    assert ", PyTorch " in result.stderr


@pytest.mark.usefixtures("wrong_second_layer")
def test_a_node_whose_name_has_two_lines_is_named_in_one() -> None:
    broken = onnx.ModelProto.FromString(NETWORK.SerializeToString())
    broken.graph.node[2].name = "new\nline"
    error = check(saved(broken)).stderr
    assert "is 'y' of 'new line' (Conv" in error
    assert error.count("\n") == 1


def test_values_of_two_shapes_are_said_to_have_them() -> None:
    longer = model("y = Concat<axis=0>(x, x)")
    result = check(saved(model("y = Relu(x)"), "b.onnx"), "--against", saved(longer))
    assert "b.onnx has the shape [2, 3, 8, 8], m.onnx [4, 3, 8, 8]." in result.stderr


@pytest.mark.usefixtures("wrong_second_layer")
def test_the_first_value_that_differs_is_data_in_json() -> None:
    first = json.loads(check("a.onnx", "--json").stdout)["first"]
    assert (first["value"], len(first["index"]), len(first["numbers"])) == ("y", 4, 2)


def test_a_file_equals_itself() -> None:
    result = check("a.onnx", "--against", "a.onnx")
    assert result.exit_code == 0, result.output
    assert result.stdout == "1 values equal within 1e-09 (a.onnx, a.onnx) on a random input [2, 3, 8, 8]\n"


def test_two_files_part_where_they_begin_to_differ() -> None:
    result = check("a.onnx", "--against", saved(changed("w1"), "b.onnx"))
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "Error: the first value that differs is 'h' of 'h' (Conv) with inputs 'x', 'w1' [4, 3, 3, 3]: at ["
    )
    assert "] a.onnx has " in result.stderr


def test_files_of_other_outputs_cannot_be_compared() -> None:
    two = model("h = Conv(x, w1) y = Relu(h)", WEIGHTS, outputs="h y")
    result = check("a.onnx", "--against", saved(two))
    assert (result.exit_code, result.stderr) == (
        1, "Error: the models have 1 and 2 outputs, expected as many.\n",
    )  # fmt: skip


FREE = model("y = Add(x, one)", {"one": np.ones(1, np.float32)}, inputs="float[N, C, H, W] x")


@pytest.mark.parametrize(
    ("options", "shape"), [([], [2, 3, 64, 64]), (["--input-size", "16x24"], [2, 3, 16, 24])]
)
def test_free_extents_are_small(options: list[str], shape: list[int]) -> None:
    assert json.loads(check(saved(FREE), "--json", *options).stdout)["inputs"] == [shape]


def test_extents_of_one_name_are_equal_and_element_types_are_kept() -> None:
    proto = model(
        "f = Cast<to=1>(i) g = Cast<to=1>(b) h = Add(f, g) y = Add(h, x)",
        inputs="int64[N, T] i, bool[N, T] b, float[N, T] x",
    )
    result = check(saved(proto), "--json")
    assert json.loads(result.stdout)["inputs"] == [[2, 8]] * 3


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["gone.onnx"], 1, "Error: cannot read 'gone.onnx': there is no such file."),
        (["a.onnx", "--tolerance", "0"], 2, "Invalid value for '--tolerance'"),
        (["a.onnx", "--against", "gone.onnx"], 1, "Error: cannot read 'gone.onnx': there is no such file."),
    ],
)
def test_misuse_is_answered_with_a_sentence(arguments: list[str], code: int, sentence: str) -> None:
    result = check(*arguments)
    assert result.exit_code == code
    assert sentence in result.stderr
