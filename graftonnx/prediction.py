"""What the classify commands share: which image files are meant, and the likeliest classes of each."""

from __future__ import annotations

import csv
import glob
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graftonnx.errors import DataError
from graftonnx.images import EXTENSIONS, natural_key

DIGITS = 6
"""Decimals of a probability in CSV and JSON."""


@dataclass(frozen=True)
class Candidate:
    """A class that an image may be of.

    Attributes:
        index: Of the network's output.
        label: Its name; the index as text where the network has no labels.
        probability: Between 0 and 1.
    """

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Answer:
    """The likeliest classes of an image, the likeliest first."""

    image: Path
    candidates: tuple[Candidate, ...]


def find_images(arguments: Sequence[str]) -> list[Path]:
    """List the image files that files, folders and glob patterns mean, in the order given.

    A folder means every visible image at any depth, in natural order. A file is taken whatever its name is.

    Raises:
        DataError: If an argument means nothing.
    """
    found: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            inside = _images_below(path)
            if not inside:
                raise DataError(
                    f"cannot classify '{argument}': no image file is in this folder "
                    f"(looked for {', '.join(sorted(EXTENSIONS))})."
                )
            found += inside
        elif path.exists():
            found.append(path)
        elif glob.has_magic(argument):
            matches = sorted(glob.glob(argument, recursive=True), key=natural_key)
            files = [Path(match) for match in matches if Path(match).is_file()]
            if not files:
                raise DataError(f"cannot classify '{argument}': no file matches this pattern.")
            found += files
        else:
            raise DataError(f"cannot classify '{argument}': there is no such file or folder.")
    return found


def answer(image: Path, probabilities: NDArray[np.float32], labels: Sequence[str], top: int) -> Answer:
    """Return the `top` likeliest classes of an image.

    Args:
        image: The file.
        probabilities: One for each class, [K].
        labels: Class names; may be empty.
        top: How many; at most K are given.
    """
    order = np.argsort(-probabilities, kind="stable")[:top]
    return Answer(
        image,
        tuple(Candidate(int(i), labels[i] if labels else str(i), float(probabilities[i])) for i in order),
    )


def to_csv(answers: Iterable[Answer], top: int) -> str:
    """Return answers as CSV: `image,label_1,probability_1,label_2,…`, one line each image."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["image", *(f"{what}_{k}" for k in range(1, top + 1) for what in ("label", "probability"))]
    )
    for row in answers:
        cells = [(c.label, f"{c.probability:.{DIGITS}f}") for c in row.candidates]
        writer.writerow([row.image, *(cell for pair in cells for cell in pair)])
    return text.getvalue()


def to_records(answers: Iterable[Answer]) -> list[dict[str, object]]:
    """Return answers as plain objects for JSON."""
    return [
        {
            "image": str(row.image),
            "classes": [
                {"label": c.label, "index": c.index, "probability": round(c.probability, DIGITS)}
                for c in row.candidates
            ],
        }
        for row in answers
    ]


def _images_below(folder: Path) -> list[Path]:
    """List the visible image files at any depth, in natural order."""
    files = (
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in EXTENSIONS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    return sorted(files, key=lambda path: natural_key(path.relative_to(folder).as_posix()))
