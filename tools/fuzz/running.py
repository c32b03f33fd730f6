"""Run many inputs through the command line, in a forked worker that is replaced when one of them breaks it.

Everything is imported before the fork, and a worker takes inputs until it dies, hangs, grows too large or has
served its time. The limits are of CPU time and resident memory, so that a run may be stopped for a while.
"""

from __future__ import annotations

import collections
import contextlib
import io
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outcomes import FINDING, Outcome, judged

from graftonnx import limits

CPU_LIMIT = 10.0
"""Seconds of CPU time that one input may take."""

MEMORY_LIMIT = 2 << 30
"""Bytes of resident memory that one input may take beyond its files."""

SERVED = 1_000
"""Inputs after which a worker is replaced, so that what it keeps does not count against the next ones."""

_POLL = 0.2
_STILL = 1_500
"""Polls without CPU time after which a worker counts as blocked for ever."""

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Case:
    """One input: a command line, and the files that it reads.

    Attributes:
        arguments: What is typed after `graftonnx`; paths are relative to the folder of the files.
        files: Name -> content.
        outputs: Names that the command may write when it succeeds.
        links: Name -> target of a symbolic link.
        pipes: Names of named pipes.
    """

    arguments: list[str]
    files: dict[str, bytes]
    outputs: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)
    pipes: set[str] = field(default_factory=set)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))

    def write(self, folder: Path) -> None:
        """Write the files."""
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        for name, target in self.links.items():
            (folder / name).symlink_to(target)
        for name in self.pipes:
            os.mkfifo(folder / name)


Make = Callable[[random.Random], Case]


def made(make: Make, seed: int, index: int) -> Case:
    """Return input number `index` of a seed."""
    return make(random.Random(f"{seed}:{index}"))


def invoke(case: Case, folder: Path) -> Outcome:
    """Run a case in this process, in a folder of its own, and judge what came of it."""
    from graftonnx.cli import graftonnx

    case.write(folder)
    before = set(_files(folder))
    said, complained = io.StringIO(), io.StringIO()
    status: int | BaseException = 0
    os.chdir(folder)
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(complained),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("default")
        try:
            graftonnx.main(case.arguments, prog_name="graftonnx", standalone_mode=False)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException as error:
            status = error
    left = set(_files(folder)) - before
    lost = before - set(_files(folder))
    warned = [f"{item.category.__name__}: {item.message}" for item in caught]
    return judged(case, status, said.getvalue(), complained.getvalue(), left, lost, warned)


def _files(folder: Path) -> Iterator[str]:
    for root, _, names in os.walk(folder):
        for name in names:
            yield str(Path(root, name).relative_to(folder))


def _empty(folder: Path) -> None:
    for item in folder.iterdir():
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item)
        else:
            item.unlink()


