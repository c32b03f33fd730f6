"""One sentence: did the skips help, and did fusing?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from graftonnx.comparison.record import CONCATENATED, Contest

ALPHA = 0.05
"""Below this p a difference counts. "Better than all three" then needs no correction: the chance that all
three tests err is no larger than that of one (Berger, Technometrics 24, 1982)."""

SKIPS = {
    "better": "The skips helped here",
    "worse": "The skips hurt here",
    "open": "The skips did not help here",
}
WHOLE = {"better": "beats", "worse": "loses to", "open": "is not shown to beat"}

Outcome = Literal["better", "worse", "open"]


def verdict(contests: Sequence[Contest], names: Mapping[str, str]) -> str:
    """Return the verdict.

    Args:
        contests: The fused network against the concatenation, which tells what the skips do, and against
            others, which tell whether fusing pays at all.
        names: What each rival is called in a sentence.
    """
    skips = next(contest for contest in contests if contest.rival == CONCATENATED)
    others = [contest for contest in contests if contest is not skips]
    whole = " and ".join(
        f"{WHOLE[outcome(contest)]} {names[contest.rival]} ({figures(contest)})" for contest in others
    )
    return (
        f"{SKIPS[outcome(skips)]}: {points(skips)} against {names[CONCATENATED]} ({certainty(skips)}); "
        f"the fused network {whole}."
    )


def outcome(contest: Contest) -> Outcome:
    """Return what a contest has shown."""
    if contest.p is None or contest.p >= ALPHA:
        return "open"
    return "better" if contest.difference.value > 0 else "worse"


def figures(contest: Contest) -> str:
    """Return the difference for people: `+0.50 points, 95 % interval -0.10 to +1.10, p = 0.21`."""
    return f"{points(contest)}, {certainty(contest)}"


def points(contest: Contest) -> str:
    """Return the difference in percentage points."""
    return f"{100 * contest.difference.value:+.2f} points"


def certainty(contest: Contest) -> str:
    """Return the interval and the p of the difference; seeds that all differ alike leave no interval."""
    if contest.difference.low == contest.difference.high:
        return f"the same for every seed: no interval, {spelled(contest.p)}"
    low, high = 100 * contest.difference.low, 100 * contest.difference.high
    return f"95 % interval {low:+.2f} to {high:+.2f}, {spelled(contest.p)}"


def spelled(p: float | None) -> str:
    """Return a p for people."""
    if p is None:
        return "no p"
    return f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"
