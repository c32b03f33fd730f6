"""The networks that a fused one has to beat, cut out of its own file.

| branches | exchanges | what it is |
|---|---|---|
| all | kept | the fused network |
| all | removed | the branches' features joined, without skips |
| one | - | what `graftonnx fuse A` makes of that parent |

Branches keep the weights that the file holds, bit for bit: the parents' in a file that `graftonnx fuse`
wrote, trained ones in that of a run. The same goes for exchanges that are kept. The head is of the file's
kind and hidden width, and its weights are drawn anew: a head that was trained with all branches would give
them a start that one branch alone cannot have.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import GraphProto

from graftonnx import reading
from graftonnx.errors import GraftError, ModelError
from graftonnx.graph import GraphView, subgraphs
from graftonnx.headfiles import JOINED
from graftonnx.heads import HeadDesign, build_head
from graftonnx.metadata import Metadata, Parent, Preprocess, read_metadata, write_metadata
from graftonnx.network import Network
from graftonnx.normalise.batch import BATCH
from graftonnx.normalise.constants import drop_dead, replace
from graftonnx.normalise.inference import infer_shapes
from graftonnx.plan import Plan, from_metadata
from graftonnx.proofs import check_structure
from graftonnx.remarks import carry
from graftonnx.spine import Head
from graftonnx.splice import named_skips
from graftonnx.surgery import Part, Window
from graftonnx.weights import Weights, read


def read_fused(path: Path) -> Network:
    """Read a file that `graftonnx fuse` wrote, or the trained network of a run, as it is.

    Raises:
        ModelError: If it cannot be read, or its parts cannot stand alone: it has no exchanges, or a head of
            its user's, or a hook has changed more than the inside of a branch.
    """
    model, weights = read(path)
    try:
        metadata = read_metadata(model)
        _check_metadata(metadata)
        view = GraphView(model.graph)
        if len(view.inputs) != 1:
            raise ModelError(
                f"its branches have inputs of their own ({', '.join(view.inputs)}). Fuse networks of one."
            )
        image, output = view.inputs[0], view.outputs[0]
        _, channels, *extents = view.shapes[image]
        network = Network(
            name=path.name,
            skeleton=model,
            weights=weights,
            input=image,
            input_shape=tuple(extent or 0 for extent in (channels, *extents)),
            head=Head(output, view.shapes[output][1] or 0, JOINED),
            preprocess=Preprocess(),
            preprocess_reason="fused networks take RGB in 0..1",
            metadata=metadata,
            sha256=reading.sha256(path),
            producer=model.producer_name,
            opset=model.opset_import[0].version,
            ir_version=model.ir_version,
            path=path,
        )
        _check_parts(network)
    except GraftError as error:
        raise error.at(f"cannot take '{path}' apart") from error
    return network


def variant(fused: Network, branches: Sequence[str], *, exchanges: bool, seed: int) -> Network:
    """Return a network made of parts of a fused one, with a new head.

    Args:
        fused: What :func:`read_fused` returned.
        branches: Letters of the branches that it has, in the order of the file.
        exchanges: Whether the exchanges stay; if so, all branches must.
        seed: For the weights of the head. One branch alone gets those that `graftonnx fuse A --seed` draws.

    Raises:
        ModelError: If a branch reads values of another one without an exchange.
    """
    plan = from_metadata(fused.metadata.plan)
    sums = _sums(plan)
    skeleton, weights = onnx.ModelProto(), dict(fused.weights)
    skeleton.CopyFrom(fused.skeleton)
    if not exchanges:
        _rename_reads(skeleton.graph, {total: tap for tap, total in sums.items()})
        sums = {}
    parents = {parent.branch: parent for parent in fused.metadata.parents if parent.branch in branches}
    handed = {letter: sums.get(parent.feature, parent.feature) for letter, parent in parents.items()}
    replace(skeleton.graph.output, [_output(value) for value in handed.values()])
    drop_dead(skeleton, weights)
    trimmed = dataclasses.replace(fused, skeleton=skeleton, weights=weights)
    if not exchanges:
        _check_apart(trimmed.view, branches)
    model, made = _headed(trimmed, parents, handed, seed)
    _carry_remarks(skeleton, model, dropped={p.branch for p in fused.metadata.parents} - set(branches))
    metadata = fused.metadata.model_copy(
        update={
            "parents": tuple(parents.values()),
            "plan": _plan_of(plan, branches, exchanges=exchanges).model_dump_json(),
        }
    )
    write_metadata(model, metadata)
    model = infer_shapes(model)
    check_structure(model, weights | made)
    return dataclasses.replace(
        trimmed, skeleton=model, weights=weights | made, metadata=metadata, sha256="", path=None
    )


def _check_metadata(metadata: Metadata) -> None:
    """Refuse files that were not fused, and those of which one part alone says nothing."""
    if not metadata.parents or metadata.plan is None or metadata.head is None:
        raise ModelError("it does not say which networks it was fused from. Fuse it with `graftonnx fuse`.")
    if metadata.activation is not None:
        raise ModelError(
            f"its output is behind a {metadata.activation}. Give the fused file, or the run's model.onnx."
        )
    if metadata.head.kind == "file":
        raise ModelError(
            f"its head is '{metadata.head.file}', made for all branches together; one branch alone cannot "
            "have a head of that kind. Fuse it with --heads concat, sum or attention."
        )
    if len(metadata.parents) < 2:
        raise ModelError("it has one branch only, which nothing was exchanged with. Fuse two networks.")


def _check_parts(fused: Network) -> None:
    """Refuse graphs that are not what their metadata says: a hook has changed them."""
    plan, produced = from_metadata(fused.metadata.plan), fused.view.producer
    if not plan.skips:
        raise ModelError("it has no exchanges: without skips it is what it is. Fuse it with --max-skips N.")
    for tap, total in _sums(plan).items():
        if total not in produced or produced[total].input[0] != tap:
            raise ModelError(f"a hook has changed the exchange that adds to '{tap}'. Fuse without that hook.")
    for parent in fused.metadata.parents:
        if parent.feature not in produced:
            raise ModelError(
                f"a hook has removed '{parent.feature}', the feature of branch {parent.branch}. "
                "Fuse without that hook."
            )
    letters = [parent.branch for parent in fused.metadata.parents]
    for letter in letters:
        variant(fused, [letter], exchanges=False, seed=0)
    rebuilt = variant(fused, letters, exchanges=True, seed=0)
    if _wiring(rebuilt.view) != _wiring(fused.view):
        raise ModelError(
            f"a hook has changed its head, which is no longer a {fused.metadata.head}; one branch alone "
            "cannot have a head of that kind. Fuse without that hook."
        )


def _wiring(view: GraphView) -> set[tuple[str, ...]]:
    return {(node.op_type, *node.input, "->", *node.output) for node in view.nodes}


def _check_apart(view: GraphView, branches: Iterable[str]) -> None:
    """Refuse branches that read what is neither theirs nor the image."""
    own = tuple(f"{place}{letter}/" for letter in branches for place in ("", "preprocess/"))
    foreign = {name for name in view.producer if not name.startswith(own)}
    for node, names in zip(view.nodes, view.read, strict=True):
        found = sorted(foreign.intersection(names))
        if found and node.output[0] not in foreign:
            raise ModelError(
                f"because of a hook, '{node.output[0]}' needs '{found[0]}', which is of no exchange. "
                "Fuse without that hook."
            )


def _plan_of(plan: Plan, branches: Sequence[str], *, exchanges: bool) -> Plan:
    """Return the plan that remains."""
    parents = {letter: parent for letter, parent in plan.parents.items() if letter in branches}
    return plan.model_copy(update={"parents": parents, "skips": plan.skips if exchanges else ()})


def _sums(plan: Plan) -> dict[str, str]:
    """Return, for every tap that something is added to, the value that its readers read instead."""
    sums: dict[str, str] = {}
    for skip, name in named_skips(plan):
        sums.setdefault(skip.target, f"{name}/sum")
    return sums


def _rename_reads(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Let everybody who reads a value read another one, in the bodies of control flow as well."""
    for node in graph.node:
        if not names.keys().isdisjoint(node.input):
            replace(node.input, [names.get(name, name) for name in node.input])
        for body in subgraphs(node):
            _rename_reads(body, names)


