"""Tokens of text; text itself has no PyTorch form."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from graftonnx.conversion.builder import Builder
from graftonnx.conversion.ngrams import NGrams
from graftonnx.conversion.registry import op
from graftonnx.conversion.values import Result, Value
from graftonnx.errors import UnsupportedOpError


@op("TfIdfVectorizer", since=9)
def tf_idf_vectorizer(
    g: Builder,
    x: Value,
    *,
    max_gram_length: int,
    max_skip_count: int,
    min_gram_length: int,
    mode: str,
    ngram_counts: Sequence[int],
    ngram_indexes: Sequence[int],
    pool_int64s: Sequence[int] | None = None,
    pool_strings: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
) -> Result:
    """How often known n-grams occur. x: [L] or [N, L] of tokens -> [columns] or [N, columns]."""
    if pool_strings is not None or pool_int64s is None:
        raise UnsupportedOpError("its tokens are strings, PyTorch has none.")
    if mode not in ("TF", "IDF", "TFIDF"):
        raise UnsupportedOpError(f"mode is '{mode}', expected TF, IDF or TFIDF.")
    grams: list[tuple[int, ...]] = []
    for size, (start, end) in enumerate(itertools.pairwise([*ngram_counts, len(pool_int64s)]), 1):
        if not 0 <= start <= end <= len(pool_int64s) or (end - start) % size:
            raise UnsupportedOpError(
                f"ngram_counts {list(ngram_counts)} does not divide its pool into n-grams."
            )
        grams += [tuple(pool_int64s[i : i + size]) for i in range(start, end, size)]
    if len(set(grams)) < len(grams) or len(set(ngram_indexes)) < len(ngram_indexes):
        raise UnsupportedOpError("an n-gram or a column is named twice.")
    if min(ngram_indexes, default=0) < 0:
        raise UnsupportedOpError(f"ngram_indexes names column {min(ngram_indexes)}, expected 0 or more.")
    if len(grams) != len(ngram_indexes) or len(weights or grams) != len(grams):
        raise UnsupportedOpError(f"it has {len(grams)} n-grams, but not as many columns and weights.")
    sizes = (min_gram_length, max_gram_length)
    return g.layer(NGrams(grams, ngram_indexes, sizes, max_skip_count, mode, weights), g.frozen(x))
