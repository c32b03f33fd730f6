"""The best non-crossing pairs, compared with the full table."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graftonnx import scores
from graftonnx.matching import align

TAPS = st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1, allow_nan=False)), max_size=9)
RATINGS = st.lists(st.tuples(st.floats(0.1, 1), st.floats(0, 0.5)), min_size=16, max_size=16)


@settings(max_examples=300)
@given(a=TAPS, b=TAPS, ratings=RATINGS, most=st.integers(0, 4), first=st.integers(1, 20))
def test_few_pairs_give_the_best_sum_of_all(a, b, ratings, most, first):
    def score(one, other):
        weight, cost = ratings[4 * one[0] + other[0]]
        return weight * (1 - abs(one[1] - other[1])) - cost

    table = np.array([[score(one, other) for other in b] for one in a]).reshape(len(a), len(b))
    kept, scores.FIRST = scores.FIRST, first
    try:
        chosen = scores.best_pairs(a, b, lambda one, other: ratings[4 * one + other], most)
    finally:
        scores.FIRST = kept
    best = sum(table[pair] for pair in align(table, most))
    assert len(chosen) <= most
    assert all(i < k and j < m for (i, j), (k, m) in pairwise(chosen))
    assert abs(sum(table[pair] for pair in chosen) - best) < 1e-9


def test_ten_thousand_taps_take_few_pairs():
    taps = [("map", position / 10_000) for position in range(10_000)]
    chosen = scores.best_pairs(taps, taps, lambda *_: (1.0, 0.0), 6)
    assert len(chosen) == 6
    assert all(i == j for i, j in chosen)
