"""How fast networks are in ONNX Runtime, and what they need: latency, throughput, CPU time, memory, energy.

Everything is measured in one run, in turns: in each round every contender runs once (with several streams: a
few times in each stream), and each round begins with another one, so that a busy machine, a warm processor
and full caches disturb all alike. Ratios are taken round by round.

Inputs lie in memory, in the shape and type that a network takes: neither decoding nor preprocessing is timed,
unless it is in the graph. ONNX Runtime's threads go on spinning for some milliseconds after a run, into the
time of whoever runs next; here every session is told to stop them with its run
(`session.force_spinning_stop`). CPU time still counts spinning within a run: with one thread there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graftonnx.benchmarks.measuring import benchmark
    from graftonnx.benchmarks.record import Benchmark

__all__ = ["Benchmark", "benchmark"]


def __getattr__(name: str) -> Any:
    """Import ONNX Runtime only when something is measured."""
    if name == "benchmark":
        from graftonnx.benchmarks.measuring import benchmark

        return benchmark
    if name == "Benchmark":
        from graftonnx.benchmarks.record import Benchmark

        return Benchmark
    raise AttributeError(f"module 'graftonnx.benchmarks' has no attribute '{name}'")
