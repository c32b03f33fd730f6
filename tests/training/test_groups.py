"""Which weights learn, at which rate, and which decay."""

from __future__ import annotations

import pytest
from training.fused import TRAINABLE, fused_model

from graftonnx.conversion import onnx_name, to_torch
from graftonnx.training import TrainConfig
from graftonnx.training.groups import freeze, group_of, is_preprocessing, levels, parameter_groups

CONFIG = TrainConfig(lr_branches=1e-4, lr_skips=2e-4, lr_head=3e-4, weight_decay=0.1)


@pytest.mark.parametrize(
    ("key", "group"),
    [
        ("a/features.0.weight", "branches"),
        ("b/head/weight", "branches"),
        ("skips/0/a/weight", "skips"),
        ("head/hidden/weight", "head"),
        ("skips/0/a/{weight,bias}.bias", "skips"),
        ("header.weight", "branches"),
    ],
)
def test_the_first_part_of_the_onnx_name_is_the_group(key: str, group: str) -> None:
    assert group_of(key) == group


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("preprocess/a/mean", True),
        ("b/preprocess/a/scale", True),
        ("a/preprocess.weight", False),
        ("a/preprocessor.weight", False),
    ],
)
def test_preprocessing_is_recognised_by_its_place(key: str, expected: bool) -> None:
    assert is_preprocessing(key) is expected


def test_every_trainable_weight_is_in_one_group_with_its_rate_and_decay() -> None:
    network = to_torch(fused_model())
    freeze(network, CONFIG)
    names = {id(weight): onnx_name(key) for key, weight in network.named_parameters()}
    groups = parameter_groups(network, levels(network), CONFIG)
    found = {
        (group["name"], group["lr"], group["weight_decay"]): {names[id(weight)] for weight in group["params"]}
        for group in groups
    }
    assert found == {
        ("branches", 1e-4, 0.1): {"a/conv1.weight", "b/conv:0"},
        ("branches", 1e-4, 0.0): {"a/bn1.weight", "a/bn1.bias", "b/conv:0;bias"},
        ("skips", 2e-4, 0.1): {"skips/0/a/weight", "skips/0/b/weight"},
        ("head", 3e-4, 0.1): {"head/hidden/weight", "head/logits/weight"},
        ("head", 3e-4, 0.0): {"head/hidden/bias", "head/logits/bias"},
    }
    assert sum(len(group["params"]) for group in groups) == len(TRAINABLE)


def test_a_skip_learns_at_its_own_rate_and_the_fastest_comes_first() -> None:
    network = to_torch(fused_model())
    slow, fast = sorted(key for key, _ in network.named_parameters() if group_of(key) == "skips")
    groups = parameter_groups(network, levels(network), CONFIG, {slow: 0.01, fast: 0.5})
    found = [(g["lr"], g["params"]) for g in groups if g["name"] == "skips"]
    assert found == [
        (pytest.approx(1e-4), [network.get_parameter(fast)]),
        (pytest.approx(2e-6), [network.get_parameter(slow)]),
    ]


def test_frozen_branches_are_in_no_group_and_give_their_norms_away() -> None:
    network = to_torch(fused_model())
    config = CONFIG.model_copy(update={"freeze": "branches"})
    norms = freeze(network, config)
    assert norms == [network.get_submodule("a/bn1")]
    assert {group["name"] for group in parameter_groups(network, levels(network), config)} == {
        "skips",
        "head",
    }


def test_nothing_is_frozen_by_default() -> None:
    network = to_torch(fused_model())
    assert freeze(network, CONFIG) == []
    trainable = {onnx_name(key) for key, weight in network.named_parameters() if weight.requires_grad}
    assert trainable == TRAINABLE