def _headed(
    trimmed: Network, parents: Mapping[str, Parent], handed: Mapping[str, str], seed: int
) -> tuple[onnx.ModelProto, Weights]:
    """Put a new head behind the branches; return the skeleton and the large tensors of the head."""
    record = trimmed.metadata.head
    assert record is not None
    assert record.kind != "file"
    design = HeadDesign(
        trimmed.head.classes,
        record.kind,
        record.features,
        record.norm,
        record.hidden or 0,
        record.dropout or 0.0,
    )
    window = Window([Part(trimmed.view)], handed.values())
    image = gs.Variable(trimmed.input, np.float32, (BATCH, *trimmed.input_shape))
    logits = gs.Variable(trimmed.head.output, np.float32, (BATCH, design.classes))
    sources = {
        letter: (
            dataclasses.replace(trimmed, head=Head(value, parents[letter].features, value)),
            window.values[value],
        )
        for letter, value in handed.items()
    }
    nodes = build_head(sources, design, np.random.default_rng(seed), logits)
    return window.close(nodes, [image], [logits])


def _carry_remarks(source: onnx.ModelProto, target: onnx.ModelProto, dropped: set[str]) -> None:
    """Keep what the file says beside its numbers, but for what it says about other branches."""
    carry(source.graph, target.graph)
    for entry in source.metadata_props:
        if entry.key.split("/")[0] not in dropped:
            target.metadata_props.add(key=entry.key, value=entry.value)


def _output(value: str) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, None)
