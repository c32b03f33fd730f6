"""`graftonnx fuse`."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource

from graftonnx.cli import console
from graftonnx.cli.match_command import print_plan
from graftonnx.cli.matching_options import LIMITS, calibration_of, check_into, make_plan, matching_options
from graftonnx.cli.parameters import (
    LETTERS,
    Choice,
    FloatRange,
    IntRange,
    Seed,
    any_file,
    dequantize_option,
    force_option,
    input_size_option,
    inputs_option,
    json_option,
    load_parents,
    preprocess_option,
    quiet_option,
    split_parents,
)
from graftonnx.errors import DataError

if TYPE_CHECKING:
    from graftonnx.cli.records import Fused
    from graftonnx.metadata import FeatureKind, HeadKind, InputKind, NormKind, Preprocess
    from graftonnx.network import Network
    from graftonnx.plan import Plan


@click.command(name="fuse")
@click.argument("parents", nargs=-1, required=True, metavar="A [B ...]", shell_complete=any_file)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The fused file.  [required unless --dry-run]",
)
@click.option("--classes", type=IntRange(min=2), help="Number of classes.  [default: as A]")
@click.option("--labels", type=click.Path(path_type=Path), help="Text file of class names, one each line.")
@input_size_option
@inputs_option
@click.option(
    "--plan", "plan_file", type=click.Path(path_type=Path), help="Use this plan of `graftonnx match`."
)
@matching_options
@click.option(
    "--skip-init",
    type=Choice(["zero", "paper", "lsq"]),
    default="zero",
    show_default=True,
    help="zero: all branches start as exactly their parents; paper: plain additions; lsq: a little of what "
    "least squares finds on the images of --calibrate.",
)
@preprocess_option
@dequantize_option
@click.option(
    "--heads",
    type=Choice(["concat", "sum", "attention"]),
    default="concat",
    show_default=True,
    help="How the branches' features are joined: side by side; each through a dense layer to one width, then "
    "added; likewise, but weighted for each image.",
)
@click.option(
    "--features",
    type=Choice(["penultimate", "logits"]),
    default="penultimate",
    show_default=True,
    help="What is joined: the last feature tensors, pooled, or the parents' own class scores (stacking).",
)
@click.option(
    "--norm",
    type=Choice(["rms", "none"]),
    default="rms",
    show_default=True,
    help="rms: the branches' features are brought to one scale in front of the head; none: they stay as they "
    "are.",
)
@click.option(
    "--hidden",
    type=IntRange(min=0),
    default=256,
    show_default=True,
    help="Width of the head's hidden layer; 0: none.",
)
@click.option(
    "--dropout",
    type=FloatRange(0, 1, max_open=True),
    default=0.2,
    show_default=True,
    help="In the head.",
)
@click.option(
    "--head-file",
    type=click.Path(path_type=Path),
    metavar="FILE.onnx",
    help="Use your own head: one input [N, C] for each branch, in order, or one with all of them side by "
    "side; one output [N, classes].",
)
@click.option("--seed", type=Seed(), default=0, show_default=True, help="For the new weights.")
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@force_option
@json_option
@quiet_option
def command(
    parents: tuple[str, ...],
    output: Path | None,
    classes: int | None,
    labels: Path | None,
    input_size: tuple[int, int] | None,
    inputs: InputKind | None,
    plan_file: Path | None,
    calibrate: Path | None,
    skip_init: Literal["zero", "paper", "lsq"],
    preprocess: tuple[str, ...],
    dequantize: bool,
    heads: HeadKind,
    features: FeatureKind,
    norm: NormKind,
    hidden: int,
    dropout: float,
    head_file: Path | None,
    seed: int,
    dry_run: bool,
    force: bool,
    as_json: bool,
    **limits: Any,
) -> None:
    """Join networks A, B, ... into one trainable ONNX file.

    Their branches exchange the taps that `graftonnx match` finds (or those of --plan); their features are
    joined and classified by a new head. The file is proven before it is written. A alone gets a new head
    only.
    """
    from graftonnx import files, reading
    from graftonnx.fusion import fuse, lone_plan
    from graftonnx.model import save

    paths, conventions = split_parents(parents, preprocess)
    if not 1 <= len(paths) <= len(LETTERS):
        raise click.UsageError(
            f"{len(paths)} parents given; expected 1 to {len(LETTERS)}: graftonnx fuse A [B ...] -o FILE"
        )
    if skip_init == "lsq" and calibrate is None:
        raise click.UsageError("--skip-init lsq needs images: pass --calibrate DIR.")
    if len(paths) == 1:
        _check_excluded("A alone", "one network exchanges nothing", (*LIMITS, "calibrate", "skip_init"))
    if plan_file is None:
        check_into(limits["into"], len(paths))
    if head_file is not None:
        _check_excluded("--head-file", "your own head decides", ("heads", "norm", "hidden", "dropout"))
    if output is None and not dry_run:
        raise click.UsageError("Missing option '-o' / '--output'. Give it, or --dry-run.")
    if output is not None and not dry_run:
        files.check_writable(output, force=force)
    names = reading.read_labels(labels) if labels else ()
    if len(names) == 1:
        raise DataError(f"cannot use labels '{labels}': one name; expected two or more, one each line.")
    if names and classes not in (None, len(names)):
        raise click.UsageError(
            f"--classes {classes}, but '{labels}' names {len(names)} classes. Leave --classes out."
        )
    networks, plan = _loaded(paths, conventions, plan_file, input_size, dequantize=dequantize)
    calibration = calibration_of(networks, calibrate)
    if plan is None and len(networks) == 1:
        plan = lone_plan(networks[0])
    if plan is None:
        similarity = None if calibration is None else calibration.similarity()
        plan = make_plan(networks, similarity, inputs=inputs or "shared", **limits)
    if inputs is not None:
        plan = plan.model_copy(update={"inputs": inputs})
    if dry_run:
        if as_json:
            console.print_json(plan)
        else:
            print_plan(plan, rejections=True)
        return
    fused = fuse(
        *networks,
        plan=plan,
        classes=classes,
        labels=names,
        heads=heads,
        features=features,
        norm=norm,
        hidden=hidden,
        dropout=dropout,
        head_file=head_file,
        skip_init=skip_init,
        calibration=calibration,
        seed=seed,
    )
    assert output is not None
    save(fused, output, force=force)
    _report(fused, networks, plan, output, as_json)


def _loaded(
    paths: list[Path],
    conventions: dict[str, Preprocess],
    plan_file: Path | None,
    input_size: tuple[int, int] | None,
    *,
    dequantize: bool,
) -> tuple[list[Network], Plan | None]:
    """Load the parents, and read the plan, if there is one."""
    from graftonnx.errors import ModelError, PlanError
    from graftonnx.plan import read_plan
    from graftonnx.weights import digest

    if plan_file is None:
        networks = load_parents(paths, [input_size] * len(paths), conventions, dequantize=dequantize)
        return networks, None
    _check_excluded("--plan", "the plan says it", ("input_size", *LIMITS))
    if click.get_current_context().params["skip_init"] != "lsq":
        _check_excluded("--plan", "without --skip-init lsq it does nothing", ("calibrate",))
    plan = read_plan(plan_file)
    if len(plan.parents) != len(paths):
        wanted = ", ".join(parent.name for parent in plan.parents.values())
        raise PlanError(
            f"plan '{plan_file}' is for {len(plan.parents)} parents, {len(paths)} are given. Give {wanted}, "
            "in this order, or make a plan with `graftonnx match`."
        )
    if set(plan.parents) != set(LETTERS[: len(paths)]):
        raise PlanError(
            f"plan '{plan_file}' names the parents {', '.join(plan.parents)}; "
            f"expected {', '.join(LETTERS[: len(paths)])}, in the order of the files. Rename them in the "
            "plan, also at the ends of its skips."
        )
    with contextlib.suppress(ModelError, OSError):  # reading them says what is wrong
        digests = [digest(path) for path in paths]
        try:
            plan.check_order(digests)
        except PlanError as error:
            raise error.at(f"cannot use plan '{plan_file}'") from error
    parents = {letter: plan.parents[letter] for letter in LETTERS[: len(paths)]}
    sizes = [parent.input_size for parent in parents.values()]
    said = {letter: parent.preprocess for letter, parent in parents.items() if not parent.is_guessed}
    networks = load_parents(paths, sizes, {**said, **conventions}, dequantize=dequantize)
    networks, plan = _agreed(networks, plan, conventions)
    for (letter, parent), network in zip(parents.items(), networks, strict=True):
        if parent.sha256 not in ("", network.sha256):
            console.note(f"note: {letter} ({network.name}) is not the file that the plan was made for")
    return networks, plan


def _agreed(
    networks: list[Network], plan: Plan, conventions: dict[str, Preprocess]
) -> tuple[list[Network], Plan]:
    """Give the networks the plan's preprocessing, and the plan that of --preprocess.

    A guess in the plan is still one where the file alone leads to the same; else somebody has set it there.
    """
    parents, agreed = {}, []
    for letter, network in zip(LETTERS, networks, strict=False):
        parent = plan.parents[letter]
        if letter in conventions:
            update = {"preprocess": network.preprocess, "preprocess_reason": "given"}
            parent = parent.model_copy(update=update)
        elif network.preprocess != parent.preprocess:
            parent = parent.model_copy(update={"preprocess_reason": "given"})
        parents[letter] = parent
        agreed.append(
            dataclasses.replace(
                network, preprocess=parent.preprocess, preprocess_reason=parent.preprocess_reason
            )
        )
    return agreed, plan.model_copy(update={"parents": parents})


def _check_excluded(option: str, reason: str, names: tuple[str, ...]) -> None:
    """Refuse parameters that make no sense beside an option."""
    source = click.get_current_context().get_parameter_source
    for name in names:
        if source(name) is not ParameterSource.DEFAULT:
            other = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{other} and {option} exclude each other: {reason}. Leave one out.")


def _report(fused: Network, networks: list[Network], plan: Plan, output: Path, as_json: bool) -> None:
    from graftonnx.costs import macs, parameters
    from graftonnx.heads import handing_over
    from graftonnx.taps import trunk

    view = fused.view
    assert fused.metadata.head is not None
    features = fused.metadata.head.features
    alone = sum(macs(network.view, trunk(handing_over(network, features))) for network in networks)
    facts: Fused = {
        "output": str(output),
        "bytes": output.stat().st_size,
        "input": ["batch", *fused.input_shape],
        "inputs": {name: ["batch", *shape] for name, shape in fused.input_shapes.items()},
        "classes": fused.head.classes,
        "parameters": parameters(view),
        "macs": macs(view),
        "parents_macs": alone,
        "exchanges": len(plan.exchanges),
        "head": fused.metadata.head,
        "proofs": list(fused.notes),
        "plan": plan,
    }
    if as_json:
        console.print_json(facts)
        return
    print_plan(plan, rejections=False)
    console.say(f"proved: {'; '.join(fused.notes)}")
    console.say(
        f"wrote {output}: {_spelled_inputs(fused)} -> {facts['classes']} classes, "
        f"{facts['parameters']:,} parameters, {facts['macs'] / 1e6:,.0f} M MACs "
        f"({facts['macs'] / max(alone, 1) - 1:+.1%} over the parents), {facts['bytes'] / 1e6:.1f} MB"
    )


def _spelled_inputs(fused: Network) -> str:
    """Return `[N, 3, 32, 32]`, or where there are several `input_a [N, 3, 32, 32], input_b ...`."""
    from graftonnx.shapes import spelled

    shapes = {name: spelled((None, *shape)) for name, shape in fused.input_shapes.items()}
    if len(shapes) == 1:
        return shapes[fused.input]
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())
