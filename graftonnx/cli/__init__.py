"""The command line: click only, one file per command, heavy imports inside the commands."""

from __future__ import annotations

import os
import sys
import warnings

from graftonnx import limits
from graftonnx.cli.console import forget_odd_sizes
from graftonnx.cli.ending import ended_by_signals
from graftonnx.cli.group import graftonnx


def main() -> None:
    """Run the command line; the console script `graftonnx` points here."""
    # The limit of graftonnx.images is lower, and large JPEGs are reduced while they are decoded.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    limits.own_process()
    forget_odd_sizes()
    _occupy_closed_streams()
    with ended_by_signals():
        sys.exit(graftonnx())


def _occupy_closed_streams() -> None:
    """Keep files that are opened later from becoming stdin, stdout or stderr, where libraries print."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


__all__ = ["graftonnx", "main"]
