"""Write a scene: as SVG, alone or for a page, and as PNG."""

from __future__ import annotations

import io
import re
import warnings
from typing import TYPE_CHECKING

from markupsafe import Markup

from graftonnx import pages, plotting
from graftonnx.drawing.scene import Box, Point, Scene, Skip, Text, Wire

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PACKAGE = "graftonnx.drawing"

INCH = 96
"""Pixels of a scene in an inch."""

SHARPNESS = 2
"""Pixels of a PNG for each pixel of the scene."""

_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""Characters that XML has no way to write."""

SKIP_COLOURS = {"equal": "c3", "resize": "c4", "hand-made": "ink"}
DASHES = {"equal": "-", "resize": (0, (7, 3)), "hand-made": (0, (2, 3))}
"""Of a PNG's skips, by kind; the same as in `figure.css`."""


def svg(scene: Scene) -> str:
    """Return the figure as an SVG file: colours of the light scheme, and nothing that only browsers know."""
    palette = pages.palette()
    style = pages.read_template(PACKAGE, "figure.css")
    for name, colour in palette.items():
        style = style.replace(f"var(--{name})", colour)
    return _written(scene, interactive=False, style=Markup(style), paper=palette["paper"])


def inline_svg(scene: Scene) -> Markup:
    """Return the figure as a part of a page, whose style sheet gives the colours."""
    return Markup(_written(scene, interactive=True))


def _written(scene: Scene, *, interactive: bool, **values: object) -> str:
    text = pages.render(
        PACKAGE,
        "figure.svg",
        {"number": _number, "at": lambda point: f"{_number(point[0])},{_number(point[1])}"},
        scene=scene,
        interactive=interactive,
        **values,
    )
    return _UNWRITABLE.sub("\ufffd", text)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def png(scene: Scene) -> bytes:
    """Return the figure as a PNG file, on white."""
    size = scene.width / INCH, scene.whole / INCH
    with plotting.figure(*size, dpi=INCH * SHARPNESS, layout=None) as figure:
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, scene.width), ylim=(scene.whole, 0))
        axes.axis("off")
        painter = _Painter(axes)
        for wire in scene.wires:
            painter.wire(wire)
        for box in scene.boxes:
            painter.box(box)
        for skip in (*scene.skips, *scene.samples):
            painter.skip(skip)
        for text in (*scene.texts, *scene.legend):
            painter.text(text)
        content = io.BytesIO()
        with warnings.catch_warnings():
            # What the font lacks is drawn as an empty frame.
            warnings.filterwarnings("ignore", "Glyph", UserWarning)
            figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


class _Painter:
    """Draws on matplotlib's axes, whose unit is a pixel of the scene."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.palette = pages.palette()

    def wire(self, wire: Wire) -> None:
        colour = self.palette["soft" if wire.colour == "ink" else wire.colour]
        self._curve(wire.points, color=colour, alpha=0.55, linewidth=_points(1.1))

    def box(self, box: Box) -> None:
        from matplotlib.colors import to_rgba
        from matplotlib.patches import FancyBboxPatch

        colour = self.palette["soft" if box.colour == "ink" else box.colour]
        self.axes.add_patch(
            FancyBboxPatch(
                (box.x, box.y),
                box.width,
                box.height,
                boxstyle="round,pad=0,rounding_size=4",
                facecolor=to_rgba(colour, 0.04 if box.is_group else 0.1),
                edgecolor=colour,
                linewidth=_points(1.1),
                linestyle=(0, (4, 3)) if box.is_group else "-",
            )
        )
        for text in box.texts:
            self.text(text)

    def skip(self, skip: Skip) -> None:
        from matplotlib.patches import Polygon

        colour = self.palette[SKIP_COLOURS[skip.kind]]
        style = DASHES[skip.kind]
        self._curve(skip.points, color=colour, alpha=0.8, linewidth=_points(skip.width), linestyle=style)
        self.axes.add_patch(Polygon(skip.head, color=colour, linewidth=0))

    def text(self, text: Text) -> None:
        align = {"start": "left", "middle": "center", "end": "right"}[text.anchor]
        halo = {"facecolor": "white", "edgecolor": "none", "pad": 1.0} if text.style == "number" else None
        self.axes.text(
            text.x,
            text.y,
            _UNWRITABLE.sub("\ufffd", text.text),
            ha=align,
            va="baseline",
            fontsize=_points(text.size * 0.93),
            color=self.palette["soft" if text.style == "soft" else "ink"],
            fontweight="bold" if text.style == "strong" else "normal",
            bbox=halo,
            parse_math=False,
        )

    def _curve(self, points: tuple[Point, Point, Point, Point], **style: object) -> None:
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path

        codes = [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
        self.axes.add_patch(PathPatch(Path(points, codes), fill=False, **style))


def _points(pixels: float) -> float:
    """Return a length in typographic points."""
    return pixels * 72 / INCH
