"""The range of every value in a network, over images: what a narrower number format has to hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from graftonnx.graph import GraphView
from graftonnx.normalise.types import element_types
from graftonnx.runtime import open_session, with_outputs
from graftonnx.weights import Weights

MOST_BYTES = 1 << 28
"""Contents of values that are in memory at once."""

Inputs = tuple[NDArray[Any], ...]
Ranges = dict[str, tuple[float, float]]


def value_ranges(model: onnx.ModelProto, weights: Weights, batches: Iterable[Inputs]) -> Ranges:
    """Return the least and the largest number in every float value, over all batches.

    Args:
        model: The skeleton, with the shapes of its values.
        weights: Its large tensors.
        batches: What to run it on, an array for each input; it is gone through more than once.
    """
    given = list(batches)
    floats = {name for name, kind in element_types(model.graph).items() if kind == TensorProto.FLOAT}
    view = GraphView(model.graph)
    made = [name for name in view.producer if name in floats]
    images = max((len(arrays[0]) for arrays in given), default=1)
    ranges: Ranges = {
        name: (
            min(float(arrays[index].min()) for arrays in given),
            max(float(arrays[index].max()) for arrays in given),
        )
        for index, name in enumerate(view.inputs)
        if name in floats
    }
    for group in _groups({name: 4 * images * _elements(view, name) for name in made}):
        session = open_session(with_outputs(model, group), weights=weights, provider="cpu", optimise=False)
        for arrays in given:
            for name, values in zip(group, session.run(*arrays, outputs=group), strict=True):
                low, high = float(values.min()), float(values.max())
                before = ranges.get(name, (low, high))
                ranges[name] = min(low, before[0]), max(high, before[1])
    return ranges


def _elements(view: GraphView, name: str) -> int:
    return math.prod(extent or 1 for extent in view.shapes.get(name, ()))


def _groups(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Part values so that the contents of each group fit into memory."""
    group: list[str] = []
    total = 0
    for name, size in sizes.items():
        if group and total + size > MOST_BYTES:
            yield group
            group, total = [], 0
        group.append(name)
        total += size
    if group:
        yield group
