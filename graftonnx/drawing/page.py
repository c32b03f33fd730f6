"""The page of a picture: the figure, what every part of it is, and the plan, to switch skips on and off."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

from markupsafe import Markup

from graftonnx import documents, pages
from graftonnx.drawing.columns import Operator
from graftonnx.drawing.figure import PACKAGE, inline_svg
from graftonnx.drawing.labels import KINDS, spelled, strength_scale
from graftonnx.drawing.picture import Picture
from graftonnx.drawing.scene import Scene
from graftonnx.plan import Plan, Skip

MOST_ROWS = 25
"""Rows of a table that are shown at once; the others unfold."""


SCRIPTS = ("elements.js", "data.js", "details.js", "moving.js", "search.js", "plan.js")
"""The parts of the page's script, in their order."""


def render_page(picture: Picture, scene: Scene) -> str:
    """Return the page of a picture as HTML.

    Args:
        picture: What to show.
        scene: Its figure.
    """
    script = pages.read_scripts(PACKAGE, SCRIPTS)
    shown = {arc.kind for arc in picture.arcs}
    return pages.render(
        PACKAGE,
        "view.html",
        picture=picture,
        figure=inline_svg(scene),
        kinds=[(kind, meaning) for kind, meaning in KINDS.items() if kind in shown],
        scale=None if picture.strongest is None else strength_scale(picture.strongest),
        parents=shlex.join(column.name for column in picture.columns),
        most_rows=MOST_ROWS,
        version=version("graftonnx"),
        policy=pages.policy(script),
        data=pages.embedded(describe(picture, scene)),
        script=Markup(script),
    )


def describe(picture: Picture, scene: Scene) -> dict[str, Any]:
    """Return what the page's script knows of a picture, as JSON values.

    Operators are numbered in the order of the blocks; of each there is an entry in `kind`, `about`, `shape`
    (numbers in tables), `values`, `names` (front-coded), `parameters`, `macs` and `reads`: how many operators
    before it stands one that it reads, or the name of a value from elsewhere.
    """
    operators = [o for column in picture.columns for block in column.blocks for o in block.operators]
    counts = [len(block.operators) for column in picture.columns for block in column.blocks]
    starts = list(itertools.accumulate(counts, initial=0))
    taps = [spelled(block.shape) for column in picture.columns for block in column.blocks]
    letters = [c for c, column in enumerate(picture.columns) for _ in column.blocks]
    first = list(itertools.accumulate((len(column.blocks) for column in picture.columns), initial=0))
    head_start = len(operators)
    operators += picture.head
    return {
        "columns": [
            {"letter": column.letter, "name": column.name, "prefix": _prefix(column.blocks)}
            for column in picture.columns
        ],
        "blocks": [list(entry) for entry in zip(letters, starts, counts, taps, strict=False)],
        "boxes": {
            key: [first[column] + index for index in members]
            for key, (column, members) in scene.blocks.items()
        },
        "head": [head_start, len(picture.head)],
        **_table("kinds", "kind", [operator.kind for operator in operators]),
        **_table("abouts", "about", [operator.about for operator in operators]),
        **_table("shapes", "shape", [spelled(operator.shape) for operator in operators]),
        "values": front_coded([operator.value for operator in operators]),
        "names": front_coded([o.name for o in operators], [o.value for o in operators]),
        "parameters": [operator.parameters for operator in operators],
        "macs": [operator.macs for operator in operators],
        "reads": _reads(operators),
        "skips": [
            {
                "key": f"s{index}",
                "exchange": arc.exchange,
                "source": arc.skip.source,
                "target": arc.skip.target,
                "projection": str(arc.skip.projection),
                "score": arc.skip.score,
                "share": arc.share,
                "parameters": arc.parameters,
                "macs": arc.macs,
                "yaml": _item(arc.skip),
            }
            for index, arc in enumerate(picture.arcs)
        ],
        "plan": picture.plan and len(picture.columns) > 1 and _beginning(picture.plan),
    }


def front_coded(texts: Sequence[str], others: Sequence[str] | None = None) -> dict[str, list[Any]]:
    """Return texts by what each shares with the one before (or with its place in `others`), and the rest.

    Lengths are those of JavaScript, in UTF-16.
    """
    known = others if others is not None else ["", *texts][: len(texts)]
    shared = [_shared(*pair) for pair in zip(texts, known, strict=True)]
    return {
        "shared": [len(text[:n].encode("utf-16-le")) // 2 for text, n in zip(texts, shared, strict=True)],
        "rest": [text[n:] for text, n in zip(texts, shared, strict=True)],
    }


def _shared(text: str, other: str) -> int:
    """Return the length of the beginning that two texts share."""
    least = min(len(text), len(other))
    return next((n for n in range(least) if text[n] != other[n]), least)


def _prefix(blocks: Sequence[Any]) -> str:
    """Return what plans put before the names of a branch's values."""
    last = blocks[-1]
    return str(last.tap.removesuffix(last.operators[-1].value))


def _table(name: str, entries: str, values: Iterable[str]) -> dict[str, Any]:
    """Return the different values under one name, and for each its number under another."""
    numbers: dict[str, int] = {}
    indices = [numbers.setdefault(value, len(numbers)) for value in values]
    return {name: list(numbers), entries: indices}


def _reads(operators: Sequence[Operator]) -> list[list[int | str]]:
    made = {operator.value: index for index, operator in enumerate(operators)}
    return [
        [index - made[name] if name in made else name for name in operator.reads]
        for index, operator in enumerate(operators)
    ]


def _beginning(plan: Plan) -> str:
    """Return a plan file up to its skips."""
    return documents.dump(plan.model_dump(mode="json", exclude={"skips", "rejections"}))


def _item(skip: Skip) -> str:
    """Return a skip as an item of a plan file's list."""
    return documents.dump({"skips": [skip.model_dump(mode="json")]}).removeprefix("skips:\n")
