"""The page's text: what a browser is given."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jinja2
import pytest
from builders import residual_cnn
from hypothesis import given
from hypothesis import strategies as st

import graftonnx
from graftonnx import pages
from graftonnx.drawing.layout import lay_out
from graftonnx.drawing.page import describe, front_coded
from graftonnx.drawing.picture import open_picture
from graftonnx.errors import GraftError
from graftonnx.metadata import HeadRecord
from graftonnx.model import from_proto
from graftonnx.network import Network
from graftonnx.plan import Plan, from_yaml


def unfolded(coded: dict[str, list], others: list[str] | None = None) -> list[str]:
    """Undo the front coding as the page does, in UTF-16."""
    texts: list[str] = []
    last = ""
    for index, (shared, rest) in enumerate(zip(coded["shared"], coded["rest"], strict=True)):
        known = others[index] if others is not None else last
        last = known.encode("utf-16-le")[: 2 * shared].decode("utf-16-le") + rest
        texts.append(last)
    return texts


TEXTS = st.lists(st.text("ab/\U0001f600\u00e9", max_size=6), max_size=8)


@given(TEXTS)
def test_front_coding_can_be_undone(texts: list[str]) -> None:
    assert unfolded(front_coded(texts)) == texts
    others = [f"{text}x" for text in texts]
    assert unfolded(front_coded(texts, others), others) == texts


def test_data_cannot_end_its_script() -> None:
    text = pages.embedded({"name": "</script><script>alert(1)</script>&<!--"})
    assert "<" not in text
    assert json.loads(text) == {"name": "</script><script>alert(1)</script>&<!--"}


def test_a_name_turns_no_text_of_a_page_around(tmp_path: Path) -> None:
    network = from_proto(residual_cnn(), "a\u202eb.onnx")
    page = graftonnx.view(network, output=tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<title>a\\u202eb.onnx" in page


@pytest.mark.parametrize("value", ["a\u202eb", HeadRecord(kind="file", file="a\u202eb")])
@pytest.mark.parametrize("shown", ["{{ value }}", "{{ value | string | breakable }}"])
def test_no_value_turns_the_text_of_a_page_around(
    monkeypatch: pytest.MonkeyPatch, value: object, shown: str
) -> None:
    monkeypatch.setattr(jinja2, "PackageLoader", lambda package: jinja2.DictLoader({"page.html": shown}))
    assert pages.render("graftonnx.pages", "page.html", value=value).startswith("a\\u202eb")


def test_the_page_knows_every_operator_and_the_blocks_of_every_box(fused: Network) -> None:
    picture = open_picture(fused, ())
    scene = lay_out(picture)
    data = describe(picture, scene)
    operators = [o for column in picture.columns for block in column.blocks for o in block.operators]
    values = unfolded(data["values"])
    assert values == [o.value for o in (*operators, *picture.head)]
    assert unfolded(data["names"], values) == [o.name for o in (*operators, *picture.head)]
    assert [data["kinds"][kind] for kind in data["kind"][: len(operators)]] == [o.kind for o in operators]
    members = sorted(index for indices in data["boxes"].values() for index in indices)
    assert members == list(range(len(data["blocks"])))
    for _, first, length, _ in data["blocks"]:
        assert values[first + length - 1] in {b.tap for c in picture.columns for b in c.blocks}


def test_the_pieces_of_a_plan_make_the_plan(fused: Network, plan: Plan) -> None:
    picture = open_picture(fused, ())
    data = describe(picture, lay_out(picture))
    whole = data["plan"] + "skips:\n" + "".join(skip["yaml"] for skip in data["skips"])
    assert from_yaml(whole) == plan.model_copy(update={"rejections": ()})
    assert from_yaml(data["plan"] + "skips: []\n").skips == ()


def test_a_page_runs_its_own_script_only_and_loads_nothing(work: Path, tmp_path: Path) -> None:
    text = graftonnx.view(work / "fused.onnx", output=tmp_path / "x.html").read_text(encoding="utf-8")
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(script) == 1
    assert pages.policy(script[0]).replace("'", "&#39;") in text
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', text) == []


def test_a_file_is_not_replaced_unasked(work: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.svg"
    target.write_text("mine")
    with pytest.raises(GraftError, match="it exists"):
        graftonnx.view(work / "fused.onnx", output=target)
    assert target.read_text() == "mine"
    graftonnx.view(work / "fused.onnx", output=target, force=True)
    assert target.read_text().lstrip().startswith("<svg")


def test_another_suffix_is_refused(work: Path, tmp_path: Path) -> None:
    with pytest.raises(GraftError, match=r"ends with '.pdf'; expected .html, .svg, .png"):
        graftonnx.view(work / "fused.onnx", output=tmp_path / "x.pdf")
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_run_is_refused(work: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_bytes((work / "run" / "config.yaml").read_bytes())
    with pytest.raises(GraftError, match="the run is not finished"):
        graftonnx.view(tmp_path / "run", output=tmp_path / "x.html")


def test_control_characters_do_not_break_a_figure(tmp_path: Path) -> None:
    model = residual_cnn()
    for node in model.graph.node:
        node.output[:] = [name.replace("s0", "s\x01\x00") for name in node.output]
        node.input[:] = [name.replace("s0", "s\x01\x00") for name in node.input]
    for tensor in model.graph.initializer:
        tensor.name = tensor.name.replace("s0", "s\x01\x00")
    page = graftonnx.view(from_proto(model, "odd.onnx"), output=tmp_path / "x.svg")
    assert "\x01" not in page.read_text(encoding="utf-8")


def test_the_command_of_a_fused_file_keeps_its_classes(fused: Network, tmp_path: Path) -> None:
    page = graftonnx.view(fused, output=tmp_path / "page.html").read_text(encoding="utf-8")
    assert "graftonnx fuse --plan plan.yaml a.onnx b.onnx --classes 2 -o fused.onnx" in page
