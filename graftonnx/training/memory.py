"""How much memory a training step takes, before the first one; and a sentence where it was too much."""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from graftonnx.errors import GraftError
from graftonnx.training.config import Device, TrainConfig
from graftonnx.training.speed import Mode

PER_WEIGHT = {"adamw": 16, "nadam": 16, "sgd": 12}
"""Bytes for each trained number: itself, its gradient, the optimiser's moments, in float32."""

SPARE = 1.2
"""What a step takes as a multiple of weights and saved activations: gradients of activations, workspaces.

Measured on SqueezeNet 1.1 with Inception V3 at batch 8 to 64.
"""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3)."""

_FULL = re.compile(r"out of memory|can't allocate memory|not enough memory|bad_alloc", re.IGNORECASE)


def step_bytes(network: nn.Module, size: tuple[int, int], batch: int, mode: Mode, config: TrainConfig) -> int:
    """Return about how many bytes a training step takes: weights, gradients, moments and activations.

    Nothing is computed: shapes alone go through the network.

    Args:
        network: Input [N, 3, H, W].
        size: Height and width of its input.
        batch: Images per batch.
        mode: How the step is computed.
        config: Says which optimiser, and whether weights are averaged.
    """
    trained = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    held = sum(value.nbytes for value in (*network.parameters(), *network.buffers()))
    fixed = held + trained * (PER_WEIGHT[config.optimizer] - 4) + (held if config.ema else 0)
    few, more = (_saved_bytes(network, (n, 3, *size), mode) for n in (2, 4))
    return int(fixed + few + SPARE * (batch - 2) * (more - few) / 2)


def _saved_bytes(network: nn.Module, shape: tuple[int, ...], mode: Mode) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, but for the weights."""
    weights = {weight.untyped_storage()._cdata for weight in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(value: Tensor) -> None:
        # Storages alone: a tensor knows the graph, which knows this function, and all would stay forever.
        kept[value.untyped_storage()._cdata] = value.untyped_storage()

    device = next(network.parameters()).device
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value),
        mode.autocast(device.type),
    ):
        network(torch.empty(shape, device=device))
        return sum(storage.nbytes() for key, storage in kept.items() if key not in weights)


def keep_freed_pages() -> None:
    """Let glibc keep the memory that a step frees for the next one; without glibc nothing happens.

    It would otherwise give large blocks back to the system, and every step would wait for thousands of new
    pages: 2-6 % of a step's time on a CPU. This acts on the whole process and cannot be undone, so a program
    decides on it, not this library: our commands do.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_MMAP_THRESHOLD, 2**30)


def free_bytes(device: Device) -> int | None:
    """Return how much memory is free where the network trains, or None where nobody says."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    with contextlib.suppress(OSError, ValueError):
        limit, used = (
            int(Path("/sys/fs/cgroup", name).read_text()) for name in ("memory.max", "memory.current")
        )
        free = min(free, limit - used)
    return free


def check_room(needed: int, device: Device, batch: int) -> None:
    """Refuse a step that does not fit.

    Raises:
        GraftError: If more is needed than is free.
    """
    free = free_bytes(device)
    if free is not None and needed > free:
        raise GraftError(
            f"cannot train with {batch} images per batch: a step takes about {_gib(needed)}, "
            f"{_gib(free)} are free on the {device}. {_advice(batch)}"
        )


@contextlib.contextmanager
def memory_errors(batch: int) -> Iterator[None]:
    """Turn running out of memory into a sentence.

    Raises:
        GraftError: If memory runs out in the block.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, (MemoryError, torch.OutOfMemoryError)) or _FULL.search(str(error))):
            raise
        raise GraftError(
            f"training stopped: memory ran out with {batch} images per batch. {_advice(batch)}"
        ) from error


def _advice(batch: int) -> str:
    smaller = max(batch // 2, 1)
    way = f"Pass --batch-size {smaller} --accumulate 2 for the same steps" if batch > 1 else "Free memory"
    return f"{way}, or a smaller --input-size to fuse."


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
