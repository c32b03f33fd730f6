"""The findings as pictures for slides and mails: `confusion.png`, `skips.png`, `mistakes.png`."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from graftonnx import plotting
from graftonnx.evaluation import Evaluation
from graftonnx.files import atomic
from graftonnx.images import Pixels
from graftonnx.training.report.strength import Strength
from graftonnx.training.report.validation import Mistake

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COUNTED, NAMED = 20, 40
"""Classes up to which a confusion matrix shows its counts, and its classes' names."""

LONGEST = 24
"""Letters of a class name beside a confusion matrix."""

COLUMNS, THUMB, GAP, CAPTION = 6, 128, 16, 40
"""Of the mistakes' grid: pictures in a row; pixels of a picture, between pictures, and below them."""

BLUE, ORANGE = "#0072b2", "#c4550b"
COLOURS = (BLUE, ORANGE, "#007a5e", "#a0527f")


def draw_confusion(path: Path, evaluation: Evaluation) -> None:
    """Draw the confusion matrix, each row as shares of its class."""
    plotting.load()
    from matplotlib.colors import LinearSegmentedColormap

    count = len(evaluation.labels)
    shares = evaluation.confusion / np.maximum(evaluation.confusion.sum(1, keepdims=True), 1)
    side = 3 + 0.3 * count if count <= NAMED else 8
    with _figure(path, side, side) as figure:
        axes = figure.subplots()
        axes.imshow(shares, cmap=LinearSegmentedColormap.from_list("blue", ["white", BLUE]), vmin=0, vmax=1)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.tick_params(length=0)
        axes.spines[:].set_color("#cccccc")
        if count <= NAMED:
            names = [shorten(label) for label in evaluation.labels]
            axes.set_xticks(range(count), names, rotation=90, parse_math=False)
            axes.set_yticks(range(count), names, parse_math=False)
        if count <= COUNTED:
            for i, j in zip(*np.nonzero(evaluation.confusion), strict=True):
                colour = "white" if shares[i, j] > 0.5 else "black"
                axes.text(j, i, str(evaluation.confusion[i, j]), ha="center", va="center", color=colour)


def draw_strengths(path: Path, strengths: Sequence[Strength]) -> None:
    """Draw how much each skip adds, by the depth of its target."""
    with _figure(path, 7, 4) as figure:
        axes = figure.subplots()
        for (branch, points), colour in zip(by_branch(strengths), itertools.cycle(COLOURS), strict=False):
            depths, shares = zip(*points, strict=True)
            axes.plot(depths, [100 * share for share in shares], marker="o", color=colour)
            end = depths[-1], 100 * shares[-1]
            axes.annotate(
                f"into {branch}", end, (8, 0), textcoords="offset points", va="center", color=colour
            )
        axes.set_xlim(0, 1.1)
        axes.set_ylim(bottom=-0.03 * axes.get_ylim()[1])
        axes.set_xlabel("depth of the target in its branch")
        axes.set_ylabel("added norm, % of the target's")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)


def shorten(name: str) -> str:
    """Return a class name that leaves room for a picture beside it."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def by_branch(strengths: Sequence[Strength]) -> list[tuple[str, list[tuple[float, float]]]]:
    """Return for each branch that skips lead into their depths and shares, by depth."""
    branches: dict[str, list[tuple[float, float]]] = {}
    for skip in sorted(strengths, key=lambda skip: skip.depth):
        if skip.share is not None:
            branches.setdefault(skip.target.split("/")[0], []).append((skip.depth, skip.share))
    return sorted(branches.items())


def draw_mistakes(path: Path, mistakes: Sequence[Mistake], images: Sequence[Pixels]) -> None:
    """Draw the mistakes as a grid, each over what it was taken for and what it is."""
    sheet = Image.new("RGB", grid_size(len(mistakes)), "white")
    draw = ImageDraw.Draw(sheet)
    font = _font()
    for place, (mistake, pixels) in enumerate(zip(mistakes, images, strict=True)):
        left, top, right, bottom = picture_box(place, pixels.shape[:2])
        small = max(pixels.shape[:2]) < THUMB / 2
        filter = Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC
        sheet.paste(Image.fromarray(pixels).resize((right - left, bottom - top), filter), (left, top))
        x, y = _slot(place)
        lines = ((f"{mistake.predicted} {mistake.probability:.0%}", ORANGE), (f"is {mistake.true}", "black"))
        for number, (text, colour) in enumerate(lines):
            draw.text((x, y + THUMB + 4 + 17 * number), _fitting(text, font), fill=colour, font=font)
    with atomic(path) as temporary:
        sheet.save(temporary, format="png", optimize=True)


def grid_size(count: int) -> tuple[int, int]:
    """Return width and height of the grid of so many mistakes, in pixels."""
    columns, rows = min(count, COLUMNS), -(-count // COLUMNS)
    return GAP + columns * (THUMB + GAP), GAP + rows * (THUMB + CAPTION + GAP)


def picture_box(place: int, size: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return where an image of `size` (height, width) lies in the grid: left, top, right, bottom."""
    x, y = _slot(place)
    height, width = (max(round(extent * THUMB / max(size)), 1) for extent in size)
    left, top = x + (THUMB - width) // 2, y + (THUMB - height) // 2
    return left, top, left + width, top + height


def _slot(place: int) -> tuple[int, int]:
    """Return left and top of a place in the grid."""
    row, column = divmod(place, COLUMNS)
    return GAP + column * (THUMB + GAP), GAP + row * (THUMB + CAPTION + GAP)


def _fitting(text: str, font: ImageFont.FreeTypeFont) -> str:
    """Return a text, or what of it fits below a picture."""
    text = " ".join(text.split())
    if font.getlength(text) <= THUMB:
        return text
    while text and font.getlength(f"{text}…") > THUMB:
        text = text[:-1]
    return f"{text}…"


def _font() -> ImageFont.FreeTypeFont:
    """Return matplotlib's own font, which is everywhere and has most alphabets."""
    plotting.load()
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), 13)


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of that many inches; write it to `path` as PNG."""
    with plotting.figure(width, height) as figure:
        yield figure
        with atomic(path) as temporary, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
            figure.savefig(temporary, format="png")
