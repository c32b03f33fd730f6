#!/usr/bin/env python3
"""Measure training against hand-written loops, side by side in one run; print a Markdown table.

    .venv/bin/python tools/bench/train.py FUSED.onnx DATA [--batch N] [--steps N] [--rounds N] [--compile]
                                                          [--device cpu|cuda]

Three loops train the same network with AdamW on the same decoded images: the plainest one in float32 and
`[N, C, H, W]`; the best one we can write by hand (bfloat16, channels last, fused optimiser, pixels turned
into input on the device, no look at the loss; compiled with `--compile`); and ours, as `graftonnx train
--augment none` runs it, with its clipping, sums, schedule and callbacks. They take turns; the medians of the
ratios count.
Then: how long decoding takes beside one epoch, and which share of the steps waits for a batch.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F

from graftonnx.conversion import to_torch
from graftonnx.data.cache import Images, load
from graftonnx.data.opening import open_data
from graftonnx.data.splits import split
from graftonnx.training import TrainConfig
from graftonnx.training.data import TrainBatches
from graftonnx.training.finetuner import Finetuner, planes
from graftonnx.training.memory import keep_freed_pages
from graftonnx.training.progress import silence
from graftonnx.training.source import open_source
from graftonnx.training.speed import Mode

Loop = Callable[[], float]
"""Trains for some steps and returns the seconds per image, without the first step."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("data")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    keep_freed_pages()
    source = open_source(options.source)
    data = open_data(options.data)
    parts = split(data, 0.2, 0)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        loaded = load(data, parts, source.size, source.size, folder=Path(folder))
        decoding = time.perf_counter() - start
        count = min(len(loaded.train.labels), (options.steps + 1) * options.batch)
        images = Images(loaded.train.pixels[:count].copy(), loaded.train.labels[:count].copy())
        network = to_torch(source.model)
        waits: list[float] = []
        loops: dict[str, Loop] = {
            "plain loop, fp32": plain(network, images, options),
            "hand-tuned loop": tuned(network, images, options),
            "graftonnx": ours(network, images, source.classes, source.size, options, waits),
        }
        seconds = alternate(loops, options.rounds)
    report(seconds)
    per_epoch = statistics.median(seconds["graftonnx"]) * len(loaded.train.labels)
    decoded = len(loaded.train.labels) + len(loaded.val.labels)
    print(
        f"\ndecoding {decoded} images: {decoding:.1f} s, once; an epoch of {len(loaded.train.labels)}: "
        f"{per_epoch:.1f} s, of which {statistics.median(waits):.1%} waits for batches"
    )


def alternate(loops: dict[str, Loop], rounds: int) -> dict[str, list[float]]:
    """Run the loops in turn, after one round that does not count."""
    for loop in loops.values():
        loop()
    found: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            found[name].append(loop())
    return found


def report(seconds: dict[str, list[float]]) -> None:
    """Print a table of throughputs, and their ratios to the other two."""
    base = list(seconds)
    print(f"| loop | images/s |{''.join(f' of {name} |' for name in base[:2])}")
    print("|---|---:|---:|---:|")
    for name, values in seconds.items():
        ratios = [
            statistics.median(other / own for other, own in zip(seconds[reference], values, strict=True))
            for reference in base[:2]
        ]
        cells = "".join(f" {ratio:.2f}x |" for ratio in ratios)
        print(f"| {name} | {1 / statistics.median(values):.1f} |{cells}")


def plain(network: torch.nn.Module, images: Images, options: argparse.Namespace) -> Loop:
    """Return the loop of a tutorial."""
    network = copy.deepcopy(network).to(options.device).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step(pixels: torch.Tensor, labels: torch.Tensor) -> None:
        optimiser.zero_grad()
        loss = F.cross_entropy(network(planes(pixels)), labels)
        torch.autograd.backward(loss)
        optimiser.step()

    return by_hand(step, images, options)


def tuned(network: torch.nn.Module, images: Images, options: argparse.Namespace) -> Loop:
    """Return the fastest loop that we know to write."""
    network = copy.deepcopy(network).to(options.device, memory_format=torch.channels_last).train()
    compute = torch.compile(network) if options.compile else network
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)

    def step(pixels: torch.Tensor, labels: torch.Tensor) -> None:
        images = planes(pixels).contiguous(memory_format=torch.channels_last)
        with torch.autocast(options.device, torch.bfloat16):
            logits = compute(images)
        torch.autograd.backward(F.cross_entropy(logits.float(), labels))
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return by_hand(step, images, options)


def by_hand(
    step: Callable[[torch.Tensor, torch.Tensor], None], images: Images, options: argparse.Namespace
) -> Loop:
    """Return a loop of steps over consecutive batches."""

    def loop() -> float:
        start = 0.0
        for index in range(options.steps + 1):
            if index == 1:
                synchronise(options.device)
                start = time.perf_counter()
            part = slice(index * options.batch, (index + 1) * options.batch)
            pixels = torch.from_numpy(images.pixels[part]).to(options.device)
            step(pixels, torch.from_numpy(images.labels[part]).to(options.device))
        synchronise(options.device)
        return (time.perf_counter() - start) / (options.steps * options.batch)

    return loop


class Clock(pl.Callback):
    """Takes the time from the end of the first step to the end of the last."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.start = self.end = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Note the time."""
        if trainer.global_step == 1 or trainer.is_last_batch:
            synchronise(self._device)
        self.end = time.perf_counter()
        if trainer.global_step == 1:
            self.start = self.end


class Timed:
    """Batches, and the time that making them takes."""

    def __init__(self, batches: TrainBatches) -> None:
        self._batches = batches
        self.waited = 0.0

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._batches)
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch


def ours(
    network: Any,
    images: Images,
    classes: int,
    size: tuple[int, int],
    options: argparse.Namespace,
    waits: list[float],
) -> Loop:
    """Return what `graftonnx train` does in its steps; the share that waits for batches goes to `waits`."""
    config = TrainConfig(
        epochs=1, batch_size=options.batch, augment="none", label_smoothing=0.0, device=options.device
    )
    mode = Mode("bf16", "channels_last", options.compile)
    tuner = Finetuner(copy.deepcopy(network).to(options.device), config, mode, size, 10_000, classes)

    def loop() -> float:
        clock = Clock(options.device)
        batches = Timed(TrainBatches(images, options.batch, 0))
        with silence():
            trainer = pl.Trainer(
                accelerator="gpu" if options.device == "cuda" else "cpu", devices=1, max_epochs=1,
                precision="bf16-mixed", logger=False, enable_checkpointing=False, callbacks=[clock],
                enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
            )  # fmt: skip
            trainer.fit(tuner, batches, batches)
        seconds = clock.end - clock.start
        waits.append(batches.waited / seconds)
        return seconds / ((len(batches) - 1) * options.batch)

    return loop


def synchronise(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
