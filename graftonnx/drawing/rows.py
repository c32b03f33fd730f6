"""Where blocks stand: rows of a column, which of them are drawn as one, and how high each row is.

A block stands below all that it reads; blocks of one row do not read each other. Rows of exchanged taps are
brought to one height, where that is possible without turning any column around.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from graftonnx.drawing.columns import Column

MOST_ROWS = 120
"""Rows of a column; in more, neighbours without skips are drawn as one box."""

MOST_LANES = 4
"""Boxes in a row; of more, the smallest are drawn as one."""

Cell = tuple[int, ...]
"""The blocks, by index, that a box stands for."""

Place = tuple[int, int]
"""A column and a row of it."""


def find_rows(column: Column, ends: frozenset[int]) -> list[list[Cell]]:
    """Return the rows of a column, from the top.

    Args:
        column: The branch.
        ends: Blocks at which skips begin or end; each gets a box of its own.
    """
    levels: list[int] = []
    for block in column.blocks:
        levels.append(max((levels[index] + 1 for index in block.before), default=0))
    rows: list[list[int]] = [[] for _ in range(max(levels) + 1)]
    for index, level in enumerate(levels):
        rows[level].append(index)
    if len(rows) <= MOST_ROWS:
        return [_narrowed(column, row, ends) for row in rows]
    marked = [bool(ends.intersection(row)) for row in rows]
    size = -(-(len(rows) - sum(marked)) // max(MOST_ROWS - sum(marked), 1))
    bundled: list[list[Cell]] = []
    for is_marked, run in itertools.groupby(zip(marked, rows, strict=True), key=lambda item: item[0]):
        members = [row for _, row in run]
        if is_marked:
            bundled += [_narrowed(column, row, ends) for row in members]
            continue
        for start in range(0, len(members), size):
            bundled.append([tuple(itertools.chain(*members[start : start + size]))])
    return bundled


def _narrowed(column: Column, row: Sequence[int], ends: frozenset[int]) -> list[Cell]:
    """Return the boxes of a row."""
    if len(row) <= MOST_LANES:
        return [(index,) for index in row]
    by_size = sorted(row, key=lambda index: (index not in ends, -column.blocks[index].macs))
    alone = max(MOST_LANES - 1, len(ends.intersection(row)))
    kept = sorted(by_size[:alone])
    others = tuple(sorted(by_size[alone:]))
    return [(index,) for index in kept] + ([others] if others else [])


def stack(
    heights: Sequence[Sequence[float]], gap: float, pairs: Iterable[tuple[Place, Place]]
) -> list[list[float]]:
    """Return the height at which the middle of every row stands, from 0 at the top.

    Args:
        heights: Of the rows of every column.
        gap: Between two rows, at least.
        pairs: Rows that should stand at one height, the most wanted first.
    """
    group: dict[Place, Place] = {(c, r): (c, r) for c, rows in enumerate(heights) for r in range(len(rows))}
    middles = _lowered(heights, gap, group)
    assert middles is not None
    for first, second in pairs:
        merged = {place: group[first] if root == group[second] else root for place, root in group.items()}
        tried = _lowered(heights, gap, merged)
        if tried is not None:
            group, middles = merged, tried
    sizes: dict[Place, int] = {}
    for root in group.values():
        sizes[root] = sizes.get(root, 0) + 1
    return [
        _evened(
            [middles[group[c, r]] for r in range(len(rows))],
            rows,
            [sizes[group[c, r]] > 1 for r in range(len(rows))],
        )
        for c, rows in enumerate(heights)
    ]


def _lowered(
    heights: Sequence[Sequence[float]], gap: float, group: dict[Place, Place]
) -> dict[Place, float] | None:
    """Return the least middle of every group of rows; None if the groups turn a column around."""
    onward: dict[Place, list[tuple[Place, float]]] = {root: [] for root in group.values()}
    waiting = dict.fromkeys(onward, 0)
    middles = dict.fromkeys(onward, 0.0)
    for c, rows in enumerate(heights):
        middles[group[c, 0]] = max(middles[group[c, 0]], rows[0] / 2)
        for r in range(1, len(rows)):
            apart = (rows[r - 1] + rows[r]) / 2 + gap
            onward[group[c, r - 1]].append((group[c, r], apart))
            waiting[group[c, r]] += 1
    ready = [root for root, count in waiting.items() if not count]
    done = 0
    while ready:
        root = ready.pop()
        done += 1
        for other, apart in onward[root]:
            middles[other] = max(middles[other], middles[root] + apart)
            waiting[other] -= 1
            if not waiting[other]:
                ready.append(other)
    return middles if done == len(onward) else None


def _evened(middles: list[float], heights: Sequence[float], fixed: Sequence[bool]) -> list[float]:
    """Spread the rows between two that are fixed evenly."""
    stays = [r for r, is_fixed in enumerate(fixed) if is_fixed or r in (0, len(fixed) - 1)]
    for first, last in itertools.pairwise(stays):
        inside = sum(heights[first + 1 : last]) + (heights[first] + heights[last]) / 2
        space = (middles[last] - middles[first] - inside) / (last - first)
        for r in range(first + 1, last):
            middles[r] = middles[r - 1] + (heights[r - 1] + heights[r]) / 2 + space
    return middles