class _Worker:
    """A forked process that takes inputs from `first` on, in steps."""

    def __init__(self, make: Make, seed: int, indices: range, root: Path) -> None:
        self.indices = indices
        self.current: int | None = None
        self.size = 0
        self.start_cpu = 0.0
        self.still = 0
        self.last_cpu = 0.0
        self.folder = Path(tempfile.mkdtemp(dir=root))
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            try:
                _serve(make, seed, indices[:SERVED], self.folder, writing)
            finally:
                os._exit(0)
        os.close(writing)
        self.pipe = reading
        self.base = _resident(self.pid)
        self.pending = b""

    def lines(self) -> list[dict[str, Any]] | None:
        """Return what the worker has said since; None at its end."""
        content = os.read(self.pipe, 1 << 20)
        if not content:
            return None
        *whole, self.pending = (self.pending + content).split(b"\n")
        return [json.loads(line) for line in whole]

    def excess(self) -> str | None:
        """Return which limit the worker has passed, if any."""
        if self.current is None:
            return None
        cpu = _cpu(self.pid)
        self.still = self.still + 1 if cpu == self.last_cpu else 0
        self.last_cpu = cpu
        if cpu - self.start_cpu > CPU_LIMIT:
            return f"hang: more than {CPU_LIMIT:g} s of CPU time"
        if self.still > _STILL:
            return "hang: blocked"
        if _resident(self.pid) - self.base > MEMORY_LIMIT + self.size:
            return f"memory: more than {MEMORY_LIMIT >> 20} MiB resident"
        return None

    def end(self) -> int:
        """Kill the worker, and return the signal it died of."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pipe)
        shutil.rmtree(self.folder, ignore_errors=True)
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _serve(make: Make, seed: int, indices: range, folder: Path, pipe: int) -> None:
    limits.own_process()  # as the program of the commands does
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    home = folder / "home"
    for index in indices:
        home.mkdir(exist_ok=True)
        _say(pipe, {"begin": index, "size": 0, "cpu": time.process_time()})
        try:
            case = made(make, seed, index)
            _say(pipe, {"begin": index, "size": case.size, "cpu": time.process_time()})
            outcome = invoke(case, home)
        except BaseException:
            outcome = Outcome(FINDING, "the fuzzer", traceback.format_exc())
        _say(pipe, {"end": index, "kind": outcome.kind, "reason": outcome.reason, "text": outcome.text})
        os.chdir(folder)
        _empty(home)


def _say(pipe: int, record: dict[str, Any]) -> None:
    content = json.dumps(record).encode() + b"\n"
    while content:
        content = content[os.write(pipe, content) :]


def _cpu(pid: int) -> float:
    with contextlib.suppress(OSError):
        parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(parts[11]) + int(parts[12])) / _TICKS
    return 0.0


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return 0


@dataclass
class Tally:
    """How many inputs came out how."""

    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    findings: list[tuple[int, str, str]] = field(default_factory=list)

    def reasons(self) -> collections.Counter[str]:
        """Count the findings of each reason."""
        return collections.Counter(reason for _, reason, _ in self.findings)


def run(
    make: Make,
    *,
    seed: int,
    count: int,
    start: int = 0,
    jobs: int = 1,
    keep: Path | None = None,
    progress: int = 5_000,
) -> Tally:
    """Run inputs `start` to `count` of a seed, and print how it goes.

    Args:
        make: Makes an input from a random number generator.
        seed: Of the run.
        count: Inputs of the whole run.
        start: The first one; those before were run already.
        jobs: Workers at once.
        keep: A folder for the findings, each with its files.
        progress: Inputs between two lines of progress.
    """
    tally, began = Tally(), time.monotonic()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as root:
        waiting = [range(start + job, count, jobs) for job in range(jobs)]
        workers = [_Worker(make, seed, left, Path(root)) for left in waiting if left]
        done = 0
        while workers:
            ready, _, _ = select.select([worker.pipe for worker in workers], [], [], _POLL)
            for worker in list(workers):
                over, finished = None, 0
                if worker.pipe in ready:
                    over, finished = _listen(worker, tally)
                elif reason := worker.excess():
                    over = reason
                for _ in range(finished):
                    done += 1
                    if done % progress == 0:
                        _report(tally, start + done, count, began)
                if over is None:
                    continue
                workers.remove(worker)
                number = worker.end()
                if worker.current is not None:
                    kind = over if over != "end" else f"crash: {signal.Signals(number).name}"
                    tally.counts[FINDING] += 1
                    tally.findings.append((worker.current, kind, ""))
                    done += 1
                    worker.indices = range(worker.current + jobs, count, jobs)
                if worker.indices:
                    workers.append(_Worker(make, seed, worker.indices, Path(root)))
            _keep_findings(make, seed, tally, keep)
    _report(tally, start + done, count, began)
    return tally


def _listen(worker: _Worker, tally: Tally) -> tuple[str | None, int]:
    """Take in what a worker says; return "end" once it is over, and how many inputs it has finished."""
    records = worker.lines()
    if records is None:
        return "end", 0
    finished = 0
    for record in records:
        if "begin" in record:
            worker.current, worker.size = record["begin"], record["size"]
            worker.start_cpu, worker.still = record["cpu"], 0
            continue
        tally.counts[record["kind"]] += 1
        if record["kind"] == FINDING:
            tally.findings.append((record["end"], record["reason"], record["text"]))
        worker.indices = range(record["end"] + worker.indices.step, worker.indices.stop, worker.indices.step)
        worker.current = None
        finished += 1
    return None, finished


_kept: collections.Counter[str] = collections.Counter()


def _keep_findings(make: Make, seed: int, tally: Tally, keep: Path | None) -> None:
    """Print the findings that are new, and write one folder each: files, arguments, what was said."""
    while len(tally.findings) > sum(_kept.values()):
        index, reason, text = tally.findings[sum(_kept.values())]
        _kept[reason] += 1
        if _kept[reason] > 5:
            continue
        print(f"FINDING {seed}:{index} {reason}", flush=True)
        if keep is not None:
            folder = keep / f"{seed}-{index}"
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(Exception):
                case = made(make, seed, index)
                case.write(folder)
                reason = f"graftonnx {' '.join(case.arguments)}\n{reason}"
            (folder / "finding.txt").write_text(f"{reason}\n\n{text}\n", encoding="utf-8", errors="replace")


def _report(tally: Tally, done: int, count: int, began: float) -> None:
    total = sum(tally.counts.values())
    shares = ", ".join(f"{kind} {number:,}" for kind, number in sorted(tally.counts.items()))
    speed = total / max(time.monotonic() - began, 1e-9)
    print(f"{done:,} of {count:,}: {shares}; {speed:.0f}/s", flush=True)


def reproduce(make: Make, seed: int, index: int, folder: Path) -> Outcome:
    """Run one input in this process; its files stay in `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    case = made(make, seed, index)
    print("graftonnx", *case.arguments, file=sys.stderr)
    return invoke(case, folder)
