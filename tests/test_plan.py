from __future__ import annotations

from pathlib import Path

import pytest
from builders import residual_cnn

from graftonnx.errors import GraftError, PlanError
from graftonnx.matching import match
from graftonnx.model import from_proto
from graftonnx.plan import Plan, from_yaml, read_plan, write_plan


@pytest.fixture(scope="module")
def plan() -> Plan:
    return match(from_proto(residual_cnn(), "a.onnx"), from_proto(residual_cnn(width=12), "b.onnx"))


def test_a_plan_survives_yaml(plan: Plan) -> None:
    assert plan.skips
    assert from_yaml(plan.to_yaml()) == plan


def test_a_plan_file_is_read_back(plan: Plan, tmp_path: Path) -> None:
    write_plan(plan, tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml") == plan


def test_an_existing_plan_is_kept_unless_forced(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("mine")
    with pytest.raises(GraftError, match="it exists"):
        write_plan(plan, tmp_path / "plan.yaml")
    assert (tmp_path / "plan.yaml").read_text() == "mine"


def test_sizes_and_windows_stand_on_one_line(plan: Plan) -> None:
    assert "input_size: [16, 16]" in plan.to_yaml()
    assert "kernel: [1, 1]" in plan.to_yaml()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1", "version: 7", "its version is 7; this graftonnx reads version 1."),
        (
            "kind: conv",
            "kind: magic",
            "field 'skips.0.projection.kind' of skip 'b/stem' -> 'a/stem': Input should be",
        ),
        ("skips:", "skipz:", "field 'skipz': there is no such field; take it out"),
        ("input_size: [16, 16]", "input_size: []", "field 'input_size"),
        ("version: 1", "version: true", "its version is True; this graftonnx reads version 1."),
        ("kernel: [1, 1]", "kernel: [-1, 1]", "expected at least 1 (found -1)."),
        ("stride: [1, 1]", "stride: [0, 1]", "' -> 'a/stem': expected at least 1 (found 0)."),
        ("pads: [0, 0, 0, 0]", "pads: [-1, 0, 0, 0]", "expected at least 0 (found -1)."),
        ("input_size: [16, 16]", "input_size: [-5, 10]", "expected at least 1 (found -5)."),
        ("source: b/stem", "source: nothere", "expected <branch>/<value>, as a/relu_3"),
        ("version: 1", "- a list", "it is not YAML"),
    ],
)
def test_a_broken_plan_is_refused_naming_the_field(plan: Plan, old: str, new: str, message: str) -> None:
    text = plan.to_yaml()
    assert old in text
    with pytest.raises(PlanError) as caught:
        from_yaml(text.replace(old, new, 1))
    assert message in caught.value.message


@pytest.mark.parametrize("text", ["", "just words", "[1, 2]"])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="it is not a plan: expected a mapping"):
        from_yaml(text)


def test_a_missing_plan_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"cannot read plan '.*gone.yaml': No such file or directory\."):
        read_plan(tmp_path / "gone.yaml")
