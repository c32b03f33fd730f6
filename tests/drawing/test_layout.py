"""Figures: what stands where, and what widths and colours say."""

from __future__ import annotations

import dataclasses
import itertools
import struct
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from builders import token_net

from graftonnx.drawing.figure import png, svg
from graftonnx.drawing.frame import THICK, THIN
from graftonnx.drawing.layout import lay_out
from graftonnx.drawing.picture import open_picture
from graftonnx.errors import GraftError, PlanError
from graftonnx.model import from_proto
from graftonnx.network import Network
from graftonnx.plan import Plan
from graftonnx.taps import find_taps

SVG = "{http://www.w3.org/2000/svg}"


def test_boxes_do_not_overlap_and_lie_in_the_figure(fused: Network) -> None:
    scene = lay_out(open_picture(fused, ()))
    for box in scene.boxes:
        assert box.x >= 0
        assert box.x + box.width <= scene.width
        assert box.y + box.height <= scene.height
    for one, other in itertools.combinations(scene.boxes, 2):
        beside = one.x + one.width <= other.x or other.x + other.width <= one.x
        assert beside or one.y + one.height <= other.y or other.y + other.height <= one.y


def test_exchanged_taps_stand_at_one_height(fused: Network) -> None:
    picture = open_picture(fused, ())
    scene = lay_out(picture)
    boxes = {box.title.split(",")[0]: box for box in scene.boxes}
    assert picture.arcs
    for arc in picture.arcs:
        assert boxes[arc.skip.source].middle == pytest.approx(boxes[arc.skip.target].middle)


def test_a_plan_and_its_fused_file_show_the_same_skips(
    plan: Plan, parents: tuple[Network, Network], fused: Network
) -> None:
    planned, joined = open_picture(plan, parents), open_picture(fused, ())
    assert [arc.skip for arc in planned.arcs] == list(plan.skips)
    assert [(arc.skip, arc.macs) for arc in planned.arcs] == [(arc.skip, arc.macs) for arc in joined.arcs]
    assert [block.tap for block in planned.columns[0].blocks] == [
        block.tap for block in joined.columns[0].blocks
    ]
    assert planned.plan is not None
    assert planned.plan.rejections == plan.rejections


def test_kinds_are_equal_resize_and_hand_made(plan: Plan, parents: tuple[Network, Network]) -> None:
    by_hand = plan.skips[0].model_copy(update={"score": None})
    picture = open_picture(plan.model_copy(update={"skips": (by_hand, *plan.skips[1:])}), parents)
    kinds = [arc.kind for arc in picture.arcs]
    assert kinds[0] == "hand-made"
    expected = ["equal" if s.projection.kind == "equal" else "resize" for s in plan.skips[1:]]
    assert kinds[1:] == expected
    assert [skip.kind for skip in lay_out(picture).skips] == kinds


def test_a_run_shows_strength_as_width(work: Path) -> None:
    picture = open_picture(work / "run", ())
    shares = [arc.share for arc in picture.arcs]
    assert None not in shares
    widths = [skip.width for skip in lay_out(picture).skips]
    strongest = max(range(len(shares)), key=lambda index: shares[index])
    assert widths[strongest] == THICK
    assert all(THIN <= width <= THICK for width in widths)
    assert sorted(range(len(shares)), key=lambda i: shares[i]) == sorted(
        range(len(shares)), key=lambda i: (widths[i], shares[i])
    )


def test_svg_is_a_picture_of_its_own(fused: Network) -> None:
    scene = lay_out(open_picture(fused, ()))
    text = svg(scene)
    root = ET.fromstring(text)
    assert "var(" not in text
    assert "tabindex" not in text
    titles = {title.text for title in root.iter(f"{SVG}title")}
    assert float(root.attrib["height"]) >= max(text.y for text in scene.legend)
    assert {box.title for box in scene.boxes} | {skip.title for skip in scene.skips} <= titles


def test_png_has_the_size_of_the_scene(fused: Network) -> None:
    scene = lay_out(open_picture(fused, ()))
    content = png(scene)
    assert content.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", content[16:24])
    assert width == pytest.approx(2 * scene.width, abs=2)
    assert height == pytest.approx(2 * scene.whole, abs=2)


def test_a_network_alone_is_one_column_with_its_head(parents: tuple[Network, Network]) -> None:
    picture = open_picture(parents[0], ())
    assert len(picture.columns) == 1
    assert [operator.kind for operator in picture.head] == ["GlobalAveragePool", "Flatten", "Gemm"]
    assert [box.key for box in lay_out(picture).boxes][-1] == "head"


def test_a_plan_without_its_parents_is_refused(plan: Plan, parents: tuple[Network, Network]) -> None:
    with pytest.raises(PlanError, match=r"with 1 parents; expected 2: a \(a.onnx\), b \(b.onnx\)"):
        open_picture(plan, parents[:1])


def test_a_plan_with_an_unknown_tap_is_refused(plan: Plan, parents: tuple[Network, Network]) -> None:
    odd = plan.skips[0].model_copy(update={"source": "b/nowhere"})
    with pytest.raises(PlanError, match="there is no 'b/nowhere' in its parents"):
        open_picture(plan.model_copy(update={"skips": (odd,)}), parents)


def test_parents_beside_a_fused_file_are_refused(fused: Network, parents: tuple[Network, Network]) -> None:
    with pytest.raises(GraftError, match="only a plan has parents beside it"):
        open_picture(fused, parents)


def test_a_column_far_below_its_title_is_led_to_and_says_its_macs(fused: Network) -> None:
    picture = open_picture(fused, ())
    few = dataclasses.replace(picture.columns[1], blocks=(dataclasses.replace(picture.columns[1].blocks[0]),))
    many = picture.columns[0]
    end = many.blocks[-1].tap
    arc = dataclasses.replace(
        picture.arcs[0],
        skip=picture.arcs[0].skip.model_copy(update={"source": end, "target": few.blocks[0].tap}),
    )
    scene = lay_out(dataclasses.replace(picture, columns=(many, few), arcs=(arc,)))
    (box,) = [box for box in scene.boxes if box.title.startswith(few.blocks[0].tap)]
    ends = [wire.points[-1] for wire in scene.wires]
    assert (box.x + box.width / 2, box.y) in ends
    assert all(
        any("MACs" in text.text for text in shown.texts)
        for shown in scene.boxes
        if shown.key in scene.blocks and " 0 MACs" not in shown.title
    )


def test_tokens_have_the_shape_that_inspect_shows() -> None:
    network = from_proto(token_net(size=8), "t.onnx")
    blocks = {block.tap: block for block in open_picture(network, ()).columns[0].blocks}
    for tap in find_taps(network):
        assert blocks[tap.name].shape == (None, *tap.shape)
    assert find_taps(network)
