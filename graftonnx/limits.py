"""How much a model file may ask of the machine: a few bytes can claim terabytes.

Files come from strangers.

| name | counts | why |
|---|---|---|
| `file` | bytes of a file, or of one with external data | it is hashed and mapped whole |
| `structure` | bytes of a file without its large weights | it is parsed into memory |
| `nodes` | operators, inner graphs and expanded functions included | time grows with them |
| `depth` | graphs inside graphs, functions inside functions | parsers and inference recurse |
| `scopes` | names that graphs inside graphs can read, for each of these graphs | inference lists them again |
| `rank` | axes of a tensor | NumPy and PyTorch take 64, kernels fewer |
| `elements` | of one tensor in a file | sizes in bytes stay far below 2^63 |
| `value` | bytes of one value while the network runs on one input | it is allocated |
| `work` | bytes that onnx and ONNX Runtime take beside weights and values | small files can fill the memory |
| `folded` | bytes of all constants that are computed from smaller ones, or sparse | they are kept |
| `steps` | of a loop, those of loops around it multiplied | native code cannot be stopped |
| `name` | characters of a name | it is printed, and written again |
| `text` | characters of a documentation text or of an entry of metadata | likewise |
| `terms` | inputs, outputs or attributes of one node; inputs or outputs of a graph | each costs time |

For constants as many elements may be read and made as `folded` says bytes; slow operators count them several
times.

Extents and steps that a network computes from its input's numbers, not from its shape, count as 2^63 - 1.

Every limit is far above what real networks need. Who trusts a file raises one in the environment:
`GRAFTONNX_LIMITS="nodes=2000000 value=16G"`.

`work` holds for the whole process (`RLIMIT_AS`, on Linux), so that a thread beside could find no memory
meanwhile. Therefore it holds in the commands, and in programs with one thread; a program with several, which
loads files of strangers, does that in a process of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from graftonnx.errors import ModelError
from graftonnx.spelling import did_you_mean

VARIABLE = "GRAFTONNX_LIMITS"
"""The environment variable that raises limits."""

THREAD = 144 << 20
"""Addresses that a new thread of native code takes: its stack, and what glibc reserves for its memory."""

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_ENTRY = re.compile(r"(\w+)=(\d{1,15})([KMGT]?)", re.ASCII)


@dataclass(frozen=True)
class Limits:
    """The limits that hold; see the table of the module."""

    file: int = 1 << 36
    structure: int = 1 << 29
    nodes: int = 500_000
    depth: int = 16
    scopes: int = 1 << 24
    rank: int = 32
    elements: int = 1 << 40
    value: int = 1 << 29
    work: int = 1 << 30
    folded: int = 1 << 30
    steps: int = 100_000
    name: int = 1 << 16
    text: int = 1 << 24
    terms: int = 100_000


@cache
def limits() -> Limits:
    """Return the limits that hold: those of the table, but for what the environment raised at the first call.

    Raises:
        ModelError: If the environment's entry cannot be understood.
    """
    text = os.environ.get(VARIABLE, "")
    known = {field.name for field in fields(Limits)}
    given: dict[str, int] = {}
    for entry in text.replace(",", " ").split():
        found = _ENTRY.fullmatch(entry)
        if found is None or found[1] not in known:
            hint = did_you_mean(found[1], known) if found else ""
            raise ModelError(
                f"{VARIABLE} holds '{entry}'; expected NAME=NUMBER with one of {', '.join(sorted(known))}, "
                f"as nodes=2000000 or value=16G.{hint}"
            )
        given[found[1]] = int(found[2]) * _UNITS[found[3]]
    return Limits(**given)


def check(name: str, found: int, what: str) -> None:
    """Refuse what exceeds a limit.

    Args:
        name: Of the limit.
        found: How much there is.
        what: What there is so much of, as the beginning of a sentence: `its graph has`.

    Raises:
        ModelError: If `found` is larger than the limit.
    """
    most = getattr(limits(), name)
    if found > most:
        raise exceeded(name, f"{what} {found:,}", most)


def own_process() -> None:
    """Let :func:`bounded` hold although there are several threads: all are ours, as in the commands."""
    _CONFINEMENT.owned = True


@contextlib.contextmanager
def bounded(what: str, more: int = 0) -> Iterator[None]:
    """Bound the memory that native code may take on top of what is in use, where the system can.

    The process is bounded, not the code; so nothing is where threads of others run (:func:`own_process`).

    Args:
        what: Who works, as the beginning of a sentence.
        more: Bytes beyond the limit `work`.

    Raises:
        ModelError: If it was not enough, or what came out nests too deeply.
    """
    most = limits().work + more
    _CONFINEMENT.enter(most)
    try:
        yield
    except MemoryError as error:
        raise exceeded("work", f"{what} takes more memory than the file should need", most) from error
    except Exception as error:
        from google.protobuf.message import DecodeError

        if isinstance(error, DecodeError):  # what onnx hands back is nested more deeply than it reads
            raise ModelError(
                f"{what} makes types that nest too deeply to be written. Export it again."
            ) from error
        raise
    finally:
        _CONFINEMENT.leave()


class _Confinement:
    """The process's address space, limited as long as anybody works; who comes first says to what.

    Attributes:
        owned: Whether the threads of the process are all ours.
    """

    def __init__(self) -> None:
        self.owned = False
        self._lock = threading.Lock()
        self._workers = 0
        self._before: tuple[int, int] | None = None

    def enter(self, most: int) -> None:
        """Limit it to what is in use and `most` bytes."""
        with self._lock:
            self._workers += 1
            may_limit = self.owned or not _other_threads()
            if self._workers == 1 and may_limit and sys.platform == "linux":
                import resource

                with contextlib.suppress(OSError, ValueError):
                    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
                    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
                    room = THREAD * (os.cpu_count() or 1)
                    wanted = pages * resource.getpagesize() + most + room
                    if soft == resource.RLIM_INFINITY or wanted < soft:
                        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
                        self._before = soft, hard

    def leave(self) -> None:
        """Lift the limit if nobody works any more."""
        with self._lock:
            self._workers -= 1
            if self._workers == 0 and self._before is not None:
                import resource

                resource.setrlimit(resource.RLIMIT_AS, self._before)
                self._before = None


def _other_threads() -> bool:
    """Return whether threads beside this one may need memory; tqdm's, which only looks on, needs none."""
    own = threading.current_thread()
    return any(thread is not own and thread.name != "tqdm_monitor" for thread in threading.enumerate())


_CONFINEMENT = _Confinement()


def exceeded(name: str, what: str, most: int) -> ModelError:
    """Return the error for what exceeds the limit `name`, which is `most`."""
    return ModelError(
        f"{what}; the limit is {most:,}. If you trust the file, set {VARIABLE}={name}=NUMBER to a larger one."
    )
