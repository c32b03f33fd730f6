"""The command line: click only, one file per command, heavy imports inside the commands."""

from __future__ import annotations

import sys
import warnings

from graftonnx import limits
from graftonnx.cli.ending import ended_by_signals
from graftonnx.cli.group import graftonnx


def main() -> None:
    """Run the command line; the console script `graftonnx` points here."""
    # The limit of graftonnx.images is lower, and large JPEGs are reduced while they are decoded.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    limits.own_process()
    with ended_by_signals():
        sys.exit(graftonnx())


__all__ = ["graftonnx", "main"]
