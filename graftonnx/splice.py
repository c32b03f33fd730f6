"""Put a plan into a graph: the surgery itself, on skeletons, with onnx-graphsurgeon.

    image ─┬─ preprocess ─ a/… ─ tap ─ (+) ─ … ─ a/feature ─ pool ─┐
           │                      ╳                                 ├ concat ─ dense ─ logits
           └─ preprocess ─ b/… ─ tap ─ (+) ─ … ─ b/feature ─ pool ─┘

Both sums of an exchange read the original taps, so one exchange makes no loop; whether several together do is
checked before anything is built. The parents are never modified.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import GraphProto

from graftonnx import blocks, collector
from graftonnx.blocks import SkipInit
from graftonnx.errors import PlanError
from graftonnx.graph import GraphView, subgraphs
from graftonnx.model import BATCH, Network
from graftonnx.normalise.constants import drop_dead, replace
from graftonnx.plan import Plan, Projection, Skip
from graftonnx.shapes import convolved_extent
from graftonnx.surgery import Window
from graftonnx.weights import Weights

INPUT, OUTPUT = "input", "logits"

Shape3 = tuple[int, int, int]


@dataclass(frozen=True)
class HeadDesign:
    """The dense layers behind the concatenated features.

    Attributes:
        classes: Number of logits.
        hidden: Width of the hidden layer; 0 for none.
        dropout: Share of hidden units dropped in training.
    """

    classes: int
    hidden: int = 256
    dropout: float = 0.2


@dataclass(frozen=True)
class Branch:
    """A parent's trunk under its branch's names."""

    letter: str
    network: Network
    skeleton: onnx.ModelProto
    weights: Weights

    @cached_property
    def view(self) -> GraphView:
        """An index over the skeleton's graph."""
        known = {f"{self.letter}/{name}": shape for name, shape in self.network.view.shapes.items()}
        return GraphView(self.skeleton.graph, known)

    @property
    def input(self) -> str:
        """The value that holds the branch's preprocessed input."""
        return f"{self.letter}/{self.network.input}"

    @property
    def feature(self) -> str:
        """The value that holds the branch's last feature tensor."""
        return f"{self.letter}/{self.network.head.feature}"


@collector.paused()
def splice(
    parents: Mapping[str, Network],
    plan: Plan,
    head: HeadDesign,
    *,
    skip_init: SkipInit,
    seed: int,
) -> tuple[onnx.ModelProto, Weights]:
    """Join the parents' trunks as the plan says and append a head.

    Args:
        parents: The networks by branch letter.
        plan: The skips; their source and target are `<branch>/<value>`.
        head: The dense layers.
        skip_init: `zero`: skips add nothing before training; `paper`: plain additions.
        seed: For the weights of the projections and the head.

    Returns:
        The fused skeleton with every shape inferred, and its large tensors.

    Raises:
        PlanError: If the plan names a tap that does not exist, a projection does not give the target's shape,
            or the skips together close a cycle.
    """
    branches = {letter: cut(letter, network) for letter, network in parents.items()}
    shapes = check_plan(branches, plan)
    rng = np.random.default_rng(seed)
    height, width = plan.input_size
    image = gs.Variable(INPUT, np.float32, (BATCH, 3, height, width))
    logits = gs.Variable(OUTPUT, np.float32, (BATCH, head.classes))
    touched = [tap for skip in plan.skips for tap in (skip.source, skip.target)]
    touched += [value for branch in branches.values() for value in (branch.input, branch.feature)]
    window = Window([branch.view for branch in branches.values()], dict.fromkeys(touched))
    values = window.values
    nodes: list[gs.Node] = []
    for letter, branch in branches.items():
        channels, *size = branch.network.input_shape
        nodes += blocks.preprocessing(
            image,
            values[branch.input],
            letter,
            branch.network.preprocess,
            channels,
            ((height, width), (size[0], size[1])),
        )
    nodes += _head(branches, values, head, rng, logits)
    nodes += _skips(plan, values, shapes, skip_init, rng)
    model, made = window.close(nodes, [image], [logits])
    weights: Weights = {name: t for branch in branches.values() for name, t in branch.weights.items()}
    return model, weights | made


def cut(letter: str, network: Network) -> Branch:
    """Return the trunk of a parent, up to its feature tensor, with `<letter>/` before every name."""
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(network.skeleton)
    feature = onnx.helper.make_tensor_value_info(network.head.feature, onnx.TensorProto.FLOAT, None)
    replace(skeleton.graph.output, [feature])
    weights = dict(network.weights)
    drop_dead(skeleton, weights, network.view)
    prefix = f"{letter}/"
    _prefix_names(skeleton.graph, prefix)
    return Branch(letter, network, skeleton, {prefix + name: tensor for name, tensor in weights.items()})


def check_plan(branches: Mapping[str, Branch], plan: Plan) -> dict[str, Shape3]:
    """Check that every skip of a plan can be spliced in.

    Returns:
        The shape (C, H, W) of every tap that the plan names.

    Raises:
        PlanError: Naming the offending skip.
    """
    views = {letter: branch.view for letter, branch in branches.items()}
    shapes: dict[str, Shape3] = {}
    seen: set[tuple[str, str]] = set()
    for skip in plan.skips:
        where = f"skip '{skip.source}' -> '{skip.target}'"
        if (skip.source, skip.target) in seen:
            raise PlanError(f"{where} stands twice in the plan. Remove one.")
        seen.add((skip.source, skip.target))
        for tap in (skip.source, skip.target):
            shapes[tap] = _tap_shape(views, tap, where)
        if skip.source.split("/")[0] == skip.target.split("/")[0]:
            raise PlanError(f"{where} stays inside one branch; it must lead from one to another.")
        if skip.projection.kind == "resize" and (skip.projection.kernel, skip.projection.stride) != (
            (1, 1),
            (1, 1),
        ):
            raise PlanError(f"{where}: a resize projection has kernel [1, 1] and stride [1, 1].")
        found = projected_shape(skip.projection, shapes[skip.source], shapes[skip.target])
        if found != shapes[skip.target]:
            raise PlanError(
                f"{where}: its projection '{skip.projection}' gives {list(found)} (C, H, W), "
                f"the target has {list(shapes[skip.target])}. Correct the projection or remove the skip."
            )
    _check_acyclic(views, plan)
    return shapes


