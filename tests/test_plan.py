from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from builders import residual_cnn
from pydantic import ValidationError

from graftonnx import matching
from graftonnx.errors import GraftError, ModelError, PlanError
from graftonnx.matching import match
from graftonnx.model import from_proto
from graftonnx.plan import MOST_SKIPS, Plan, Projection, Skip, from_metadata, from_yaml, read_plan, write_plan


@pytest.fixture(scope="module")
def plan() -> Plan:
    return match(from_proto(residual_cnn(), "a.onnx"), from_proto(residual_cnn(width=12), "b.onnx"))


def test_a_plan_survives_yaml(plan: Plan) -> None:
    assert plan.skips
    assert from_yaml(plan.to_yaml()) == plan


@pytest.mark.parametrize(
    ("projection", "words"),
    [
        (Projection(kind="equal"), "equal"),
        (Projection(kind="conv", kernel=(3, 3), stride=(2, 2)), "conv 3x3/2"),
        (Projection(kind="pool", kernel=(2, 3), stride=(1, 2)), "pool 2x3/(1, 2) + conv"),
        (Projection(kind="resize"), "conv + resize"),
    ],
)
def test_a_projection_says_what_it_is(projection: Projection, words: str) -> None:
    assert str(projection) == words


def test_a_pool_of_padding_alone_is_refused() -> None:
    with pytest.raises(
        ValidationError, match=r"windows of \[2, 2\] with pads of \[0, 0, 2, 0\]; expected pads"
    ):
        Projection(kind="pool", kernel=(2, 2), pads=(0, 0, 2, 0))


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
        ("\nskips:", "\nskipz:", "field 'skipz': there is no such field; take it out"),
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


def test_every_field_is_explained_at_the_top(plan: Plan) -> None:
    comment = "".join(line for line in plan.to_yaml().splitlines() if line.startswith("#"))
    for field in (*Plan.model_fields, *Skip.model_fields, *Projection.model_fields):
        assert field in comment or field in ("version", "kind", "kernel", "stride", "pads")


def test_a_plan_that_is_written_again_keeps_its_comments(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    first, *_ = plan.skips
    text = plan.to_yaml().replace(f"source: {first.source}\n", f"source: {first.source} # the good one\n", 1)
    text = text.replace("version: 1\n", "version: 1 # of the schema\n").replace(
        "skips:\n", "# mine\nskips:\n"
    )
    path.write_text(text)
    fewer = plan.model_copy(update={"skips": plan.skips[:2], "rejections": ()})
    write_plan(fewer, path, force=True)
    written = path.read_text()
    assert read_plan(path) == fewer
    for remark in ("the good one", "of the schema", "# mine", "Exchanges between networks"):
        assert written.count(remark) == 1
    write_plan(plan, path, force=True)
    assert read_plan(path) == plan
    assert path.read_text().count("the good one") == 1


@pytest.mark.parametrize("content", ["mine", "- a list", "a: [1", "\x00", ""])
def test_what_is_no_plan_is_replaced_as_a_whole(plan: Plan, content: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(content)
    write_plan(plan, path, force=True)
    assert path.read_text() == plan.to_yaml()


def test_anchors_in_an_older_plan_do_not_change_what_is_written(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    first, second = (str(p).replace("'", "") for p in ("projection: &p {kind: equal}", "projection: *p"))
    ends = [f"- {{source: {skip.source}, target: {skip.target}, " for skip in plan.skips[:2]]
    path.write_text(f"version: 1\nskips:\n{ends[0]}{first}}}\n{ends[1]}{second}}}\n")
    write_plan(plan, path, force=True)
    assert read_plan(path) == plan
    path.write_text("version: 1\nskips:\n- {source: [a, list], target: b/x}\n")
    write_plan(plan, path, force=True)
    assert read_plan(path) == plan


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 3000, "it is not YAML"),
        ("version: 1\ninput_size: [99999999999999999999, 16]", "expected at most 16777216"),
    ],
)
def test_absurd_plans_are_refused(content: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        from_yaml(content)


def test_a_plan_of_too_many_skips_is_refused(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    many = plan.model_dump(mode="json")
    many["skips"] *= MOST_SKIPS // len(many["skips"]) + 1
    found = f"it has {len(many['skips']):,} entries, expected at most {MOST_SKIPS:,}"
    with pytest.raises(PlanError, match=rf"^field 'skips': {found}; take some out"):
        from_yaml(json.dumps(many))
    with pytest.raises(ModelError, match=rf"^its metadata 'graftonnx.plan' is damaged: {found}\. Fuse again"):
        from_metadata(json.dumps(many))
    monkeypatch.setattr(matching, "MOST_SKIPS", 1)
    with pytest.raises(
        PlanError, match=r"^the plan has \d+ skips; expected at most 1\. Lower --max-skips\.$"
    ):
        match(from_proto(residual_cnn(), "a.onnx"), from_proto(residual_cnn(width=12), "b.onnx"))


@pytest.mark.parametrize("wrong", ["skips", "rejections", "parents", "fields"])
def test_a_plan_of_many_errors_takes_no_time(plan: Plan, wrong: str) -> None:
    broken = plan.model_dump(mode="json")
    many = {f"x{number}": 1 for number in range(100_000)}
    broken |= many if wrong == "fields" else {wrong: many if wrong == "parents" else list(many)}
    started = time.process_time()
    with pytest.raises(ModelError, match=r"^its metadata 'graftonnx.plan' is damaged: .*\. Fuse again\.$"):
        from_metadata(json.dumps(broken))
    assert time.process_time() - started < 1


def test_broken_yaml_is_named_with_its_line_once(plan: Plan) -> None:
    text = plan.to_yaml()
    row = next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith("input_size:"))
    with pytest.raises(PlanError) as caught:
        from_yaml(text.replace("]", "", 1))
    message = caught.value.message
    assert message.startswith(f"it is not YAML: line {row + 1}: ")
    assert message.endswith(f"while parsing a flow sequence that begins in line {row}.")
    assert message.count(f"line {row + 1}") == 1
    assert "^" not in message
