#!/usr/bin/env python3
"""Measure converted modules against hand-written ones, and the converter itself; print a Markdown table.

    .venv/bin/python tools/bench/converter.py [--rounds N] [--threads N]

A step is forward and backward in training mode, without an optimizer. Both sides take turns in one process,
and the process's CPU time counts, so that a busy machine disturbs little. The other converters are measured
where they are installed.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import io
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from conversion.torch_models import ViT  # noqa: E402 # the tests are no package that is installed

from graftonnx.conversion import to_torch  # noqa: E402
from graftonnx.models.registry import build  # noqa: E402

PEERS = ("onnx2torch", "onnx2pytorch", "onnx2fx")


class Bottleneck(nn.Module):
    """The block of ResNet-50. x: [N, C, H, W]."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        return self.relu(y + self.shortcut(x))


def resnet50() -> nn.Module:
    """ResNet-50, 25.6 million parameters."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]  # fmt: skip
    inputs = 64
    for width, depth, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(depth):
            layers.append(Bottleneck(inputs, width, stride if index == 0 else 1))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float]] = {
    "ResNet-50 at 64x64, batch 4": (resnet50, (4, 3, 64, 64), 1.02),
    "SqueezeNet 1.1 at 128x128, batch 4": (lambda: build("squeezenet1_1"), (4, 3, 128, 128), 1.02),
    "SqueezeNet 1.1 at 32x32, batch 1": (lambda: build("squeezenet1_1"), (1, 3, 32, 32), 1.05),
    "Inception V3 at 107x107, batch 2": (lambda: build("inception_v3"), (2, 3, 107, 107), 1.02),
    "ViT-tiny at 64x64, batch 2": (
        lambda: ViT(size=64, patch=8, width=192, depth=12, heads=3), (2, 3, 64, 64), 1.02,
    ),
}  # fmt: skip
"""Name -> the network, the shape of its input, and the ratio that is wanted."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="part of a row's name")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(peak(options.memory_of))
        return
    torch.set_num_threads(options.threads)
    peers = [name for name in PEERS if importlib.util.find_spec(name)]
    print("forward + backward, CPU time as a multiple of the hand-written module\n")
    print(f"| network | hand-written | graftonnx | wanted |{''.join(f' {p} |' for p in peers)}")
    print(f"|---|---:|---:|---:|{'---:|' * len(peers)}")
    for name, (make, shape, wanted) in CASES.items():
        if options.only in name:
            print(row(name, make, shape, wanted, peers, options.rounds), flush=True)
    for name in set(PEERS) - set(peers):
        print(f"\n{name} is not installed.", end="")
    print()
    if not options.only:
        print(conversion())


def row(
    name: str, make: Callable[[], nn.Module], shape: tuple[int, ...], wanted: float, peers: list[str],
    rounds: int,
) -> str:  # fmt: skip
    """Return the line of one network."""
    torch.manual_seed(0)
    original = make()
    x = torch.randn(shape)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        export(original, x, path)
        sides: dict[str, nn.Module | None] = {
            "original": original.train(),
            "graftonnx": to_torch(path).train(),
        }
        model = in_inference_mode(onnx.load(path))
        sides |= {peer: convert_with(peer, model, x) for peer in peers}
    times = alternate({name: side for name, side in sides.items() if side is not None}, x, rounds)
    base = times["original"]
    ratios = {n: statistics.median(a / b for a, b in zip(t, base, strict=True)) for n, t in times.items()}
    cells = "".join(f" {ratios[p]:.2f}x |" if p in ratios else " fails |" for p in peers)
    milliseconds = statistics.median(base) * 1e3
    return f"| {name} | {milliseconds:.1f} ms | {ratios['graftonnx']:.3f}x | {wanted:.2f}x |{cells}"


def export(network: nn.Module, x: Tensor, path: Path) -> None:
    """Export a network with its batch norms whole and its batch free.

    The exporter merges equal initializers, so that statistics and biases are made unequal, as training does.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.normal_(layer.bias, 0, 0.01)
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.1)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), (x,), path, dynamo=False, opset_version=16, input_names=["input"],
            dynamic_axes={"input": {0: "batch"}}, training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )  # fmt: skip


def in_inference_mode(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with batch norms and dropout as for inference: the other converters know no others."""
    for node in model.graph.node:
        if node.op_type in ("BatchNormalization", "Dropout"):
            del node.output[1:]
            kept = [item for item in node.attribute if item.name != "training_mode"]
            del node.attribute[:]
            node.attribute.extend(kept)
            if node.op_type == "Dropout":
                del node.input[2:]
    return model


def convert_with(peer: str, model: onnx.ModelProto, x: Tensor) -> nn.Module | None:
    """Convert with another converter; None if that fails, or if the result cannot take a step."""
    module = importlib.import_module(peer)
    try:
        if peer == "onnx2pytorch":
            converted: nn.Module = module.ConvertModel(model, experimental=True)
        else:
            converted = module.convert(model)
        seconds(converted.train().requires_grad_(), x, 1)
    except Exception as error:  # whatever a foreign converter raises is a failure of it
        print(f"{peer}: {type(error).__name__}: {error}", file=sys.stderr)
        return None
    return converted


def alternate(sides: dict[str, nn.Module], x: Tensor, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of CPU time of each round's step; the sides take turns, in changing order."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    steps = max(1, round(0.05 / seconds(next(iter(sides.values())), x, 2)))
    for module in sides.values():
        seconds(module, x, 2)
    gc.disable()
    for index in range(rounds):
        order = list(sides)[:: 1 if index % 2 else -1]
        for name in order:
            times[name].append(seconds(sides[name], x, steps))
    gc.enable()
    return times


def seconds(module: nn.Module, x: Tensor, steps: int) -> float:
    """Return the CPU time of one forward and backward pass, averaged over `steps`."""
    start = time.process_time()
    for _ in range(steps):
        for parameter in module.parameters():
            parameter.grad = None
        y: Any = module(x)
        (y[0] if isinstance(y, tuple) else y).square().mean().backward()
    return (time.process_time() - start) / steps


def conversion() -> str:
    """Return the table of conversion time and memory, for a file of about 100 MB."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet50.onnx"
        export(resnet50(), torch.randn(1, 3, 64, 64), path)
        start = time.process_time()
        model = onnx.load(path)
        reading = time.process_time() - start
        times = []
        for _ in range(5):
            start = time.process_time()
            to_torch(model)
            times.append(time.process_time() - start)
        size = path.stat().st_size
        del model
        command = [sys.executable, __file__, "--memory-of", str(path)]
        factor = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return (
        f"\n| converting ResNet-50, {size / 1e6:.0f} MB | | wanted |\n|---|---:|---:|\n"
        f"| reading the file | {reading:.2f} s | |\n"
        f"| converting, beyond reading | {statistics.median(times):.2f} s | 1.50 s |\n"
        f"| peak memory, as a multiple of the weights | {factor:.2f}x | 2.20x |"
    )


def peak(path: Path) -> float:
    """Return by how many times the weights' size reading and converting raise the memory's peak."""
    to_torch(onnx.helper.make_model(onnx.GraphProto(), opset_imports=[onnx.helper.make_opsetid("", 18)]))
    before = most_memory()
    module = to_torch(path)
    after = most_memory()
    weights = sum(t.numel() * t.element_size() for t in module.state_dict().values())
    return (after - before) / weights


def most_memory() -> int:
    """Return the peak of this process's memory, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        # getrusage counts what the parent held when it forked.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
