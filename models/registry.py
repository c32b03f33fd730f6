"""The networks of this package by name. PyTorch is imported when one is built, not before."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


MOST_WEIGHTS = 1 << 28
"""Of a network that is built: 1 GiB of them."""

_WIDEST = float(1 << 14)
"""At this width every network has more than `MOST_WEIGHTS`."""


class ChoiceError(ValueError):
    """There is no such network, or it cannot be built as asked."""


@dataclass(frozen=True)
class Entry:
    """A network that can be built.

    Attributes:
        name: What a person types; torchvision's spelling where torchvision has the network.
        summary: One line.
        source: The publication.
        build: Makes the module from `(classes, width)`; its weights are PyTorch's defaults.
        input_size: Height and width it was published with, in pixels.
        smallest_input: The smallest height and width it can run at, in pixels.
        classes: Number of classes it was published with.
        parameters: Elements of its parameters at that size, width 1 and those classes.
        preprocess: Name of the input convention of its published weights.
        classifier: Path of the module whose first dimension is the number of classes.
        scalable: Whether it has a width multiplier.
        optional: Prefixes of keys that a published checkpoint may have and the built network has not.
    """

    name: str
    summary: str
    source: str
    build: Callable[[int, float], nn.Module]
    input_size: int
    smallest_input: int
    classes: int
    parameters: int
    preprocess: str
    classifier: str
    scalable: bool = True
    optional: tuple[str, ...] = ()


def _squeezenet1_0(classes: int, width: float) -> nn.Module:
    from .squeezenet import SqueezeNet

    return SqueezeNet("1.0", classes=classes, width=width)


def _squeezenet1_1(classes: int, width: float) -> nn.Module:
    from .squeezenet import SqueezeNet

    return SqueezeNet("1.1", classes=classes, width=width)


def _inception_v3(classes: int, width: float) -> nn.Module:
    from .inception_v3 import InceptionV3

    return InceptionV3(classes=classes)


def _custom16(classes: int, width: float) -> nn.Module:
    from .custom16 import Custom16

    return Custom16(classes=classes, width=width)


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="squeezenet1_0",
        summary="SqueezeNet 1.0: Fire modules behind a 7x7 stem",
        source="Iandola et al. 2016, arXiv 1602.07360",
        build=_squeezenet1_0,
        input_size=224,
        smallest_input=21,
        classes=1000,
        parameters=1_248_424,
        preprocess="imagenet",
        classifier="classifier.1",
    ),
    Entry(
        name="squeezenet1_1",
        summary="SqueezeNet 1.1: as accurate, about 2.4 times cheaper",
        source="Iandola et al. 2016, arXiv 1602.07360",
        build=_squeezenet1_1,
        input_size=224,
        smallest_input=17,
        classes=1000,
        parameters=1_235_496,
        preprocess="imagenet",
        classifier="classifier.1",
    ),
    Entry(
        name="inception_v3",
        summary="Inception V3 without its auxiliary head",
        source="Szegedy et al. 2015, arXiv 1512.00567",
        build=_inception_v3,
        input_size=299,
        smallest_input=75,
        classes=1000,
        parameters=23_834_568,
        preprocess="inception",
        classifier="fc",
        scalable=False,
        optional=("AuxLogits.",),
    ),
    Entry(
        name="custom16",
        summary="The paper's 16-layer residual CNN",
        source="arXiv 2011.05895",
        build=_custom16,
        input_size=100,
        smallest_input=8,
        classes=10,
        parameters=870_698,
        preprocess="unit",
        classifier="classifier",
    ),
)


def find(name: str) -> Entry:
    """Return the network called `name`; dots and dashes are read as underscores, case does not matter.

    Raises:
        ChoiceError: If there is none; the message names the nearest.
    """
    names = [entry.name for entry in ENTRIES]
    spelled = name.lower().replace(".", "_").replace("-", "_")
    if spelled in names:
        return ENTRIES[names.index(spelled)]
    near = difflib.get_close_matches(spelled, names, n=2)
    hint = (
        f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else f"Choose from {', '.join(names)}."
    )
    raise ChoiceError(f"there is no network '{name}'. {hint}")


def build(name: str, *, classes: int | None = None, width: float = 1.0, seed: int = 0) -> nn.Module:
    """Build a network with seeded random weights (see :mod:`.initialisation`), in eval mode.

    Args:
        name: As for :func:`find`.
        classes: Number of classes; None for the published number.
        width: Multiplies the channels.
        seed: Of the random weights. The global random state is left as it was.

    Raises:
        ChoiceError: If there is no such network, it cannot have these classes or this width, or it would have
            more than `MOST_WEIGHTS`.
    """
    import torch

    from .initialisation import initialise

    entry = find(name)
    if classes is not None and classes < 1:
        raise ChoiceError(f"cannot build {entry.name}: classes (={classes}) must be at least 1")
    if not (math.isfinite(width) and width > 0):
        raise ChoiceError(f"cannot build {entry.name}: width (={width:g}) must be a positive number")
    if width != 1.0 and not entry.scalable:
        raise ChoiceError(
            f"cannot build {entry.name}: it has no width multiplier, width (={width:g}) must be 1"
        )
    classes = entry.classes if classes is None else classes
    with torch.random.fork_rng(devices=[]):
        weights = _count(entry, classes, width)
        if weights > MOST_WEIGHTS:
            raise ChoiceError(
                f"cannot build {entry.name}: with {classes} classes and width {width:g} it has at least "
                f"{weights:,} weights, at most {MOST_WEIGHTS:,} are allowed. Choose fewer classes or a "
                "smaller width"
            )
        torch.manual_seed(seed)
        module = entry.build(classes, width)
        initialise(module)
    return module.eval()


def _count(entry: Entry, classes: int, width: float) -> int:
    """Return how many weights a network has, without memory for them; at least so many beyond the limits."""
    import torch

    with torch.device("meta"):
        module = entry.build(min(classes, MOST_WEIGHTS + 1), min(width, _WIDEST))
    return sum(parameter.numel() for parameter in module.parameters())
