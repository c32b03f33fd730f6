"""Lay a picture out: columns of boxes whose height grows with the square root of MACs, skips between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from graftonnx.drawing.columns import Block, Column
from graftonnx.drawing.connections import draw_skips, draw_wires, join_wires, number_skips
from graftonnx.drawing.frame import (
    COLOURS,
    INSET,
    JOIN,
    LANE_GAP,
    LEAST,
    LINE,
    MARGIN,
    MOST,
    PLAIN,
    ROW_GAP,
    TWO_LINES,
    WIDTH,
    Slot,
    has_shared_input,
    left_of,
    slot_of,
    top_of,
    width_of,
)
from graftonnx.drawing.labels import (
    KINDS,
    LETTER,
    beginning,
    describe,
    ending,
    list_kinds,
    name_of,
    spelled,
    strength_scale,
)
from graftonnx.drawing.picture import Picture
from graftonnx.drawing.rows import Cell, Place, find_rows, stack
from graftonnx.drawing.scene import FONT, Box, Point, Scene, Skip, Style, Text
from graftonnx.pages import TIMES, short


def lay_out(picture: Picture) -> Scene:
    """Return the figure of a picture."""
    ends = _ends(picture)
    rows = [find_rows(column, ends[c]) for c, column in enumerate(picture.columns)]
    for c, column_rows in enumerate(rows):
        for row in column_rows:
            row.sort(key=lambda cell: (ends[c].isdisjoint(cell) == (c == 0), cell))
    slots = _slots(rows)
    boxes = _place(picture, rows, slots)
    bottom = max(box.y + box.height for box in boxes.values())
    top, head = _outside(picture, bottom)
    skips = draw_skips(picture, boxes, slots)
    lowest = head[-1].y + head[-1].height if head else bottom
    samples, meanings = _legend(picture, lowest + 26)
    return Scene(
        width=width_of(len(picture.columns)),
        height=lowest + 14,
        title=f"{picture.title}: {picture.about}",
        wires=(*draw_wires(picture, boxes, slots), *join_wires(boxes, rows, top, head)),
        boxes=(*top, *boxes.values(), *head),
        skips=tuple(skip for skip, _ in skips),
        texts=(*_headings(picture), *number_skips(skips)),
        samples=tuple(samples),
        legend=tuple(meanings),
        blocks={_key(slot): (slot[0], rows[slot[0]][slot[1]][slot[2]]) for slot in boxes},
    )


def _ends(picture: Picture) -> list[frozenset[int]]:
    """Return for each column the blocks at which skips begin or end."""
    taps = {tap for arc in picture.arcs for tap in (arc.skip.source, arc.skip.target)}
    return [
        frozenset(index for tap, index in column.places.items() if tap in taps) for column in picture.columns
    ]


def _slots(rows: Sequence[Sequence[Sequence[Cell]]]) -> list[dict[int, Slot]]:
    """Return for each column where each of its blocks is drawn."""
    return [
        {
            index: (c, r, lane)
            for r, row in enumerate(column)
            for lane, cell in enumerate(row)
            for index in cell
        }
        for c, column in enumerate(rows)
    ]


def _place(
    picture: Picture, rows: Sequence[Sequence[Sequence[Cell]]], slots: Sequence[Mapping[int, Slot]]
) -> dict[Slot, Box]:
    """Return every box of a column at its place."""
    largest = max(block.macs for column in picture.columns for block in column.blocks) or 1
    sizes = [
        [[_height(_macs(picture.columns[c], cell) / largest) for cell in row] for row in column]
        for c, column in enumerate(rows)
    ]
    heights = [[max(row) for row in column] for column in sizes]
    pairs: list[tuple[Place, Place]] = [
        (slot_of(picture, slots, arc.skip.source)[:2], slot_of(picture, slots, arc.skip.target)[:2])
        for arc in picture.arcs
    ]
    pairs += [((0, len(rows[0]) - 1), (c, len(rows[c]) - 1)) for c in range(1, len(rows))]
    middles = stack(heights, ROW_GAP, pairs)
    boxes = {}
    top = top_of(picture)
    for c, column in enumerate(rows):
        for r, row in enumerate(column):
            width = (WIDTH - LANE_GAP * (len(row) - 1)) / len(row)
            for lane, cell in enumerate(row):
                height = sizes[c][r][lane]
                boxes[c, r, lane] = _box(
                    picture.columns[c],
                    cell,
                    (left_of(c) + lane * (width + LANE_GAP), top + middles[c][r] - height / 2),
                    (width, height),
                    COLOURS[c % len(COLOURS)],
                    _key((c, r, lane)),
                )
    return boxes


def _key(slot: Slot) -> str:
    return "-".join(map(str, slot))


def _macs(column: Column, cell: Cell) -> float:
    """Return the MACs of a box: a group is as high as its largest block."""
    return max(column.blocks[index].macs for index in cell)


def _height(share: float) -> float:
    return round(LEAST + (MOST - LEAST) * math.sqrt(share), 1)


def _box(column: Column, cell: Cell, corner: Point, size: tuple[float, float], colour: str, key: str) -> Box:
    """Return the box of a block, or of a group of blocks."""
    blocks = [column.blocks[index] for index in cell]
    title = describe(blocks[0])
    if len(blocks) > 1:
        macs = short(sum(block.macs for block in blocks))
        title = f"{len(blocks)} blocks, {name_of(blocks[0])} to {name_of(blocks[-1])}, {macs} MACs"
    lines = _lines(blocks, *size)
    base = corner[1] + size[1] / 2 + 4 - LINE / 2 * (len(lines) - 1)
    texts = []
    for number, (left, right) in enumerate(lines):
        y = base + LINE * number
        style: Style = "soft" if number else "ink"
        texts.append(Text(corner[0] + INSET, y, left, style=style))
        if right:
            texts.append(Text(corner[0] + size[0] - INSET, y, right, "end", style="soft"))
    return Box(*corner, *size, colour, key, title, tuple(texts), len(blocks) > 1)


def _lines(blocks: Sequence[Block], width: float, height: float) -> list[tuple[str, str]]:
    """Return what stands in a box: one line or two, each with a left and a right part, as far as they fit.

    Where there is one line only, MACs go before the shape.

    A box of several in a row that is too narrow for its name says what is in it instead.
    """
    is_wide = width >= WIDTH / 2
    macs, name = sum(block.macs for block in blocks), name_of(blocks[-1])
    count = f"{len(blocks)} blocks to " if len(blocks) > 1 else ""
    shape = spelled(blocks[0].shape) if is_wide and not count else ""
    cost = f"{short(macs)} MACs" if is_wide and macs else ""
    kinds = list_kinds(operator for block in blocks for operator in block.operators)
    letter, room = LETTER * FONT, width - 2 * INSET
    fitting = ending(name, room - letter * (len(count + shape) + bool(shape)))
    if fitting != name and not is_wide and not count:
        return [(kinds if beginning(kinds, room) == kinds else kinds.split(", ")[0], "")]
    if height >= TWO_LINES:
        return [(count + fitting, shape), (beginning(kinds, room - letter * (len(cost) + 1)), cost)]
    if not cost:
        return [(count + fitting, shape)]
    both = f"{shape}, {cost}" if shape else cost
    right = both if letter * (len(count + name + both) + 1) <= room else cost
    return [(count + ending(name, room - letter * (len(count + right) + 1)), right)]


def _outside(picture: Picture, bottom: float) -> tuple[list[Box], list[Box]]:
    """Return the box of the shared input, if there is one, and that of the head."""
    centre = width_of(len(picture.columns)) / 2

    def box(y: float, width: float, text: str, key: str, title: str) -> Box:
        line = Text(centre, y + 15, text, "middle")
        return Box(centre - width / 2, y, width, 23.0, "ink", key, title, (line,))

    top = []
    if picture.plan is not None and has_shared_input(picture):
        size = TIMES.strip().join(map(str, picture.plan.input_size))
        top = [box(8, 150, f"input {size}", "", f"the shared input, {size}")]
    if not picture.head:
        return top, []
    kinds = list_kinds(picture.head)
    logits = "" if picture.classes is None else f" \u2192 {picture.classes} classes"
    text = f"head: {beginning(kinds, 330 - 6.6 * len(logits))}{logits}"
    return top, [box(bottom + JOIN, min(400.0, 2 * centre - 20), text, "head", f"head: {kinds}{logits}")]


def _headings(picture: Picture) -> list[Text]:
    """Return the names of the columns."""
    texts = []
    top = top_of(picture)
    for c, column in enumerate(picture.columns):
        branch = f"{column.letter}: " if column.letter else ""
        name = branch + ending(column.name, WIDTH - 8 * len(branch), 13)
        texts.append(Text(left_of(c), top - 26, name, size=13.0, style="strong"))
        macs = sum(block.macs for block in column.blocks)
        parameters = sum(block.parameters for block in column.blocks)
        about = (
            f"{TIMES.strip().join(map(str, column.input))}, {short(parameters)} parameters, "
            f"{short(macs)} MACs"
        )
        texts.append(Text(left_of(c), top - 11, about, style="soft"))
    return texts


def _legend(picture: Picture, y: float) -> tuple[list[Skip], list[Text]]:
    """Return what lines mean: samples of them, and words; below a figure that stands alone."""
    x, step = MARGIN, 16.0
    texts = [Text(x, y, "Height of a block: square root of its MACs.", style="soft")]
    samples = []
    for kind, meaning in KINDS.items():
        if any(arc.kind == kind for arc in picture.arcs):
            y += step
            points = ((x, y - 4), (x + 9, y - 4), (x + 18, y - 4), (x + 27, y - 4))
            head = ((x + 34, y - 4), (x + 27, y - 7.5), (x + 27, y - 0.5))
            samples.append(Skip(points, head, kind, PLAIN, "", meaning))
            texts.append(Text(x + 42, y, meaning, style="soft"))
    if picture.strongest is not None:
        texts.append(Text(x, y + step, f"Width of a skip: {strength_scale(picture.strongest)}", style="soft"))
    return samples, texts
