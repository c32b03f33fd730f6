"""From float32 to the precision that was asked for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from graftonnx.classifier import Classifier
from graftonnx.exporting.bfloat16 import store_bfloat16
from graftonnx.exporting.float16 import LARGEST, to_float16
from graftonnx.exporting.pictures import Pictures
from graftonnx.exporting.ranges import Inputs, Ranges, value_ranges
from graftonnx.feeds import Feed
from graftonnx.graph import GraphView
from graftonnx.images import Pixels, to_input
from graftonnx.metadata import Precision, Preprocess
from graftonnx.normalise.names import name_nodes
from graftonnx.runtime import open_session
from graftonnx.weights import Weights, split, whole

MARGIN = 4
"""Other images may have values this many times as large as those that were seen."""


def convert(
    model: onnx.ModelProto,
    weights: Weights,
    precision: Precision,
    preprocess: Preprocess,
    pictures: Pictures,
) -> tuple[onnx.ModelProto, Weights, tuple[str, ...]]:
    """Return a network in another precision, and the nodes that stay float32 since they do harm otherwise.

    Args:
        model: The skeleton, which is used up.
        weights: Its large tensors.
        precision: Not `fp32`.
        preprocess: What its inputs expect.
        pictures: What the ranges of its values are taken from.

    Raises:
        UnsupportedOpError: If it cannot be said in that precision, naming a node.
    """
    if precision == "bf16":
        return store_bfloat16(model, weights), weights, ()
    name_nodes(model.graph)
    held = _Held(model, weights, preprocess, pictures)
    ranges = value_ranges(model, weights, held.inputs())
    if precision == "fp16":
        large = _large(model, ranges)
        names = {node.output[0]: node.name for node in model.graph.node}
        return to_float16(model, weights, large), weights, tuple(names[output] for output in large)
    from graftonnx.exporting.int8 import to_int8

    quantised, kept = to_int8(whole(model, weights), ranges, held.classify)
    return *split(quantised), kept


class _Held:
    """Images at the size of a network, in memory."""

    def __init__(
        self, model: onnx.ModelProto, weights: Weights, preprocess: Preprocess, pictures: Pictures
    ) -> None:
        session = open_session(model, weights=weights, provider="cpu")
        self._feed, self._preprocess = Feed(session, preprocess), preprocess
        self._batch = session.input_shape[0] if isinstance(session.input_shape[0], int) else 1
        self._pixels: Pixels = np.concatenate([pixels for pixels, _ in pictures.read(self._feed.size)])

    def inputs(self) -> Iterator[Inputs]:
        """Give the images as the network takes them, batch by batch; what fills none is left out."""
        for start in range(0, len(self._pixels) - self._batch + 1, self._batch):
            yield self._feed(to_input(self._pixels[start : start + self._batch]))

    def classify(self, model: onnx.ModelProto, count: int | None) -> np.ndarray:
        """Return the probabilities [N, K] that a network gives for the first of the images, or for all."""
        session = open_session(model, provider="cpu")
        softmax = session.metadata.activation == "softmax"
        return Classifier(session, self._preprocess, softmax=softmax).probabilities(self._pixels[:count])


def _large(model: onnx.ModelProto, ranges: Ranges) -> list[str]:
    """Return the nodes, by their first output, that read or make what may leave the range of float16."""
    view = GraphView(model.graph)
    large = {name for name, bounds in ranges.items() if MARGIN * max(map(abs, bounds)) > LARGEST}
    return [node.output[0] for node in view.nodes if large & {*node.input, *node.output}]
