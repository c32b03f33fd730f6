"""A polite kill, or a closed terminal, ends a command as Ctrl-C does: what was begun is cleaned up."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Those that end a program; SIGHUP is not on Windows."""


class Ended(SystemExit):
    """A signal ends the program.

    Attributes:
        signal: Which.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let a signal raise :class:`Ended` in the block; the second one ends the process at once.

    A signal that is ignored, as under `nohup`, stays ignored.
    """
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number, handler in previous.items() if handler == signal.SIG_DFL]
    for number in heard:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, previous[number])


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise Ended(number)
