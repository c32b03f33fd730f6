"""`graftonnx verify`: check a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from graftonnx.cli import console
from graftonnx.cli.parameters import Choice, json_option, quiet_option
from graftonnx.providers import PROVIDERS

if TYPE_CHECKING:
    from graftonnx.providers import Provider


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="BUNDLE")
@click.option(
    "--provider",
    type=Choice(PROVIDERS),
    default="cpu",
    show_default=True,
    help="Where to run its networks.",
)
@json_option
@quiet_option
def command(folder: Path, provider: Provider, as_json: bool) -> None:
    """Check a bundle: every file by its sum, each network by what it computes here.

    Nothing in it is executed but its networks, by ONNX Runtime. Files that no bundle has are refused; a
    predict.py or requirements.txt that this version of graftonnx does not write is named.
    """
    from graftonnx.bundling import verify

    verified = verify(folder, provider=provider)
    if verified.foreign:
        console.warn(
            f"Note: not as this version of graftonnx writes it: {', '.join(verified.foreign)}. Another "
            "version did, or it was changed: read it before you use it."
        )
    if as_json:
        console.print_json(verified)
        return
    console.say(f"{verified.files} files are what they were")
    for model in verified.models:
        console.say(
            f"{model.precision}: valid ONNX; probabilities within {model.difference:.0e} of the recorded "
            "ones "
            f"on {verified.provider} (at most {model.tolerance:.0e} is allowed); its Triton configuration "
            "fits"
        )
    console.say(f"Verified {folder}: {verified.name}.")
