#!/usr/bin/env python3
"""Measure fused networks on a GPU against their parents' own sessions; print Markdown tables.

    .venv/bin/python tools/bench/gpu.py [--provider cuda] [--batch 1,8,64] [--rounds N] [--max-skips N]
                                        [A.onnx B.onnx ...]

Each pair of files is fused, exported, and measured by `graftonnx.benchmark` in float32 (TF32 off) and
float16, in three ways: with arrays that are handed over anew, with inputs and outputs that stay in buffers on
the GPU, and likewise with a CUDA graph for each batch size. The rivals are the parents, one after the other
and in two threads. Before that, where the nodes run is told, and the outputs are compared with the CPU's in
float32. The exit code is 1 if arithmetic is left to the CPU. Without files: pairs of $GRAFTONNX_SHARED/models
(default ../shared). `--provider cpu` shows that the script works, without graphs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16
from skips import shared_files

import graftonnx
from graftonnx.benchmarks import Benchmark
from graftonnx.providers import PROVIDERS, Provider
from graftonnx.providers.obstacles import obstacle
from graftonnx.providers.settings import Settings
from graftonnx.runtime import open_session

PAIRS = 3
"""Pairs that are measured where none are given."""

SHAPE_OPERATORS = frozenset(
    {
        "Cast",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Gather",
        "Range",
        "Shape",
        "Slice",
        "Squeeze",
        "Unsqueeze",
    }
)
"""Operators that ONNX Runtime leaves to the CPU on purpose where they compute shapes."""

IMAGES = 64
"""Random images on which outputs are compared with the CPU's."""


@dataclass(frozen=True)
class Files:
    """A fused network and its parents in one precision."""

    fused: Path
    parents: tuple[Path, ...]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="an even number of ONNX files")
    parser.add_argument("--provider", choices=PROVIDERS[1:], default="cuda")
    parser.add_argument("--batch", default="1,8,64", help="batch sizes")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--max-skips", type=int, default=6)
    options = parser.parse_args()
    trouble = obstacle(options.provider)
    if trouble is not None:
        sys.exit(f"There is no {options.provider} to measure here: {trouble}")
    with tempfile.TemporaryDirectory() as folder:
        files = options.files or shared_files(Path(folder))[: 2 * PAIRS]
        good = [measure(pair, Path(folder), options) for pair in zip(files[::2], files[1::2], strict=True)]
    sys.exit(not all(good))


def measure(pair: tuple[Path, Path], folder: Path, options: argparse.Namespace) -> bool:
    """Print the section of a pair; return whether all arithmetic ran on the provider."""
    print(f"\n## {pair[0].stem} x {pair[1].stem}\n", flush=True)
    single = exported(pair, folder, options.max_skips)
    half = Files(in_half(single.fused), tuple(map(in_half, single.parents)))
    good = True
    for name, files in (("float32", single), ("float16", half)):
        good &= told_where_it_runs(name, files.fused, options.provider)
        told_parity(name, files.fused, single.fused, options.provider)
    print("\n| precision | handed over | batch | fused | in turn | ratio | in 2 threads | ratio |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for name, files in (("float32", single), ("float16", half)):
        for io, graph in ways(options.provider):
            settings = Settings(cuda_graph=graph)
            result = graftonnx.benchmark(
                [files.fused],
                against=files.parents,
                batches=tuple(map(int, options.batch.split(","))),
                provider=options.provider,
                settings=settings,
                io=io,
                rounds=options.rounds,
                measure_memory=False,
            )
            print_rows(f"{name} | {io}{', CUDA graph' * graph}", result)
    return good


def exported(pair: tuple[Path, Path], folder: Path, max_skips: int) -> Files:
    """Fuse two networks and write the deployable file, and the parents in the form that was fused."""
    parents = [graftonnx.load(path) for path in pair]
    plan = graftonnx.match(*parents, max_skips=max_skips)
    target = folder / "-".join(path.stem for path in pair)
    target.mkdir()
    raw, deployed = target / "raw.onnx", target / "fused.onnx"
    graftonnx.save(graftonnx.fuse(*parents, classes=8, plan=plan), raw)
    graftonnx.export(raw, deployed, with_softmax=False)
    own = tuple(target / f"{letter}.onnx" for letter in "ab")
    for network, path in zip(parents, own, strict=True):
        graftonnx.save(network, path)
    return Files(deployed, own)


def in_half(path: Path) -> Path:
    """Write a network with float16 weights and arithmetic, float32 at its border, beside its file."""
    target = path.with_name(f"{path.stem}-half.onnx")
    onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), target)
    return target


def ways(provider: Provider) -> list[tuple[Literal["arrays", "resident"], bool]]:
    """Return the ways of handing over inputs and outputs, and whether a CUDA graph is replayed."""
    graphs: list[tuple[Literal["arrays", "resident"], bool]] = [("resident", True)]
    return [("arrays", False), ("resident", False), *(graphs if provider in ("cuda", "tensorrt") else [])]


def told_where_it_runs(precision: str, path: Path, provider: Provider) -> bool:
    """Print which nodes run where; return whether the CPU is left shapes at most."""
    coverage = open_session(path, provider=provider).coverage
    print(f"- {precision}: {coverage}")
    left = set(coverage.operators.get("CPUExecutionProvider", {})) - SHAPE_OPERATORS
    if provider != "cpu" and left:
        print(f"- {precision}: the CPU computes {', '.join(sorted(left))}")
    return provider == "cpu" or not left


def told_parity(precision: str, path: Path, reference: Path, provider: Provider) -> None:
    """Print how far a network's outputs on the provider are from those of float32 on the CPU."""
    found, expected = open_session(path, provider=provider), open_session(reference, provider="cpu")
    images = np.random.default_rng(0).random((IMAGES, *expected.input_shape[1:]), np.float32)
    ours, theirs = found.run(images)[0], expected.run(images)[0]
    same = np.mean(ours.argmax(axis=1) == theirs.argmax(axis=1))
    print(
        f"- {precision}: outputs differ from the CPU's in float32 by {np.abs(ours - theirs).max():.2g} at "
        f"most, {same:.1%} of {IMAGES} random images get the same class",
        flush=True,
    )


def print_rows(way: str, result: Benchmark) -> None:
    """Print a row for each batch size."""
    for batch in sorted({found.batch for found in result.figures}):
        cells = [f"{1000 * found.p50:.2f} ms" for found in result.figures if found.batch == batch]
        ratios = [f"{ratio.median:.2f}x" for ratio in result.ratios if ratio.batch == batch]
        print(f"| {way} | {batch} | {row(cells, ratios)} |", flush=True)


def row(cells: Sequence[str], ratios: Sequence[str]) -> str:
    """Return the fused network's latency, then each rival's with the ratio to it."""
    rivals = (f"{cell} | {ratio}" for cell, ratio in zip(cells[1:], ratios, strict=True))
    return " | ".join([cells[0], *rivals])


if __name__ == "__main__":
    main()
