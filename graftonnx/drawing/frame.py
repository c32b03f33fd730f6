"""The measures of a figure, and where its columns stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graftonnx.drawing.picture import Picture

WIDTH, GAP, LANE_GAP, ROW_GAP = 250.0, 150.0, 6.0, 11.0
"""Of a column, between two columns, between boxes of a row, and between rows, in pixels."""

MARGIN, TOP, JOIN = 44.0, 52.0, 40.0
"""At the sides, above the first row, and between the last row and the head."""

SHARED = 40.0
"""More of it, above the columns, where they share an input."""

TITLE_END = 5.0
"""How far above the first row the title of a column ends."""

LEAST, MOST = 21.0, 60.0
"""Height of a box without MACs, and of the box with the most."""

INSET, LINE, TWO_LINES = 8.0, 14.0, 36.0
"""Of the text in a box; distance of its lines; height from which a box has two of them."""

THIN, THICK = 1.2, 9.0
"""Width of a skip that adds nothing, and of the strongest one."""

PLAIN = 1.8
"""Width of a skip whose strength was not measured."""

COLOURS = ("c1", "c2", "c4", "c3")

Slot = tuple[int, int, int]
"""A column, a row of it, a lane of that."""


def left_of(column: int) -> float:
    """Return where a column begins."""
    return MARGIN + column * (WIDTH + GAP)


def width_of(columns: int) -> float:
    """Return the width of a figure of some columns."""
    return left_of(columns) - GAP + MARGIN


def top_of(picture: Picture) -> float:
    """Return where the columns begin."""
    return TOP + SHARED * has_shared_input(picture)


def has_shared_input(picture: Picture) -> bool:
    """Return whether there are several branches that read one input."""
    return picture.plan is not None and picture.plan.inputs == "shared" and len(picture.columns) > 1


def slot_of(picture: Picture, slots: Sequence[Mapping[int, Slot]], tap: str) -> Slot:
    """Return where the block that ends with a tap is drawn.

    Args:
        picture: Which has such a block.
        slots: For each column where each of its blocks is drawn.
        tap: As a plan calls it.
    """
    return next(
        slots[c][column.places[tap]] for c, column in enumerate(picture.columns) if tap in column.places
    )
