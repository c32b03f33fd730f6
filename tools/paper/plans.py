"""Plans that `graftonnx match` does not make, for studies of what it might: edited ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from graftonnx import Network, Plan, Skip, load
from graftonnx.errors import GraftError
from graftonnx.plan import Projection
from graftonnx.spelling import did_you_mean
from graftonnx.taps import ACTIVATIONS

EDITS = ("a-to-b", "b-to-a", "early", "late", "kernel-3", "before-activation")
"""What `plan: NAME` may stand for in a study: one direction only, the half of the skips that lies nearer to
the image or to the head, projections of 3x3 windows (two wider where there is one already), exchanges before
the activations that end the blocks."""


def edited(plan: Plan, edit: str, parents: Mapping[str, Path]) -> Plan:
    """Return a plan with one thing changed.

    Args:
        plan: Of `graftonnx match`.
        edit: One of :data:`EDITS`.
        parents: The files of its parents, by branch letter.

    Raises:
        GraftError: If there is no such edit.
    """
    match edit:
        case "a-to-b" | "b-to-a":
            skips = [skip for skip in plan.skips if skip.source.startswith(f"{edit[0]}/")]
        case "early" | "late":
            half = len(plan.skips) // 4 * 2  # the two directions of an exchange stay together
            skips = list(plan.skips[:half] if edit == "early" else plan.skips[half:])
        case "kernel-3":
            skips = [skip.model_copy(update={"projection": wider(skip.projection)}) for skip in plan.skips]
        case "before-activation":
            networks = {
                letter: load(path, input_size=plan.parents[letter].input_size)
                for letter, path in parents.items()
            }
            skips = [earlier(skip, networks) for skip in plan.skips]
        case _:
            raise GraftError(
                f"there is no plan '{edit}'.{did_you_mean(edit, EDITS)} Choose from {', '.join(EDITS)}."
            )
    return plan.model_copy(update={"skips": tuple(skips)})


def wider(projection: Projection) -> Projection:
    """Return a projection whose window reaches one position further on every side; what is pooled stays."""
    if projection.kind not in ("equal", "conv"):
        return projection
    return projection.model_copy(
        update={
            "kind": "conv",
            "kernel": tuple(extent + 2 for extent in projection.kernel),
            "pads": tuple(pad + 1 for pad in projection.pads),
        }
    )


def earlier(skip: Skip, networks: Mapping[str, Network]) -> Skip:
    """Return a skip whose ends lie in front of the activations that make them.

    Both must move: an exchange that read behind an activation and added in front of it would feed itself.
    """
    return skip.model_copy(
        update={"source": in_front(skip.source, networks), "target": in_front(skip.target, networks)}
    )


def in_front(tap: str, networks: Mapping[str, Network]) -> str:
    """Return what the activation that makes a tap reads; the tap where something else makes it."""
    letter, _, name = tap.partition("/")
    node = networks[letter].view.producer.get(name)
    return tap if node is None or node.op_type not in ACTIVATIONS else f"{letter}/{node.input[0]}"
