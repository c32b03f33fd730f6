"""What stands in a figure, in words: names as far as they fit, shapes, operators, meanings of colours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from graftonnx.costs import WEIGHTED
from graftonnx.drawing.columns import Block, Operator
from graftonnx.drawing.picture import Kind
from graftonnx.drawing.scene import FONT
from graftonnx.pages import TIMES, percent, short
from graftonnx.shapes import Shape

LETTER = 0.6
"""Width of a letter, as a share of its size; that of a wide sans-serif."""

KINDS: dict[Kind, str] = {
    "equal": "skip between equal shapes",
    "resize": "skip with a resizing projection (conv, pool, resize)",
    "hand-made": "skip made by hand",
}
"""What the colours of skips mean."""


def beginning(text: str, width: float) -> str:
    """Return the beginning of a text, as much of it as fits into a width in pixels."""
    most = max(int(width / (LETTER * FONT)), 2)
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"


def ending(text: str, width: float, size: float = FONT) -> str:
    """Return the end of a text, as much of it as fits into a width in pixels."""
    most = max(int(width / (LETTER * size)), 2)
    return text if len(text) <= most else f"\u2026{text[1 - most :]}"


def name_of(block: Block) -> str:
    """Return a block's name without its branch."""
    return block.tap.split("/", 1)[1] if block.tap[1:2] == "/" else block.tap


def spelled(shape: Shape | None) -> str:
    """Return a shape without the batch: 64 × 56 × 56."""
    return "" if shape is None else TIMES.strip().join("?" if e is None else str(e) for e in shape[1:])


def describe(block: Block) -> str:
    """Return what a block is, in words."""
    count = len(block.operators)
    operators = "1 operator" if count == 1 else f"{count} operators"
    shape = spelled(block.shape) or "unknown shape"
    costs = f"{short(block.parameters)} parameters, {short(block.macs)} MACs"
    return f"{block.tap}, {shape}, {operators}, {costs}"


def list_kinds(operators: Iterable[Operator]) -> str:
    """Return the different operators, those with weights first: `Conv 3x3, 2 Relu`."""
    ordered = sorted(operators, key=lambda operator: operator.kind not in WEIGHTED)
    counts = Counter(f"{operator.kind} {operator.about}".strip() for operator in ordered)
    return ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in counts.items())


def strength_scale(strongest: float) -> str:
    """Return in words what the width of skips means."""
    return f"norm of what it adds, relative to its target's, up to {percent(strongest, 1)}."
