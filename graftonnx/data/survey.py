"""What a person should know about the data before trusting a network trained on it."""

from __future__ import annotations

import json
from collections import Counter

from graftonnx.data.cache import SHOWN, Loaded, described
from graftonnx.data.splits import Split

UNEVEN = 5
"""How many times more training images than the smallest the largest class may have without a remark."""


def counts(split: Split) -> dict[str, dict[str, int]]:
    """Return the number of images of each class in each part."""
    parts = {
        part: Counter(sample.label for sample in samples)
        for part, samples in (("train", split.train), ("val", split.val), ("test", split.test))
    }
    return {
        name: {part: counter[label] for part, counter in parts.items()}
        for label, name in enumerate(split.classes)
    }


def remarks(loaded: Loaded) -> list[str]:
    """Return a sentence on each thing that is amiss: bad images, uneven classes, leaks."""
    found = []
    split, bad, twins = loaded.split, loaded.bad, loaded.twins
    if bad:
        total = len(bad) + len(split.train) + len(split.val)
        found.append(f"note: {len(bad)} of {total} images cannot be decoded, left out: {described(bad)}")
    train = {name: parts["train"] for name, parts in counts(split).items()}
    most, least = max(train, key=lambda name: train[name]), min(train, key=lambda name: train[name])
    if train[most] > UNEVEN * train[least]:
        found.append(
            f"note: the classes are uneven: {train[most]} training images of '{most}', {train[least]} of "
            f"'{least}'; look at the recall of each class, not at the accuracy alone"
        )
    if twins:
        shown = ", ".join(f"'{val}' is '{train}'" for val, train in twins[:SHOWN])
        more = f" and {len(twins) - SHOWN} more" if len(twins) > SHOWN else ""
        found.append(
            f"note: {len(twins)} of {len(split.val)} validation images also train, byte for byte ({shown}"
            f"{more}): the validation accuracy is too good by up to {len(twins) / len(split.val):.1%}"
        )
    return found


def few(split: Split, shots: int) -> str | None:
    """Return a sentence if a class has fewer training images than `shots`."""
    short = [name for name, parts in counts(split).items() if parts["train"] < shots]
    if not short:
        return None
    shown = ", ".join(repr(name) for name in short[:SHOWN])
    more = f" and {len(short) - SHOWN} more" if len(short) > SHOWN else ""
    return f"note: {shown}{more}: fewer training images than --shots {shots}, all are taken"


def to_json(where: str, loaded: Loaded) -> str:
    """Return all that :func:`remarks` is about, in full: counts, bad images, and images that leak."""
    record = {
        "data": where,
        "images": counts(loaded.split),
        "bad_images": [image._asdict() for image in loaded.bad],
        "leaks": [{"val": val, "train": train} for val, train in loaded.twins],
    }
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"
