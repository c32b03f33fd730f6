"""Names in a file are data: whatever they say, conversion evaluates none of them."""

from __future__ import annotations

import builtins
import keyword
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import graftonnx
from graftonnx.conversion import onnx_name, to_torch, write_back
from graftonnx.conversion.evaluation import run_module

NAMES = [
    'a"b', "it's", "back\\slash", "new\nline", "tab\t", "\x1b[31m", "\0", "名前", "\u202e", "100%", "{x}",
    "{0}", "a..b", ".",
    "..", "../../x", "/", "", "__import__('os').abort()", "__class__", "__init__", "forward", "training",
    "self", "_modules",
    "x): import os; os.abort() #", "lambda: 0", '"""', "torch", "device", "inf", "nan", "NoneType",
    "fx_pytree", "1", "-1",
    *keyword.kwlist, *keyword.softkwlist, "print", "getattr", "weight", "bias", "val_0", "x" * 2_000,
]  # fmt: skip


def network(name: str, input_name: str) -> onnx.ModelProto:
    """Return y = Relu(x W + b) + b, of which every name is `name` in one form or another."""
    graph = helper.make_graph(
        [
            helper.make_node(
                "Gemm", [input_name, f"{name}W", f"{name}.bias"], [f"{name}/g"], name=f"{name}:1"
            ),
            helper.make_node("Relu", [f"{name}/g"], [f"{name} r"], name=f"{name}:2", doc_string=name),
            helper.make_node("Add", [f"{name} r", f"{name}.bias"], [f"{name}y"], name=f"{name}:3"),
        ],
        name or "graph",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info(f"{name}y", TensorProto.FLOAT, [2, 4])],
        [
            numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(3, 4) - 5, f"{name}W"),
            numpy_helper.from_array(np.float32([1, -2, 3, -4]), f"{name}.bias"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_any_name_converts_runs_and_comes_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.abort", lambda: pytest.fail("a name was evaluated"))
    before = set(vars(builtins))
    model = network(name, name or "x")
    module = to_torch(model)
    x = np.float32([[1, 2, 3], [-1, 0, 1]])
    weight, bias = (numpy_helper.to_array(tensor) for tensor in model.graph.initializer)
    (found,) = run_module(module, x)
    np.testing.assert_allclose(found, np.maximum(x @ weight + bias, 0) + bias, rtol=1e-6)
    assert {onnx_name(key) for key in module.state_dict()} == {f"{name}W", f"{name}.bias"}
    assert write_back(module) == model
    assert set(vars(builtins)) == before


def test_inputs_of_one_identifier_stay_apart() -> None:
    graph = helper.make_graph(
        [helper.make_node("Sub", ["a/b", "a.b"], ["y"])],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("a/b", "a.b")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    module = to_torch(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
    assert module(torch.tensor([3.0, 3.0]), torch.tensor([1.0, 2.0])).tolist() == [2.0, 1.0]


def test_names_are_no_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    module = to_torch(network("../outside", "../../x"))
    graftonnx.save(write_back(module), "model.onnx")
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["inner", "model.onnx"]
