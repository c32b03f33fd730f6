"""What every format comes down to: classes, samples in three parts, and a store that gives the images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from graftonnx.errors import DataError
from graftonnx.images import Content, natural_key

Part = Literal["train", "val", "test"]

PARTS: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names that mean a part of a predefined split, lower case."""

LABELS = ("label", "labels", "fine_label", "cls", "class", "target", "category", "json", "txt")
"""Columns that may hold the label, the likeliest first; of `json` the same names inside."""

_PART = re.compile(r"(?:^|[^a-z])(" + "|".join(sorted(PARTS, reverse=True)) + r")(?![a-z])")
"""A part in the name of a file."""


class Sample(NamedTuple):
    """One labelled image.

    Attributes:
        name: Its name in the data: a path with forward slashes, or `<part>/<row>`.
        label: Index into the classes.
    """

    name: str
    label: int


class Store(Protocol):
    """Where the images are."""

    def contents(self, names: Sequence[str]) -> Iterable[tuple[int, Content]]:
        """Give the named images, each with its place in `names`, in the order that is cheapest to read.

        Raises:
            DataError: If the whole store cannot be read; what is wrong with one image is found in decoding.
        """
        ...


@dataclass(frozen=True)
class Data:
    """Labelled images.

    Attributes:
        where: What the user calls them: a path, or `hf:` and a name.
        classes: Class names in natural order; a sample's label indexes them.
        train: All images, or those to learn from where the data comes split.
        val: The images that validate, where the data says so.
        test: The images for a final test, where the data says so.
        store: Gives the images.
    """

    where: str
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...]
    store: Store = field(compare=False)


def catalogue(where: str, parts: Mapping[Part, Iterable[tuple[str, str]]], store: Store) -> Data:
    """Number the classes and check that the parts fit each other.

    Args:
        where: What the user calls the data.
        parts: For each part the name and the class of every image.
        store: Gives the images.

    Raises:
        DataError: If a name is no text or occurs twice, nothing trains, there is one class, or a validation
            or test class has no training images.
    """
    listed = {part: list(rows) for part, rows in parts.items()}
    _check_text(where, "class", {label for rows in listed.values() for _, label in rows})
    _check_names(where, [name for rows in listed.values() for name, _ in rows])
    classes = sorted({label for _, label in listed.get("train", ())}, key=natural_key)
    if not classes:
        raise DataError(f"cannot learn from '{where}': it holds no labelled training images. Add some.")
    if len(classes) == 1:
        raise DataError(
            f"cannot learn from '{where}': it has only one class, '{classes[0]}', at least 2 are "
            "needed. Add images of another."
        )
    number = {name: label for label, name in enumerate(classes)}
    samples: dict[Part, tuple[Sample, ...]] = {}
    for part, rows in listed.items():
        foreign = next((label for _, label in rows if label not in number), None)
        if foreign is not None:
            raise DataError(
                f"cannot use the {part} images of '{where}': class '{foreign}' has no training images. "
                f"Training classes are {', '.join(repr(name) for name in classes)}."
            )
        samples[part] = tuple(Sample(name, number[label]) for name, label in rows)
    return Data(
        where, tuple(classes), samples["train"], samples.get("val", ()), samples.get("test", ()), store
    )


def part_of(path: Path) -> Part:
    """Return the part in the name of one of several files, as in `val-00001.parquet`; else `train`."""
    found = _PART.search(path.stem.lower())
    return PARTS[found[1]] if found else "train"


def _check_text(where: str, what: str, names: Iterable[str]) -> None:
    """Refuse names that no text file can hold: bytes that are not UTF-8, and halves of characters."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"cannot use '{where}': the name of its {what} {name!a} is not UTF-8 text. Rename it."
            ) from error


def _check_names(where: str, names: Sequence[str]) -> None:
    _check_text(where, "image", names)
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"cannot use '{where}': it names '{name}' twice. Name each image once.")
        seen.add(name)
