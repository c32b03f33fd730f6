"""How much memory a contender needs: the peak of a process that does nothing else.

    python -m graftonnx.benchmarks.memory < request > answer

The peak is that of the process's own address space (`VmHWM`): what `getrusage` tells is, on Linux, never
below the peak of the process that started it.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from graftonnx.benchmarks.card import Card, find_card
from graftonnx.benchmarks.contenders import Contender, Io, Running, open_all, step
from graftonnx.benchmarks.inputs import random_inputs, shapes
from graftonnx.errors import ModelError
from graftonnx.metadata import Record
from graftonnx.providers import Provider
from graftonnx.providers.settings import Settings

RUNS = 3
"""Of each batch size."""

_STATUS = Path("/proc/self/status")


class Request(Record):
    """What to run: a contender, how, and at which batch sizes, ascending."""

    files: tuple[Path, ...]
    at_once: bool
    batches: tuple[int, ...]
    input_size: tuple[int, ...]
    provider: Provider
    options: dict[str, str]
    cache: Path | None
    cuda_graph: bool
    threads: int
    cores: int
    io: Io


class Answer(Record):
    """Bytes before the networks were opened, and the peaks and the GPU's growth up to each batch size."""

    before: int | None
    peaks: tuple[int | None, ...]
    device: tuple[int | None, ...]


def measure(
    contender: Contender, running: Running, batches: Sequence[int], input_size: tuple[int, ...]
) -> Answer:
    """Run a contender in a process of its own.

    Args:
        contender: What to run.
        running: How.
        batches: Batch sizes, ascending.
        input_size: As in :func:`graftonnx.benchmarks.inputs.shapes`.

    Raises:
        ModelError: If the process fails.
    """
    request = Request(
        files=contender.files,
        at_once=contender.at_once,
        batches=tuple(batches),
        input_size=input_size,
        provider=running.provider,
        options=dict(running.settings.options),
        cache=running.settings.cache,
        cuda_graph=running.settings.cuda_graph,
        threads=running.threads,
        cores=running.cores,
        io=running.io,
    )
    command = [sys.executable, "-P", "-m", "graftonnx.benchmarks.memory"]
    done = subprocess.run(command, input=request.model_dump_json(), capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ModelError(
            f"cannot measure the memory of '{contender.name}': its process ended with: {last.rstrip('.')}. "
            "Try a smaller --batch, or --no-memory."
        )
    return Answer.model_validate_json(done.stdout)


def answer(request: Request) -> Answer:
    """Run what was asked in this process and return what it took."""
    running = Running(
        provider=request.provider,
        settings=Settings(
            options=request.options,
            cache=request.cache,
            batches=request.batches,
            cuda_graph=request.cuda_graph,
        ),
        threads=request.threads,
        cores=request.cores,
        io=request.io,
    )
    before = resident()
    card = find_card(request.provider, request.options)
    idle = card.memory() if card is not None else None
    contender = Contender("", request.files, request.at_once)
    sessions = open_all(contender, running)
    peaks: list[int | None] = []
    grown: list[int | None] = []
    for batch in request.batches:
        feeds = [random_inputs(session, shapes(session, batch, request.input_size)) for session in sessions]
        with contextlib.ExitStack() as stack:
            run = step(contender, sessions, feeds, request.io, stack)
            for _ in range(RUNS):
                run()
        peaks.append(peak())
        grown.append(_growth(card, idle))
    return Answer(before=before, peaks=tuple(peaks), device=tuple(grown))


def _growth(card: Card | None, idle: int | None) -> int | None:
    used = card.memory() if card is not None else None
    return None if used is None or idle is None else used - idle


def resident() -> int | None:
    """Return the bytes of main memory that this process holds; None where the system does not tell."""
    return _status("VmRSS")


def peak() -> int | None:
    """Return the most that it has held."""
    return _status("VmHWM")


def _status(name: str) -> int | None:
    if not _STATUS.is_file():
        return None
    found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    return None if found is None else int(found[1]) * 1024


if __name__ == "__main__":
    sys.stdout.write(answer(Request.model_validate_json(sys.stdin.read())).model_dump_json())
