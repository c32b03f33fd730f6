"""Names that nobody knows are answered with the nearest."""

from __future__ import annotations

import pytest
from builders import plain_cnn, residual_cnn, saved

from graftonnx import Network, Plan, fuse, load, match
from graftonnx.errors import DataError, PlanError
from graftonnx.evaluation import match_labels
from graftonnx.plan import from_yaml
from graftonnx.spelling import did_you_mean


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("fuze", " Did you mean 'fuse'?"),
        ("FUSE", " Did you mean 'fuse'?"),
        ("rain", " Did you mean 'train'?"),
        ("verifi", " Did you mean 'verify' or 'Verity'?"),
        ("xyzzy", ""),
    ],
)
def test_the_nearest_names_whatever_their_case(name: str, hint: str) -> None:
    assert did_you_mean(name, ["fuse", "train", "verify", "Verity"]) == hint


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, Network]:
    folder = tmp_path_factory.mktemp("parents")
    saved(residual_cnn(depth=3), folder / "a.onnx")
    saved(plain_cnn((8, 16, 32), seed=1), folder / "b.onnx")
    return load(folder / "a.onnx"), load(folder / "b.onnx")


@pytest.fixture(scope="module")
def plan(parents: tuple[Network, Network]) -> Plan:
    return match(*parents, max_skips=1)


def misspelt(plan: Plan, old: str, new: str) -> Plan:
    text = plan.model_copy(update={"rejections": ()}).to_yaml()
    assert old in text
    return from_yaml(text.replace(old, new))


def test_a_tap_of_a_plan(parents: tuple[Network, Network], plan: Plan) -> None:
    tap = plan.skips[0].source
    with pytest.raises(PlanError, match=rf"before its feature\. Did you mean '{tap}'"):
        fuse(*parents, plan=misspelt(plan, tap, f"{tap}o"), classes=3)


def test_a_tap_under_the_letter_of_no_branch(parents: tuple[Network, Network], plan: Plan) -> None:
    tap = plan.skips[0].source
    with pytest.raises(PlanError, match=rf"the branches are a, b\. Did you mean '{tap}'"):
        fuse(*parents, plan=misspelt(plan, tap, f"z{tap[1:]}"), classes=3)


def test_a_value_after_the_feature_is_not_suggested(parents: tuple[Network, Network], plan: Plan) -> None:
    logits = parents[1].head.output
    with pytest.raises(PlanError, match="before its feature") as refused:
        fuse(*parents, plan=misspelt(plan, plan.skips[0].source, f"b/{logits}"), classes=3)
    assert f"Did you mean 'b/{logits}'" not in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ("projection:", "projektion:", "'projection'"),
        ("kernel:", "kernal:", "'kernel'"),
        ("order: rgb", "order: rbg", "'rgb'"),
        ("inputs: shared", "inputs: share", "'shared'"),
    ],
)
def test_a_field_or_value_of_a_plan_file(plan: Plan, old: str, new: str, hint: str) -> None:
    with pytest.raises(PlanError) as refused:
        misspelt(plan, old, new)
    assert "Did you mean" in str(refused.value)
    assert hint in str(refused.value).partition("Did you mean")[2]


def test_a_class_of_the_data_that_the_network_does_not_know() -> None:
    with pytest.raises(DataError, match=r"knows classes 'cat', 'dog'\. Did you mean 'cat'\? Rename"):
        match_labels(["Cats", "dog"], ["cat", "dog"], 2)
