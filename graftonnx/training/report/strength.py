"""How much each skip of a trained network carries: what its projection adds, against what it is added to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from graftonnx.costs import WEIGHTED
from graftonnx.graph import GraphView
from graftonnx.metadata import Record, read_metadata
from graftonnx.plan import Skip, from_metadata
from graftonnx.splice import named_skips


class Strength(Record):
    """What one skip carried on the validation images.

    Attributes:
        exchange: Number of the exchange, as `fuse` prints it.
        source: The tap that is read.
        target: The tap that is added to.
        depth: Share of the weight layers of the target's branch that lie before the target, 0..1.
        added: Root mean square over images of the norm of what is added.
        onto: Likewise of the target itself.
    """

    exchange: int
    source: str
    target: str
    depth: float
    added: float
    onto: float

    @property
    def share(self) -> float | None:
        """The norm of what is added, relative to that of the target; None where the target is all zeros."""
        return self.added / self.onto if self.onto else None


class Probe(NamedTuple):
    """A skip in the graph: the value that it adds, and the depth of its target."""

    exchange: int
    skip: Skip
    depth: float
    added: str


def find_probes(model: onnx.ModelProto) -> tuple[Probe, ...]:
    """Return the skips of a fused file; one whose sum a user's own surgery has replaced is left out."""
    metadata = read_metadata(model)
    if metadata.plan is None:
        return ()
    plan = from_metadata(metadata.plan)
    view = GraphView(model.graph)
    deepest = {parent.branch: parent.feature for parent in metadata.parents}
    depths = {branch: _depths(view, branch) for branch in deepest}
    addends: dict[str, Iterator[str]] = {}
    probes = []
    for skip, name in named_skips(plan):
        if skip.target not in addends:
            node = view.producer.get(f"{name}/sum")
            inputs = list(node.input) if node is not None else []
            addends[skip.target] = iter(inputs[1:] if inputs[:1] == [skip.target] else [])
        added = next(addends[skip.target], None)
        branch = skip.target.split("/")[0]
        if added is not None and branch in deepest:
            most = depths[branch].get(deepest[branch], 0)
            depth = depths[branch].get(skip.target, 0) / max(most, 1)
            probes.append(Probe(int(name.split("/")[1]), skip, min(depth, 1.0), added))
    return tuple(probes)


def add_norms(model: onnx.ModelProto, probes: Sequence[Probe]) -> tuple[str, ...]:
    """Let `model` also output the squared norm, over the whole batch, of what each skip adds and adds to.

    Before: outputs `logits`. After: `logits`, and for each value v of a skip `v/squared_norm` [].

    Returns:
        The new outputs, two for each probe.
    """
    values = [name for probe in probes for name in (probe.added, probe.skip.target)]
    for name in dict.fromkeys(values):
        norm = f"{name}/squared_norm"
        model.graph.node.append(onnx.helper.make_node("ReduceSumSquare", [name], [norm], keepdims=0))
        model.graph.output.append(onnx.helper.make_tensor_value_info(norm, onnx.TensorProto.FLOAT, []))
    return tuple(f"{name}/squared_norm" for name in values)


def strengths(probes: Sequence[Probe], squares: NDArray[np.float64], images: int) -> tuple[Strength, ...]:
    """Return what the skips carried.

    Args:
        probes: The skips.
        squares: Sums of the outputs of :func:`add_norms` over all batches, [2 * probes].
        images: Number of images in them.
    """
    norms = [math.sqrt(square / images) for square in squares]
    return tuple(
        Strength(
            exchange=probe.exchange,
            source=probe.skip.source,
            target=probe.skip.target,
            depth=probe.depth,
            added=added,
            onto=onto,
        )
        for probe, added, onto in zip(probes, norms[::2], norms[1::2], strict=True)
    )


def _depths(view: GraphView, branch: str) -> dict[str, int]:
    """Return for every value how many weight layers of a branch lead to it at most."""
    longest: dict[str, int] = {}
    for kind, read, made in zip(view.kinds, view.read, view.made, strict=True):
        length = max((longest.get(name, 0) for name in read), default=0)
        length += kind in WEIGHTED and made[0].startswith(f"{branch}/")
        longest.update(dict.fromkeys(made, length))
    return longest
