"""The nearest known names to one that nobody knows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST = 2
"""Names that are suggested at once."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'fuse'?` for the known names that look like `name`, `""` where none does.

    Args:
        name: What was given; upper and lower case count as the same.
        known: What could have been given.
    """
    folded = {candidate.casefold(): candidate for candidate in known}
    near = difflib.get_close_matches(name.casefold(), folded, n=MOST)
    return f" Did you mean {' or '.join(repr(folded[candidate]) for candidate in near)}?" if near else ""


def is_like(name: str, other: str) -> bool:
    """Return whether two names look alike; upper and lower case count as the same."""
    return bool(difflib.get_close_matches(name.casefold(), [other.casefold()]))
