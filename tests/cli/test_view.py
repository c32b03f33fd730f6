"""`graftonnx view` and `graftonnx match --html`, from the command line's side."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from builders import plain_cnn, residual_cnn, saved
from click.testing import CliRunner, Result

from graftonnx.cli import graftonnx
from graftonnx.plan import read_plan


def run(*arguments: object) -> Result:
    return CliRunner().invoke(graftonnx, list(map(str, arguments)))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with two parents."""
    monkeypatch.chdir(tmp_path)
    saved(residual_cnn(), tmp_path / "a.onnx")
    saved(plain_cnn((8, 16)), tmp_path / "b.onnx")
    return tmp_path


def test_writes_a_page_beside_the_caller_and_says_where(work: Path) -> None:
    result = run("view", "a.onnx")
    assert result.exit_code == 0, result.output
    assert result.stdout == "wrote a.html\n"
    assert result.stderr == ""
    assert (work / "a.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_draws_a_plan_with_its_parents(work: Path) -> None:
    assert run("match", "a.onnx", "b.onnx", "-o", "plan.yaml").exit_code == 0
    assert run("view", "plan.yaml", "a.onnx", "b.onnx", "-o", "plan.svg").exit_code == 0
    assert "<svg" in (work / "plan.svg").read_text(encoding="utf-8")
    result = run("view", "plan.yaml")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: cannot draw plan 'plan.yaml' with 0 parents; expected 2: a (a.onnx), b (b.onnx). "
        "Give their files behind the plan, in this order.\n"
    )


def test_opens_the_page_when_asked(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda page: opened.append(page) or True)
    assert run("view", "a.onnx", "-o", "x.html", "--open").exit_code == 0
    assert opened == [(work.resolve() / "x.html").as_uri()]


def test_without_a_browser_the_page_is_named_in_one_line(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webbrowser.open", lambda page: False)
    result = run("view", "a.onnx", "-o", "x.html", "--open")
    assert result.exit_code == 0
    assert result.stderr == f"No browser was found here: open {work.resolve() / 'x.html'} yourself.\n"


def test_an_existing_page_stays_without_force(work: Path) -> None:
    (work / "a.html").write_text("mine")
    result = run("view", "a.onnx")
    assert result.exit_code == 1
    assert "'a.html': it exists" in result.stderr
    assert (work / "a.html").read_text() == "mine"
    assert run("view", "a.onnx", "--force").exit_code == 0


def test_a_missing_file_is_a_sentence_and_leaves_nothing(work: Path) -> None:
    result = run("view", "none.onnx", "-o", "x.html")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: cannot read 'none.onnx'")
    assert not (work / "x.html").exists()


def test_match_writes_a_page_beside_the_plan(work: Path) -> None:
    result = run("match", "a.onnx", "b.onnx", "-o", "plan.yaml", "--html", "why.html")
    assert result.exit_code == 0, result.output
    assert result.stderr.endswith("wrote plan.yaml\nwrote why.html\n")
    assert (work / "why.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    again = run("match", "a.onnx", "b.onnx", "--html", "why.html")
    assert again.exit_code == 1
    assert "'why.html': it exists" in again.stderr


def test_skips_in_one_direction_are_drawn_as_such(work: Path) -> None:
    made = run("match", "a.onnx", "b.onnx", "--into", "a", "-o", "plan.yaml", "--html", "why.html")
    assert made.exit_code == 0, made.output
    assert "Lines are skips into a." in (work / "why.html").read_text(encoding="utf-8")
    assert run("view", "plan.yaml", "a.onnx", "b.onnx", "-o", "plan.html").exit_code == 0
    page = (work / "plan.html").read_text(encoding="utf-8")
    skips = read_plan(work / "plan.yaml").skips
    labels = [f'aria-label="Skip from {skip.source} into {skip.target}"' for skip in skips]
    assert page.count("Skip from ") == len(skips) > 0
    assert all(label in page for label in labels)


def test_inspect_and_view_count_the_nodes_of_the_file(work: Path) -> None:
    model = residual_cnn()
    hidden = model.graph.node.add(op_type="Constant", output=["unread"], name="unread")
    hidden.attribute.append(onnx.helper.make_attribute("value_float", 1.0))
    saved(model, work / "c.onnx")
    nodes = len(onnx.load(work / "c.onnx").graph.node)
    assert f", {nodes} nodes ({nodes - 1} as read)" in run("inspect", "c.onnx").stdout
    assert json.loads(run("inspect", "c.onnx", "--json").stdout)["nodes"] == nodes
    assert run("view", "c.onnx").exit_code == 0
    assert f"A network of {nodes} operators" in (work / "c.html").read_text(encoding="utf-8")
