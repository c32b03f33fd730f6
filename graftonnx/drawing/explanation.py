"""Why this plan: a page with every pair's score, the chosen pairs, and reasons against the others."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from graftonnx import files, pages
from graftonnx.alignment import Scores
from graftonnx.drawing.figure import PACKAGE
from graftonnx.matching import score_pairs
from graftonnx.network import Network
from graftonnx.pages import TIMES
from graftonnx.plan import Plan
from graftonnx.projections import Policy
from graftonnx.scoring import Pairs
from graftonnx.taps import Tap

SCRIPTS = ("elements.js", "match.js")
"""The parts of the page's script, in their order."""


def explain_plan(
    plan: Plan,
    *parents: Network,
    output: str | Path = "match.html",
    policy: Policy = "near",
    similarity: Mapping[tuple[str, str], Scores] | None = None,
    into: Sequence[str] | None = None,
    force: bool = False,
) -> Path:
    """Write a page that shows why a plan was chosen.

    Args:
        plan: Of :func:`graftonnx.match`.
        *parents: The networks that it was made for.
        output: The page.
        policy: As it was given to `match`.
        similarity: Likewise.
        into: Likewise.
        force: Whether an existing file may be replaced.

    Returns:
        The written file.

    Raises:
        GraftError: If the target exists and `force` is false, or cannot be written.
        ValueError: If `into` names no branch, a wrong one, or one twice.
    """
    output = Path(output)
    files.check_writable(output, force=force)
    scored = score_pairs(*parents, policy=policy, similarity=similarity, into=into)
    named = dict(zip(ascii_lowercase, parents, strict=False))
    files.write_text(output, _rendered(plan, named, scored))
    return output


def _rendered(plan: Plan, parents: Mapping[str, Network], scored: Mapping[tuple[str, str], Pairs]) -> str:
    script = pages.read_scripts(PACKAGE, SCRIPTS)
    sections = [_section(plan, parents, pair, pairs) for pair, pairs in scored.items()]
    return pages.render(
        PACKAGE,
        "match.html",
        title=" + ".join(network.name for network in parents.values()),
        exchanges=len(plan.exchanges),
        sections=sections,
        version=version("graftonnx"),
        policy=pages.policy(script),
        data=pages.embedded([section["data"] for section in sections]),
        script=Markup(script),
    )


def _section(
    plan: Plan, parents: Mapping[str, Network], branches: tuple[str, str], pairs: Pairs
) -> dict[str, Any]:
    """Return what the page shows of two branches."""
    x, y = branches
    chosen = _chosen(plan, branches, pairs)
    return {
        "branches": branches,
        "into": list(itertools.compress(branches, pairs.into)),
        "names": [parents[branch].name for branch in branches],
        "taps": [pairs.first, pairs.second],
        "exchanges": [{i: k for i, _, k in chosen}, {j: k for _, j, k in chosen}],
        "chosen": chosen,
        "size": pairs.scores.shape,
        "scores": _picture(pairs.scores) if pairs.scores.size else None,
        "data": {
            "branches": branches,
            "taps": [[_facts(tap) for tap in taps] for taps in (pairs.first, pairs.second)],
            "kinds": [kinds.tolist() for kinds in pairs.kinds],
            "projections": [
                [cell if isinstance(cell, str) else [str(projection) for projection in cell] for cell in row]
                for row in pairs.projections
            ],
            "into": pairs.into,
            "costs": pairs.costs.tolist(),
            "chosen": chosen,
            "reasons": {
                item.a: [item.b, item.score, item.reason]
                for item in plan.rejections
                if item.a.startswith(f"{x}/") and item.b.startswith(f"{y}/")
            },
        },
    }


def _chosen(plan: Plan, branches: tuple[str, str], pairs: Pairs) -> list[tuple[int, int, int]]:
    """Return the exchanged pairs of taps, each with the number of the exchange, from the input on."""
    x, y = branches
    first, second = (
        {f"{branch}/{tap.name}": index for index, tap in enumerate(taps)}
        for branch, taps in ((x, pairs.first), (y, pairs.second))
    )
    found = []
    for number, exchange in enumerate(plan.exchanges):
        ends = sorted((exchange[0].source, exchange[0].target))
        if ends[0] in first and ends[1] in second:
            found.append((first[ends[0]], second[ends[1]], number))
    return sorted(found)


def _facts(tap: Tap) -> list[Any]:
    return [tap.name, TIMES.strip().join(map(str, tap.shape)), round(tap.depth, 3), tap.spine]


def _picture(scores: Scores) -> str:
    """Return scores as the address of a picture: a pixel for each, opaque where the score is 1."""
    pixels = np.zeros((*scores.shape, 4), np.uint8)
    pixels[..., :3] = [int(pages.palette()["c1"][i : i + 2], 16) for i in (1, 3, 5)]
    pixels[..., 3] = (255 * np.clip(scores, 0, 1)).round()
    content = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(content, format="png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
