"""Take out of a trained network what inference does not need, without changing what it computes.

- `Identity`, and `Dropout` that is not training, disappear.
- A per-channel `x * s + t` behind a Conv (batch normalisation, or a constant Mul, Div, Add, Sub) goes into
  it: `s * (W x + b) + t = (s W) x + (s b + t)`.
- A per-channel `x * s + t` in front of a Conv (preprocessing) goes into it: `W (s x + t) = (W s) x + W t`.
  With `t` other than zero that holds only where the Conv does not pad: padding adds zeros behind `t`.
  A shift behind a scale goes in front of it, so that the scale at least goes into a Conv that pads.
- An Add of something that is zero for every input (a skip whose projection stayed zero) disappears.
- An average pool in front of a 1x1 Conv to fewer channels goes behind it.
- A 1x1 Conv goes into the Conv behind it where the product of both takes no more multiply-accumulates, also
  through a sum: `V (x + P z) = V x + (V P) z`.
- A Concat in front of 1x1 Convs to fewer channels becomes sums behind them: `[V W] [x; z] = V x + W z`.

New weights are computed in float64 and rounded to float32 once. A rewriting that does not fit exactly is not
done: the nodes stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from graftonnx.folding.affine import fold_behind, fold_in_front
from graftonnx.folding.distribution import spread_over_concats, spread_over_sums
from graftonnx.folding.projections import fold_pointwise, pool_last
from graftonnx.folding.rewriting import Graph
from graftonnx.folding.skips import drop_identities, drop_zero_additions
from graftonnx.normalise.constants import constants_to_initializers, drop_dead, fold
from graftonnx.normalise.inference import infer_shapes
from graftonnx.weights import Weights, split, whole


@dataclass(frozen=True)
class Folded:
    """How many of each were taken out.

    Attributes:
        identities: Identity and Dropout nodes.
        constants: Nodes that depended on constants alone.
        scales: Batch normalisations and other per-channel nodes that went into the Conv before them.
        preprocessing: Per-channel nodes that went into the Conv behind them.
        skips: Values that were added and are zero.
        pools: Average pools that went behind a 1x1 Conv.
        products: 1x1 Convs that went into the Conv behind them.
        sums: Sums whose parts a 1x1 Conv takes one by one.
        concats: Concats likewise.
    """

    identities: int = 0
    constants: int = 0
    scales: int = 0
    preprocessing: int = 0
    skips: int = 0
    pools: int = 0
    products: int = 0
    sums: int = 0
    concats: int = 0


def fold_operators(model: onnx.ModelProto, *, split_concats: bool = True) -> tuple[onnx.ModelProto, Folded]:
    """Return a lighter model that computes the same, and what was taken out.

    Before: `x -> Conv -> BatchNormalization -> Relu -> Dropout -> y`. After: `x -> Conv -> Relu -> y`.

    Args:
        model: What `train` or `load` gives. It stays as it is.
        split_concats: Whether Concats may become sums. ONNX Runtime computes those inside its float32 Convs;
            in other formats they are operators of their own.
    """
    skeleton, weights = split(model)
    skeleton, counts = fold_skeleton(skeleton, weights, split_concats=split_concats)
    return whole(skeleton, weights), counts


def fold_skeleton(
    model: onnx.ModelProto, weights: Weights, *, split_concats: bool = True
) -> tuple[onnx.ModelProto, Folded]:
    """Do what :func:`fold_operators` does with a skeleton, which is used up, and its weights, in place."""
    constants_to_initializers(model, weights)
    model = infer_shapes(model)
    constants = fold(model, weights)
    graph = Graph(model, weights)
    steps: dict[str, Callable[[Graph], int]] = {  # what comes first is done before the next begins
        "identities": drop_identities,
        "skips": drop_zero_additions,
        "scales": fold_behind,
        "preprocessing": fold_in_front,
        "pools": pool_last,
        "products": fold_pointwise,
        "sums": spread_over_sums,
    }
    if split_concats:
        steps["concats"] = spread_over_concats
    counts = dict.fromkeys(steps, 0)
    while done := _first_change(graph, steps):
        name, count = done
        counts[name] += count
        drop_dead(model, weights)
    return infer_shapes(model), Folded(constants=constants, **counts)


def _first_change(graph: Graph, steps: Mapping[str, Callable[[Graph], int]]) -> tuple[str, int] | None:
    """Do the first step that finds something to do; return which, and how many times it did it."""
    with np.errstate(over="ignore", invalid="ignore"):  # weights that are infinite: no step takes them
        for name, step in steps.items():
            if count := step(graph):
                return name, count
    return None
