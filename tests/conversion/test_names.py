"""Keys and ONNX names give each other back, whatever the names hold."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

from graftonnx.conversion.names import Keys, onnx_name


def place(*names: str) -> tuple[nn.Module, list[str]]:
    """Put a parameter under each name into a fresh module; return it and the keys."""
    root = fx.GraphModule(nn.Module(), fx.Graph())
    keys = Keys(root)
    found = []
    for name in names:
        key = keys.tensor(name)
        owner, _, leaf = key.rpartition(".")
        root.get_submodule(owner).register_parameter(leaf, nn.Parameter())
        found.append(key)
    return root, found


@pytest.mark.parametrize(
    "name",
    ["conv1.weight", "a/features.0.weight", "gpu_0/conv1_w_0", "Conv:0", "two words", "重み", "head/bias;x"],
)
def test_a_readable_name_is_its_own_key(name: str) -> None:
    assert place(name)[1] == [name]


@pytest.mark.parametrize(
    "name",
    ["a..b", ".a", "a.", "forward", "training.x", "class.weight", "ﬁ.weight", "100%", "a%2Eb", 'quo"te',
     "back\\slash", "{w,b}.weight", "line\nbreak", "graph", "x.T_destination"],
)  # fmt: skip
def test_a_name_that_is_no_path_comes_back(name: str) -> None:
    root, (key,) = place(name)
    assert list(dict(root.named_parameters())) == [key]
    assert onnx_name(key) == name


@pytest.mark.parametrize("names", [("a.b", "a_b"), ("a", "a.b"), ("a.b", "a"), ("a.b.c", "a.b", "a%2Eb.c")])
def test_similar_names_stay_apart(names: tuple[str, ...]) -> None:
    root, keys = place(*names)
    assert len(set(keys)) == len(names)
    assert [onnx_name(key) for key in keys] == list(names)
    assert len(list(root.named_parameters())) == len(names)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(alphabet="ab.%{},/:é", min_size=1, max_size=6), unique=True, max_size=6))
def test_any_names_come_back(names: list[str]) -> None:
    root, keys = place(*names)
    assert [onnx_name(key) for key in keys] == names
    assert sorted(dict(root.named_parameters())) == sorted(keys)


@pytest.mark.parametrize(
    ("names", "path"),
    [
        (["conv1.weight", "conv1.bias"], "conv1"),
        (["a/bn.weight", "a/bn.bias", "a/bn.running_mean", "a/bn.running_var"], "a/bn"),
        (["conv_w", "conv_b"], "conv_{w,b}"),
        (["kernel", None], "kernel{,}"),
        (["layer.weight", "layer.weight_bias"], "layer.weight{,_bias}"),
        (["x.scale", "y.shift"], "{x%2Escale,y%2Eshift}"),
    ],
)
def test_a_layer_is_named_after_its_tensors(names: list[str | None], path: str) -> None:
    root = fx.GraphModule(nn.Module(), fx.Graph())
    found = Keys(root).layer(names)
    assert found == path
    roles = ("weight", "bias", "running_mean", "running_var")
    decoded = [onnx_name(f"{found}.{role}") for role, name in zip(roles, names, strict=False) if name]
    assert decoded == [name for name in names if name]
