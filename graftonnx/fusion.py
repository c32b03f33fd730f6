"""Fuse networks: plan, splice, prove."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import get_args

import numpy as np
import onnx

from graftonnx import proofs
from graftonnx.blocks import SkipInit
from graftonnx.calibration import Calibration
from graftonnx.costs import parameters
from graftonnx.errors import GraftError, ModelError, PlanError
from graftonnx.graph import GraphView
from graftonnx.headfiles import JOINED, OwnHead, read_head
from graftonnx.heads import HeadDesign, feature_width, handing_over
from graftonnx.hooks import Hook, run_hook
from graftonnx.matching import DEFAULT_SKIPS, check_input, fused_size, match, planned
from graftonnx.metadata import (
    PRESETS,
    FeatureKind,
    HeadKind,
    InputConvention,
    InputKind,
    Metadata,
    NormKind,
    Parent,
    write_metadata,
)
from graftonnx.network import Network
from graftonnx.plan import Plan
from graftonnx.preprocessing import check_preprocess
from graftonnx.spine import Head, find_head
from graftonnx.splice import OUTPUT, input_name, input_shapes, named_skips, splice
from graftonnx.taps import trunk
from graftonnx.weights import Weights, set_elements

LSQ_SHARE = 0.1
"""How much of a fitted projection a skip begins with: the fit rebuilds its target, which is there already."""


def fuse(
    *parents: Network,
    plan: Plan | None = None,
    classes: int | None = None,
    labels: Sequence[str] = (),
    heads: HeadKind = "concat",
    features: FeatureKind = "penultimate",
    norm: NormKind = "rms",
    hidden: int = 256,
    dropout: float = 0.2,
    head_file: str | Path | None = None,
    inputs: InputKind | None = None,
    skip_init: SkipInit = "zero",
    calibration: Calibration | None = None,
    max_skips: int = DEFAULT_SKIPS,
    seed: int = 0,
    hook: Hook | None = None,
    prove: bool = True,
) -> Network:
    """Join networks into one: inputs, exchanges, and a head over the branches' features.

    One parent alone gets preprocessing and a new head, which is the plain way to fine-tune it.

    Args:
        *parents: Networks from :func:`graftonnx.load`; their branches are called a, b, c, ...
        plan: What to exchange; the best plan of :func:`graftonnx.match` when omitted.
        classes: Number of logits; that of `labels`, of `head_file`, or of the first parent, when omitted.
        labels: Class names in the order of the logits.
        heads: How the branches' features are joined: `concat`, `sum` (each through a dense layer to one
            width) or `attention` (likewise, weighted for each image); see :mod:`graftonnx.heads`.
        features: What is joined: `penultimate`, the branches' last feature tensors, pooled, or `logits`, the
            parents' own class scores, as in stacking.
        norm: `rms`: penultimate features of 16 channels or more are scaled to a root mean square of 1, so
            that the head does not hear the branch of the largest numbers only; `none`: they stay as they are.
        hidden: Width of the head's hidden layer; 0 for none.
        dropout: Share of hidden units dropped in training.
        head_file: ONNX file of a head to use instead of ours. Its inputs are one [N, C] for each branch, in
            their order, or one with all of them side by side; its output is [N, classes].
        inputs: `shared`: one image `input`, RGB in 0..1 of the largest size, which every branch resizes for
            itself; `separate`: one for each parent, `input_a`, `input_b`, ..., of the parent's own channels
            and extents, RGB (or, with one channel, luma) in 0..1. As the plan says, when omitted.
        skip_init: `zero`: before training all branches compute exactly what their parents do; `paper`: plain
            additions; `lsq`: `LSQ_SHARE` of what least squares finds on the images of `calibration`.
        calibration: The same networks on unlabelled images: ranks pairs of taps where there is no `plan`.
        max_skips: Number of exchanges between two parents to plan at most.
        seed: For the weights of projections and head.
        hook: Called with the fused graph before the proofs; it may change it, or return another. A hook that
            means to change what a branch computes gives the branch's feature another name: it is then not
            compared with its parent's.
        prove: Whether to run the proofs of :mod:`graftonnx.proofs`.

    Returns:
        The fused network; :func:`graftonnx.save` writes it, :func:`graftonnx.to_torch` makes it trainable.

    Raises:
        PlanError: If the plan does not fit the parents, or the hook breaks the graph.
        ModelError: If the head file does not fit, the parents have no class scores where these are wanted, or
            the hook's graph is not valid.
        ParityError: If a proof fails.
        ValueError: If the number of parents, classes or labels makes no sense.
    """
    for name, value, choices in (
        ("skip_init", skip_init, get_args(SkipInit)),
        ("heads", heads, get_args(HeadKind)),
        ("norm", norm, get_args(NormKind)),
        ("features", features, get_args(FeatureKind)),
        ("inputs", inputs or "shared", get_args(InputKind)),
    ):
        if value not in choices:
            raise ValueError(f"{name} (={value!r}) is not one of {', '.join(map(repr, choices))}")
    if hidden < 0 or not 0 <= dropout < 1:
        raise ValueError(f"hidden (={hidden}) must be 0 or more, dropout (={dropout}) in 0 <= p < 1")
    if not 1 <= len(parents) <= len(ascii_lowercase):
        raise ValueError(f"{len(parents)} parents given; 1 to {len(ascii_lowercase)} can be fused")
    if skip_init == "lsq" and calibration is None:
        raise ValueError("skip_init 'lsq' needs a calibration")
    known = dict(zip(ascii_lowercase, parents, strict=False))
    if calibration is not None and not calibration.is_of(known):
        raise ValueError("the calibration is of other networks than the parents")
    own = None if head_file is None else read_head(head_file)
    classes = _classes(classes, labels, own, parents[0])
    if plan is None:
        similarity = None if calibration is None else calibration.similarity()
        is_alone = len(parents) == 1
        plan = (
            lone_plan(parents[0]) if is_alone else match(*parents, max_skips=max_skips, similarity=similarity)
        )
    if inputs is not None:
        plan = plan.model_copy(update={"inputs": inputs})
    known = {letter: handing_over(network, features) for letter, network in _as_planned(known, plan).items()}
    design = HeadDesign(classes, heads, features, norm, hidden, dropout, own)
    skeleton, weights = splice(known, plan, design, skip_init=skip_init, seed=seed)
    if skip_init == "lsq" and calibration is not None:
        _fit(skeleton, weights, plan, calibration)
    if hook is not None:
        skeleton, weights = run_hook(hook, skeleton, weights)
    metadata = Metadata(
        input=InputConvention(preprocess=PRESETS["unit"]),
        labels=tuple(labels),
        parents=tuple(_described(letter, network, features, plan) for letter, network in known.items()),
        plan=plan.model_copy(update={"rejections": ()}).model_dump_json(),
        head=design.record,
    )
    write_metadata(skeleton, metadata)
    if own is None and hook is None:
        head = Head(OUTPUT, classes, JOINED)
    else:
        view = GraphView(skeleton.graph)
        head, _, _ = find_head(view, view.inputs)
    name, shape = next(iter(input_shapes(known, plan).items()))
    fused = Network(
        name="fused.onnx",
        skeleton=skeleton,
        weights=weights,
        input=name,
        input_shape=shape,
        head=head,
        preprocess=PRESETS["unit"],
        preprocess_reason="fused networks take RGB in 0..1",
        metadata=metadata,
        sha256="",
        producer="graftonnx",
        opset=parents[0].skeleton.opset_import[0].version,
        ir_version=skeleton.ir_version,
    )
    if not prove:
        return fused
    try:
        proven = check(fused, known, identical=skip_init == "zero")
    except GraftError as error:
        if hook is None:
            raise
        raise error.at("after the hook") from error
    return dataclasses.replace(fused, notes=proven)


def _fit(skeleton: onnx.ModelProto, weights: Weights, plan: Plan, calibration: Calibration) -> None:
    """Give every projection a share of its least-squares weights, in place."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in skeleton.graph.initializer}
    fitted = calibration.projections(plan)
    for skip, name in named_skips(plan):
        shape = shapes[f"{name}/weight"]
        matrix = LSQ_SHARE / math.prod(shape[2:]) * fitted[skip]
        array = matrix.T if len(shape) == 2 else matrix.reshape(*matrix.shape, *(1 for _ in shape[2:]))
        array = np.ascontiguousarray(np.broadcast_to(array, shape), np.float32)
        set_elements(skeleton, weights, f"{name}/weight", array)


