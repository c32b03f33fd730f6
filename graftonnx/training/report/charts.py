"""Line charts as inline SVG: their colours are those of the page, in its light and in its dark mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jinja2 import Template
from markupsafe import Markup

from graftonnx import plotting

WIDTH, HEIGHT = 360, 230
LEFT, TOP, BOTTOM = 50, 12, 38
"""Margins around the plot: for numbers, half a number, and the name of the axis."""

LETTER = 6.8
"""Width of a letter of a line's name; the margin on the right holds the longest."""

APART = 14
"""Least distance of two lines' names."""

MOST_DOTS = 40
"""Points of a line up to which each gets a dot."""

Point = tuple[float, float]

_SVG = Template(
    """<svg class="chart" viewBox="0 0 {{ width }} {{ height }}" role="img" aria-label="{{ summary }}">
{%- for y, text in rows %}
<line class="grid" x1="{{ left }}" x2="{{ right }}" y1="{{ y }}" y2="{{ y }}"/>
<text class="tick" x="{{ left - 8 }}" y="{{ y + 4 }}" text-anchor="end">{{ text }}</text>
{%- endfor %}
{%- for x, text in columns %}
<text class="tick" x="{{ x }}" y="{{ bottom + 17 }}" text-anchor="middle">{{ text }}</text>
{%- endfor %}
<text class="tick" x="{{ (left + right) / 2 }}" y="{{ height - 4 }}" text-anchor="middle">{{ x_label }}</text>
{%- for line in lines %}
<g class="{{ line.colour }}">
<polyline points="{{ line.path }}"/>
{%- for x, y in line.dots %}
<circle cx="{{ x }}" cy="{{ y }}" r="2.6"/>
{%- endfor %}
<text x="{{ right + 8 }}" y="{{ line.label_y }}">{{ line.name }}</text>
</g>
{%- endfor %}
{%- if mark %}
<circle class="mark" cx="{{ mark[0] }}" cy="{{ mark[1] }}" r="5.5"/>
{%- endif %}
</svg>""",
    autoescape=True,
)


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        name: Stands at its end.
        points: x and y, by x; at least one.
        colour: A class of the page's style sheet.
    """

    name: str
    points: Sequence[Point]
    colour: str


def line_chart(
    lines: Sequence[Line],
    *,
    summary: str,
    x_label: str,
    spelled: Callable[[float], str],
    x_range: Point | None = None,
    floor: float | None = None,
    mark: Point | None = None,
) -> Markup:
    """Draw lines over a common axis.

    Args:
        lines: At least one.
        summary: What the chart shows, for those who do not see it.
        x_label: Name of the x axis.
        spelled: Writes a number of the y axis.
        x_range: Ends of the x axis; by default those of the lines, whose x are then whole numbers.
        floor: Where the y axis begins; by default below the lowest point.
        mark: A point to put a ring around.
    """
    xs, ys = zip(*(point for line in lines for point in line.points), strict=True)
    columns = _ticks(*(x_range or (min(xs), max(xs))), whole=x_range is None)
    low, high = min(ys) if floor is None else floor, max(ys)
    rows = _ticks(low, high if high > low else low + (abs(low) or 1.0))
    x_axis = x_range or (min(xs), max(xs))
    y_axis = min(low, rows[0]), max(high, rows[-1])

    right = WIDTH - 12 - round(LETTER * max(len(line.name) for line in lines))

    def place(point: Point) -> Point:
        return (
            _scaled(point[0], x_axis, (LEFT, right)),
            _scaled(point[1], y_axis, (HEIGHT - BOTTOM, TOP)),
        )

    drawn = [[place(point) for point in line.points] for line in lines]
    labels = _spread([points[-1][1] + 4 for points in drawn])
    return Markup(
        _SVG.render(
            width=WIDTH,
            height=HEIGHT,
            left=LEFT,
            right=right,
            bottom=HEIGHT - BOTTOM,
            summary=summary,
            x_label=x_label,
            rows=[(place((xs[0], y))[1], spelled(y)) for y in rows],
            columns=[(place((x, ys[0]))[0], f"{x:g}") for x in columns],
            mark=mark and place(mark),
            lines=[
                {
                    "name": line.name,
                    "colour": line.colour,
                    "path": " ".join(f"{x},{y}" for x, y in points),
                    "dots": points if len(points) <= MOST_DOTS else points[-1:],
                    "label_y": label,
                }
                for line, points, label in zip(lines, drawn, labels, strict=True)
            ],
        )
    )


def merged(lines: Sequence[Line]) -> list[Line]:
    """Put lines that lie on one another into one, with all their names."""
    found: dict[tuple[Point, ...], Line] = {}
    for line in lines:
        points = tuple(line.points)
        first = found.get(points)
        found[points] = Line(f"{first.name}, {line.name}", points, first.colour) if first else line
    return list(found.values())


def _scaled(value: float, source: Point, target: Point) -> float:
    """Map a number from one range to another; the middle where the first has no extent."""
    extent = source[1] - source[0]
    share = (value - source[0]) / extent if extent else 0.5
    return round(target[0] + share * (target[1] - target[0]), 1)


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Return a few round numbers that span a range; within it where they are to be whole."""
    plotting.load()
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=whole).tick_values(low, high)
    return [float(value) for value in values if not whole or low <= value <= high]


def _spread(heights: Sequence[float]) -> list[float]:
    """Move names apart, downwards, where they would overlap."""
    placed = dict[int, float]()
    last = -float("inf")
    for index in sorted(range(len(heights)), key=lambda i: heights[i]):
        last = placed[index] = max(heights[index], last + APART)
    overhang = max(last - (HEIGHT - BOTTOM + 4), 0.0)
    return [placed[index] - overhang for index in range(len(heights))]
