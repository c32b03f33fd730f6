"""A measurement as a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from graftonnx import plotting
from graftonnx.benchmarks.record import Benchmark, Figures
from graftonnx.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#c4550b", "#007a5e", "#a0527f", "#6b6b6b", "#b8a000")
WIDTH = 0.8
"""Of a group of bars, where the next group begins at 1."""


def draw(path: Path, result: Benchmark) -> None:
    """Draw latency, throughput and memory by batch size into a PNG.

    A latency's bar is the median; its whisker ends at the 90th percentile.
    """
    has_memory = all(found.memory is not None for found in result.figures)
    with plotting.figure(12 if has_memory else 8.5, 4.2) as figure:
        latency, throughput, *memory = figure.subplots(1, 3 if has_memory else 2)
        _bars(latency, result, "latency / batch size, ms", lambda found: 1000 * found.p50 / found.batch)
        _whiskers(latency, result)
        _bars(throughput, result, "images per second", lambda found: found.images_per_second)
        for axes in memory:
            _bars(axes, result, "peak memory of the networks, MiB", lambda found: _own_memory(found) / 2**20)
        handles, labels = latency.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        with atomic(path) as temporary:
            figure.savefig(temporary, format="png")


def _own_memory(figures: Figures) -> int:
    """Return what the process grew by, from before it opened its networks to its peak."""
    return (figures.memory or 0) - (figures.memory_before or 0)


def _bars(axes: Axes, result: Benchmark, title: str, height: Callable[[Figures], float]) -> None:
    """Draw a group of bars for each batch size, one bar for each contender."""
    for number, name in enumerate(result.contenders):
        places, found = _places(result, number, name)
        colour = COLOURS[number % len(COLOURS)]
        width = WIDTH / len(result.contenders)
        axes.bar(places, [height(figures) for figures in found], width * 0.94, color=colour, label=name)
    batches = sorted({figures.batch for figures in result.figures})
    axes.set_xticks(range(len(batches)), [str(batch) for batch in batches])
    axes.set_xlabel("batch size")
    axes.set_title(title, loc="left", fontsize="medium")
    axes.tick_params(axis="x", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)


def _whiskers(axes: Axes, result: Benchmark) -> None:
    """Draw from the median to the 90th percentile of each latency."""
    for number, name in enumerate(result.contenders):
        places, found = _places(result, number, name)
        middle = [1000 * figures.p50 / figures.batch for figures in found]
        above = [1000 * (figures.p90 - figures.p50) / figures.batch for figures in found]
        axes.errorbar(
            places,
            middle,
            yerr=np.array([np.zeros(len(above)), above]),
            fmt="none",
            ecolor="#333333",
            elinewidth=1,
            capsize=2,
        )


def _places(result: Benchmark, number: int, name: str) -> tuple[list[float], list[Figures]]:
    """Return where the bars of a contender stand, and its figures, by batch size."""
    count = len(result.contenders)
    found = sorted((f for f in result.figures if f.contender == name), key=lambda f: f.batch)
    shift = (number - (count - 1) / 2) * WIDTH / count
    return [group + shift for group in range(len(found))], found
