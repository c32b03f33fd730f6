"""What decides in a fused network: the branches' features, joined and classified.

    f_i = g_i x_i / rms(x_i)                           x_i: what branch i hands over, for each image

    concat      z = [f_a, f_b, …]
    sum         z = u_a + u_b + …                      u_i = W_i f_i + b_i, all of one width d
    attention   z = sum_i a_i u_i,  a = softmax_i(w . tanh(u_i)),  one set of a_i for each image

    z ─ Gemm ─ Relu ─ Dropout ─ Gemm ─ logits

d is the width of the hidden layer; without one, that of the narrowest branch.
A branch hands over its last feature tensor pooled over positions, or its own class scores, as in stacking
(Wolpert, 1992). Features of different networks differ in scale (SqueezeNet's are several times Inception's),
and a head over the plain ones hears the loudest branch; so the root mean square of each is made 1 (RMSNorm,
arXiv 1910.07467), and its gain g_i, one number for each channel, is learnt. The attention is the pooling of
Ilse et al. (arXiv 1802.04712) over the branches of one image; the u_i, which have weights of their own, stand
for both its h_k and its V h_k. w starts at zero, so z starts as the plain mean.

A head may also come from its user's ONNX file; see :mod:`graftonnx.headfiles`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graftonnx.blocks import Step, chained
from graftonnx.errors import ModelError
from graftonnx.headfiles import JOINED, OwnHead, Vector, inlined
from graftonnx.metadata import FeatureKind, HeadKind, HeadRecord, NormKind
from graftonnx.network import Network
from graftonnx.spine import final_softmax, unflattened

LEAST_NORMALISED = 16
"""Channels that a feature must have to be normalised: with few, their scale is much of what they say."""

EPSILON = 1e-5
"""What is added to the mean square, so that a feature of zeros stays one."""

MOST_WEIGHTS = 1 << 28
"""Weights that a head of ours may have: 1 GiB of them."""


@dataclass(frozen=True)
class HeadDesign:
    """What decides over the branches.

    Attributes:
        classes: Number of logits.
        kind: How the features are joined.
        features: What the branches hand over.
        norm: Whether features of `LEAST_NORMALISED` channels or more are normalised; class scores are not.
        hidden: Width of the hidden layer; 0 for none.
        dropout: Share of hidden units dropped in training.
        own: The user's head; then `kind`, `norm`, `hidden` and `dropout` do not count.
    """

    classes: int
    kind: HeadKind = "concat"
    features: FeatureKind = "penultimate"
    norm: NormKind = "rms"
    hidden: int = 256
    dropout: float = 0.2
    own: OwnHead | None = None

    @property
    def record(self) -> HeadRecord:
        """What the fused file says about its head."""
        if self.own is not None:
            return HeadRecord(kind="file", features=self.features, file=self.own.name, sha256=self.own.sha256)
        return HeadRecord(
            kind=self.kind,
            features=self.features,
            norm=self.norm if self.features == "penultimate" else "none",
            hidden=self.hidden,
            dropout=self.dropout,
        )


def handing_over(network: Network, features: FeatureKind) -> Network:
    """Return a network whose feature is what its branch shall hand to the head.

    Args:
        network: A parent.
        features: `penultimate`: as it is; `logits`: the class scores, in front of a final Softmax. (What a
            LogSoftmax gives are scores already.)

    Raises:
        ModelError: If the scores are wanted and the network's own head has been cut off.
    """
    if features == "penultimate":
        return network
    if not network.complete:
        size = "x".join(str(extent) for extent in network.input_shape[1:])
        raise ModelError(
            f"'{network.name}' has no class scores at {size}: its own head fits its own input size only. "
            "Load it at that, or fuse its penultimate features."
        )
    view = network.view
    softmax = final_softmax(view, network.head.output)
    scores = unflattened(view, network.head.output if softmax is None else softmax.input[0])
    return dataclasses.replace(network, head=dataclasses.replace(network.head, feature=scores))


def feature_width(network: Network, features: FeatureKind) -> int:
    """Return the extent C of the vector [N, C] that a network hands over."""
    if features == "logits":
        return network.head.classes
    shape = network.view.shapes[network.head.feature]
    width = shape[_channel_axis(network)]
    if width is None:
        raise ModelError(
            f"the channels of '{network.head.feature}', the feature of '{network.name}', are none or "
            "unknown. Export it with a fixed number of them."
        )
    return width


def build_head(
    sources: Mapping[str, tuple[Network, gs.Variable]],
    design: HeadDesign,
    rng: np.random.Generator,
    logits: gs.Variable,
) -> list[gs.Node]:
    """Make the nodes from the branches' features to the logits.

    Args:
        sources: Each branch's network and the variable that holds its feature, by the branch's letter.
        design: What to build.
        rng: For the weights.
        logits: The output, [N, classes].

    Raises:
        ModelError: If the user's own head does not fit the branches or the classes, or ours would have more
            than `MOST_WEIGHTS`.
    """
    nodes: list[gs.Node] = []
    vectors: list[Vector] = []
    for letter, (network, feature) in sources.items():
        steps, pooled = pool(network, feature, letter, design.features)
        nodes += steps
        vectors.append(Vector(letter, pooled, feature_width(network, design.features)))
    if design.own is not None:
        return nodes + inlined(design.own, vectors, design.classes, logits)
    _check_size([vector.width for vector in vectors], design)
    if design.record.norm == "rms":
        vectors = [_normalised(vector, nodes) for vector in vectors]
    joining, joined, width = _joined(vectors, design, rng)
    return nodes + joining + chained(_layers(width, design, rng), joined, logits)


def pool(
    network: Network, feature: gs.Variable, branch: str, features: FeatureKind
) -> tuple[list[gs.Node], gs.Variable]:
    """Make a vector [N, C] of what a branch hands over.

    Args:
        network: The branch's network.
        feature: Its feature: [N, C, *grid], [N, *grid, C] or [N, T, C], averaged over its positions or
            tokens, or [N, C]; or class scores, whose other extents are 1.
        branch: Its letter.
        features: Which of the two.
    """
    rank = len(network.view.shapes[network.head.feature])
    if rank == 2:
        return [], feature
    name = f"head/{branch}"
    pooled = gs.Variable(f"{name}/pooled", np.float32)
    flatten = Step("Flatten", f"{name}/flatten", {"axis": 1})
    if features == "logits":
        return chained([flatten], feature, pooled), pooled
    if _channel_axis(network) > 1:
        axes = gs.Constant(f"{name}/axes", np.arange(1, rank - 1))
        return chained(
            [Step("ReduceMean", f"{name}/pool", {"keepdims": 0}, (axes,))], feature, pooled
        ), pooled
    return chained([Step("GlobalAveragePool", f"{name}/pool"), flatten], feature, pooled), pooled


def _normalised(vector: Vector, nodes: list[gs.Node]) -> Vector:
    """Normalise a branch's vector over its channels; one of few channels stays as it is.

    The nodes are those that ONNX Runtime fuses into one.
    """
    if vector.width < LEAST_NORMALISED:
        return vector
    name = f"head/{vector.branch}/norm"
    root = gs.Variable(f"{name}/root", np.float32)
    normalised = gs.Variable(f"head/{vector.branch}/normalised", np.float32)
    measuring = [
        Step("Pow", f"{name}/square", operands=(gs.Constant(f"{name}/two", np.array(2, np.float32)),)),
        Step("ReduceMean", f"{name}/mean", operands=(gs.Constant(f"{name}/axes", np.array([1])),)),
        Step("Add", f"{name}/add", operands=(gs.Constant(f"{name}/epsilon", np.array(EPSILON, np.float32)),)),
        Step("Sqrt", f"{name}/sqrt"),
    ]
    gain = gs.Constant(f"{name}/weight", np.ones(vector.width, np.float32))
    scaling = [Step("Div", f"{name}/divide", operands=(root,)), Step("Mul", name, operands=(gain,))]
    nodes += chained(measuring, vector.variable, root) + chained(scaling, vector.variable, normalised)
    return dataclasses.replace(vector, variable=normalised)


def _channel_axis(network: Network) -> int:
    """Return the axis of the channels in the feature tensor."""
    layout = network.layouts.get(network.head.feature)
    rank = len(network.view.shapes[network.head.feature])
    return 1 if layout is None or layout.kind == "channels_first" else rank - 1


def _joined(
    vectors: Sequence[Vector], design: HeadDesign, rng: np.random.Generator
) -> tuple[list[gs.Node], gs.Variable, int]:
    """Join the branches' vectors; return the nodes, the variable z, and its width."""
    joined = gs.Variable(JOINED, np.float32)
    if design.kind == "concat":
        variables = [vector.variable for vector in vectors]
        concat = gs.Node("Concat", "head/concat", {"axis": 1}, variables, [joined])
        return [concat], joined, sum(vector.width for vector in vectors)
    width = design.hidden or min(vector.width for vector in vectors)
    nodes: list[gs.Node] = []
    projected: list[gs.Variable] = []
    for vector in vectors:
        dense = _dense(f"head/{vector.branch}/project", vector.width, width, math.sqrt(3 / vector.width), rng)
        projected.append(gs.Variable(f"head/{vector.branch}/projected", np.float32))
        nodes += chained([dense], vector.variable, projected[-1])
    if design.kind == "attention" and len(vectors) > 1:
        return nodes + _attention(projected, width, joined), joined, width
    return [*nodes, gs.Node("Sum", "head/sum", {}, projected, [joined])], joined, width


