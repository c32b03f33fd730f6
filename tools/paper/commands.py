"""graftonnx's own commands, run in this process: what is printed can be typed."""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
from collections.abc import Mapping

from declarations import Options, Value

from graftonnx.cli import graftonnx


def call(*words: object) -> str:
    """Run a graftonnx command, after it has been shown on stderr, and return what it prints to stdout.

    Raises:
        SystemExit: If it fails or is interrupted, with its exit code; it has said why.
    """
    arguments = [str(word) for word in words]
    print(f"$ graftonnx {shlex.join(arguments)}", file=sys.stderr, flush=True)
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            graftonnx(arguments, prog_name="graftonnx")
    except SystemExit as end:
        if end.code:
            raise
    return output.getvalue()


def options(*given: Mapping[str, Value]) -> list[str]:
    """Return options as words; what comes later replaces what comes earlier."""
    joined: Options = {}
    for each in given:
        joined.update(each)
    return [word for name, value in joined.items() for word in (f"--{name}", str(value))]
