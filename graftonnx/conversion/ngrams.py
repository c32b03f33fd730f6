"""Counting runs of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class NGrams(nn.Module):
    """Counts how often known n-grams occur, and weights the counts; nothing here can train.

    Args:
        grams: The known n-grams.
        columns: Where each stands in the result.
        sizes: Smallest and largest n that counts.
        skips: How many tokens may at most lie between two neighbours of an n-gram.
        mode: TF for counts, IDF for the weight of what occurs, TFIDF for the product.
        weights: Of each n-gram; None for 1.
    """

    def __init__(
        self,
        grams: Sequence[tuple[int, ...]],
        columns: Sequence[int],
        sizes: tuple[int, int],
        skips: int,
        mode: str,
        weights: Sequence[float] | None,
    ) -> None:
        super().__init__()
        self.places = {gram: place for place, gram in enumerate(grams)}
        self.columns = list(columns)
        self.sizes = sorted({len(gram) for gram in grams if sizes[0] <= len(gram) <= sizes[1]})
        self.skips = skips
        self.mode = mode
        self.weights = [1.0] * len(self.columns) if weights is None else list(weights)

    def forward(self, x: Tensor) -> Tensor:
        """Return the counts of each row. x: [L] or [N, L] of tokens -> [columns] or [N, columns]."""
        rows = [self._row(tokens) for tokens in (x.tolist() if x.ndim == 2 else [x.reshape(-1).tolist()])]
        y = torch.tensor(rows, dtype=torch.float32, device=x.device)
        return y if x.ndim == 2 else y[0]

    def _row(self, tokens: list[int]) -> list[float]:
        counts = [0] * len(self.columns)
        for size in self.sizes:
            furthest = min(self.skips + 1, (len(tokens) - 1) // (size - 1)) if size > 1 else 1
            for step in range(1, furthest + 1):
                for start in range(len(tokens) - (size - 1) * step):
                    place = self.places.get(tuple(tokens[start : start + (size - 1) * step + 1 : step]))
                    if place is not None:
                        counts[place] += 1
        result = [0.0] * (max(self.columns, default=-1) + 1)
        for count, column, weight in zip(counts, self.columns, self.weights, strict=True):
            if self.mode == "TF":
                result[column] = float(count)
            else:
                result[column] = weight * (count if self.mode == "TFIDF" else min(count, 1))
        return result
