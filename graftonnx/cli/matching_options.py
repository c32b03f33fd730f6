"""The options of commands that plan exchanges, and the plan they ask for."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graftonnx.cli import console
from graftonnx.cli.parameters import LETTERS, Choice, IntRange

if TYPE_CHECKING:
    from graftonnx.alignment import Scores
    from graftonnx.calibration import Calibration
    from graftonnx.metadata import InputKind
    from graftonnx.network import Network
    from graftonnx.plan import Plan

    Similarity = Mapping[tuple[str, str], Scores]

_AMOUNT = re.compile(r"\+?(\d+(?:\.\d+)?)([%kKMG]?)")
_UNITS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True)
class Amount:
    """A limit: a number, or a share of what the parents have."""

    number: float
    is_share: bool

    def of(self, whole: float) -> float:
        """Return the limit as a number."""
        return self.number * whole if self.is_share else self.number


class AmountType(click.ParamType[Amount]):
    """Reads `+5%`, `1M`, `200k`."""

    name = "amount"

    def convert(
        self, value: str | Amount, param: click.Parameter | None, ctx: click.Context | None
    ) -> Amount:
        """Return the amount."""
        if isinstance(value, Amount):
            return value
        found = _AMOUNT.fullmatch(value.strip())
        if found is None:
            self.fail(f"{value!r} is no amount; expected as +5% or +1M (k, M, G).", param, ctx)
        number, unit = float(found[1]), found[2]
        if not math.isfinite(number * _UNITS.get(unit, 1.0)):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return Amount(number / 100, True) if unit == "%" else Amount(number * _UNITS[unit], False)


class BranchesType(click.ParamType[tuple[str, ...]]):
    """Reads `a`, `a,c`."""

    name = "branches"

    def convert(
        self, value: str | tuple[str, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the letters."""
        if isinstance(value, tuple):
            return value
        letters = tuple(letter.strip() for letter in value.split(","))
        for letter in letters:
            if len(letter) != 1 or letter not in LETTERS:
                self.fail(
                    f"{value!r} does not name branches; expected their letters, as a or a,c.", param, ctx
                )
            if letters.count(letter) > 1:
                self.fail(
                    f"{value!r} names branch {letter!r} twice; give each once, as a or a,c.", param, ctx
                )
        return letters


def check_into(into: Sequence[str] | None, parents: int) -> None:
    """Refuse a branch without a parent.

    Raises:
        click.BadParameter: Naming it.
    """
    for letter in into or ():
        if letter not in LETTERS[:parents]:
            raise click.BadParameter(
                f"--into {','.join(into or ())!r}: there is no branch {letter!r}; "
                f"the parents are {', '.join(LETTERS[:parents])} in the order given."
            )


LIMITS = ("max_skips", "into", "policy", "max_flops", "max_params")
"""The parameters that a plan file replaces."""


def matching_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of matching to a command, which gets them as keyword arguments."""
    for option in reversed(
        (
            click.option(
                "--max-skips", type=IntRange(min=0), default=6, show_default=True,
                help="Exchanges between two parents at most.",
            ),
            click.option(
                "--into", type=BranchesType(), metavar="BRANCHES",
                help="Skips add to maps of these branches only, as a or a,c; the others give and do not "
                "receive.  [default: all]",
            ),
            click.option(
                "--policy", type=Choice(["exact", "near", "all"]), default="near", show_default=True,
                help="Exchange only taps of equal shapes, of sizes within a factor of two, or any.",
            ),
            click.option(
                "--max-flops", type=AmountType(), metavar="AMOUNT",
                help="What the skips may cost, as +5% of the parents' FLOPs, or as +10M.",
            ),
            click.option(
                "--max-params", type=AmountType(), metavar="AMOUNT",
                help="Weights that the skips may have, as +5% of the parents', or as +1M.",
            ),
            click.option(
                "--calibrate", type=click.Path(path_type=Path), metavar="DIR",
                help="Rank pairs by how alike they are on the images below DIR; these need no labels.",
            ),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def calibration_of(networks: Sequence[Network], folder: Path | None) -> Calibration | None:
    """Return the networks on the images of a folder; None without a folder."""
    from graftonnx.calibration import Calibration, read_images
    from graftonnx.matching import fused_size

    if folder is None:
        return None
    pixels = read_images(folder, fused_size(networks))
    console.note(f"calibrating on {len(pixels)} images of {folder}")
    return Calibration(dict(zip(LETTERS, networks, strict=False)), pixels)


def make_plan(
    networks: Sequence[Network],
    similarity: Similarity | None,
    *,
    inputs: InputKind,
    max_skips: int,
    into: tuple[str, ...] | None,
    policy: Any,
    max_flops: Amount | None,
    max_params: Amount | None,
) -> Plan:
    """Plan the exchanges as the options ask."""
    from graftonnx.costs import macs, parameters
    from graftonnx.matching import match
    from graftonnx.taps import trunk

    # One multiply-accumulate is two FLOPs.
    flops = 2 * sum(macs(network.view, trunk(network)) for network in networks)
    weights = sum(parameters(network.view, trunk(network)) for network in networks)
    return match(
        *networks,
        max_skips=max_skips,
        policy=policy,
        max_macs=None if max_flops is None else max_flops.of(flops) / 2,
        max_parameters=None if max_params is None else max_params.of(weights),
        similarity=similarity,
        inputs=inputs,
        into=into,
    )
