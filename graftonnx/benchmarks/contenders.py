"""What is measured: networks, and networks run one after the other or at once in threads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import onnx
from numpy.typing import NDArray

from graftonnx.errors import ModelError
from graftonnx.model import load
from graftonnx.providers import Provider
from graftonnx.providers.settings import SETTLE, Settings
from graftonnx.runtime import Session, input_shapes, open_session

Io = Literal["arrays", "bound", "resident"]
"""Handing over arrays, copying them to and from preallocated buffers, or computing on what lies in those."""

Step = Callable[[], object]
"""One run of a contender."""

Arrays = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Contender:
    """What takes its turn.

    Attributes:
        name: For people.
        files: The networks that it runs.
        at_once: Whether several run in threads of their own, not one after the other.
    """

    name: str
    files: tuple[Path, ...]
    at_once: bool = False


@dataclass(frozen=True)
class Running:
    """How all contenders run.

    Attributes:
        provider: As in :func:`graftonnx.runtime.open_session`, likewise below.
        settings: How the provider runs them.
        threads: CPU threads within an operator; 0 lets ONNX Runtime choose.
        cores: CPU cores that networks in threads of their own share out where `threads` is 0.
        io: How inputs and outputs are handed over.
    """

    provider: Provider
    settings: Settings
    threads: int
    cores: int
    io: Io


def line_up(files: Sequence[Path], against: Sequence[Path]) -> list[Contender]:
    """Return the contenders: each file; then the others one after the other, and in threads at once.

    A single other is only run alone.
    """
    named = dict(zip((*files, *against), _names((*files, *against)), strict=True))
    contenders = [Contender(named[file], (file,)) for file in files]
    if len(against) == 1:
        contenders.append(Contender(named[against[0]], tuple(against)))
    elif against:
        names = [named[file] for file in against]
        contenders.append(Contender(" then ".join(names), tuple(against)))
        threads = f"{' and '.join(names)} in {len(names)} threads"
        contenders.append(Contender(threads, tuple(against), at_once=True))
    return contenders


def _names(files: Sequence[Path]) -> list[str]:
    """Return the files' names, with their folders where two are alike."""
    plain = [file.name for file in files]
    return [file.name if plain.count(file.name) == 1 else str(file) for file in files]


def open_all(contender: Contender, running: Running) -> list[Session]:
    """Open a session for each network of a contender.

    Networks that run at once share out the CPU's threads, one at least for each. A network whose file fixes a
    batch size that is not asked for is opened in the form in which `graftonnx fuse` reads it.
    """
    threads = running.threads
    if contender.at_once:
        threads = max(1, (threads or running.cores) // len(contender.files))
    settings = replace(running.settings, options={**SETTLE, **running.settings.options})
    return [_open(file, replace(running, settings=settings, threads=threads)) for file in contender.files]


def _open(file: Path, running: Running) -> Session:
    """Open a network; one whose file fixes another batch size in the form that takes any, if there is one."""
    return open_session(
        file if _takes(file, running.settings.batches) else _widened(file),
        provider=running.provider,
        threads=running.threads,
        settings=running.settings,
    )


def _takes(file: Path, batches: Sequence[int]) -> bool:
    """Return whether a file lets its inputs have these batch sizes."""
    fixed = [shape[0] for shape in input_shapes(file).values() if shape and isinstance(shape[0], int)]
    return all(extent == batch for extent in fixed for batch in batches)


def _widened(file: Path) -> Path | onnx.ModelProto:
    """Return a network that takes any batch size; the file itself if that is impossible."""
    try:
        proto = load(file).proto
    except ModelError:
        return file
    proto.graph.name = file.name
    return proto


def step(
    contender: Contender,
    sessions: Sequence[Session],
    inputs: Sequence[Arrays],
    io: Io,
    stack: contextlib.ExitStack,
) -> Step:
    """Return a function that runs a contender once.

    Args:
        contender: What to run.
        sessions: Of its networks.
        inputs: For each network its arrays.
        io: How they are handed over.
        stack: Ends the threads, if any.
    """
    runs = [_single(session, arrays, io) for session, arrays in zip(sessions, inputs, strict=True)]
    if len(runs) == 1:
        return runs[0]
    if not contender.at_once:
        return lambda: [run() for run in runs]
    return _at_once(runs, stack)


def _at_once(runs: Sequence[Step], stack: contextlib.ExitStack) -> Step:
    """Return a function that runs all at the same time, each in a thread that stays its own.

    Each has run once before, while the others wait: a CUDA graph belongs to the thread that records it, and
    nothing else may happen on the GPU meanwhile.
    """
    pools = [stack.enter_context(ThreadPoolExecutor(1)) for _ in runs]
    for pool, run in zip(pools, runs, strict=True):
        pool.submit(run).result()

    def together() -> list[object]:
        futures = [pool.submit(run) for pool, run in zip(pools, runs, strict=True)]
        return [future.result() for future in futures]

    return together


def _single(session: Session, arrays: Arrays, io: Io) -> Step:
    """Return a function that runs a network once."""
    if io == "arrays":
        return lambda: session.run(*arrays)
    binding = session.bind(*arrays)
    return binding.compute if io == "resident" else lambda: binding.run(*arrays)
