"""What there is to draw: the branches of a network, a plan, a fused file or a run, and what they exchange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from graftonnx.drawing.columns import Column, Operator, find_blocks, list_operators
from graftonnx.errors import GraftError, ModelError, PlanError
from graftonnx.graph import GraphView
from graftonnx.model import load
from graftonnx.network import Network
from graftonnx.plan import Plan, Skip, from_metadata, read_plan
from graftonnx.projections import projection_macs, projection_parameters
from graftonnx.splice import named_skips
from graftonnx.taps import find_taps, trunk

PLAN_SUFFIXES = (".yaml", ".yml")

Kind = Literal["equal", "resize", "hand-made"]


@dataclass(frozen=True)
class Arc:
    """A skip, as it is drawn.

    Attributes:
        skip: The connection.
        exchange: Number of its exchange, as `fuse` prints it.
        parameters: Of its projection.
        macs: Of its projection, for one image.
        share: Norm of what it adds, relative to that of its target, over validation images; None where that
            was not measured.
    """

    skip: Skip
    exchange: int
    parameters: int
    macs: int
    share: float | None = None

    @property
    def kind(self) -> Kind:
        """`equal` or `resize` as the projection is; `hand-made` without a score of the matching."""
        if self.skip.score is None:
            return "hand-made"
        return "equal" if self.skip.projection.kind == "equal" else "resize"


@dataclass(frozen=True)
class Picture:
    """Everything that a page or a figure shows.

    Attributes:
        title: Name of the file or the folder.
        about: What it is, in a sentence.
        columns: The branches.
        arcs: What they exchange.
        head: The operators behind the branches.
        classes: Number of logits; None where there is no head.
        plan: The plan, with rejections where there are any.
        notes: Remarks for a person.
    """

    title: str
    about: str
    columns: tuple[Column, ...]
    arcs: tuple[Arc, ...] = ()
    head: tuple[Operator, ...] = ()
    classes: int | None = None
    plan: Plan | None = None
    notes: tuple[str, ...] = ()

    @property
    def strongest(self) -> float | None:
        """The largest share of all skips; None where none was measured."""
        return max((arc.share for arc in self.arcs if arc.share is not None), default=None)


def open_picture(
    source: str | Path | Network | Plan, parents: Sequence[str | Path | Network], *, dequantize: bool = False
) -> Picture:
    """Read what is to be drawn.

    Args:
        source: An ONNX file, fused or not; a plan file; a run folder; or the first two in memory.
        parents: Of a plan, in the order of its branches.
        dequantize: Whether quantised networks become ones of floats; otherwise they are refused.

    Raises:
        GraftError: If it cannot be read, or the parents are not those of the plan.
    """
    if isinstance(source, Plan):
        return _planned("plan", source, parents, dequantize)
    if isinstance(source, Network):
        _refuse_parents(source.name, parents)
        return _drawn(source, source.name)
    path = Path(source)
    if path.suffix.lower() in PLAN_SUFFIXES:
        return _planned(path.name, read_plan(path), parents, dequantize)
    _refuse_parents(path.name, parents)
    return _trained(path) if path.is_dir() else _drawn(load(path, dequantize=dequantize), path.name)


def _refuse_parents(name: str, parents: Sequence[object]) -> None:
    if parents:
        raise GraftError(
            f"cannot draw '{name}' with {len(parents)} more files: only a plan has parents beside it. "
            "Give the plan file first, or draw one file at a time."
        )


def _trained(path: Path) -> Picture:
    """Draw the network of a run, with what its skips have learned."""
    from graftonnx.training.report.validation import read_findings
    from graftonnx.training.run import RunFolder

    run = RunFolder(path)
    run.read("draw")
    if not run.model.is_file():
        raise GraftError(
            f"cannot draw '{path}': the run is not finished, there is no trained network. "
            f"Go on with graftonnx train {run.resuming}."
        )
    findings = read_findings(run.findings)
    shares = {(s.source, s.target): s.share for s in findings.strengths} if findings else {}
    return _drawn(load(run.model), path.resolve().name, shares)


def _drawn(
    network: Network, title: str, shares: Mapping[tuple[str, str], float | None] | None = None
) -> Picture:
    if network.metadata.parents and network.metadata.plan is not None:
        return _fused(network, title, shares)
    view, positions = network.view, trunk(network)
    taps = [tap.name for tap in find_taps(network)]
    shown = frozenset(positions)
    return Picture(
        title=title,
        about=f"A network of {network.nodes:,} operators from {network.producer or 'an unknown exporter'}.",
        columns=(
            Column(
                "",
                network.name,
                network.input_shape,
                find_blocks(view, positions, taps, layouts=network.layouts),
            ),
        ),
        head=tuple(list_operators(view, [p for p in range(len(view.nodes)) if p not in shown])),
        classes=network.head.classes if network.complete else None,
        notes=network.notes,
    )


def _fused(network: Network, title: str, shares: Mapping[tuple[str, str], float | None] | None) -> Picture:
    """Draw a fused file; with `shares` it is that of a run."""
    metadata, view = network.metadata, network.view
    try:
        plan = from_metadata(metadata.plan)
    except ModelError as error:
        raise error.at(f"cannot draw '{title}'") from error
    names = named_skips(plan)
    sums: dict[str, str] = {}
    for skip, name in names:
        sums.setdefault(skip.target, f"{name}/sum")
    same = {total: target for target, total in sums.items()}
    parts = _parts(view, [parent.branch for parent in metadata.parents])
    taps = [tap.name for tap in find_taps(network)]
    columns = tuple(
        Column(
            parent.branch,
            parent.name,
            network.input_shapes.get(parent.input or network.input, network.input_shape),
            find_blocks(view, parts[parent.branch], taps, same=same, layouts=network.layouts),
        )
        for parent in metadata.parents
        if parts[parent.branch]
    )
    projections = _projections(view, parts["skips"])
    ends = {tap for column in columns for tap in column.places}
    arcs = tuple(
        Arc(
            skip,
            int(name.split("/")[1]),
            sum(operator.parameters for operator in projections.get(name, ())),
            sum(operator.macs for operator in projections.get(name, ())),
            None if shares is None else shares.get((skip.source, skip.target)),
        )
        for skip, name in names
        if {skip.source, skip.target} <= ends
    )
    notes = network.notes
    if len(arcs) < len(names):
        notes += (f"{len(names) - len(arcs)} skips of the plan are no longer in this file",)
    joined = " + ".join(parent.name for parent in metadata.parents)
    return Picture(
        title=title,
        about=f"{joined}, {'fused and fine-tuned' if shares is not None else 'fused'}; "
        f"{network.nodes:,} operators.",
        columns=columns,
        arcs=arcs,
        head=tuple(list_operators(view, parts["head"])),
        classes=network.head.classes,
        plan=plan,
        notes=notes,
    )


def _parts(view: GraphView, letters: Sequence[str]) -> dict[str, list[int]]:
    """Return the positions of every branch's nodes, of the skips', and of all others: the head's."""
    parts: dict[str, list[int]] = {name: [] for name in (*letters, "skips", "head")}
    for position, made in enumerate(view.made):
        first, _, rest = made[0].partition("/")
        if first == "preprocess":
            first = rest.partition("/")[0]
        parts[first if first in letters or first == "skips" else "head"].append(position)
    return parts


