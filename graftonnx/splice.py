"""Put a plan into a graph: the surgery itself, on skeletons, with onnx-graphsurgeon.

    input ─┬─ preprocess ─ a/… ─ tap ─ (+) ─ … ─ a/feature ─ pool ─┐
           │                      ╳                                 ├ concat ─ dense ─ logits
           └─ preprocess ─ b/… ─ tap ─ (+) ─ … ─ b/feature ─ pool ─┘

With separate inputs, `input_a`, `input_b`, … take the place of `input`, each of its parent's shape.
Both sums of an exchange read the original taps, so one exchange makes no loop; whether several together do is
checked before anything is built. The parents are never modified.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from graftonnx import blocks, collector
from graftonnx.blocks import SkipInit
from graftonnx.errors import PlanError
from graftonnx.heads import MOST_WEIGHTS, HeadDesign, build_head
from graftonnx.layouts import Layout
from graftonnx.network import Network
from graftonnx.normalise.batch import BATCH
from graftonnx.plan import Plan, Skip
from graftonnx.projections import projected_shape, projection_parameters
from graftonnx.remarks import carry_model, carry_outside
from graftonnx.shapes import spelled
from graftonnx.spelling import did_you_mean
from graftonnx.surgery import Part, Window
from graftonnx.weights import Weights

INPUT, OUTPUT = "input", "logits"


@dataclass(frozen=True)
class Branch:
    """A parent's trunk under its branch's names."""

    letter: str
    network: Network
    part: Part
    weights: Weights

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
        head: What decides.
        skip_init: `paper`: plain additions; else skips add nothing.
        seed: For the weights of the projections and the head.

    Returns:
        The fused skeleton with every shape inferred, and its large tensors.

    Raises:
        PlanError: If the plan names a tap that does not exist, a projection does not give the target's shape,
            or the skips together close a cycle.
    """
    branches = {letter: cut(letter, network) for letter, network in parents.items()}
    layouts = check_plan(branches, plan)
    rng = np.random.default_rng(seed)
    images = {
        name: gs.Variable(name, np.float32, (BATCH, *shape))
        for name, shape in input_shapes(parents, plan).items()
    }
    logits = gs.Variable(OUTPUT, np.float32, (BATCH, head.classes))
    touched = [tap for skip in plan.skips for tap in (skip.source, skip.target)]
    touched += [value for branch in branches.values() for value in (branch.input, branch.feature)]
    window = Window([branch.part for branch in branches.values()], dict.fromkeys(touched))
    values = window.values
    nodes: list[gs.Node] = []
    for letter, branch in branches.items():
        channels, *size = branch.network.input_shape
        image = images[input_name(letter, plan)]
        nodes += blocks.preprocessing(
            image,
            values[branch.input],
            letter,
            branch.network.preprocess,
            channels,
            (image.shape[2:], tuple(size)),
        )
    features = {letter: (branch.network, values[branch.feature]) for letter, branch in branches.items()}
    nodes += build_head(features, head, rng, logits)
    nodes += _skips(plan, values, layouts, skip_init, rng)
    model, made = window.close(nodes, list(images.values()), [logits])
    for letter, branch in branches.items():
        carry_outside(branch.network.skeleton.graph, model.graph, f"{letter}/")
        carry_model(branch.network.skeleton, model, f"{letter}/")
    weights: Weights = {name: t for branch in branches.values() for name, t in branch.weights.items()}
    return model, weights | made


def input_name(letter: str, plan: Plan) -> str:
    """Return the name of the graph input that a branch reads."""
    return INPUT if plan.inputs == "shared" else f"{INPUT}_{letter}"


def input_shapes(parents: Mapping[str, Network], plan: Plan) -> dict[str, tuple[int, ...]]:
    """Return channels and extents of every input of the fused network, in the order of the branches.

    A shared image has RGB, a shared sound or video the channels that the parents take; a separate input has
    its parent's shape.
    """
    if plan.inputs == "separate":
        return {input_name(letter, plan): parent.input_shape for letter, parent in parents.items()}
    is_image = len(plan.input_size) == 2
    channels = 3 if is_image else max(parent.input_shape[0] for parent in parents.values())
    return {INPUT: (channels, *plan.input_size)}


def cut(letter: str, network: Network) -> Branch:
    """Return the trunk of a parent, up to its feature tensor, with `<letter>/` before every name."""
    part = Part(network.view, f"{letter}/", network.head.feature)
    weights = {
        part.prefix + name: tensor for name, tensor in network.weights.items() if name in part.initializers
    }
    return Branch(letter, network, part, weights)


def check_plan(branches: Mapping[str, Branch], plan: Plan) -> dict[str, Layout]:
    """Check that every skip of a plan can be spliced in.

    Returns:
        The layout of every tap that the plan names.

    Raises:
        PlanError: Naming the offending skip.
    """
    layouts: dict[str, Layout] = {}
    seen: set[tuple[str, str]] = set()
    weights = 0
    for skip in plan.skips:
        where = f"skip '{skip.source}' -> '{skip.target}'"
        if (skip.source, skip.target) in seen:
            raise PlanError(f"{where} stands twice in the plan. Remove one.")
        seen.add((skip.source, skip.target))
        for tap in (skip.source, skip.target):
            layouts[tap] = _tap_layout(branches, tap, where)
        if skip.source.split("/")[0] == skip.target.split("/")[0]:
            raise PlanError(f"{where} stays inside one branch; it must lead from one to another.")
        _check_projection(skip, layouts[skip.source], layouts[skip.target], where)
        weights += projection_parameters(skip.projection, layouts[skip.source], layouts[skip.target])
        if weights > MOST_WEIGHTS:
            raise PlanError(
                f"{where}: with it the skips have {weights:,} weights, at most {MOST_WEIGHTS:,} are allowed. "
                "Make their kernels smaller, or remove some."
            )
    _check_acyclic(branches, plan)
    return layouts


