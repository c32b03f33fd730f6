"""What networks cost: parameters, MACs, bytes, and the time for one image in ONNX Runtime."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graftonnx import costs
from graftonnx.classifier import softmax
from graftonnx.graph import GraphView
from graftonnx.providers.settings import SETTLE, Settings
from graftonnx.runtime import Session, open_session
from graftonnx.training.config import Device
from graftonnx.weights import read

WARM_UP = 5
ROUNDS = 200
BUDGET = 30.0
"""Rounds in which every network runs once, and the seconds after which no other round begins."""


@dataclass(frozen=True)
class Size:
    """What a file costs, whatever runs it.

    Attributes:
        parameters: Float elements of its weights.
        macs: Multiply-accumulates for one image.
        bytes: Of the file.
    """

    parameters: int
    macs: int
    bytes: int


def size(path: Path) -> Size:
    """Return what the network in a file costs."""
    view = GraphView(read(path)[0].graph)
    return Size(costs.parameters(view), costs.macs(view), path.stat().st_size)


def latencies(networks: Mapping[str, Sequence[Path]], device: Device) -> dict[str, float]:
    """Return the median seconds that each network takes for one image in ONNX Runtime.

    The networks take turns, so that another program's burst of work does not fall on one of them alone.

    Args:
        networks: Files by name; of several files the probabilities are averaged.
        device: Where to run.
    """
    settings = Settings(options=SETTLE)
    paths = {path for files in networks.values() for path in files}
    sessions = {path: open_session(path, provider=device, settings=settings) for path in paths}
    steps = {name: _step([sessions[path] for path in files]) for name, files in networks.items()}
    for _ in range(WARM_UP):
        for step in steps.values():
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    start = time.perf_counter()
    for _ in range(ROUNDS):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - begin)
        if time.perf_counter() - start > BUDGET:
            break
    return {name: statistics.median(values) for name, values in times.items()}


def _step(sessions: Sequence[Session]) -> Callable[[], object]:
    """Return a function that classifies one image."""
    shape = (1, *(int(extent or 1) for extent in sessions[0].input_shape[1:]))
    image = np.random.default_rng(0).random(shape, np.float32)
    return lambda: np.mean([softmax(session.run(image)[0]) for session in sessions], axis=0)