def _projections(view: GraphView, positions: Sequence[int]) -> dict[str, list[Operator]]:
    """Return the operators of every skip by its name: `skips/<exchange>/<branch>`."""
    found: dict[str, list[Operator]] = {}
    for operator in list_operators(view, positions):
        found.setdefault("/".join(operator.value.split("/")[:3]), []).append(operator)
    return found


def _planned(title: str, plan: Plan, parents: Sequence[str | Path | Network], dequantize: bool) -> Picture:
    """Draw the parents of a plan, and what it connects."""
    if len(parents) != len(plan.parents):
        wanted = ", ".join(f"{letter} ({parent.name})" for letter, parent in plan.parents.items())
        raise PlanError(
            f"cannot draw plan '{title}' with {len(parents)} parents; expected {len(plan.parents)}: "
            f"{wanted}. Give their files behind the plan, in this order."
        )
    networks = {
        letter: parent
        if isinstance(parent, Network)
        else load(parent, input_size=known.input_size, preprocess=known.preprocess, dequantize=dequantize)
        for (letter, known), parent in zip(plan.parents.items(), parents, strict=True)
    }
    try:
        plan.check_order([network.sha256 for network in networks.values()])
    except PlanError as error:
        raise error.at(f"cannot draw plan '{title}'") from error
    ends = {tap for skip in plan.skips for tap in (skip.source, skip.target)}
    columns = tuple(_branch(letter, network, ends) for letter, network in networks.items())
    known = {tap for column in columns for tap in column.places}
    for tap in sorted(ends - known):
        raise PlanError(
            f"cannot draw plan '{title}': there is no '{tap}' in its parents. "
            "`graftonnx inspect` lists the taps."
        )
    notes = [
        f"{letter} ({network.name}) is not the file that the plan was made for"
        for letter, network in networks.items()
        if plan.parents[letter].sha256 not in ("", network.sha256)
    ]
    return Picture(
        title=title,
        about=f"A plan for {' + '.join(network.name for network in networks.values())}.",
        columns=columns,
        arcs=tuple(
            _arc(networks, skip, exchange) for exchange, skips in enumerate(plan.exchanges) for skip in skips
        ),
        plan=plan,
        notes=tuple(notes),
    )


def _branch(letter: str, network: Network, ends: set[str]) -> Column:
    prefix = f"{letter}/"
    values = [end.removeprefix(prefix) for end in ends if end.startswith(prefix)]
    values += [tap.name for tap in find_taps(network)]
    blocks = find_blocks(network.view, trunk(network), values, prefix=prefix, layouts=network.layouts)
    return Column(letter, network.name, network.input_shape, blocks)


def _arc(networks: Mapping[str, Network], skip: Skip, exchange: int) -> Arc:
    layouts = []
    for tap in (skip.source, skip.target):
        letter, _, value = tap.partition("/")
        layouts.append(networks[letter].layouts.get(value))
    source, target = layouts
    if source is None or target is None:
        raise PlanError(
            f"skip '{skip.source}' -> '{skip.target}' has an end that is neither a map nor a sequence of "
            "tokens. `graftonnx inspect` lists the taps."
        )
    return Arc(
        skip,
        exchange,
        projection_parameters(skip.projection, source, target),
        projection_macs(skip.projection, source, target),
    )