def _check_projection(skip: Skip, source: Layout, target: Layout, where: str) -> None:
    projection = skip.projection
    if projection.kind in ("equal", "resize") and (
        {*projection.kernel, *projection.stride} != {1} or any(projection.pads)
    ):
        raise PlanError(
            f"{where}: a projection of kind '{projection.kind}' has a kernel and a stride of ones, and pads "
            "of zeros. Correct them, or make its kind 'conv' or 'pool'."
        )
    dimensions = {len(source.grid), len(target.grid), len(projection.kernel)}
    if len(dimensions) > 1:
        raise PlanError(
            f"{where}: it leads from {source} to {target}, and its projection has a kernel of "
            f"{len(projection.kernel)} numbers; expected grids of equal dimensions, and a number for each."
        )
    found = projected_shape(projection, source, target)
    if found != target.shape:
        names = "(C, H, W)" if len(target.grid) == 2 else "(C, ...)"
        raise PlanError(
            f"{where}: its projection '{projection}' gives {list(found)} {names}, "
            f"the target has {list(target.shape)}. Correct the projection or remove the skip."
        )


def _tap_layout(branches: Mapping[str, Branch], tap: str, where: str) -> Layout:
    letter, _, name = tap.partition("/")
    if letter not in branches:
        raise PlanError(
            f"{where}: there is no branch '{letter}'; the branches are {', '.join(branches)}."
            f"{did_you_mean(tap, _values(branches))}"
        )
    branch = branches[letter]
    if not branch.part.makes(name):
        raise PlanError(
            f"{where}: branch '{letter}' has no value '{name}' before its feature."
            f"{did_you_mean(tap, _values(branches))} `graftonnx inspect` lists the taps."
        )
    if name not in branch.network.layouts:
        raise PlanError(
            f"{where}: '{tap}' {spelled(branch.network.view.shapes.get(name))} is neither an image map "
            "[N, C, H, W] nor a sequence of tokens [N, T, C]. `graftonnx inspect` lists the taps."
        )
    return branch.network.layouts[name]


def _values(branches: Mapping[str, Branch]) -> list[str]:
    """Return everything that a skip may name."""
    return [
        f"{letter}/{name}"
        for letter, branch in branches.items()
        for name in branch.network.layouts
        if branch.part.makes(name)
    ]


def _check_acyclic(branches: Mapping[str, Branch], plan: Plan) -> None:
    """Refuse the first skip whose target can already reach its source."""
    reached = {letter: _reached(branch.part, plan) for letter, branch in branches.items()}
    onward: dict[int, list[int]] = {}
    for index, skip in enumerate(plan.skips):
        for other in range(index + 1):
            for first, second in ((index, other), (other, index)):
                source = plan.skips[second].source
                if reached[source.split("/")[0]].get(source, 0) >> first & 1:
                    onward.setdefault(first, []).append(second)
        seen: set[int] = set()
        queue = list(onward.get(index, ()))
        while queue:
            place = queue.pop()
            if place not in seen:
                seen.add(place)
                queue += onward.get(place, ())
        if index in seen:
            raise PlanError(
                f"skip '{skip.source}' -> '{skip.target}' closes a cycle: what it adds to '{skip.target}' "
                f"flows back into '{skip.source}'. Remove it, or one of the skips before it."
            )


def _reached(part: Part, plan: Plan) -> dict[str, int]:
    """Return for each value of a branch the set of skips, as bits, whose sums flow into it."""
    added: dict[str, int] = defaultdict(int)
    for index, skip in enumerate(plan.skips):
        if skip.target.startswith(part.prefix):
            added[skip.target.removeprefix(part.prefix)] |= 1 << index
    reached: dict[str, int] = {}
    onward: dict[str, int] = {}
    for position in part.positions:
        into = 0
        for name in part.view.read[position]:
            into |= onward.get(name, 0)
        for name in part.view.made[position]:
            if into:
                reached[part.prefix + name] = into
            if into or name in added:
                onward[name] = into | added.get(name, 0)
    return reached


def _skips(
    plan: Plan,
    values: Mapping[str, gs.Variable],
    layouts: Mapping[str, Layout],
    init: SkipInit,
    rng: np.random.Generator,
) -> list[gs.Node]:
    """Build the projections, and put a sum in front of everybody who read a target."""
    readers = {skip.target: list(values[skip.target].outputs) for skip in plan.skips}
    addends: dict[str, list[gs.Variable]] = defaultdict(list)
    names: dict[str, str] = {}
    nodes: list[gs.Node] = []
    for skip, name in named_skips(plan):
        names.setdefault(skip.target, name)
        pair = layouts[skip.source], layouts[skip.target]
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


def named_skips(plan: Plan) -> list[tuple[Skip, str]]:
    """Return every skip with its name: `skips/<exchange>/<branch of the target>`."""
    return [
        (skip, f"skips/{index}/{skip.target.split('/')[0]}")
        for index, exchange in enumerate(plan.exchanges)
        for skip in exchange
    ]