def _check_size(widths: Sequence[int], design: HeadDesign) -> None:
    """Refuse a head of ours that is too large to be built, before anything is."""
    if design.kind == "concat":
        joined, weights = sum(widths), 0
    else:
        joined = design.hidden or min(widths)
        weights = sum(widths) * joined
    layers = [joined, design.hidden, design.classes] if design.hidden else [joined, design.classes]
    weights += sum(inner * outer for inner, outer in itertools.pairwise(layers))
    if weights > MOST_WEIGHTS:
        raise ModelError(
            f"cannot build the head: {design.hidden} hidden units and {design.classes} classes over features "
            f"of {' + '.join(map(str, widths))} channels need {weights:,} weights, at most "
            f"{MOST_WEIGHTS:,} are allowed. Choose fewer hidden units or classes."
        )


def _attention(projected: Sequence[gs.Variable], width: int, joined: gs.Variable) -> list[gs.Node]:
    """Weigh B vectors [N, d] by what they hold, and add them.

    u_i ─ Unsqueeze ─┐
    u_j ─ Unsqueeze ─ Concat [N, B, d] ─┬─ Tanh ─ MatMul w ─ Softmax ─ Transpose ─ MatMul ─ Flatten ─ z
                                        └──────────────────────────────────────────┘
    """
    name = "head/attention"
    axis = gs.Constant(f"{name}/axis", np.array([1], np.int64))
    rows = [gs.Variable(f"{variable.name}/row", np.float32) for variable in projected]
    stacked, shares = (gs.Variable(f"{name}/{part}", np.float32) for part in ("stacked", "shares"))
    stacking = [
        gs.Node("Unsqueeze", row.name, {}, [variable, axis], [row])
        for variable, row in zip(projected, rows, strict=True)
    ]
    stacking.append(gs.Node("Concat", f"{name}/stack", {"axis": 1}, rows, [stacked]))
    weight = gs.Constant(f"{name}/weight", np.zeros((width, 1), np.float32))
    scoring = [
        Step("Tanh", f"{name}/tanh"),
        Step("MatMul", f"{name}/score", operands=(weight,)),
        Step("Softmax", f"{name}/softmax", {"axis": 1}),
        Step("Transpose", f"{name}/transpose", {"perm": [0, 2, 1]}),
    ]
    adding = [
        Step("MatMul", f"{name}/add", operands=(stacked,)),
        Step("Flatten", f"{name}/flatten", {"axis": 1}),
    ]
    return stacking + chained(scoring, stacked, shares) + chained(adding, shares, joined)


def _layers(width: int, design: HeadDesign, rng: np.random.Generator) -> list[Step]:
    """Return the dense layers from z to the logits."""
    steps: list[Step] = []
    if design.hidden:
        steps = [
            _dense("head/hidden", width, design.hidden, math.sqrt(6 / width), rng),
            Step("Relu", "head/relu"),
        ]
        if design.dropout:
            ratio = gs.Constant("head/dropout_ratio", np.array(design.dropout, np.float32))
            steps.append(Step("Dropout", "head/dropout", operands=(ratio,)))
        width = design.hidden
    return [*steps, _dense("head/logits", width, design.classes, 1 / math.sqrt(width), rng)]


def _dense(name: str, inner: int, outer: int, bound: float, rng: np.random.Generator) -> Step:
    weight = rng.uniform(-bound, bound, (outer, inner)).astype(np.float32)
    bias = np.zeros(outer, np.float32)
    operands = (gs.Constant(f"{name}/weight", weight), gs.Constant(f"{name}/bias", bias))
    return Step("Gemm", name, {"transB": 1}, operands)
