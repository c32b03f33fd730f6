"""Rows of a column, and the heights at which they stand."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from graftonnx.drawing.columns import Block, Column
from graftonnx.drawing.rows import MOST_LANES, MOST_ROWS, find_rows, stack


def column(*before: tuple[int, ...]) -> Column:
    return Column("a", "a.onnx", (3, 8, 8), tuple(Block(f"a/{i}", (), b) for i, b in enumerate(before)))


def test_blocks_that_do_not_read_each_other_share_a_row() -> None:
    rows = find_rows(column((), (0,), (0,), (1, 2)), frozenset())
    assert rows == [[(0,)], [(1,), (2,)], [(3,)]]


def test_a_wide_row_keeps_the_ends_of_skips_apart() -> None:
    wide = column((), *[(0,)] * 9)
    rows = find_rows(wide, frozenset({7, 8}))
    assert len(rows[1]) == MOST_LANES
    assert {(7,), (8,)} <= set(rows[1])
    assert sorted(itertools.chain(*rows[1])) == list(range(1, 10))


def test_a_long_column_is_bundled_but_for_the_ends_of_skips() -> None:
    long = column((), *[(index,) for index in range(999)])
    ends = frozenset({100, 500, 501})
    rows = find_rows(long, ends)
    assert len(rows) <= MOST_ROWS + len(ends) + 1
    assert list(itertools.chain(*itertools.chain(*rows))) == list(range(1000))
    assert {(index,) for index in ends} <= {cell for row in rows for cell in row}


def test_wanted_rows_stand_at_one_height_and_others_are_spread() -> None:
    heights = [[20.0] * 5, [20.0] * 3]
    first, second = stack(heights, 10, [((0, 2), (1, 1)), ((0, 4), (1, 2))])
    assert first == [10, 40, 70, 100, 130]
    assert second == [10, 70, 130]


def test_a_pair_that_would_turn_a_column_around_is_not_brought_to_one_height() -> None:
    heights = [[20.0] * 3, [20.0] * 3]
    first, second = stack(heights, 10, [((0, 0), (1, 2)), ((0, 2), (1, 0))])
    assert first[0] == second[2]
    assert first == sorted(first)
    assert second == sorted(second)


PLACES = st.integers(0, 99)


@given(
    st.lists(st.lists(st.floats(1, 60), min_size=1, max_size=12), min_size=1, max_size=3),
    st.lists(st.tuples(PLACES, PLACES, PLACES, PLACES), max_size=8),
)
def test_rows_never_overlap(heights: list[list[float]], seeds: list[tuple[int, int, int, int]]) -> None:
    pairs = []
    for c, r, d, q in seeds:
        first, second = c % len(heights), d % len(heights)
        pairs.append(((first, r % len(heights[first])), (second, q % len(heights[second]))))
    for rows, middles in zip(heights, stack(heights, 5, pairs), strict=True):
        tops = [middle - height / 2 for middle, height in zip(middles, rows, strict=True)]
        assert tops[0] >= -1e-6
        for r in range(1, len(rows)):
            assert tops[r] >= tops[r - 1] + rows[r - 1] + 5 - 1e-6
