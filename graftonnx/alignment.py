"""Align two sequences: the best pairs that do not cross, by dynamic programming."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]

SEARCH = 20_000
"""Sets of pairs that :func:`align_within` looks at before it takes the best one so far."""

SAMPLE = 64
"""Rows that :func:`align` looks at to learn how much a good set of pairs is worth."""

_UP, _LEFT = np.uint8(1), np.uint8(2)
"""Bits of a decision: the row above, or the column to the left, does as well; else the pair is taken."""


@dataclass(frozen=True)
class Budget:
    """What all chosen pairs together may cost; None for no limit.

    Attributes:
        macs: Multiply-accumulates for one image.
        parameters: Weights.
    """

    macs: float | None = None
    parameters: float | None = None

    @property
    def limits(self) -> tuple[float, float]:
        """Both limits as numbers."""
        return tuple(np.inf if limit is None else limit for limit in (self.macs, self.parameters))  # type: ignore[return-value] # two of them

    def less(self, macs: float, parameters: float) -> Budget:
        """Return what is left when something was spent."""
        return Budget(
            None if self.macs is None else self.macs - macs,
            None if self.parameters is None else self.parameters - parameters,
        )


def align(scores: Scores, most: int) -> list[tuple[int, int]]:
    """Return the non-crossing pairs (i, j) of the largest summed score, at most `most` of them.

    Ties go to earlier pairs; equal input gives equal output.

    Args:
        scores: [I, J]; pairs with a score <= 0 are never taken.
        most: The largest number of pairs.
    """
    if len(scores) <= SAMPLE or most < 1:
        return _aligned(scores, most)
    rows, columns = _promising(scores, most)
    pairs = _aligned(scores[np.ix_(rows, columns)], most)
    return [(int(rows[i]), int(columns[j])) for i, j in pairs]


def _promising(scores: Scores, most: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows and columns that may hold a pair of a best set.

    A set with some pair is worth at most that pair and `most - 1` times the largest score. Where this is less
    than what some of the rows give, the pair is in no best set, and so decides about no tie between them.
    """
    largest = scores.max(axis=1, initial=0.0)
    sample = scores[np.sort(np.argsort(-largest, kind="stable")[:SAMPLE])]
    known = sum(float(sample[pair]) for pair in _aligned(sample, most))
    least = known - (most - 1) * float(largest.max()) - 1e-6  # sums are rounded
    near = (scores >= least) & (scores > 0)
    return np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))


def _aligned(scores: Scores, most: int) -> list[tuple[int, int]]:
    """Do what :func:`align` does, with all rows and columns.

    `best[k, j]` is the largest sum over the rows so far and columns < j with k pairs. Each row is computed at
    once; only the decisions are kept, a byte each.
    """
    rows, columns = scores.shape
    most = max(min(most, rows, columns), 0)
    if most == 0:
        return []
    decisions = np.empty((rows, most, columns), np.uint8)
    best = np.full((most + 1, columns + 1), -np.inf)
    best[0] = 0.0
    better, row = np.empty((2, most, columns))
    above = best[1:, 1:]
    for i in range(rows):
        np.add(best[:-1, :-1], np.where(scores[i] > 0, scores[i], -np.inf), out=better)
        np.maximum(above, better, out=better)
        np.maximum.accumulate(better, axis=1, out=row)
        np.equal(row, above, out=decisions[i].view(bool))
        decisions[i, :, 1:] |= _LEFT * (row[:, :-1] >= better[:, 1:]).view(np.uint8)
        above[:] = row
    pairs: list[tuple[int, int]] = []
    i, j, k = rows, columns, int(np.argmax(best[:, columns]))
    while k > 0:
        decision = decisions[i - 1, k - 1, j - 1]
        if decision & _UP:
            i -= 1
        elif decision & _LEFT:
            j -= 1
        else:
            i, j, k = i - 1, j - 1, k - 1
            pairs.append((i, j))
    return pairs[::-1]


def align_within(
    scores: Scores, most: int, macs: NDArray[np.int64], parameters: NDArray[np.int64], budget: Budget
) -> list[tuple[int, int]]:
    """Do what :func:`align` does, among the sets of pairs whose cost stays within a budget.

    Branch and bound: sets are extended pair by pair, the most promising first; what the rest can add at most
    is what it would add without a budget. The result is the best one unless `SEARCH` sets did not suffice.

    Args:
        scores: [I, J].
        most: The largest number of pairs.
        macs: [I, J]; what each pair computes.
        parameters: [I, J]; how many weights it has.
        budget: For all pairs together.
    """
    if budget == Budget():
        return align(scores, most)
    limits = budget.limits
    scores = np.where((macs <= limits[0]) & (parameters <= limits[1]), scores, 0.0)
    pairs = align(scores, most)
    if _sum(macs, pairs) <= limits[0] and _sum(parameters, pairs) <= limits[1]:
        return pairs
    search = _Search(scores, np.stack([macs, parameters]).astype(np.float64), np.array(limits), most)
    search.extend([], 0.0, np.zeros(2), 0, 0)
    return search.found


class _Search:
    """The state of a branch and bound."""

    def __init__(self, scores: Scores, costs: Scores, limits: Scores, most: int) -> None:
        self.scores, self.costs, self.limits = scores, costs, limits
        self.most = min(most, *scores.shape)
        self.rest = _best_behind(scores, self.most)
        self.found: list[tuple[int, int]] = []
        self.value = 0.0
        self.steps = 0

    def extend(self, pairs: list[tuple[int, int]], value: float, cost: Scores, i: int, j: int) -> None:
        """Look at every set that begins with `pairs`; the next pair is at row >= i and column >= j."""
        self.steps += 1
        if value > self.value:
            self.found, self.value = list(pairs), value
        left = self.most - len(pairs)
        if left == 0 or self.steps > SEARCH:
            return
        gains = self.scores[i:, j:]
        bounds = value + gains + self.rest[left - 1, i + 1 :, j + 1 :]
        fits = (self.costs[:, i:, j:] + cost[:, None, None] <= self.limits[:, None, None]).all(0)
        rows, columns = np.nonzero(fits & (gains > 0) & (bounds > self.value))
        order = np.argsort(-bounds[rows, columns], kind="stable")
        for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
            if bounds[row, column] <= self.value:
                break
            pair = (i + row, j + column)
            self.extend(
                [*pairs, pair],
                value + float(self.scores[pair]),
                cost + self.costs[:, pair[0], pair[1]],
                pair[0] + 1,
                pair[1] + 1,
            )


def _best_behind(scores: Scores, most: int) -> Scores:
    """Return [K + 1, I + 1, J + 1]: the largest sum of at most k pairs at row >= i and column >= j."""
    rows, columns = scores.shape
    best = np.zeros((most + 1, rows + 1, columns + 1))
    gains = np.maximum(scores, 0.0)
    for k in range(1, most + 1):
        for i in range(rows - 1, -1, -1):
            taken = gains[i] + best[k - 1, i + 1, 1:]
            row = np.maximum(best[k, i + 1, :-1], taken)
            best[k, i, :-1] = np.maximum.accumulate(row[::-1])[::-1]
    return best


def _sum(costs: NDArray[np.int64], pairs: list[tuple[int, int]]) -> int:
    return sum(int(costs[pair]) for pair in pairs)
