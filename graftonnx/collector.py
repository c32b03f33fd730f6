"""Python's cyclic garbage collector, while much is built that stays."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Keep the collector from searching; also a decorator.

    Indexing a graph makes many long-lived objects and no cycles; the collector would look at all of them
    again and again, which takes a third of the time. What was made meanwhile counts as old afterwards, so
    that not even the first search goes over it.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():  # what the program has frozen stays so
                gc.freeze()
                gc.unfreeze()
            gc.enable()
