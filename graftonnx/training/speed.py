"""Which number format and memory layout trains this network fastest on this machine: measured."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graftonnx.errors import GraftError, RuntimeProviderError
from graftonnx.training.config import Device, Layout, Precision, TrainConfig

K = TypeVar("K")

BATCH = 16
"""Images per measured step; enough to rank the modes, small enough to take seconds."""

ROUNDS = 5
BUDGET = 6.0
"""Turns after the first, and the seconds after which no other begins; every mode runs at least twice."""

SIZES = (16, 32, 64, 128, 256)
"""Batch sizes that are tried."""

STEPS = 16
"""Optimiser steps that an epoch shall have at least."""

NEARLY = 1.05
"""A batch size that takes so many times as long per image as the best is good enough."""

HOPELESS = 2.0
"""A mode that takes this many times as long as the best is not measured again."""


@dataclass(frozen=True)
class Mode:
    """How a step is computed."""

    precision: Precision
    layout: Layout
    compiled: bool = False

    def __str__(self) -> str:
        return f"{self.precision} {self.layout}"

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout, as PyTorch names it."""
        return torch.channels_last if self.layout == "channels_last" else torch.contiguous_format

    def autocast(self, device: str) -> contextlib.AbstractContextManager[None]:
        """Return the context in which the forward pass runs."""
        return torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16")


def choose_device(wanted: str) -> Device:
    """Return where to train.

    Raises:
        RuntimeProviderError: If CUDA is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        built = "finds no usable GPU" if torch.version.cuda else "is built without CUDA"
        raise RuntimeProviderError(
            f"cannot train on CUDA: the installed PyTorch {torch.__version__} {built}. Pass --device cpu."
        )
    return "cuda" if available and wanted != "cpu" else "cpu"


def choose_mode(
    network: nn.Module, size: tuple[int, int], config: TrainConfig, device: Device
) -> tuple[Mode, dict[str, float]]:
    """Measure a few training steps in each mode that `config` leaves open, and take the fastest.

    The network's weights, statistics and layout are left as they were.

    Args:
        network: On `device`; input [N, 3, H, W], output [N, K].
        size: Height and width of its input.
        config: Fixes precision and layout where they are not `auto`.
        device: Where the network is.

    Returns:
        The mode, and the seconds per image of each mode that was measured; none where nothing is open.
    """
    precisions: tuple[Precision, ...] = (
        ("fp32", "bf16") if config.precision == "auto" else (config.precision,)
    )
    layouts: tuple[Layout, ...] = (
        ("contiguous", "channels_last") if config.layout == "auto" else (config.layout,)
    )
    auto = config.compile == "auto" and device == "cuda" and config.strategy != "fsdp"
    compiled = auto or config.compile == "yes"
    modes = [Mode(precision, layout, compiled) for precision in precisions for layout in layouts]
    if len(modes) == 1:
        return modes[0], {}
    with _unchanged(network), forked_random(device):
        images = torch.rand(BATCH, 3, *size, device=device)
        seconds = _measure({mode: _step(network, images, mode, device) for mode in modes})
    best = min(modes, key=seconds.__getitem__)
    return best, {str(mode): value / len(images) for mode, value in seconds.items()}


def choose_batch_size(
    network: nn.Module,
    size: tuple[int, int],
    mode: Mode,
    device: Device,
    images: int,
    fits: Callable[[int], bool],
) -> tuple[int, dict[str, float]]:
    """Measure training steps of several sizes, and take the smallest that is nearly as fast as the fastest.

    Small batches learn more from each image; nothing is gained by larger ones than the device needs.

    Args:
        network: On `device`; input [N, 3, H, W], output [N, K].
        size: Height and width of its input.
        mode: How a step is computed.
        device: Where the network is.
        images: Number of training images; an epoch shall have `STEPS` steps at least.
        fits: Tells whether a batch of so many images has room in memory.

    Returns:
        The number of images, and the seconds per image of each that was measured.
    """
    candidates = [n for n in SIZES if n * STEPS <= images and fits(n)] or [min(SIZES[0], images)]
    if len(candidates) == 1:
        return candidates[0], {}
    with _unchanged(network), forked_random(device):
        steps = {n: _step(network, torch.rand(n, 3, *size, device=device), mode, device) for n in candidates}
        measured = {n: seconds / n for n, seconds in _measure(steps).items()}
    enough = NEARLY * min(measured.values())
    best = min(n for n, seconds in measured.items() if seconds <= enough)
    return best, {f"batch of {n}": seconds for n, seconds in measured.items()}


def _step(network: nn.Module, images: Tensor, mode: Mode, device: Device) -> Callable[[], float]:
    """Return a function that runs one forward and backward pass in `mode` and returns its seconds."""
    images = images.contiguous(memory_format=mode.memory_format)
    labels = torch.zeros(len(images), dtype=torch.long, device=device)

    def step() -> float:
        network.to(memory_format=mode.memory_format)  # type: ignore[call-overload]
        start = time.perf_counter()
        with mode.autocast(device):
            logits = network(images)
        torch.autograd.backward(F.cross_entropy(logits.float(), labels))
        if device == "cuda":
            torch.cuda.synchronize()
        elapsed = time.perf_counter() - start
        network.zero_grad(set_to_none=True)
        return elapsed

    return step


def _measure(steps: dict[K, Callable[[], float]]) -> dict[K, float]:
    """Return the shortest time of each step, in seconds.

    The steps take turns, so that another program's burst of work does not fall on one of them alone.
    """
    for step in steps.values():
        step()
    start = time.perf_counter()
    seconds = {key: step() for key, step in steps.items()}
    for turn in range(ROUNDS):
        best = min(seconds.values())
        for key, step in steps.items():
            if turn == 0 or seconds[key] < HOPELESS * best:
                seconds[key] = min(seconds[key], step())
        if time.perf_counter() - start > BUDGET:
            break
    return seconds


def forked_random(device: Device) -> contextlib.AbstractContextManager[None]:
    """Return a context after which PyTorch's random state is what it was."""
    return torch.random.fork_rng([torch.cuda.current_device()] if device == "cuda" else [])


@contextlib.contextmanager
def compile_errors() -> Iterator[None]:
    """Turn a failure of `torch.compile` into a sentence.

    Raises:
        GraftError: If a network cannot be compiled in the block.
    """
    try:
        yield
    except RuntimeError as error:
        from torch._dynamo.exc import TorchDynamoException

        if not isinstance(error, TorchDynamoException):
            raise
        cause = getattr(error, "inner_exception", error)
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0].rstrip(".")
        raise GraftError(
            f"cannot compile the network: {reason}. Start again with --compile no --force; "
            "or install a C++ compiler, if that is what is missing."
        ) from error


@contextlib.contextmanager
def _unchanged(network: nn.Module) -> Iterator[None]:
    """Run a block in training mode, then restore mode, statistics and layout."""
    training = network.training
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.train()
    try:
        yield
    finally:
        network.train(training)
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                buffer.copy_(buffers[name])
