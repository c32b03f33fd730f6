"""A figure as shapes at their places: what both the vector and the pixel writer draw."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Point = tuple[float, float]

Style = Literal["ink", "soft", "strong", "number"]
"""Of a text: plain, less important, a heading, or on a skip."""

FONT = 11.0
"""Size of letters, in pixels."""

LETTER = 0.6
"""Width of a letter, as a share of its size; that of a wide sans-serif."""


@dataclass(frozen=True)
class Text:
    """A line of text; `y` is its base line."""

    x: float
    y: float
    text: str
    anchor: Literal["start", "middle", "end"] = "start"
    size: float = FONT
    style: Style = "ink"


@dataclass(frozen=True)
class Box:
    """A block, a group of blocks, an input or the head.

    Attributes:
        x: Left.
        y: Top.
        width: In pixels.
        height: In pixels.
        colour: A colour of the palette, as `c1`.
        key: By which the page's data knows it; empty for what cannot be chosen.
        title: What it is, in words.
        texts: Inside of it.
        is_group: Whether it stands for several blocks.
    """

    x: float
    y: float
    width: float
    height: float
    colour: str
    key: str = ""
    title: str = ""
    texts: tuple[Text, ...] = ()
    is_group: bool = False

    @property
    def middle(self) -> float:
        """Height of its centre."""
        return self.y + self.height / 2


@dataclass(frozen=True)
class Wire:
    """What flows from one box to another of its branch: a Bezier curve.

    Attributes:
        points: Start, two control points, end.
        colour: A colour of the palette.
    """

    points: tuple[Point, Point, Point, Point]
    colour: str


@dataclass(frozen=True)
class Skip:
    """A skip: a Bezier curve with a head.

    Attributes:
        points: Start, two control points, end.
        head: Three corners of the arrow's head.
        kind: `equal`, `resize` or `hand-made`.
        width: Of the curve, in pixels.
        key: By which the page's data knows it.
        title: What it is, in words.
    """

    points: tuple[Point, Point, Point, Point]
    head: tuple[Point, Point, Point]
    kind: str
    width: float
    key: str
    title: str


@dataclass(frozen=True)
class Scene:
    """A figure.

    Attributes:
        width: In pixels.
        height: In pixels, without the legend.
        title: What it shows.
        wires: Drawn first.
        boxes: Drawn over them.
        skips: Drawn over the boxes.
        texts: Drawn last.
        samples: Lines of the legend below, which a page has words of its own for.
        legend: Texts of it.
        blocks: The blocks of every box that stands for some: key -> (column, indices).
    """

    width: float
    height: float
    title: str
    wires: tuple[Wire, ...]
    boxes: tuple[Box, ...]
    skips: tuple[Skip, ...]
    texts: tuple[Text, ...]
    samples: tuple[Skip, ...] = ()
    legend: tuple[Text, ...] = ()
    blocks: dict[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)

    @property
    def whole(self) -> float:
        """The height with the legend, in pixels."""
        return max((text.y + FONT for text in self.legend), default=self.height)
