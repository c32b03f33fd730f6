"""What may come of a command, and what must not."""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from graftonnx.cli.exit_codes import INTERRUPTED

if TYPE_CHECKING:
    from running import Case

OK, REFUSED, USAGE, FINDING = "ok", "refused", "usage", "finding"

PARTLY = 3
"""The exit code of `predict` and `verify` where some files are bad."""

LONGEST = 8_000
"""Characters of a message."""

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_INTERNAL = re.compile(r"Traceback|std::|0x[0-9a-f]{8}|<class |object at ")


@dataclass(frozen=True)
class Outcome:
    """What came of a command.

    Attributes:
        kind: :data:`OK`, :data:`REFUSED`, :data:`USAGE` or :data:`FINDING`.
        reason: Of a finding, in one line; findings of one cause have one reason.
        text: All that is known about it.
    """

    kind: str
    reason: str = ""
    text: str = ""


def judged(
    case: Case,
    status: int | BaseException,
    said: str,
    complained: str,
    left: set[str],
    lost: set[str],
    warned: Sequence[str],
) -> Outcome:
    """Return what came of a command.

    Args:
        case: The command.
        status: The exit code, or the exception that came out of it.
        said: Its stdout.
        complained: Its stderr.
        left: Files that are there now and were not before.
        lost: Files that were there before and are not now.
        warned: Python's warnings.
    """
    failed = status not in (0, PARTLY)
    if isinstance(status, click.UsageError):
        kind, message = USAGE, status.format_message()
    elif isinstance(status, click.ClickException):
        kind, message = REFUSED, status.format_message()
    elif isinstance(status, BaseException):
        return Outcome(FINDING, _named(status), "".join(traceback.format_exception(status)))
    elif failed and status != INTERRUPTED:
        return Outcome(FINDING, f"exit code {status}", complained)
    else:
        kind, message = OK, ""
    if lost:
        return Outcome(FINDING, "files are gone", f"{sorted(lost)}\n{message}")
    allowed = set() if failed else case.outputs
    if not {name.partition("/")[0] for name in left} <= allowed:
        return Outcome(FINDING, f"files are left behind by {case.arguments[0]}", f"{sorted(left)}\n{message}")
    if failed and (fault := _fault(message)):
        return Outcome(FINDING, f"message: {fault}", message)
    if found := _UNPRINTABLE.search(said + complained):
        return Outcome(FINDING, f"{found[0]!r} on the screen", said + complained)
    if warned:
        return Outcome(FINDING, f"warning: {warned[0].splitlines()[0][:80]}", "\n".join(warned))
    return Outcome(kind)


def _fault(message: str) -> str | None:
    """Return what is wrong with an error message."""
    if not message.strip():
        return "empty"
    if len(message) > LONGEST:
        return "too long"
    if _UNPRINTABLE.search(message):
        return "unprintable characters"
    if "\n" in message.strip():
        return "more than a line"
    if found := _INTERNAL.search(message):
        return f"internals ({found[0][:10]})"
    if message.rstrip()[-1] not in ".?!)":
        return "no sentence"
    return None


def _named(error: BaseException) -> str:
    """Return an exception with the place in graftonnx that it came from, or through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame for frame in frames if "/graftonnx/" in frame.filename and "site-packages" not in frame.filename
    ]
    where = own[-1] if own else frames[-1]
    return (
        f"{type(error).__name__} at {where.filename.rpartition('/graftonnx/')[2]}:{where.lineno} {where.name}"
    )
