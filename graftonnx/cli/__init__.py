"""The command line: click only, one file per command, heavy imports inside the commands."""

from __future__ import annotations

import sys

from graftonnx.cli.group import graftonnx


def main() -> None:
    """Run the command line; the console script `graftonnx` points here."""
    sys.exit(graftonnx())


__all__ = ["graftonnx", "main"]
