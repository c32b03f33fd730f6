"""The best non-crossing pairs of thousands of taps, without looking at every pair.

A score falls with the distance of two depths, and depends otherwise only on the kinds of its two taps: their
shapes, and whether they end blocks. So all pairs that score at least t are found by bisection in each pair of
kinds. Among them alone, the best plan of at most K pairs is computed; it is the best of all plans if it
scores at least t + (K - 1) * (the highest score of any pair): no plan with a pair below t can reach more.
Otherwise t is lowered, until that holds or no pair is left out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FIRST = 4096
"""Pairs that are looked at in the first round; every further round takes eight times as many."""

Kind: TypeAlias = Hashable
"""Taps of one kind score alike at equal depths."""

Rating: TypeAlias = Callable[[Any, Any], "tuple[float, float] | None"]
"""(kind of a, kind of b) -> weight and cost of `score = weight * (1 - distance) - cost`; None for no pair."""

Pair: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class _Block:
    """All pairs of two kinds: positions and depths of the taps, in ascending order of depth."""

    rows: NDArray[np.int64]
    row_depths: NDArray[np.float64]
    columns: NDArray[np.int64]
    column_depths: NDArray[np.float64]
    weight: float
    cost: float

    def span(self, least: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return, for every row, the range of columns whose pairs score at least `least`."""
        reach = 1 - (least + self.cost) / self.weight
        if reach < 0:
            nothing = np.zeros(len(self.rows), np.int64)
            return nothing, nothing
        first = np.searchsorted(self.column_depths, self.row_depths - reach, "left")
        return first, np.searchsorted(self.column_depths, self.row_depths + reach, "right")

    def pairs(self, least: float) -> list[tuple[int, int, float]]:
        """Return the pairs (row, column, score) that score at least `least`."""
        first, last = self.span(least)
        count = last - first
        row = np.repeat(np.arange(len(self.rows)), count)
        column = np.arange(len(row)) - np.repeat(np.cumsum(count) - count - first, count)
        distance = np.abs(self.row_depths[row] - self.column_depths[column])
        score = self.weight * (1 - distance) - self.cost
        return list(zip(self.rows[row].tolist(), self.columns[column].tolist(), score.tolist(), strict=True))


def best_pairs(
    a: Sequence[tuple[Kind, float]], b: Sequence[tuple[Kind, float]], rating: Rating, most: int
) -> list[Pair]:
    """Return the non-crossing pairs (i, j) of the largest summed score, at most `most` of them.

    Args:
        a: Kind and relative depth of each tap of the first network, in its order.
        b: Likewise of the second.
        rating: Weight and cost of a pair of kinds.
        most: The largest number of pairs.

    Returns:
        Ascending pairs; only such with a score above 0.
    """
    blocks = _blocks(a, b, rating)
    highest = max((block.weight - block.cost for block in blocks), default=0.0)
    if most < 1 or highest <= 0:
        return []
    wanted, least = FIRST, highest
    while least > 0:
        least = _threshold(blocks, highest, wanted)
        pairs = sorted((pair for block in blocks for pair in block.pairs(least)), key=lambda p: (p[0], -p[1]))
        total, chosen = _heaviest([pair for pair in pairs if pair[2] > 0], most)
        if total >= least + (most - 1) * highest:
            break
        wanted *= 8
    return chosen


def _blocks(a: Sequence[tuple[Kind, float]], b: Sequence[tuple[Kind, float]], rating: Rating) -> list[_Block]:
    found = []
    kinds_a, kinds_b = _by_kind(a), _by_kind(b)
    for kind_a, (rows, row_depths) in kinds_a.items():
        for kind_b, (columns, column_depths) in kinds_b.items():
            rated = rating(kind_a, kind_b)
            if rated is not None:
                found.append(_Block(rows, row_depths, columns, column_depths, *rated))
    return found


def _by_kind(
    taps: Sequence[tuple[Kind, float]],
) -> dict[Kind, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    members: dict[Kind, list[int]] = {}
    for position, (kind, _) in enumerate(taps):
        members.setdefault(kind, []).append(position)
    depths = np.array([depth for _, depth in taps])
    ordered = {kind: np.array(sorted(m, key=lambda i: taps[i][1])) for kind, m in members.items()}
    return {kind: (positions, depths[positions]) for kind, positions in ordered.items()}


def _threshold(blocks: list[_Block], highest: float, wanted: int) -> float:
    """Return the score that about `wanted` pairs reach, or 0 if there are no more pairs than that."""
    if _count(blocks, 0.0) <= wanted:
        return 0.0
    low, high = 0.0, highest
    for _ in range(40):
        middle = (low + high) / 2
        if _count(blocks, middle) > wanted:
            low = middle
        else:
            high = middle
    return high if _count(blocks, high) else low


def _count(blocks: list[_Block], least: float) -> int:
    spans = (block.span(least) for block in blocks)
    return sum(int((last - first).sum()) for first, last in spans)


@dataclass
class _Staircase:
    """The best sum of a chain that ends in a column, over ascending columns; only ascending sums are kept."""

    columns: list[int] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)
    links: list[_Link] = field(default_factory=list)

    def before(self, column: int) -> tuple[float, _Link] | None:
        """Return the best chain that ends in an earlier column."""
        step = bisect_left(self.columns, column) - 1
        return None if step < 0 else (self.sums[step], self.links[step])

    def add(self, column: int, total: float, link: _Link) -> None:
        """Enter a chain, and drop those that it beats."""
        step = bisect_left(self.columns, column)
        if step and self.sums[step - 1] >= total:
            return
        last = step
        while last < len(self.columns) and self.sums[last] <= total:
            last += 1
        if last == step < len(self.columns) and self.columns[step] == column:
            return
        self.columns[step:last], self.sums[step:last], self.links[step:last] = [column], [total], [link]


_Link: TypeAlias = "tuple[Pair, _Link] | None"
"""A chain of pairs, the last one first."""


def _heaviest(pairs: list[tuple[int, int, float]], most: int) -> tuple[float, list[Pair]]:
    """Return the heaviest chain of at most `most` pairs, and its sum.

    Args:
        pairs: (row, column, score), by ascending rows and, within a row, descending columns.
        most: The largest number of pairs.
    """
    stairs = [_Staircase() for _ in range(most)]
    for row, column, score in pairs:
        for length in range(most - 1, 0, -1):
            earlier = stairs[length - 1].before(column)
            if earlier is not None:
                stairs[length].add(column, earlier[0] + score, ((row, column), earlier[1]))
        stairs[0].add(column, score, ((row, column), None))
    ends = [(stair.sums[-1], stair.links[-1]) for stair in stairs if stair.sums]
    total, link = max(ends, key=lambda end: end[0], default=(0.0, None))
    chain: list[Pair] = []
    while link is not None:
        chain.append(link[0])
        link = link[1]
    return total, chain[::-1]
