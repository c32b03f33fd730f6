#!/usr/bin/env python3
"""Measure fusing large networks against joining them by other means; print Markdown tables.

    .venv/bin/python tools/bench/fuse.py [--quick] [--rounds N] [--folder DIR]

Every job runs in a fresh process that imports its libraries first; then its CPU time and its peak memory
count. The jobs take turns, so that a busy machine disturbs all alike. graftonnx loads, matches, splices,
proves (but for the runs in ONNX Runtime) and saves; the others join two graphs side by side, which is less.
Peers that are not installed are left out; a peer that fails says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NODES = (1_000, 5_000, 20_000, 50_000)
TIMEOUT = 900
"""Seconds of wall time after which a job counts as failed."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a job took: CPU seconds, wall seconds, and the peak of resident memory in bytes."""

    cpu: float
    wall: float
    peak: int


class Inception:
    """Writes networks of blocks with four parallel branches, 16 nodes a block.

    Args:
        seed: For the weights.
        width: Channels of each branch.
    """

    def __init__(self, seed: int, width: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.width = width
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[TensorProto] = []

    def model(self, nodes: int, classes: int = 10) -> onnx.ModelProto:
        """Return a classifier of [N, 3, 32, 32] images with about so many nodes."""
        inner, value = 3, "image"
        blocks = max(nodes // 16, 3)
        for block in range(blocks):
            value = self._block(f"block{block}", value, inner)
            inner = 4 * self.width
            if block in (blocks // 3, 2 * blocks // 3):
                value = self._node("MaxPool", [value], f"down{block}", kernel_shape=[2, 2], strides=[2, 2])
        value = self._node("GlobalAveragePool", [value], "pool")
        value = self._node("Flatten", [value], "flat")
        operands = [value, self._weight("fc.weight", classes, inner), self._weight("fc.bias", classes)]
        self._node("Gemm", operands, "scores", transB=1)
        return _model(self.nodes, self.tensors, "scores", classes, 32)

    def _block(self, name: str, source: str, inner: int) -> str:
        """1x1, 1x1 - 3x3, 1x1 - 3x3 - 3x3, pool - 1x1, and their Concat."""
        pooled = self._node("MaxPool", [source], f"{name}/pool", kernel_shape=[3, 3], pads=[1] * 4)
        ends = []
        branches = ((source, (1,)), (source, (1, 3)), (source, (1, 3, 3)), (pooled, (1,)))
        for index, (start, kernels) in enumerate(branches):
            value, channels = start, inner
            for step, kernel in enumerate(kernels):
                value = self._conv(f"{name}/b{index}/conv{step}", value, channels, kernel)
                channels = self.width
            ends.append(value)
        return self._node("Concat", ends, name, axis=1)

    def _conv(self, name: str, source: str, inner: int, kernel: int) -> str:
        weight = self._weight(f"{name}.weight", self.width, inner, kernel, kernel)
        attributes = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4}
        operands = [source, weight, self._weight(f"{name}.bias", self.width)]
        return self._node("Relu", [self._node("Conv", operands, name, **attributes)], f"{name}/relu")

    def _node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def _weight(self, name: str, *shape: int) -> str:
        array = self.rng.standard_normal(shape, np.float32) / math.sqrt(math.prod(shape[1:]))
        self.tensors.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name


def heavy(seed: int, size: int, path: Path, *, external: bool) -> None:
    """Write a network of few nodes and `size` bytes of weights, in the file itself or beside it."""
    width = 2048
    layers = max(size // (4 * width * width), 1)
    content = np.random.default_rng(seed).standard_normal((width, width), np.float32) / math.sqrt(width)
    nodes, tensors = [], []
    for layer in range(layers + 1):
        shape = (width, width, 1, 1) if layer else (width, 3, 1, 1)
        array = content.reshape(shape) if layer else content[:, :3].reshape(shape)
        tensors.append(numpy_helper.from_array(np.roll(array, layer, 0), f"conv{layer}.weight"))
        source = f"relu{layer - 1}" if layer else "image"
        nodes.append(helper.make_node("Conv", [source, f"conv{layer}.weight"], [f"conv{layer}"]))
        nodes.append(helper.make_node("Relu", [f"conv{layer}"], [f"relu{layer}"]))
    tensors.append(numpy_helper.from_array(content[:10].copy(), "fc.weight"))
    nodes.append(helper.make_node("GlobalAveragePool", [f"relu{layers}"], ["pool"]))
    nodes.append(helper.make_node("Flatten", ["pool"], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "fc.weight"], ["scores"], transB=1))
    model = _model(nodes, tensors, "scores", 10, 4)
    location = f"{path.name}.data"
    onnx.save_model(model, path, save_as_external_data=external, location=location if external else None)


def _model(
    nodes: list[onnx.NodeProto], tensors: list[TensorProto], output: str, classes: int, size: int
) -> onnx.ModelProto:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, size, size])
    scores = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", classes])
    graph = helper.make_graph(nodes, "net", [image], [scores], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def fuse_with_graftonnx(a: Path, b: Path, target: Path) -> None:
    """Load, match, splice, prove without ONNX Runtime, save."""
    import graftonnx
    from graftonnx.proofs import check_structure

    parents = graftonnx.load(a), graftonnx.load(b)
    fused = graftonnx.fuse(*parents, plan=graftonnx.match(*parents, max_skips=6), classes=8, prove=False)
    check_structure(fused.skeleton, fused.weights)
    graftonnx.save(fused, target, force=True)


def fuse_with_all_proofs(a: Path, b: Path, target: Path) -> None:
    """Do the same with every proof."""
    import graftonnx

    parents = graftonnx.load(a), graftonnx.load(b)
    graftonnx.save(graftonnx.fuse(*parents, classes=8), target, force=True)


def join_with_compose(a: Path, b: Path, target: Path) -> None:
    """Join two models as the documentation of onnx.compose says: side by side."""
    import onnx.compose

    models = [onnx.compose.add_prefix(onnx.load(path), f"{path.stem}/") for path in (a, b)]
    onnx.save_model(onnx.compose.merge_models(*models, io_map=[]), target, **_saving(a))


def join_with_surgeon(a: Path, b: Path, target: Path) -> None:
    """Join two graphs by hand: prefixes, one image, two outputs."""
    import onnx_graphsurgeon as gs

    nodes: list[Any] = []
    graphs = [gs.import_onnx(onnx.load(path)) for path in (a, b)]
    for path, graph in zip((a, b), graphs, strict=True):
        for tensor in graph.tensors().values():
            tensor.name = f"{path.stem}/{tensor.name}"
        for node in graph.nodes:
            node.name = f"{path.stem}/{node.name}"
        nodes += graph.nodes
    inputs, outputs = ([v for g in graphs for v in getattr(g, kind)] for kind in ("inputs", "outputs"))
    joined = gs.export_onnx(gs.Graph(nodes, inputs, outputs, opset=17))
    onnx.save_model(joined, target, **_saving(a))


def join_with_snc4onnx(a: Path, b: Path, target: Path) -> None:
    """Join two models without connections."""
    import snc4onnx

    snc4onnx.combine(
        srcop_destop=[], op_prefixes_after_merging=[a.stem, b.stem],
        input_onnx_file_paths=[str(a), str(b)], output_onnx_file_path=str(target), non_verbose=True,
    )  # fmt: skip


def copy_files(a: Path, b: Path, target: Path) -> None:
    """Copy both models with their data, flushed to disk as graftonnx does."""
    for path in (a, b):
        for source in path.parent.glob(f"{path.name}*"):
            copy = target.with_name(f"copy-{source.name}")
            shutil.copyfile(source, copy)
            with copy.open("rb+") as file:
                os.fsync(file.fileno())


def _saving(source: Path) -> dict[str, Any]:
    external = source.with_name(f"{source.name}.data").exists()
    return {"save_as_external_data": True, "location": "joined.data"} if external else {}


JOBS: dict[str, tuple[str, Callable[[Path, Path, Path], None]]] = {
    "graftonnx": ("graftonnx", fuse_with_graftonnx),
    "graftonnx, all proofs": ("graftonnx", fuse_with_all_proofs),
    "onnx.compose": ("onnx", join_with_compose),
    "onnx-graphsurgeon": ("onnx_graphsurgeon", join_with_surgeon),
    "snc4onnx": ("snc4onnx", join_with_snc4onnx),
    "copy": ("shutil", copy_files),
}
"""Name -> the package that has to be there, and what to do."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small networks only")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for the files; a temporary one when omitted")
    parser.add_argument("--job", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        name, *paths = options.job
        print(json.dumps(dataclasses.asdict(measured(JOBS[name][1], *map(Path, paths)))))
        return
    jobs = [name for name, (package, _) in JOBS.items() if importlib.util.find_spec(package)]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        by_nodes(Path(folder), jobs, NODES[:2] if options.quick else NODES, options.rounds)
        for size, external in ((500_000_000, False), (1_500_000_000, True)):
            by_size(Path(folder), jobs, size // 50 if options.quick else size, external=external)


def by_nodes(folder: Path, jobs: list[str], sizes: tuple[int, ...], rounds: int) -> None:
    """Print CPU seconds and memory over the number of nodes."""
    jobs = [name for name in jobs if name not in ("copy", "graftonnx, all proofs")]
    print("CPU time of joining two Inception-like networks, as a multiple of onnx.compose; peak memory\n")
    print(f"| nodes each |{''.join(f' {name} |' for name in jobs)}")
    print(f"|---:|{'---:|' * len(jobs)}")
    spent = []
    for size in sizes:
        a, b = folder / "a.onnx", folder / "b.onnx"
        for seed, (path, width) in enumerate(((a, 8), (b, 12))):
            onnx.save_model(Inception(seed, width).model(size), path)
        costs = alternate(jobs, a, b, folder / "joined.onnx", rounds)
        base = costs["onnx.compose"]
        cells = "".join(f" {cell(costs[name], base)} |" for name in jobs)
        print(f"| {size:,} |{cells}", flush=True)
        if costs["graftonnx"]:
            spent.append((size, statistics.median(cost.cpu for cost in costs["graftonnx"])))
    (first, least), (last, most) = spent[0], spent[-1]
    print(
        f"\ngraftonnx: time grows with nodes to the {math.log(most / least) / math.log(last / first):.2f}\n"
    )


def by_size(folder: Path, jobs: list[str], size: int, *, external: bool) -> None:
    """Print time and memory over the size of the weights."""
    a, b = folder / "a.onnx", folder / "b.onnx"
    for seed, path in enumerate((a, b)):
        heavy(seed, size, path, external=external)
    where = "beside the files" if external else "in the files"
    print(f"two networks of {size / 1e6:,.0f} MB of weights {where}\n")
    print("| job | CPU time | wall time | peak memory | of the weights |\n|---|---:|---:|---:|---:|")
    for name in jobs:
        costs = alternate([name], a, b, folder / "joined.onnx", 1)[name]
        if not costs:
            print(f"| {name} | fails |||", flush=True)
            continue
        (cost,) = costs
        share = cost.peak / (2 * size)
        megabytes = cost.peak / 1e6
        print(
            f"| {name} | {cost.cpu:.1f} s | {cost.wall:.1f} s | {megabytes:,.0f} MB | {share:.2f}x |",
            flush=True,
        )
    print()
    for path in folder.iterdir():
        path.unlink()


def cell(costs: list[Cost], base: list[Cost]) -> str:
    """Return the text for a job, compared with another."""
    if not costs:
        return "fails"
    cpu, peak = (statistics.median(getattr(cost, key) for cost in costs) for key in ("cpu", "peak"))
    ratio = statistics.median(one.cpu / other.cpu for one, other in zip(costs, base, strict=False))
    return f"{cpu:.2f} s, {ratio:.2f}x, {peak / 1e6:,.0f} MB"


def alternate(jobs: list[str], a: Path, b: Path, target: Path, rounds: int) -> dict[str, list[Cost]]:
    """Run the jobs in turn, each in a fresh process; a job that fails once is not run again."""
    costs: dict[str, list[Cost]] = {name: [] for name in jobs}
    failed: set[str] = set()
    for _ in range(rounds):
        for name in jobs:
            if name in failed:
                continue
            command = [sys.executable, __file__, "--job", name, str(a), str(b), str(target)]
            result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
            if result.returncode:
                failed.add(name)
                costs[name] = []
                print(f"{name}: {result.stderr.strip().splitlines()[-1][:200]}", file=sys.stderr)
            else:
                costs[name].append(Cost(**json.loads(result.stdout.splitlines()[-1])))
            for written in target.parent.iterdir():
                if written not in {a, b} and not written.name.startswith((f"{a.name}.", f"{b.name}.")):
                    written.unlink()
    return costs


def measured(job: Callable[[Path, Path, Path], None], a: Path, b: Path, target: Path) -> Cost:
    """Run a job in this process, after its libraries are there."""
    with tempfile.TemporaryDirectory() as folder:
        tiny = [Path(folder, name) for name in ("a.onnx", "b.onnx")]
        for path in tiny:
            onnx.save_model(Inception(0, 8).model(48), path)
        job(*tiny, Path(folder, "joined.onnx"))
    start, wall = time.process_time(), time.perf_counter()
    job(a, b, target)
    return Cost(time.process_time() - start, time.perf_counter() - wall, _most_memory())


def _most_memory() -> int:
    """Return the peak of this process's resident memory, in bytes."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024


if __name__ == "__main__":
    main()