def lone_plan(parent: Network) -> Plan:
    """Return the plan of one network alone: no skips."""
    return Plan(input_size=fused_size([parent]), parents={"a": planned(parent)})


def check(fused: Network, parents: dict[str, Network], *, identical: bool) -> tuple[str, ...]:
    """Prove a fused network; see :mod:`graftonnx.proofs`.

    Args:
        fused: The network.
        parents: By branch letter.
        identical: Whether features must equal the parents', as with projections at zero. Branches whose
            values a hook has removed cannot be compared.

    Returns:
        What was proven, and what was not, in words.

    Raises:
        ModelError: If it is not valid ONNX, or ONNX Runtime does not run it.
        ParityError: If its numbers are wrong.
    """
    proofs.check_structure(fused.skeleton, fused.weights)
    produced = fused.view.producer
    names = {
        f"{parent.branch}/{role}": value
        for parent in fused.metadata.parents
        for role, value in (("image", parent.input_value), ("feature", parent.feature))
        if value in produced
    }
    try:
        values = proofs.check_runs(fused.skeleton, fused.weights, names)
    except ModelError as error:
        raise proofs.explained(error, fused.skeleton, parents) from error
    proven = ["valid ONNX", "runs with batch 1 and 3"]
    for parent in fused.metadata.parents if identical else ():
        network = parents[parent.branch]
        gone = [value for value in (parent.input_value, parent.feature) if value not in produced]
        if gone:
            proven.append(f"branch {parent.branch} not compared with {network.name}: no '{gone[0]}' is left")
            continue
        image, feature = values[f"{parent.branch}/image"], values[f"{parent.branch}/feature"]
        proven.append(_compared(network, parent.branch, image, feature))
    return tuple(proven)


