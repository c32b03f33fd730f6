"""Which images train, which validate, and which are left for a final test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from graftonnx.data.catalogue import Data, Sample
from graftonnx.errors import DataError
from graftonnx.reading import beside, read_text

SHOTS_STREAM = 1
"""Keeps the random choice of few-shot images apart from that of the validation images."""


@dataclass(frozen=True)
class Split:
    """Which images train, which validate, and which are left for a final test.

    Attributes:
        classes: Class names; a sample's label indexes them.
        train: Images to learn from.
        val: Images to choose the best epoch by.
        test: Images that training never sees; may be empty.
    """

    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...] = ()

    def reordered(self, classes: Sequence[str]) -> Split:
        """Return the same split with labels that index `classes`, a permutation of its own.

        The samples come class by class, in the order in which :func:`read_split` would give them.

        Raises:
            ValueError: If `classes` is not a permutation.
        """
        if sorted(classes) != sorted(self.classes):
            raise ValueError(f"{list(classes)} is not a permutation of {list(self.classes)}")
        position = [list(classes).index(name) for name in self.classes]
        parts = (
            tuple(sorted((Sample(s.name, position[s.label]) for s in part), key=lambda s: s.label))
            for part in (self.train, self.val, self.test)
        )
        return Split(tuple(classes), *parts)

    def few_shot(self, shots: int, seed: int) -> Split:
        """Return the same split with at most `shots` training images of each class.

        The choice within a class depends on the seed and on that class's training images alone; fewer shots
        are a part of more.
        """
        chosen: set[Sample] = set()
        for label, members in enumerate(_by_class(self.train, len(self.classes))):
            order = np.random.default_rng([seed, label, SHOTS_STREAM]).permutation(len(members))
            chosen.update(members[i] for i in order[:shots])
        return replace(self, train=tuple(s for s in self.train if s in chosen))

    def to_json(self) -> str:
        """Return the split as JSON: for each part and class the names."""
        parts = {
            name: {
                c: [s.name for s in members]
                for c, members in zip(self.classes, _by_class(part, len(self.classes)), strict=True)
            }
            for name, part in (("train", self.train), ("val", self.val), ("test", self.test))
        }
        return json.dumps({"classes": self.classes, **parts}, indent=1, ensure_ascii=False) + "\n"


def split(data: Data, val_fraction: float, seed: int) -> Split:
    """Choose the validation images: those that the data names if it does, else the same share of each class.

    The choice within a class depends on the seed and on that class's images alone.

    Args:
        data: The labelled images.
        val_fraction: Share of each class that validates, between 0 and 1; at least one image, never all.
        seed: Seed of the choice.

    Raises:
        DataError: If a class has fewer than two images and must be divided.
        ValueError: If `val_fraction` is not between 0 and 1.
    """
    if data.val:
        return Split(data.classes, data.train, data.val, data.test)
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction must be between 0 and 1, not {val_fraction}")
    train: list[Sample] = []
    val: list[Sample] = []
    for label, members in enumerate(_by_class(data.train, len(data.classes))):
        if len(members) < 2:
            raise DataError(
                f"cannot split '{data.where}': class '{data.classes[label]}' has {len(members)} image, at "
                "least 2 are needed (one to train, one to validate). Add images, or give a val/ folder."
            )
        share = min(max(round(len(members) * val_fraction), 1), len(members) - 1)
        chosen = set(np.random.default_rng([seed, label]).permutation(len(members))[:share].tolist())
        train += [s for i, s in enumerate(members) if i not in chosen]
        val += [s for i, s in enumerate(members) if i in chosen]
    return Split(data.classes, tuple(train), tuple(val), data.test)


def read_split(path: Path, data: Data) -> Split:
    """Read a split that :meth:`Split.to_json` wrote, for the images of `data`.

    Raises:
        DataError: If the file cannot be read, is not a split, or names an image that is not in `data`, that
            is of another class there, or that it has named before.
    """
    try:
        table = json.loads(read_text(path))
        classes = tuple(str(name) for name in table["classes"])
        train, val, test = (
            tuple(Sample(str(p), k) for k, name in enumerate(classes) for p in table[part][name])
            for part in ("train", "val", "test")
        )
    except OSError as error:
        raise DataError(f"cannot read the split '{path}': {error.strerror}.{beside(path)}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"cannot read the split '{path}': it is not a split that graftonnx wrote ({error!r}). Give the "
            "split.json of a run."
        ) from error
    if not train or not val:
        raise DataError(
            f"cannot use the split '{path}': it needs images to train and images to validate. Make it anew."
        )
    left = {s.name: data.classes[s.label] for s in (*data.train, *data.val, *data.test)}
    known = left.copy()
    for name, label in (*train, *val, *test):
        if name not in known:
            raise DataError(
                f"cannot use the split '{path}': it names '{name}', which is not in '{data.where}'. "
                "Give the data that the split was made from."
            )
        if known[name] != classes[label]:
            raise DataError(
                f"cannot use the split '{path}': '{name}' is of class '{classes[label]}' there and of class "
                f"'{known[name]}' in '{data.where}'. Give the data that the split was made from."
            )
        if left.pop(name, None) is None:
            raise DataError(f"cannot use the split '{path}': it names '{name}' twice. Make it anew.")
    return Split(classes, train, val, test)


def _by_class(samples: Sequence[Sample], classes: int) -> list[list[Sample]]:
    """Return the samples of each class, in order."""
    members: list[list[Sample]] = [[] for _ in range(classes)]
    for sample in samples:
        members[sample.label].append(sample)
    return members
