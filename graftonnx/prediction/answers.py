"""The likeliest classes of an image."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt

from graftonnx.classifier import Classifier
from graftonnx.metadata import Record

DIGITS = 6
"""Decimals of a probability wherever it is written down."""


@dataclass(frozen=True)
class Candidate:
    """A class that an image may be of.

    Attributes:
        index: Of the network's output.
        label: Its name; the index as text where the network has no labels.
        probability: Between 0 and 1, rounded to `DIGITS` decimals.
    """

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Answer:
    """What a network says of an image.

    Attributes:
        image: The file's name.
        candidates: The likeliest classes, the likeliest first; none if the file cannot be read.
        error: Why it cannot be read, else None.
    """

    image: str
    candidates: tuple[Candidate, ...] = ()
    error: str | None = None


def predict(
    classifier: Classifier,
    images: Iterable[str | Path],
    *,
    top: int = 1,
    batch_size: int = 32,
    workers: int = 0,
) -> Iterator[Answer]:
    """Classify image files in order, with memory that does not grow with their number.

    Args:
        classifier: From :func:`graftonnx.open_classifier`.
        images: Names of the files; they may come from a generator.
        top: Likeliest classes to give; at most K are given.
        batch_size: Images that go through the network at once.
        workers: Threads that decode; 0 means one per core.

    Yields:
        An answer for each image; one that cannot be read has an error.
    """
    for found in classifier.predict(map(Path, images), batch_size=batch_size, workers=workers):
        name = spelled(found.path)
        if found.probabilities is None:
            yield Answer(name, error=spelled(found.error or ""))
        else:
            yield Answer(name, likeliest(found.probabilities, classifier.labels, top))


def likeliest(probabilities: NDArray[np.float32], labels: Sequence[str], top: int) -> tuple[Candidate, ...]:
    """Return the `top` likeliest classes of an image.

    Args:
        probabilities: One for each class, [K].
        labels: Class names; may be empty.
        top: How many; at most K are given.
    """
    order = np.argsort(-probabilities, kind="stable")[:top]
    return tuple(
        Candidate(int(i), labels[i] if labels else str(i), round(float(probabilities[i]), DIGITS))
        for i in order
    )


def spelled(path: str | Path) -> str:
    r"""Return a file's name as text that can be written as UTF-8; other bytes become `\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def to_record(answer: Answer) -> dict[str, Any]:
    """Return an answer as a plain object for JSON."""
    return {
        "image": answer.image,
        "classes": [
            {"label": c.label, "index": c.index, "probability": c.probability} for c in answer.candidates
        ],
        "error": answer.error,
    }


def from_json(text: str | bytes) -> Answer:
    """Return the answer of such an object, written as JSON.

    Raises:
        ValueError: If it is none.
    """
    found = _Line.model_validate_json(text, strict=True)
    candidates = (Candidate(c.index, c.label, c.probability) for c in found.classes)
    return Answer(found.image, tuple(candidates), found.error)


class _Class(Record):
    label: str
    index: NonNegativeInt
    probability: float


class _Line(Record):
    image: str
    classes: tuple[_Class, ...]
    error: str | None
