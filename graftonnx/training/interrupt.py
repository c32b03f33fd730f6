"""Stop between two steps: Ctrl-C, a polite kill and a closed terminal wait until the weights are whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

POLITE = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals that ask to stop; SIGHUP comes where the terminal is closed, and not on Windows."""


class Interrupted(KeyboardInterrupt):
    """Training was interrupted, and everything that is needed to go on has been saved.

    Attributes:
        run: The run folder; `graftonnx.training.resume(run)` goes on.
        epoch: The epoch that was under way, counted from 1.
        signal: One of those in `POLITE`.
    """

    def __init__(self, run: Path, epoch: int, number: int) -> None:
        super().__init__(f"training was interrupted in epoch {epoch}; '{run}' can be resumed")
        self.run = run
        self.epoch = epoch
        self.signal = signal.Signals(number)


class StopRequest:
    """Whether a signal has asked to stop, and which."""

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self.signal: int | None = None
        self._numbers = tuple(numbers)

    def listen(self) -> None:
        """Hear the signals; also where somebody else has begun to."""
        for number in self._numbers:
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Yield a request that a signal in `POLITE` fills in; the second signal acts as if nobody had listened.

    A signal that is ignored stays ignored. Outside of the main thread, where Python handles no signals, the
    request stays empty.
    """
    if threading.current_thread() is not threading.main_thread():
        yield StopRequest()
        return
    handlers = {number: signal.getsignal(number) for number in POLITE}
    previous = {n: handler for n, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    request = StopRequest(previous)
    request.listen()
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
