"""The lines of a figure: what flows inside of the branches, and the skips between them."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence

from graftonnx.drawing.frame import (
    MARGIN,
    PLAIN,
    ROW_GAP,
    SHARED,
    THICK,
    THIN,
    TITLE_END,
    TOP,
    WIDTH,
    Slot,
    left_of,
    slot_of,
)
from graftonnx.drawing.picture import Arc, Picture
from graftonnx.drawing.rows import Cell
from graftonnx.drawing.scene import Box, Point, Skip, Text, Wire
from graftonnx.pages import percent

LIFT = 64.0
"""How far the control points of a skip that passes a column in between are raised: it runs above the box."""


def draw_wires(
    picture: Picture, boxes: Mapping[Slot, Box], slots: Sequence[Mapping[int, Slot]]
) -> list[Wire]:
    """Return what flows from box to box inside of the branches; what leaps over a row goes around outside."""
    wires = []
    for c, column in enumerate(picture.columns):
        found = {
            (slots[c][source], slots[c][index])
            for index, block in enumerate(column.blocks)
            for source in block.before
        }
        for source, target in sorted(found):
            if source[1] < target[1]:
                wires.append(_wire(boxes[source], boxes[target], source, target, len(picture.columns)))
    return wires


def _wire(source: Box, target: Box, start: Slot, end: Slot, columns: int) -> Wire:
    if end[1] - start[1] == 1:
        a = (source.x + source.width / 2, source.y + source.height)
        b = (target.x + target.width / 2, target.y)
        bend = (b[1] - a[1]) / 2
        return Wire((a, (a[0], a[1] + bend), (b[0], b[1] - bend), b), source.colour)
    is_right = columns > 1 and start[0] == columns - 1
    edge = left_of(start[0]) + (WIDTH if is_right else 0)
    bulge = (1 if is_right else -1) * min(10 + 5.0 * (end[1] - start[1]), MARGIN - 6) * 4 / 3
    a, b = (edge, source.middle + 3), (edge, target.middle - 3)
    return Wire((a, (a[0] + bulge, a[1]), (b[0] + bulge, b[1]), b), source.colour)


def join_wires(
    boxes: Mapping[Slot, Box],
    rows: Sequence[Sequence[Sequence[Cell]]],
    top: Sequence[Box],
    head: Sequence[Box],
) -> list[Wire]:
    """Return the wires from the input to the columns, and from these to the head."""
    wires = []
    for c, column in enumerate(rows):
        middle = left_of(c) + WIDTH / 2
        if top:
            a, b = (top[0].x + top[0].width / 2, top[0].y + top[0].height), (middle, SHARED + TOP - 42)
            wires.append(Wire((a, (a[0], a[1] + 12), (b[0], b[1] - 12), b), "ink"))
        wires += _leads(boxes, c, column[0], SHARED * bool(top) + TOP)
        if head:
            lowest = boxes[c, len(column) - 1, 0]
            a, b = (middle, lowest.y + lowest.height), (head[0].x + head[0].width / 2, head[0].y)
            wires.append(Wire((a, (a[0], a[1] + 20), (b[0], b[1] - 20), b), "ink"))
    return wires


def _leads(boxes: Mapping[Slot, Box], c: int, first: Sequence[Cell], top: float) -> list[Wire]:
    """Return the wires from a column's title to its first boxes, where these stand far below it."""
    wires = []
    for lane in range(len(first)):
        box = boxes[c, 0, lane]
        a, b = (left_of(c) + WIDTH / 2, top - TITLE_END), (box.x + box.width / 2, box.y)
        if b[1] - top > ROW_GAP:
            bend = min((b[1] - a[1]) / 2, 20.0)
            wires.append(Wire((a, (a[0], a[1] + bend), (b[0], b[1] - bend), b), "ink"))
    return wires


def draw_skips(
    picture: Picture, boxes: Mapping[Slot, Box], slots: Sequence[Mapping[int, Slot]]
) -> list[tuple[Skip, Arc]]:
    """Return the skips; those that meet at a side of a box share it evenly."""
    strongest = picture.strongest or 0.0
    ends = [
        (slot_of(picture, slots, arc.skip.source), slot_of(picture, slots, arc.skip.target))
        for arc in picture.arcs
    ]
    ports: dict[tuple[Slot, bool], list[tuple[float, int, int]]] = defaultdict(list)
    for index, (source, target) in enumerate(ends):
        for role, (here, there) in enumerate(((source, target), (target, source))):
            ports[here, there[0] > here[0]].append((boxes[there].middle, index, role))
    places: dict[tuple[int, int], Point] = {}
    for (slot, is_right), users in ports.items():
        box = boxes[slot]
        for rank, (_, index, role) in enumerate(sorted(users)):
            y = box.y + box.height * (rank + 1) / (len(users) + 1)
            places[index, role] = (box.x + (box.width if is_right else 0), y)
    drawn = []
    for index, arc in enumerate(picture.arcs):
        width = PLAIN
        if arc.share is not None and strongest > 0:
            width = THIN + (THICK - THIN) * arc.share / strongest
        drawn.append((_curve(arc, places[index, 0], places[index, 1], round(width, 2), f"s{index}"), arc))
    return drawn


def _curve(arc: Arc, start: Point, end: Point, width: float, key: str) -> Skip:
    way = 1 if end[0] > start[0] else -1
    length, half = 5.0 + width, 3.0 + width * 0.6
    tip, neck = end, (end[0] - way * length, end[1])
    bend = 0.45 * (neck[0] - start[0])
    lift = LIFT if abs(end[0] - start[0]) > WIDTH else 0.0
    points = (start, (start[0] + bend, start[1] - lift), (neck[0] - bend, neck[1] - lift), neck)
    head = (tip, (neck[0], neck[1] - half), (neck[0], neck[1] + half))
    title = f"skip {arc.exchange}: {arc.skip.source} to {arc.skip.target}, {arc.skip.projection}"
    if arc.skip.score is not None:
        title += f", score {arc.skip.score:.2f}"
    if arc.share is not None:
        title += f", adds {percent(arc.share, 1)} of its target"
    return Skip(points, head, arc.kind, width, key, title)


def number_skips(skips: Sequence[tuple[Skip, Arc]]) -> list[Text]:
    """Return the number of every exchange, in the middle between its skips."""
    texts = []
    for exchange, members in itertools.groupby(skips, key=lambda item: item[1].exchange):
        middles = [_middle(skip.points) for skip, _ in members]
        x, y = (sum(coordinates) / len(middles) for coordinates in zip(*middles, strict=True))
        texts.append(Text(x, y + 3.5, str(exchange), "middle", 10.0, "number"))
    return texts


def _middle(points: tuple[Point, Point, Point, Point]) -> Point:
    """Return the point half-way along a Bezier curve."""
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = points
    return (x0 + 3 * x1 + 3 * x2 + x3) / 8, (y0 + 3 * y1 + 3 * y2 + y3) / 8
