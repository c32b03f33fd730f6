"""Charts are well-formed, stay inside their frame, and keep their names apart."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from graftonnx.training.report.charts import HEIGHT, WIDTH, Line, line_chart, merged

NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False)


@st.composite
def drawings(draw: st.DrawFn) -> list[Line]:
    epochs = draw(st.integers(1, 60))
    return [
        Line(f"line {i}", [(float(x), draw(NUMBERS)) for x in range(1, epochs + 1)], f"c{i}")
        for i in range(draw(st.integers(1, 4)))
    ]


def elements(svg: ET.Element, name: str) -> list[ET.Element]:
    return [element for element in svg.iter() if element.tag == name]


def chart(lines: list[Line], **options: object) -> ET.Element:
    given_ = {"summary": "A & B", "x_label": "epoch", "spelled": lambda y: f"{y:g}", **options}
    return ET.fromstring(line_chart(lines, **given_))  # type: ignore[arg-type]


@given(drawings())
def test_every_point_lies_inside_and_no_two_names_overlap(lines: list[Line]) -> None:
    svg = chart(lines)
    points = [
        tuple(map(float, pair.split(",")))
        for line in elements(svg, "polyline")
        for pair in line.attrib["points"].split()
    ]
    assert len(points) == sum(len(line.points) for line in lines)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    names = [text for group in elements(svg, "g") for text in elements(group, "text")]
    heights = sorted(float(text.attrib["y"]) for text in names)
    assert all(below - above >= 13.9 for above, below in itertools.pairwise(heights))
    assert all(0 <= y <= HEIGHT for y in heights)


@given(drawings())
def test_higher_numbers_are_drawn_higher(lines: list[Line]) -> None:
    (svg, line) = (chart(lines[:1]), lines[0])
    drawn = [float(pair.split(",")[1]) for pair in elements(svg, "polyline")[0].attrib["points"].split()]
    for (one, other), (y, z) in zip(itertools.pairwise(line.points), itertools.pairwise(drawn), strict=True):
        assert (one[1] - other[1]) * (z - y) >= 0


def test_names_and_summaries_are_escaped() -> None:
    svg = line_chart(
        [Line("<b>&", [(0.0, 1.0)], "c1")], summary='"<i>', x_label="<x>", spelled=lambda y: f"<{y}>"
    )
    assert "<b>" not in svg
    assert "<i>" not in svg
    assert "<x>" not in svg
    assert ET.fromstring(svg).attrib["aria-label"] == '"<i>'


def test_ticks_of_epochs_are_whole_and_those_of_a_range_span_it() -> None:
    def texts(svg: ET.Element) -> list[str]:
        ticks = [t for t in elements(svg, "text") if t.attrib.get("text-anchor") == "middle"]
        return [tick.text or "" for tick in ticks]

    assert texts(chart([Line("a", [(1.0, 1.0), (2.0, 3.0)], "c1")])) == ["1", "2", "epoch"]
    ranged = texts(chart([Line("a", [(0.2, 1.0), (0.4, 3.0)], "c1")], x_range=(0.0, 1.0)))
    assert ranged == ["0", "0.2", "0.4", "0.6", "0.8", "1", "epoch"]


def test_lines_on_one_another_share_one_name() -> None:
    same, other = [(1.0, 2.0)], [(1.0, 3.0)]
    lines = merged([Line("branches", same, "c1"), Line("skips", same, "c2"), Line("head", other, "c3")])
    assert [line.name for line in lines] == ["branches, skips", "head"]
