"""Time contenders in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from graftonnx.benchmarks.contenders import Step

RUNS = 4
"""Runs of each of several streams in one turn."""


@dataclass
class Times:
    """What a contender took, in seconds.

    Attributes:
        latencies: Of each run.
        turns: From the begin to the end of each turn, one for each round.
        cpu: CPU time of this process for each turn.
    """

    latencies: list[float] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def percentile(self, percent: int) -> float:
        """Return the latency that so many percent of the runs stay within."""
        return float(np.percentile(self.latencies, percent))

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(self.latencies)

    @property
    def cpu_of_a_run(self) -> float:
        """CPU time of one run, median of the rounds."""
        return statistics.median(self.cpu) * len(self.turns) / self.runs


def interleave(
    contenders: Mapping[str, Sequence[Step]],
    *,
    warm_up: int,
    rounds: int,
    seconds: float,
    on_round: Callable[[], object] = lambda: None,
) -> dict[str, Times]:
    """Let contenders take turns, each round beginning with the next one.

    Args:
        contenders: For each contender one function for each stream. A turn is one run, or with several
            streams `RUNS` runs in each of them.
        warm_up: Rounds that are not counted.
        rounds: Rounds that are, at most.
        seconds: After so many no other round begins.
        on_round: Called after each round, warm-up included.
    """
    times = {name: Times() for name in contenders}
    streams = max(len(steps) for steps in contenders.values())
    with ThreadPoolExecutor(streams) as pool:
        start = time.perf_counter()
        for number in range(-warm_up, rounds):
            if number == 0:
                times = {name: Times() for name in contenders}
                start = time.perf_counter()
            for name in _rotated(list(contenders), number):
                _turn(times[name], contenders[name], pool)
            on_round()
            if number >= 0 and time.perf_counter() - start > seconds:
                break
    return times


def _rotated(names: list[str], number: int) -> list[str]:
    first = number % len(names)
    return names[first:] + names[:first]


def _turn(times: Times, steps: Sequence[Step], pool: ThreadPoolExecutor) -> None:
    """Let a contender take its turn."""
    cpu, start = time.process_time(), time.perf_counter()
    if len(steps) == 1:
        latencies = _timed(steps[0], 1)
    else:
        latencies = [latency for part in pool.map(_timed, steps, [RUNS] * len(steps)) for latency in part]
    times.turns.append(time.perf_counter() - start)
    times.cpu.append(time.process_time() - cpu)
    times.latencies.extend(latencies)


def _timed(step: Step, runs: int) -> list[float]:
    """Return the seconds of each run."""
    latencies = []
    for _ in range(runs):
        start = time.perf_counter()
        step()
        latencies.append(time.perf_counter() - start)
    return latencies
