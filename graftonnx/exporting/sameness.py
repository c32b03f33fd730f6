"""Does a folded network compute the same as the network it was made of?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from graftonnx.classifier import softmax
from graftonnx.errors import ModelError, ParityError
from graftonnx.exporting.pictures import random_images
from graftonnx.feeds import Feed, preprocessed
from graftonnx.images import as_input, to_input
from graftonnx.metadata import Preprocess
from graftonnx.runtime import Session, open_session, with_outputs
from graftonnx.weights import Weights

TOLERANCE = 1e-4
"""Of the largest output. Folding rounds each weight once and changes the order of sums: about 1e-6 in
practice for networks of 100 layers; a wrong fold is off by 1e-2 or more."""

SOFTMAX_TOLERANCE = 1e-5
"""Absolute, between ONNX Runtime's softmax of the new logits and float64's."""

HALF_TOLERANCE = 1e-2
"""The same where the source computes in float16, whose rounding is 5e-4 of each value."""

IMAGES = 8
"""Random images that both networks have to agree on."""

Floats = NDArray[np.float32]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Sameness:
    """How far two networks are apart.

    Attributes:
        difference: Largest difference between their outputs, as a share of the largest output.
        tolerance: What that may be at most.
    """

    difference: float
    tolerance: float


def check_same(
    path: Path,
    shapes: Sequence[Shape],
    convention: Preprocess,
    exported: tuple[onnx.ModelProto, Weights],
    new_convention: Preprocess,
    logits: str,
    *,
    uncovered: bool,
) -> Sameness:
    """Run a network and what was made of it on random images.

    The old one runs with every optimisation off, the new one as it will be deployed.

    Args:
        path: The old network.
        shapes: C, H and W of its inputs.
        convention: What they expect.
        exported: The new network, and its large tensors.
        new_convention: What its inputs expect.
        logits: The value in it that stands for the old output.
        uncovered: Whether the old output is the softmax of that value.

    Raises:
        ModelError: If the old network gives numbers that are not finite.
        ParityError: If they differ by more than rounding explains.
    """
    model, weights = exported
    old = open_session(path, provider="cpu", optimise=False)
    new = open_session(with_outputs(model, [logits]), weights=weights, provider="cpu")
    feed = Feed(new, new_convention)
    height, width = feed.size
    images = to_input(random_images(IMAGES, *((2 * height, width + 3) if feed.any_size else feed.size)))
    taken = [(c, *images.shape[2:]) if feed.any_size else (c, h, w) for c, h, w in feed.shapes]
    pairs = zip(taken, shapes, strict=True)
    seen = [_as_seen(images, given, shape, in_bytes=new.input_type == np.uint8) for given, shape in pairs]
    inputs = [preprocessed(planes, convention) for planes in seen]
    final = model.graph.output[0].name
    found, last = run_in_batches(new, feed(images), [logits, final])
    given = [_as_fixed(x, shape) for x, shape in zip(inputs, old.input_shapes, strict=True)]
    (expected,) = run_in_batches(old, [x.astype(old.input_type) for x in given], old.output_names[:1])
    if not np.isfinite(expected).all():
        raise ModelError(
            f"cannot export '{path}': it gives numbers that are not finite for random images. "
            "Its weights are damaged, or it was trained to divergence: train again."
        )
    difference = _difference(expected, softmax(found) if uncovered else found)
    tolerance = HALF_TOLERANCE if old.input_type == np.float16 else TOLERANCE
    if not difference <= tolerance:
        raise ParityError(
            f"cannot export '{path}': the folded network differs from it by {difference:.1e} of the largest "
            f"output, at most {tolerance:.0e} is rounding. Nothing is written. Please report this."
        )
    off = float(np.abs(last - softmax(found)).max()) if final != logits else 0.0
    if not off <= SOFTMAX_TOLERANCE:
        raise ParityError(
            f"cannot export '{path}': its probabilities are off by {off:.1e}, at most "
            f"{SOFTMAX_TOLERANCE:.0e} is rounding. Nothing is written. Please report this."
        )
    return Sameness(difference, tolerance)


def _as_seen(images: Floats, given: Shape, shape: Shape, *, in_bytes: bool) -> Floats:
    """Return what the old network has to see where the new one is given images of another shape, or bytes.

    Args:
        images: RGB in 0..1, [N, 3, H, W].
        given: C, H and W of what the new network gets.
        shape: Of what the old one gets.
        in_bytes: Whether the new one gets 8-bit numbers.
    """
    planes = as_input(images, given)
    if in_bytes:
        planes = (np.rint(255 * planes) / 255).astype(np.float32)
    return planes if given == shape else as_input(np.repeat(planes, 3 // given[0], axis=1), shape)


def run_in_batches(session: Session, inputs: Sequence[NDArray[Any]], outputs: Sequence[str]) -> list[Floats]:
    """Run a network in batches of the size that it fixes; return its outputs, each [N, K]."""
    count, fixed = len(inputs[0]), session.input_shape[0]
    step = fixed if isinstance(fixed, int) and fixed > 0 else count
    filled = [np.concatenate([x, np.repeat(x[-1:], -count % step, axis=0)]) for x in inputs]
    parts = [
        session.run(*(x[start : start + step] for x in filled), outputs=list(outputs))
        for start in range(0, count, step)
    ]
    joined = (np.concatenate(column)[:count] for column in zip(*parts, strict=True))
    return [column.reshape(count, -1).astype(np.float32) for column in joined]


def _as_fixed(images: Floats, shape: tuple[int | str | None, ...]) -> Floats:
    """Bring images [N, C, H, W] to the layout of an input."""
    if shape[1] not in (1, 3) and shape[3] in (1, 3):
        return np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    return images


def _difference(expected: Floats, found: Floats) -> float:
    """Return the largest difference as a share of the largest expected number."""
    scale = np.abs(expected).max()
    return float(np.abs(found - expected).max() / scale) if scale > 0 else float(np.abs(found).max())