def projected_shape(projection: Projection, source: Shape3, target: Shape3) -> Shape3:
    """Return the shape (C, H, W) that a projection to `target` gives; Convs always give its channels."""
    if projection.kind == "equal":
        return source
    if projection.kind == "resize":
        return target
    height, width = (
        convolved_extent(
            source[axis + 1],
            projection.kernel[axis],
            projection.stride[axis],
            projection.pads[axis] + projection.pads[axis + 2],
        )
        for axis in (0, 1)
    )
    return target[0], height, width


def _tap_shape(views: Mapping[str, GraphView], tap: str, where: str) -> Shape3:
    letter = tap.split("/")[0]
    if letter not in views:
        raise PlanError(f"{where}: there is no branch '{letter}'; the branches are {', '.join(views)}.")
    shape = views[letter].shapes.get(tap)
    if shape is None or tap not in views[letter].producer:
        raise PlanError(
            f"{where}: branch '{letter}' has no value '{tap.removeprefix(letter + '/')}' before its feature. "
            "`graftonnx inspect` lists the taps."
        )
    if len(shape) != 4 or None in shape[1:]:
        raise PlanError(f"{where}: '{tap}' is not an image map [N, C, H, W].")
    return shape[1] or 0, shape[2] or 0, shape[3] or 0


def _check_acyclic(views: Mapping[str, GraphView], plan: Plan) -> None:
    """Refuse the first skip whose target can already reach its source."""
    onward: dict[str, set[str]] = defaultdict(set)
    for skip in plan.skips:
        reached = set()
        queue = [skip.target]
        while queue:
            tap = queue.pop()
            for node in views[tap.split("/")[0]].consumers[tap]:
                for name in node.output:
                    if name not in reached:
                        reached.add(name)
                        queue += [name, *onward[name]]
        if skip.source in reached:
            raise PlanError(
                f"skip '{skip.source}' -> '{skip.target}' closes a cycle: what it adds to '{skip.target}' "
                f"flows back into '{skip.source}'. Remove it, or one of the skips before it."
            )
        onward[skip.source].add(skip.target)


def _head(
    branches: Mapping[str, Branch],
    values: Mapping[str, gs.Variable],
    design: HeadDesign,
    rng: np.random.Generator,
    logits: gs.Variable,
) -> list[gs.Node]:
    nodes: list[gs.Node] = []
    features, widths = [], []
    for letter, branch in branches.items():
        rank, channels = feature_extent(branch.network)
        pooling, pooled = blocks.pool(values[branch.feature], rank, letter)
        nodes += pooling
        features.append(pooled)
        widths.append(channels)
    head = blocks.head(features, widths, design.classes, design.hidden, design.dropout, rng, logits)
    return nodes + head


def feature_extent(network: Network) -> tuple[int, int]:
    """Return the rank of a network's feature tensor and its number of channels."""
    shape = network.view.shapes[network.head.feature]
    channels = shape[2] if len(shape) == 3 else shape[1]
    return len(shape), channels or 0


def _skips(
    plan: Plan,
    values: Mapping[str, gs.Variable],
    shapes: Mapping[str, Shape3],
    init: SkipInit,
    rng: np.random.Generator,
) -> list[gs.Node]:
    """Build the projections, and put a sum in front of everybody who read a target."""
    readers = {skip.target: list(values[skip.target].outputs) for skip in plan.skips}
    addends: dict[str, list[gs.Variable]] = defaultdict(list)
    names: dict[str, str] = {}
    nodes: list[gs.Node] = []
    for skip, name in _named(plan):
        names.setdefault(skip.target, name)
        pair = shapes[skip.source], shapes[skip.target]
        steps, projected = blocks.projection(values[skip.source], pair, skip.projection, name, init, rng)
        nodes += steps
        addends[skip.target].append(projected)
    for target, projections in addends.items():
        tap = values[target]
        name = names[target]
        total = gs.Variable(f"{name}/sum", np.float32)
        op = "Add" if len(projections) == 1 else "Sum"
        for node in readers[target]:
            node.inputs = [total if tensor is tap else tensor for tensor in node.inputs]
        nodes.append(gs.Node(op, f"{name}/add", {}, [tap, *projections], [total]))
    return nodes


def _named(plan: Plan) -> list[tuple[Skip, str]]:
    """Return every skip with its name: `skips/<exchange>/<branch of the target>`."""
    return [
        (skip, f"skips/{index}/{skip.target.split('/')[0]}")
        for index, exchange in enumerate(plan.exchanges)
        for skip in exchange
    ]


def _prefix_names(graph: GraphProto, prefix: str) -> None:
    for tensor in graph.initializer:
        tensor.name = prefix + tensor.name
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = prefix + value.name
    for node in graph.node:
        node.name = prefix + (node.name or node.output[0])
        replace(node.input, [name and prefix + name for name in node.input])
        replace(node.output, [name and prefix + name for name in node.output])
        for inner in subgraphs(node):
            _prefix_names(inner, prefix)
