#!/usr/bin/env python3
"""Measure what exchanges cost in ONNX Runtime, beside what their arithmetic costs; print a Markdown table.

    .venv/bin/python tools/bench/skips.py [--rounds N] [--max-skips N] [--input-size N] [A.onnx B.onnx ...]

Each pair of files is fused with its default plan and without exchanges. Both networks then take turns, one
image at a time on one thread, so that a busy machine disturbs them alike; the median of the ratios counts.
Without files: pairs of $GRAFTONNX_SHARED/models (default ../shared).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

import graftonnx
from graftonnx.costs import macs
from graftonnx.network import Network
from graftonnx.runtime import Session, open_session

SHARED = Path(os.environ.get("GRAFTONNX_SHARED", "../shared"), "models")

PAIRS = (
    ("squeezenet1.1_caffe2_opset7", "mobilenet_v2_1.0_tflite_tf2onnx_opset13"),
    ("inception_v3_2015_to_mixed8_torchscript_opset13", "squeezenet1.1_caffe2_opset7"),
    ("squeezenet1.1_caffe2_opset7", "mobilenet_v1_0.25_keras_tf2onnx_opset15"),
    ("squeezenet1.1_caffe2_opset7", "light_shufflenet_caffe2_opset9"),
    ("resnet20_cifar10_torch_dynamo_opset20", "resnet8_cifar10_keras_tf2onnx_opset13"),
)
WARM_UP = 5
"""Runs of each network that are not counted."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="an even number of ONNX files")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--max-skips", type=int, default=6)
    parser.add_argument("--input-size", type=int, help="for all networks; their own when omitted")
    options = parser.parse_args()
    print("| pair | exchanges | MACs | CPU time | middle half of the rounds |\n|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        files = options.files or shared_files(Path(folder))
        for a, b in zip(files[::2], files[1::2], strict=True):
            compare(a, b, options)


def shared_files(folder: Path) -> list[Path]:
    """Return the paths of the pairs, one after the other; what is zipped is unpacked into `folder`."""
    with zipfile.ZipFile(SHARED / "large_models.zip") as archive:
        archive.extractall(folder)
    names = [f"{name}.onnx" for pair in PAIRS for name in pair]
    return [SHARED / name if (SHARED / name).exists() else folder / name for name in names]


def compare(a: Path, b: Path, options: argparse.Namespace) -> None:
    """Print the row of a pair."""
    size = options.input_size and (options.input_size, options.input_size)
    parents = [graftonnx.load(path, input_size=size) for path in (a, b)]
    plan = graftonnx.match(*parents, max_skips=options.max_skips)
    plain, fused = (
        graftonnx.fuse(*parents, classes=8, plan=chosen, prove=False)
        for chosen in (plan.model_copy(update={"skips": ()}), plan)
    )
    added = work(fused) / work(plain) - 1
    low, middle, high = statistics.quantiles(ratios(plain, fused, options.rounds), n=4)
    print(
        f"| {a.stem.split('_')[0]} x {b.stem.split('_')[0]} | {len(plan.exchanges)} | {added:+.2%} "
        f"| {middle - 1:+.1%} | {low - 1:+.1%} to {high - 1:+.1%} |",
        flush=True,
    )


def work(network: Network) -> int:
    """Return the multiply-accumulates of a network for one image."""
    return macs(network.view, network.view.nodes)


def ratios(plain: Network, fused: Network, rounds: int) -> list[float]:
    """Return for each round the CPU time of `fused`, as a multiple of that of `plain`."""
    image = np.random.default_rng(0).random((1, *plain.input_shape), np.float32)
    sessions = [open_session(network.proto, provider="cpu", threads=1) for network in (plain, fused)]
    for session in sessions * WARM_UP:
        session.run(image)
    spent = [[seconds(session, image) for session in sessions] for _ in range(rounds)]
    return [with_skips / without for without, with_skips in spent]


def seconds(session: Session, image: np.ndarray) -> float:
    """Return the CPU time of one run."""
    start = time.thread_time()
    session.run(image)
    return time.thread_time() - start


if __name__ == "__main__":
    main()