def _compared(network: Network, letter: str, image: proofs.Array, feature: proofs.Array) -> str:
    """Prove that a branch computes what its parent does; return the proof in words."""
    proofs.check_identity(network, letter, image, feature)
    difference = proofs.compare_with_file(network, image, feature)
    if difference is None:
        return f"branch {letter} equals {network.name} as it was loaded, bit for bit"
    within = "bit for bit" if difference == 0 else f"within {difference:.0e}"
    return f"branch {letter} equals {network.name} {within}"


def _classes(classes: int | None, labels: Sequence[str], own: OwnHead | None, first: Network) -> int:
    if classes is None:
        classes = len(labels) or (own and own.classes) or first.head.classes
    if labels and len(labels) != classes:
        raise ValueError(f"classes (={classes}) differs from the number of labels (={len(labels)})")
    if classes < 2:
        raise ValueError(f"classes (={classes}) must be at least 2")
    return classes


def _as_planned(parents: dict[str, Network], plan: Plan) -> dict[str, Network]:
    """Check that the parents run at the sizes the plan was made for, and take its preprocessing."""
    if set(parents) != set(plan.parents):
        raise PlanError(
            f"the plan is for branches {', '.join(plan.parents)}, "
            f"but {len(parents)} parents are given ({', '.join(parents)}). Give those."
        )
    taken = {}
    for letter, network in parents.items():
        check_input(network)
        wanted = plan.parents[letter]
        if len(wanted.input_size) != len(plan.input_size):
            raise PlanError(
                f"the plan's input_size has {len(plan.input_size)} numbers, that of its parent '{letter}' "
                f"{len(wanted.input_size)}; expected as many."
            )
        if network.input_shape[1:] != wanted.input_size:
            found, expected = ("x".join(map(str, s)) for s in (network.input_shape[1:], wanted.input_size))
            raise PlanError(
                f"the plan runs parent '{letter}' at {expected}, but '{network.name}' is loaded at {found}. "
                f"Load it with input_size={wanted.input_size}."
            )
        try:
            check_preprocess(wanted.preprocess, network.input_shape[0])
        except GraftError as error:
            raise error.at(f"cannot use parent '{letter}' ('{network.name}')") from error
        taken[letter] = dataclasses.replace(network, preprocess=wanted.preprocess)
    return taken


def _described(letter: str, network: Network, features: FeatureKind, plan: Plan) -> Parent:
    return Parent(
        branch=letter,
        name=network.name,
        sha256=network.sha256,
        producer=network.producer,
        parameters=parameters(network.view, trunk(network)),
        input_size=network.input_shape[1:],
        input_value=f"{letter}/{network.input}",
        feature=f"{letter}/{network.head.feature}",
        features=feature_width(network, features),
        preprocess=network.preprocess,
        weight_type=network.weight_type,
        input=None if plan.inputs == "shared" else input_name(letter, plan),
    )
