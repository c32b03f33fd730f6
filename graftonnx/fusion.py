"""Fuse networks: plan, splice, prove."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from string import ascii_lowercase

from graftonnx import proofs
from graftonnx.blocks import SkipInit
from graftonnx.costs import parameters
from graftonnx.errors import GraftError, PlanError
from graftonnx.matching import DEFAULT_SKIPS, fused_size, match, planned
from graftonnx.metadata import PRESETS, InputConvention, Metadata, Parent, write_metadata
from graftonnx.model import Network, check_preprocess
from graftonnx.plan import Plan
from graftonnx.spine import Head
from graftonnx.splice import INPUT, OUTPUT, HeadDesign, feature_extent, splice
from graftonnx.taps import trunk


def fuse(
    *parents: Network,
    plan: Plan | None = None,
    classes: int | None = None,
    labels: Sequence[str] = (),
    hidden: int = 256,
    dropout: float = 0.2,
    skip_init: SkipInit = "zero",
    max_skips: int = DEFAULT_SKIPS,
    seed: int = 0,
    prove: bool = True,
) -> Network:
    """Join networks into one: shared image, exchanges, pooled features, a dense head.

    One parent alone gets preprocessing and a new head, which is the plain way to fine-tune it.

    Args:
        *parents: One or two networks from :func:`graftonnx.load`; their branches are called a, b.
        plan: What to exchange; the best plan of :func:`graftonnx.match` when omitted.
        classes: Number of logits; that of `labels`, or of the first parent, when omitted.
        labels: Class names in the order of the logits.
        hidden: Width of the head's hidden layer; 0 for none.
        dropout: Share of hidden units dropped in training.
        skip_init: `zero`: before training both branches compute exactly what their parents do; `paper`: plain
            additions.
        max_skips: Number of exchanges to plan at most.
        seed: For the weights of projections and head.
        prove: Whether to run the proofs of :mod:`graftonnx.proofs`.

    Returns:
        The fused network; :func:`graftonnx.save` writes it, :func:`graftonnx.to_torch` makes it trainable.

    Raises:
        PlanError: If the plan does not fit the parents.
        ParityError: If a proof fails.
        ValueError: If the number of parents, classes or labels makes no sense.
    """
    if skip_init not in ("zero", "paper"):
        raise ValueError(f"skip_init (={skip_init!r}) is neither 'zero' nor 'paper'")
    if hidden < 0 or not 0 <= dropout < 1:
        raise ValueError(f"hidden (={hidden}) must be 0 or more, dropout (={dropout}) in 0 <= p < 1")
    if not 1 <= len(parents) <= 2:
        raise ValueError(f"{len(parents)} parents given; one or two can be fused")
    known = dict(zip(ascii_lowercase, parents, strict=False))
    classes = _classes(classes, labels, parents[0])
    if plan is None:
        plan = match(*parents, max_skips=max_skips) if len(parents) == 2 else lone_plan(parents[0])
    known = _as_planned(known, plan)
    skeleton, weights = splice(
        known, plan, HeadDesign(classes, hidden, dropout), skip_init=skip_init, seed=seed
    )
    metadata = Metadata(
        input=InputConvention(preprocess=PRESETS["unit"]),
        labels=tuple(labels),
        parents=tuple(_described(letter, network) for letter, network in known.items()),
        plan=plan.model_copy(update={"rejections": ()}).model_dump_json(),
    )
    write_metadata(skeleton, metadata)
    fused = Network(
        name="fused.onnx",
        skeleton=skeleton,
        weights=weights,
        input=INPUT,
        input_shape=(3, *plan.input_size),
        head=Head(OUTPUT, classes, "head/features"),
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
    return dataclasses.replace(fused, notes=check(fused, known, identical=skip_init == "zero"))


def lone_plan(parent: Network) -> Plan:
    """Return the plan of one network alone: no skips."""
    return Plan(input_size=fused_size([parent]), parents={"a": planned(parent)})


def check(fused: Network, parents: dict[str, Network], *, identical: bool) -> tuple[str, ...]:
    """Prove a fused network; see :mod:`graftonnx.proofs`.

    Args:
        fused: The network.
        parents: By branch letter.
        identical: Whether features must equal the parents', as with projections at zero.

    Returns:
        What was proven, in words.

    Raises:
        ModelError: If it is not valid ONNX.
        ParityError: If its numbers are wrong.
    """
    proofs.check_structure(fused.skeleton, fused.weights)
    names = {
        f"{parent.branch}/{role}": value
        for parent in fused.metadata.parents
        for role, value in (("image", parent.input_value), ("feature", parent.feature))
    }
    values = proofs.check_runs(fused.skeleton, fused.weights, names)
    proven = ["valid ONNX", "runs with batch 1 and 3"]
    for letter, parent in parents.items() if identical else ():
        image, feature = values[f"{letter}/image"], values[f"{letter}/feature"]
        proofs.check_identity(parent, letter, image, feature)
        difference = proofs.compare_with_file(parent, image, feature)
        if difference is None:
            proven.append(f"branch {letter} equals {parent.name} as it was loaded, bit for bit")
        else:
            within = "bit for bit" if difference == 0 else f"within {difference:.0e}"
            proven.append(f"branch {letter} equals {parent.name} {within}")
    return tuple(proven)


def _classes(classes: int | None, labels: Sequence[str], first: Network) -> int:
    if classes is None:
        classes = len(labels) or first.head.classes
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
            f"but {len(parents)} parents are given ({', '.join(parents)})."
        )
    taken = {}
    for letter, network in parents.items():
        wanted = plan.parents[letter]
        if network.input_shape[1:] != wanted.input_size:
            height, width = wanted.input_size
            raise PlanError(
                f"the plan runs parent '{letter}' at {height}x{width} pixels, but '{network.name}' is loaded "
                f"at {network.input_shape[1]}x{network.input_shape[2]}. Load it with input_size="
                f"({height}, {width})."
            )
        try:
            check_preprocess(wanted.preprocess, network.input_shape[0])
        except GraftError as error:
            raise error.at(f"cannot use parent '{letter}' ('{network.name}')") from error
        taken[letter] = dataclasses.replace(network, preprocess=wanted.preprocess)
    return taken


def _described(letter: str, network: Network) -> Parent:
    return Parent(
        branch=letter,
        name=network.name,
        sha256=network.sha256,
        producer=network.producer,
        parameters=parameters(network.view, trunk(network)),
        input_size=network.input_shape[1:],
        input_value=f"{letter}/{network.input}",
        feature=f"{letter}/{network.head.feature}",
        features=feature_extent(network)[1],
        preprocess=network.preprocess,
    )
