#!/usr/bin/env python3
"""Measure an exported fused network against its parents' own sessions; print a Markdown table.

    .venv/bin/python tools/bench/export.py [--rounds N] [--batch N ...] [--max-skips N] [A.onnx B.onnx ...]

Each pair of files is fused with its default plan, its exchanges get weights as if they had been trained
(those that stay zero disappear in the export), and the fused network is exported. It and the two parents'
files then take turns in ONNX Runtime, so that a busy machine disturbs them alike; the median of the rounds'
ratios counts:

    MACs    multiply-accumulates of the exported file, as a share of the parents' sum
    CPU     its CPU time on one thread, likewise
    wall    its time on all cores, as a share of both parents' sessions in turn, each with its own threads

Where a parent's file fixes its batch, the same network with a free one runs. Without files: pairs of
$GRAFTONNX_SHARED/models (default ../shared) and of the onnx package.

Tried and not done: 1x1 Convs that read the same value, merged into one Conv with a Split behind it.
Inception v1 and v2 have nine and ten such groups. On one thread with AVX-512, CPU time at batch 1 and 8
becomes 1.03 and 1.03 times what it was with v1, 1.01 and 1.02 times with v2: ONNX Runtime's blocked layout
ends at a Split.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

import graftonnx
from graftonnx.costs import macs
from graftonnx.graph import GraphView
from graftonnx.network import Network
from graftonnx.runtime import Session, open_session
from graftonnx.weights import read, set_elements

SHARED = Path(os.environ.get("GRAFTONNX_SHARED", "../shared"), "models")
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

SQUEEZENET = "squeezenet1.1_caffe2_opset7"
OTHERS = (
    "mobilenet_v2_1.0_tflite_tf2onnx_opset13",
    "light_inception_v1",
    "light_inception_v2",
    "mobilenet_v1_0.25_keras_tf2onnx_opset15",
)

WARM_UP = 3
"""Runs of each network that are not counted."""

TRAINED = 1e-3
"""Deviation of the weights that exchanges get."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="an even number of ONNX files")
    parser.add_argument("--rounds", type=int, default=60, help="at batch 1; fewer at larger ones")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--max-skips", type=int, default=6)
    options = parser.parse_args()
    print("| pair | exchanges | batch | MACs | CPU | wall |\n|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        files = options.files or shared_files(Path(folder))
        for a, b in zip(files[::2], files[1::2], strict=True):
            compare(a, b, Path(folder), options)


def shared_files(folder: Path) -> list[Path]:
    """Return the paths of the pairs, one after the other; what is zipped is unpacked into `folder`."""
    with zipfile.ZipFile(SHARED / "large_models.zip") as archive:
        archive.extractall(folder)
    found = []
    for other in OTHERS:
        places = (place / f"{other}.onnx" for place in (SHARED, LIGHT, folder))
        found += [SHARED / f"{SQUEEZENET}.onnx", next(path for path in places if path.exists())]
    return found


def compare(a: Path, b: Path, folder: Path, options: argparse.Namespace) -> None:
    """Print the rows of a pair."""
    parents = [graftonnx.load(path) for path in (a, b)]
    plan = graftonnx.match(*parents, max_skips=options.max_skips)
    fused = graftonnx.fuse(*parents, classes=1000, plan=plan, prove=False)
    learn(fused)
    graftonnx.save(fused, folder / "fused.onnx", force=True)
    graftonnx.export(folder / "fused.onnx", folder / "deploy.onnx", force=True)
    skeleton, _ = read(folder / "deploy.onnx")
    share = macs(GraphView(skeleton.graph)) / sum(macs(parent.view) for parent in parents)
    name = f"{a.stem.split('_')[0]} x {b.stem.removeprefix('light_')}"
    for batch in options.batch:
        networks = [folder / "deploy.onnx", *(runnable(parent, batch) for parent in parents)]
        rounds = max(16, options.rounds // batch)
        cpu = ratio(networks, batch, rounds, threads=1, clock=time.thread_time)
        wall = ratio(networks, batch, rounds, threads=0, clock=time.perf_counter)
        print(
            f"| {name} | {len(plan.exchanges)} | {batch} | {share:.3f} | {cpu:.3f} | {wall:.3f} |", flush=True
        )


def learn(fused: Network) -> None:
    """Give every exchange weights other than zero, in place."""
    rng = np.random.default_rng(0)
    for tensor in list(fused.skeleton.graph.initializer):
        if tensor.name.startswith("skips/") and tensor.name.endswith("weight"):
            weight = (TRAINED * rng.standard_normal(tuple(tensor.dims))).astype(np.float32)
            set_elements(fused.skeleton, fused.weights, tensor.name, weight)


def runnable(parent: Network, batch: int) -> Path | onnx.ModelProto:
    """Return the parent's file, or the network in it where the file fixes another batch."""
    assert parent.path is not None
    fixed = open_session(parent.path, provider="cpu").input_shape[0]
    return parent.proto if isinstance(fixed, int) and fixed != batch else parent.path


def ratio(
    networks: list[Path | onnx.ModelProto],
    batch: int,
    rounds: int,
    *,
    threads: int,
    clock: Callable[[], float],
) -> float:
    """Return the median share of the first network's time in the sum of the others'."""
    sessions = [open_session(network, provider="cpu", threads=threads) for network in networks]
    rng = np.random.default_rng(0)
    inputs = [[rng.random((batch, *shape[1:]), np.float32) for shape in s.input_shapes] for s in sessions]
    for session, arrays in zip(sessions * WARM_UP, inputs * WARM_UP, strict=True):
        session.run(*arrays)
    shares = []
    for _ in range(rounds):
        first, *others = (spent(s, arrays, clock) for s, arrays in zip(sessions, inputs, strict=True))
        shares.append(first / sum(others))
    return statistics.median(shares)


def spent(session: Session, arrays: list[np.ndarray], clock: Callable[[], float]) -> float:
    """Return the time of one run."""
    start = clock()
    session.run(*arrays)
    return clock() - start


if __name__ == "__main__":
    main()
